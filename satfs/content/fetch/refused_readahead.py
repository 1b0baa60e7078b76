"""The kernel's requests that were refused on one handle of a raster, and whether they were needed.

Pure. When a program needs the bytes of a refused request, the kernel requests them again page by
page. Then the refusal was wrong; after a few wrong refusals such requests get their bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from cachetools import LRUCache

from satfs.content.fetch.block_spans import BUFFER_BYTES, MAX_BLOCKS_PER_REQUEST
from satfs.content.fetch.page_run import PAGE_BYTES
from satfs.imagery.layout import Block
from satfs.imagery.pattern import AccessPattern
from satfs.imagery.raster import Raster
from satfs.model import KIB, ByteRange

#: A request up to this length shows where a program is: it is stdio's buffer, or a page.
SHORT_BYTES: Final = 16 * KIB
#: Blocks for which requests in their middle were refused and needed after all: from then on such
#: requests are answered, since a program begins to read anywhere.
MAX_NEEDED_STRAYS: Final = 2
#: Requests that were refused and may come again, page by page.
_MAX_REFUSED: Final = 64
#: Requests of one run that were refused and needed after all: from then on the run is served as it
#: is requested, since a program reads on.
MAX_WRONG_REFUSALS: Final = 32


class Refusals:
    """The refused requests of one handle. Offsets are those of the raster.

    A *stray* is a request that the kernel makes ahead of a program in the middle of a block. The
    first *behind_bytes* of a block may be taken in with the last ones of the block before it: then
    a program's first request lies behind them.
    """

    def __init__(self, raster: Raster, pattern: AccessPattern, behind_bytes: int) -> None:
        self._raster = raster
        self._behind_bytes = behind_bytes
        self._pattern = pattern
        self._refused: deque[ByteRange] = deque(maxlen=_MAX_REFUSED)
        #: Requests that were taken for strays, and for how many blocks a program needed them.
        self._strays: deque[ByteRange] = deque(maxlen=_MAX_REFUSED)
        self._n_needed_strays = 0
        #: Where the first page was that was requested of a block, for the last ones: a second page
        #: of a block, wherever it is, is a program's.
        self._first_pages: LRUCache[Block, int] = LRUCache(_MAX_REFUSED)
        #: Blocks for which a request was refused, the last ones, each with that request.
        self._doubted: OrderedDict[Block, ByteRange] = OrderedDict()
        #: Requests of this run that were refused although their blocks were needed.
        self._wrong: set[ByteRange] = set()

    def add(self, span: ByteRange, doubted: Iterable[Block], *, is_stray: bool) -> None:
        """Note that a request was refused, since no program was expected to read *doubted*."""
        self._refused.append(span)
        if is_stray:
            self._strays.append(span)
            return
        for block in doubted:
            self._doubted[block] = span
            if len(self._doubted) > MAX_BLOCKS_PER_REQUEST:
                self._doubted.popitem(last=False)

    def overlap(self, span: ByteRange) -> bool:
        """Return whether a part of *span* was refused."""
        return any(span.overlaps(refused) for refused in self._refused)

    def begins_with(self, page: ByteRange) -> bool:
        """Return whether a refused request began with *page*: then a program has come to it."""
        return any(page.start == refused.start for refused in self._refused)

    @property
    def are_wrong(self) -> bool:
        """Return whether the requests of this run are not to be refused any more."""
        return len(self._wrong) >= MAX_WRONG_REFUSALS

    def begin_run(self) -> None:
        """Note that a program reads at another place."""
        self._wrong.clear()

    def note_block(self, block: Block) -> None:
        """Note that a program reads *block*."""
        if (refused := self._doubted.pop(block, None)) is not None:
            self._wrong.add(refused)

    def is_stray(self, span: ByteRange) -> bool:
        """Return whether the kernel reads ahead behind pages that an earlier handle has read.

        It does when a program comes to them, and the program's own reads of them are not seen here.
        Such a request begins where an earlier one ended; a program reads a block from its start.
        One that begins in a block that was read is always the kernel's: on a busy machine it may
        come when the program is elsewhere already. It may be one page, between pages of a request
        that was refused: these stay in the kernel without their bytes.
        """
        located = self._raster.located(span.start)
        if located is None:
            return False
        block, where = located
        if span.start <= where.start:
            return False
        if len(span) <= PAGE_BYTES:
            start, stop = where.start + self._behind_bytes, where.stop - BUFFER_BYTES
            is_middle = start <= span.start <= stop
            is_first = self._first_pages.get(block, span.start) == span.start
            is_seen = self._pattern.has_seen(block) or self.begins_with(span)
            return is_middle and is_first and not is_seen
        if len(span) <= SHORT_BYTES:
            return False
        return self._n_needed_strays < MAX_NEEDED_STRAYS or self._pattern.has_read(block)

    def note_page(self, page: ByteRange) -> None:
        """Note that a page is requested: a program may need a request that counted as a stray."""
        located = self._raster.located(page.start)
        if located is not None:
            self._first_pages.setdefault(located[0], page.start)
        if not any(page.overlaps(stray) for stray in self._strays):
            return
        self._n_needed_strays += 1
        # The kernel reads a block ahead in several requests: they count once.
        needed = page if located is None else located[1]
        for stray in [each for each in self._strays if each.overlaps(needed)]:
            self._strays.remove(stray)
