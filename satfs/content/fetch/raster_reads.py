"""From the reads of one handle on a TIFF: which of its blocks to fetch.

Pure: offsets in, ranges out. A read inside a block of the raster (a tile or a strip) means that the
whole block is needed, since a program cannot unpack less. No bytes behind a block are fetched
because of their offset alone, only the blocks that the handle's pattern predicts
(`imagery.pattern`).

The kernel reads ahead by offsets, half a megabyte at a time, also beyond the block that a program
has read. FUSE does not distinguish these requests from those that a program waits for, but the
layout does: a request that reaches into blocks that are not expected is refused. The kernel forgets
a read-ahead that failed (mm/readahead.c), and requests page by page what a program needs after all
(mm/filemap.c): see `content.fetch.refused_readahead` and `content.fetch.page_run`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.fetch.block_spans import BUFFER_BYTES, MERGE_GAP_BYTES, BlockSpans
from satfs.content.fetch.page_run import MAX_REST_BYTES, PAGE_BYTES, PageRun
from satfs.content.fetch.raster_files import RasterFile
from satfs.content.fetch.readahead import Pattern, Plan
from satfs.content.fetch.refused_readahead import SHORT_BYTES, Refusals
from satfs.imagery.layout import Block
from satfs.imagery.pattern import AccessPattern
from satfs.imagery.spans import RecentSpans, merge_spans
from satfs.model import KIB, MIB, ByteRange

#: A handle whose first request is at the beginning and this long is read from end to end. For a
#: program that reads a header of 8 KiB the kernel requests 32 KiB, for sha256sum 64, for cp 256.
COPY_BYTES: Final = 64 * KIB
#: When the reads justify this much read-ahead, it is not limited any more.
FREE_BULK_BYTES: Final = 4 * MIB
#: Number of places at which the kernel may continue its read-ahead, also after reads at other
#: places.
_MAX_FRONTS: Final = 64
#: Number of read pieces that are remembered: the place of a program, two read-aheads of the kernel,
#: and a piece that came late.
_MAX_PIECES: Final = 4
#: Spans that were fetched for a handle and are remembered.
_MAX_PLANNED: Final = 16


class RasterReads:
    """The reads of one handle on *file*, in offsets of the object that the file lies in.

    *is_unzipped*: the program reads the object, and looks for the file in it itself.

    Invariants:
        A request of one page, and one that reaches into a span that was refused before, is not
        refused: so a program always gets what it needs.
    """

    def __init__(self, file: RasterFile, *, is_unzipped: bool = False) -> None:
        self._raster = file.raster
        self._blocks = BlockSpans(file, is_unzipped=is_unzipped)
        self.pattern = AccessPattern()
        self._run_start, self._front = 0, -1
        #: The last pieces that were read.
        self._pieces = RecentSpans(_MAX_PIECES)
        #: Where earlier runs of requests ended.
        self._fronts: deque[int] = deque(maxlen=_MAX_FRONTS)
        #: The last long request of this run, which the kernel may have made ahead of a program.
        self._ahead: ByteRange | None = None
        self._is_copy = False
        self._refusals = Refusals(file.raster, self.pattern, self._blocks.behind_bytes)
        self._current: tuple[Block, ...] = ()
        #: Whether the last block was cached before anything was fetched for this handle. Then
        #: nothing is predicted: predictions save round trips, and cached blocks take none.
        self._is_cached = False
        #: The last spans that were fetched for this handle.
        self._planned: deque[ByteRange] = deque(maxlen=_MAX_PLANNED)
        self._page_run = PageRun(file.raster, self._blocks, self.pattern)
        #: Whether blocks were predicted since the last plan was made.
        self._is_plan_due = False

    @property
    def bulk_bytes(self) -> int | None:
        """Return how far to read ahead by offsets: 0 for not at all, None for without a limit."""
        ahead = self.pattern.bulk_ahead_bytes
        return None if self._is_copy or ahead >= FREE_BULK_BYTES else ahead

    @property
    def bulk_stop(self) -> int | None:
        """Return the end of read-ahead by offsets: behind the image that is read.

        None: at the end of the file, since that is copied, or the end of the image is not known.
        """
        image = self.pattern.image
        if self._is_copy or self._raster.layout is None or image is None:
            return None
        last = self._raster.span_of(Block(image.number, image.n_blocks - 1))
        return self._blocks.buffered(last).stop if last else None

    @property
    def wanted_stop(self) -> int | None:
        """Return where the last block ends that is read or predicted; None while that is not known.

        Also None for a program that reads the whole file.
        """
        if self.bulk_bytes != 0:
            return None
        spans = self._blocks.spans_of((*self._current, *self.pattern.outstanding))
        return max((span.stop for span in spans), default=None)

    def unread_bytes(self, holds: Callable[[ByteRange], bool]) -> int:
        """Return how many bytes of blocks were fetched for this handle, and not read so far."""
        return self.pattern.fetched_unread_bytes(lambda block: self._blocks.is_held(block, holds))

    def begin(self, span: ByteRange) -> None:
        """Note the read that the layout was learnt from: the handle's first."""
        span = self._blocks.inside(span)
        self._run_start, self._front = span.start, span.stop
        self._is_copy = span.start == 0 and len(span) >= COPY_BYTES

    # -- the kernel's read-ahead -----------------------------------------------------------------

    def expected_part(
        self, whole: ByteRange, holds: Callable[[ByteRange], bool]
    ) -> ByteRange | None:
        """Return the part of a request that a program needs: all of it, or nothing.

        None when the layout does not show it. With no part the request counts as refused. Of a
        block that is requested page by page, the part is the rest of the block, and blocks behind
        it that are predicted and in the cache. *holds* is that of `note`.
        """
        span = self._blocks.inside(whole)
        if not span or self._raster.layout is None:
            return None
        if len(span) <= PAGE_BYTES:
            is_refused = self._refusals.begins_with(span)
            stop = self._page_run.given_stop(span, holds, is_refused=is_refused)
            return ByteRange(whole.start, max(whole.stop, stop + self._blocks.base))
        self._page_run.end()
        is_bulk = self.bulk_bytes != 0 and whole.start < (self.bulk_stop or whole.stop)
        is_ahead = self._is_in_run(span) or (len(span) > SHORT_BYTES and span.start in self._fronts)
        is_stray = not is_ahead and self._refusals.is_stray(span)
        is_known_end = is_bulk or self._refusals.are_wrong
        if is_known_end or not (is_ahead or is_stray) or self._refusals.overlap(span):
            return whole
        blocks = self._blocks.few_touched_by(span)
        if not blocks:
            return None
        doubted = self._unseen(blocks)
        if (
            doubted
            and not (self._is_cached or is_stray)
            and self.pattern.predict(self._raster.span_of, is_due=True)
        ):
            self._is_plan_due = True
            doubted = self._unseen(blocks)
        if not doubted:
            return whole
        self._refusals.add(span, doubted, is_stray=is_stray)
        if not is_stray:
            if self._is_in_run(span):
                # The kernel's next request of the run shows that a program has come to this one.
                self._ahead = span
            self._front = max(self._front, span.stop)
        return ByteRange(whole.start, whole.start)

    # -- reads -----------------------------------------------------------------------------------

    def note(self, span: ByteRange, holds: Callable[[ByteRange], bool]) -> Plan | None:
        """Note a read; return the plan, or None when nothing new is to be fetched.

        *holds* returns whether bytes of the object are in the cache.
        """
        inside = self._blocks.inside(span)
        is_next = self._pieces.add(inside)
        if inside == self._page_run.given:
            # Only its first page was requested, and it shows nothing more.
            self._front = max(self._front, inside.stop)
            inside = ByteRange(inside.start, inside.start + PAGE_BYTES)
        if len(inside) <= PAGE_BYTES:
            self._refusals.note_page(inside)
            if self._is_rest(inside):
                self._front = max(self._front, inside.stop)
                return None
        is_held = holds(span)
        is_kernels = not self._is_in_run(inside) and self._is_read_ahead(inside)
        is_jump = not (is_kernels or self._is_in_run(inside))
        if is_jump:
            self._is_copy = inside.start == 0 and len(inside) >= COPY_BYTES
            self._fronts.append(self._front)
            self._run_start, self._front = inside.start, inside.stop
            self._ahead = None
            self._refusals.begin_run()
        self._front, is_short = max(self._front, inside.stop), len(inside) <= SHORT_BYTES
        if is_short and not is_next:
            self._ahead = None  # a program has sought on
        if is_kernels:
            self._ahead = inside
            touched = self._current
        elif is_next and is_short and not is_jump and self._current:
            touched = self._come_to(inside.start)
        else:
            touched = self._touched(inside, is_jump=is_jump, is_held=is_held)
            if is_jump and not touched:
                self._current = ()  # what goes on there does not go on from the last block
        is_new = not set(touched) <= set(self._current)
        if is_new:
            is_fetched = all(self.pattern.is_expected(block) for block in touched)
            self._is_cached = not any(map(self.pattern.is_expected, touched)) and all(
                holds(where) and not self._was_planned(where)
                for where in self._blocks.spans_of(touched)
            )
            self._current = touched
            self._note_blocks(touched, holds, is_long=not is_short)
        else:
            # Of a short one it is the rest of a block that is being fetched.
            is_fetched = is_held or (is_short and bool(touched))
        if is_fetched and not self._is_plan_due:
            return None
        self._is_plan_due = False
        blocks = [*touched, *self.pattern.outstanding]
        if is_next:
            # A block is fetched as a whole, also while it is not certain that it is read; but not
            # the one in which a request of the kernel ends.
            here = [block for block, _ in self._blocks.touched_by(inside)]
            blocks += [block for block in here if is_short or self.pattern.has_seen(block)]
        merged = merge_spans([span, *self._blocks.spans_of(blocks)], MERGE_GAP_BYTES)
        self._planned.extend(each for each in merged if not holds(each))
        now = next(each for each in merged if each.start <= span.start < each.stop)
        return Plan(now, tuple(each for each in merged if each is not now), Pattern.BLOCKS)

    def _note_blocks(
        self, touched: tuple[Block, ...], holds: Callable[[ByteRange], bool], *, is_long: bool
    ) -> None:
        layout = self._raster.layout
        for block in touched:
            self._refusals.note_block(block)
            where = self._raster.span_of(block)
            if not where or layout is None:
                continue
            is_seen = self.pattern.has_seen(block)
            n_before = 0 if is_seen else self._blocks.n_cached_before(block, holds)
            self.pattern.settle(lambda each: self._blocks.is_held(each, holds))
            self.pattern.read(
                layout.images[block.image],
                block.number,
                where,
                is_in_order=not is_long,
                n_cached_before=n_before,
                is_sparse=self._blocks.is_sparse,
            )
        if not self._is_cached and self.pattern.predict(self._raster.span_of):
            self._is_plan_due = True

    def _is_rest(self, page: ByteRange) -> bool:
        """Return whether a page continues the present block, which shows nothing new.

        After a refused request a block comes in a hundred pages.
        """
        where = self._raster.span_of(self._current[-1]) if self._current else None
        is_inside = where is not None and where.start <= page.start and page.stop <= where.stop
        return is_inside and self._is_in_run(page) and not self._is_plan_due

    def _unseen(self, blocks: Iterable[tuple[Block, int]]) -> list[Block]:
        return [block for block, part in blocks if part and not self.pattern.has_seen(block)]

    def _touched(self, span: ByteRange, *, is_jump: bool, is_held: bool) -> tuple[Block, ...]:
        """Return the blocks that a program reads, as far as a request shows."""
        # Where a program goes it reads a block from its start, and buffers begin before that. Of a
        # buffer it may be one page that is requested.
        looked_at = ByteRange(span.start, max(span.stop, span.start + BUFFER_BYTES))
        layout, blocks = self._raster.layout, self._blocks.few_touched_by(looked_at)
        if not blocks:
            return ()
        is_short = len(span) <= SHORT_BYTES
        where = self._raster.span_of(blocks[0][0])
        is_begun = where is not None and where.start < span.start
        is_sought = is_jump or (is_short and not self.pattern.has_seen(blocks[0][0]))
        if is_jump and not is_short and self._blocks.is_header(span.start):
            return ()  # the kernel reads ahead behind a directory or a table
        if is_sought and is_short and self._blocks.holds_directory(looked_at):
            return ()  # what lies beside it is read on, if that is what a program came for
        if is_begun and is_sought and len(blocks) > 1 and blocks[0][1] <= SHORT_BYTES:
            first, second = blocks[0][0], blocks[1][0]
            # Where the first one alone is expected, the kernel reads ahead to its end.
            is_kernels = self.pattern.is_expected(first) and not self.pattern.is_expected(second)
            del blocks[1 if is_short and is_kernels else 0]
        elif is_begun and is_jump and is_short and where is not None and where.stop < span.stop:
            return ()  # a directory or a table behind the last block
        if is_jump and self._refusals.is_stray(span):
            return ()
        is_ahead = not is_short and (is_held or self._refusals.overlap(span))
        is_seen = self.pattern.has_seen(blocks[0][0])
        if not is_jump and not is_short and (is_seen or (self._ahead and self._current)):
            # The kernel sends it when a program has come to where the last one began.
            span, self._ahead = self._ahead or span, span
            if self._current:
                return self._come_to(span.start)
            blocks = list(self._blocks.touched_by(ByteRange(span.start, span.start + 1)))
            return self._reached(span, blocks[0][0], is_fetched=True) if blocks else ()
        if not is_jump or is_ahead:
            return self._reached(span, blocks[0][0], is_fetched=is_held or is_ahead)
        if is_short:
            # Of several strips that begin in one buffer, the last one reaches into the next buffer.
            # A program that reads that one alone would seem to read a window of several.
            is_striped = layout is not None and layout.images[blocks[0][0].image].n_columns == 1
            return (blocks[-1 if is_striped else 0][0],)
        if len(blocks) > 1 and blocks[-1][1] < PAGE_BYTES:
            del blocks[-1]
        return tuple(block for block, _ in blocks)

    def _reached(self, span: ByteRange, block: Block, *, is_fetched: bool) -> tuple[Block, ...]:
        """Return the blocks that a run of requests has reached, up to that of the next one's start.

        Blocks behind it may be read ahead.
        """
        where = self._raster.span_of(block)
        if where is None:
            return ()
        # Fetched with the block before, or answered since that costs nothing.
        is_behind = where.start <= span.start < where.start + self._blocks.behind_bytes
        if is_fetched and is_behind and not self.pattern.has_read(block):
            return ()
        if is_fetched and len(span) > SHORT_BYTES and not self.pattern.has_seen(block):
            return ()
        if not self._current or block in self._current:
            return (block,)
        return (*(each for each in self._passed(span.start) if each != block), block)

    def _come_to(self, position: int) -> tuple[Block, ...]:
        """Return the blocks that a program has read on to, which has come to *position*.

        The program may have read the bytes there in one buffer with a block before them. When it
        reads beyond the bytes that are fetched with the last block, it reads the next one.
        """
        last = self._raster.span_of(self._current[-1])
        if last is None:
            return self._current
        passed = self._passed(position)
        behind = self._blocks.behind_bytes
        found = [
            block
            for block in passed
            if (where := self._raster.span_of(block)) and where.start + behind <= position
        ]
        tail_stop = self._blocks.buffered(last).stop - self._blocks.base
        if not found and position >= tail_stop:
            here = self._raster.block_at(position)
            found = passed[:1] or ([here] if here is not None else [])
        return tuple(found) or self._current

    def _passed(self, position: int) -> list[Block]:
        """Return the blocks behind the last one, up to *position*, that a program has read.

        A small one lies in one buffer with others, and no request begins in it.
        """
        last = self._raster.span_of(self._current[-1])
        start = min(last.stop if last is not None else position, position)
        between = self._blocks.touched_by(ByteRange(start, position + 1))
        return [block for block, _ in between if self._is_passed(block, position)]

    def _is_passed(self, block: Block, position: int) -> bool:
        where = self._raster.span_of(block)
        if where is None or self.pattern.has_read(block):
            return False
        stop = min(where.stop, position)
        is_read = self._pieces.cover(where.start, stop)
        return is_read or self.pattern.is_expected(block)

    def _is_read_ahead(self, span: ByteRange) -> bool:
        """Return whether the kernel reads ahead in predicted blocks, behind pages that it has.

        It may have them from what is stored in its cache beside a request, near to the last one. A
        program reads a block from its start.
        """
        if len(span) <= SHORT_BYTES or not 0 < span.start - self._front <= 2 * MAX_REST_BYTES:
            return False
        located = self._raster.located(span.start)
        if located is None:
            return False
        block, where = located
        return where.start < span.start and self.pattern.is_expected(block)

    def _was_planned(self, span: ByteRange) -> bool:
        """Return whether a span of the object was fetched for this handle, or beside that.

        Several small blocks lie in one block of the cache.
        """
        return any(
            planned.start - BLOCK_BYTES < span.start and span.stop < planned.stop + BLOCK_BYTES
            for planned in self._planned
        )

    def _is_in_run(self, span: ByteRange) -> bool:
        return self._run_start <= span.start <= self._front
