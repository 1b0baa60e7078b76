"""How many bytes of a raster are stored in the kernel beside a page that it requests.

Pure. When its read-ahead was refused, the kernel requests the bytes that a program reads page by
page: a hundred pages for a tile. After the first pages of a block, satfs stores the rest of the
block in the kernel's page cache at once, and small blocks behind it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from satfs.content.fetch.block_spans import MERGE_GAP_BYTES, BlockSpans
from satfs.imagery.layout import Block
from satfs.imagery.pattern import AccessPattern
from satfs.imagery.raster import Raster
from satfs.model import KIB, ByteRange

#: The unit in which the kernel reads when nothing is read ahead.
PAGE_BYTES: Final = 4 * KIB
#: This number of pages in a row after a first one shows that a block is requested page by page.
N_PAGES_IN_A_ROW: Final = 2
#: How many bytes of a block are stored in the kernel then: the length of its read-ahead.
MAX_REST_BYTES: Final = 512 * KIB


class PageRun:
    """The pages that one handle requests one after another. Offsets are those of the raster."""

    def __init__(self, raster: Raster, blocks: BlockSpans, pattern: AccessPattern) -> None:
        self._raster = raster
        self._blocks = blocks
        self._pattern = pattern
        #: The end of the last page, or of the bytes that were stored with it; and the number of
        #: pages in a row before it.
        self._stop = -1
        self._n_pages = 0
        #: The span that was stored last: a page, and bytes behind it.
        self.given: ByteRange | None = None

    def end(self) -> None:
        """Note that a longer request came."""
        self._n_pages = 0

    def given_stop(
        self, page: ByteRange, holds: Callable[[ByteRange], bool], *, is_refused: bool
    ) -> int:
        """Return how far to read on for a program that reads page by page, at most a read-ahead.

        This is the end of the block that is read, or of half of the blocks behind it that are
        predicted and held. satfs does not see reads of stored pages, and only requests show where a
        window ends.

        Before a few pages in a row it is the end of *page*: many programs request the first pages
        of a block one by one. *is_refused*: a request that begins with the page was refused. A
        program needs this page, so one page suffices.
        """
        self._n_pages = self._n_pages + 1 if page.start == self._stop else 0
        if is_refused:
            self._n_pages = max(self._n_pages, N_PAGES_IN_A_ROW)
        self._stop = page.stop
        block = self._raster.block_at(page.start)
        where = self._raster.fetch_span_of(block) if block is not None else None
        if block is None or not where or self._n_pages < N_PAGES_IN_A_ROW:
            return page.stop
        if self._pattern.has_read(block):
            stop = self._blocks.buffered(where).stop - self._blocks.base
        elif self._is_at_hand(block, page.start, holds):
            stop = where.stop
        else:
            return page.stop
        stop = max(stop, self._held_stop(where.stop, page.start + MAX_REST_BYTES, holds))
        # The kernel is given whole pages.
        n_pages = min(stop - page.start, MAX_REST_BYTES) // PAGE_BYTES
        if n_pages < 2:
            return page.stop
        stop = page.start + n_pages * PAGE_BYTES
        self._stop = stop
        self.given = ByteRange(page.start, stop)
        return stop

    def _held_stop(self, start: int, limit: int, holds: Callable[[ByteRange], bool]) -> int:
        """Return where half of the blocks end that follow at *start*, are predicted, and held."""
        stops: list[int] = []
        stop = start
        for block, _ in self._blocks.touched_by(ByteRange(start, max(start, limit))):
            where = self._raster.fetch_span_of(block)
            is_next = where is not None and 0 <= where.start - stop <= MERGE_GAP_BYTES
            if where is None or not is_next or not self._is_at_hand(block, where.start, holds):
                break
            stop = where.stop
            stops.append(stop)
        return stops[len(stops) // 2 - 1] if len(stops) > 1 else start

    def _is_at_hand(self, block: Block, start: int, holds: Callable[[ByteRange], bool]) -> bool:
        """Return whether a block is predicted, and held from *start* on."""
        return self._pattern.is_expected(block) and self._blocks.is_held(block, holds, start)
