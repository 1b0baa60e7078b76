"""Predict the blocks of one open file that are read next, from those that were read.

Programs read rasters in windows. GDAL reads a window from left to right and then from top to
bottom, block by block; in band interleave it does so for one band after the other. So the blocks
of one file that were read are grouped into windows, and the shape of the last ones, counted in
blocks, is expected of the next. A program that reads points has windows of one block, and nothing
is predicted for it.

Predicted blocks are fetched; those of a wrong prediction were fetched in vain. The bytes fetched in
vain, together with those predicted and not yet read, never exceed a fifth of the bytes that were
read, plus an allowance without which nothing could be predicted at the start.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, islice, product
from typing import Final

from satfs.imagery.layout import Block, BlockPlace, Image
from satfs.imagery.sequences import BulkRun, Stride
from satfs.imagery.windows import (
    MIN_CONFIDENCE,
    IsSparse,
    NextBlocks,
    ReadWindow,
    WindowShape,
    extent,
)
from satfs.model import ByteRange

#: How much may be fetched in vain: one byte for this number of bytes that are read.
READ_PER_UNREAD: Final = 5
#: Bytes that may be fetched in vain beyond that, once for each open file: the other three bands of
#: a tile of 512 by 512 pixels of 16 bits, or a row of a window of 1024 by 1024 pixels, four bands
#: of 16 bits, in tiles of 256 by 256.
ALLOWANCE_BYTES: Final = 4 * 1024 * 1024
#: Windows whose shapes are remembered for each image: enough for a share, few enough to follow a
#: program that begins to do something else.
N_REMEMBERED: Final = 8
#: Predictions that are open at once: all strips of a window of 512 rows, which begins anywhere.
MAX_OUTSTANDING: Final = 520
#: Blocks from this length on are predicted only when twice as much may be fetched in vain.
_LARGE_BYTES: Final = 4 * 1024 * 1024
#: Places that one call looks at in order to find its predictions.
_MAX_TRIES: Final = 1024
#: Limit of the bytes of these columns. Of tiles of 512 by 512 pixels a window has two, or three.
_MAX_BESIDE_BYTES: Final = 1536 * 1024
#: The same of blocks that are read perhaps: what a line of 30 ms and 50 MB/s carries in a little
#: more than the round trip that they save.
_MAX_PERHAPS_BYTES: Final = 2 * 1024 * 1024
#: Strips are predicted in parts of at least this number of bytes, unless they are the last ones:
#: where little more may be fetched in vain, each strip would be a request.
_MIN_PART_BYTES: Final = 512 * 1024
#: While more bytes of strips than this are predicted and not read, none are added: a line of 30 ms
#: and 50 MB/s carries as many in a round trip. With fewer left the next ones would come late.
_MAX_STRIPS_AHEAD_BYTES: Final = 1536 * 1024
#: Blocks of a window, and of the past, that are remembered. Beyond it a window is continued as a
#: new one of the same columns, and the oldest blocks are forgotten.
_MAX_REMEMBERED_BLOCKS: Final = 8192
#: How far requests of the kernel may overtake each other: two of its longest, in bytes.
_OVERTAKING_BYTES: Final = 1024 * 1024
#: Where a block lies, if it is known: see `raster.Raster.span_of`.
SpanOf = Callable[[Block], ByteRange | None]


class AccessPattern:
    """The pattern of one open file: given each block that is read, it predicts the next ones.

    Deterministic, without a clock, bounded in memory (some megabytes at worst) and in time: a call
    takes microseconds as a rule, and a few milliseconds at worst.
    """

    def __init__(self, *, allowance_bytes: int = ALLOWANCE_BYTES) -> None:
        self._allowance_bytes = allowance_bytes
        self._window: ReadWindow | None = None
        self._stride = Stride()
        self._last: tuple[Image, BlockPlace] | None = None
        self._shapes: dict[int, deque[WindowShape]] = {}
        self._recent: OrderedDict[Block, None] = OrderedDict()
        #: Predicted and not read: in this window, and in those before it; with sizes in bytes.
        self._outstanding: dict[Block, int] = {}
        self._unread: OrderedDict[Block, int] = OrderedDict()
        #: Blocks predicted in vain of which it is not known whether they were fetched or withdrawn:
        #: those of the window before the last one, and those of the last one.
        self._unsettled: tuple[list[Block], list[Block]] = ([], [])
        self._mean: dict[int, tuple[int, int]] = {}
        #: Predictions that were made together last, blocks read since then that had been predicted,
        #: and whether the last block was one.
        self._n_made = self._n_hits = 0
        self._is_hit = self._is_new_plane = False
        self._bulk_run = BulkRun()
        #: Bytes of blocks that were read, and of those among them that had been predicted.
        self.read_bytes = 0
        self.hit_bytes = 0
        #: Bytes of blocks that were predicted for a window that has ended, and were not read. Those
        #: that were withdrawn before they were fetched do not count, once that is known (`settle`).
        self.unread_bytes = 0

    @property
    def outstanding(self) -> Collection[Block]:
        """Return the blocks that are predicted and may still be read."""
        return self._outstanding.keys()

    @property
    def image(self) -> Image | None:
        """Return the image of the block that was read last."""
        return self._last[0] if self._last is not None else None

    def has_seen(self, block: Block) -> bool:
        """Return whether a block was read of late, or predicted."""
        return block in self._recent or block in self._outstanding or block in self._unread

    def has_read(self, block: Block) -> bool:
        """Return whether a block was read of late."""
        return block in self._recent

    def is_expected(self, block: Block) -> bool:
        """Return whether a block is predicted and may still be read."""
        return block in self._outstanding

    @property
    def outstanding_bytes(self) -> int:
        """Return the bytes of blocks that are predicted and may still be read."""
        return sum(self._outstanding.values())

    def settle(self, is_held: Callable[[Block], bool]) -> None:
        """Forget the predictions that were withdrawn: blocks of an earlier window that never came.

        What was requested for the last window may still be on its way.
        """
        due, last = self._unsettled
        for block in due:
            if block in self._unread and not is_held(block):
                self.unread_bytes -= self._unread.pop(block)
        self._unsettled = ([], last)

    def fetched_unread_bytes(self, is_held: Callable[[Block], bool]) -> int:
        """Return how many bytes were fetched for predictions that no read has confirmed."""
        due, last = self._unsettled
        open_blocks = {**self._outstanding, **{b: self._unread.get(b, 0) for b in (*due, *last)}}
        never_came = sum(size for block, size in open_blocks.items() if not is_held(block))
        return self.unread_bytes + self.outstanding_bytes - never_came

    @property
    def bulk_ahead_bytes(self) -> int:
        """Return how far to read ahead of a program that reads everything; 0 for any other."""
        window = self._window
        if window is None:
            return 0
        shapes = self._shapes.get(window.image.number, ())
        return self._bulk_run.ahead_bytes(window, shapes, READ_PER_UNREAD + 1)

    def read(
        self,
        image: Image,
        number: int,
        span: ByteRange,
        *,
        is_in_order: bool = True,
        n_cached_before: int = 0,
        is_sparse: IsSparse = lambda _: False,
    ) -> None:
        """Note that a program reads block *number* of an image, which lies at *span*.

        *is_in_order* is False where requests may have overtaken each other, as those of the
        kernel's read-ahead do. *n_cached_before* is how many blocks directly to the left are
        cached, or strips directly above: a program may have read these unseen. So it does with
        those that are sparse.
        """
        block = Block(image.number, number)
        place = image.place(number)
        if self._last is not None and self._last == (image, place):
            return
        self._count(block, len(span))
        self._bulk_run.note(image, block, span)
        self._stride.note(block)
        window = self._window
        n_out_of_order = 0 if is_in_order else _OVERTAKING_BYTES // self._mean_bytes(image.number)
        if window is None or not window.takes(image, place, n_out_of_order, is_sparse):
            if window is not None:
                self._remember(window, window.shape(is_sparse))
            window = self._begin(image, place, n_cached_before)
        elif len(window.read) >= _MAX_REMEMBERED_BLOCKS:
            left, right = window.left, window.right
            window = ReadWindow(image, place.row, place.row + 1, left, right, [], left)
        self._is_new_plane = bool(window.planes) and place.plane not in window.planes
        window.add(place)
        self._window = window
        self._last = (image, place)

    def predict(self, span_of: SpanOf, *, is_due: bool = False) -> tuple[Block, ...]:
        """Return the blocks to fetch now, the next one first; each is returned once.

        They count as fetched from now on. *span_of* gives sizes where they are known, and names
        sparse blocks, which are not predicted.

        While a program reads predicted blocks, none are added before it has read half of them,
        unless *is_due*: thus small blocks are fetched in one range, and not one by one. Of strips,
        no more are added than are to be there in time.
        """
        window, last = self._window, self._last
        if window is None or last is None:
            return ()
        is_due = is_due or self._is_new_plane
        is_strips = window.image.n_columns == 1
        has_many = 2 * self._n_hits < self._n_made
        is_ahead = is_strips and self.outstanding_bytes > _MAX_STRIPS_AHEAD_BYTES
        if self._is_hit and not is_due and (has_many or is_ahead):
            return ()
        predictions: list[Block] = []
        # A part that lies behind a block which is fetched now is no request more.
        min_bytes = _MIN_PART_BYTES if self._is_hit or is_due else 0
        if self._stride.goes_on(window.image):
            ahead = [(block, 1.0) for block in self._stride.ahead(window.image)]
            if 2 * sum(self.is_expected(block) for block, _ in ahead) > len(ahead):
                return ()
            self._take(ahead, self._free_bytes, span_of, predictions, min_bytes=min_bytes)
            self._n_made, self._n_hits = len(predictions), 0
            return tuple(predictions)
        shapes = self._shapes.get(window.image.number, ())
        following = NextBlocks(window, last[1], shapes, self._mean_bytes(window.image.number))
        if is_strips:
            likely = list(islice(chain.from_iterable(following.likely()), _MAX_TRIES))
            self._take(likely, self._free_bytes, span_of, predictions, min_bytes=min_bytes)
        else:
            self._take_rows(following.likely(), span_of, predictions)
        beside = [(block, 1.0) for block in following.beside()]
        max_bytes = min(_MAX_BESIDE_BYTES, self._free_bytes)
        self._take(beside, max_bytes, span_of, predictions)
        perhaps = [(block, 1.0) for block in following.perhaps_beside()]
        max_bytes = min(_MAX_PERHAPS_BYTES, self._free_bytes - self._allowance_bytes * 3 // 4)
        self._take(perhaps, max_bytes, span_of, predictions, is_whole=True)
        below = ([(b, following.fill) for b in blocks] for blocks in following.rows_below())
        if is_strips:
            # How many a window has is the least certain: half of what may still be fetched in vain
            # is kept for the windows behind it.
            strips, free = list(chain.from_iterable(below)), self._free_bytes // 2
            self._take(strips, free, span_of, predictions, min_bytes=min_bytes)
        else:
            self._take_rows(chain([[]], below), span_of, predictions)
        if not (predictions or self._is_hit) and self._stride.is_forward(window.image):
            # A row that is longer than those of the windows before.
            ahead = [(block, 1.0) for block in self._stride.ahead(window.image)]
            self._take(ahead, self._free_bytes, span_of, predictions)
        if predictions or not is_due:
            self._n_made, self._n_hits = len(predictions), 0
        return tuple(predictions)

    def _take_rows(
        self,
        rows: Iterable[Sequence[tuple[Block, float]]],
        span_of: SpanOf,
        predictions: list[Block],
    ) -> None:
        """Predict what there is room for of the first row, and of the others those as a whole.

        Part of another row would be a request more.
        """
        n_tries = 0
        for n_rows, row in enumerate(rows):
            n_tries += max(1, len(row))
            is_taken = self._take(row, self._free_bytes, span_of, predictions, is_whole=n_rows > 0)
            if not is_taken or n_tries >= _MAX_TRIES:
                break

    def _take(
        self,
        candidates: Sequence[tuple[Block, float]],
        free: int,
        span_of: SpanOf,
        predictions: list[Block],
        *,
        is_whole: bool = False,
        min_bytes: int = 0,
    ) -> bool:
        """Predict what is certain enough of some candidates, of *free* bytes at most.

        With *is_whole* it is all of that, or nothing; a part of it is nothing, too, where it has
        fewer than *min_bytes*. Returns whether there was room for all.
        """
        found: list[tuple[Block, int]] = []
        left = free
        for block, confidence in candidates:
            if block in self._recent or block in self._outstanding or confidence < MIN_CONFIDENCE:
                continue
            span = span_of(block)
            if span is not None and not span:
                continue
            size = len(span) if span else self._mean_bytes(block.image)
            # A large block takes longer than the round trip that is saved.
            is_too_much = size > left or (size > _LARGE_BYTES and 2 * size > left)
            if is_too_much or len(self._outstanding) + len(found) >= MAX_OUTSTANDING:
                if is_whole or free - left < min_bytes:
                    return False
                break
            left -= size
            found.append((block, size))
        else:
            is_whole = True
        for block, size in found:
            if block in self._unread:  # fetched already, and wanted after all
                self.unread_bytes -= self._unread.pop(block)
            self._outstanding[block] = size
            predictions.append(block)
        return is_whole

    @property
    def _free_bytes(self) -> int:
        """Return how many bytes more may be predicted now."""
        allowed = self.read_bytes // READ_PER_UNREAD + self._allowance_bytes
        return allowed - self.unread_bytes - self.outstanding_bytes

    # -- counting ---------------------------------------------------------------------------------

    def _count(self, block: Block, size: int) -> None:
        if block in self._recent:
            self._recent.move_to_end(block)
            self._is_hit = True
            return
        self._recent[block] = None
        if len(self._recent) > _MAX_REMEMBERED_BLOCKS:
            self._recent.popitem(last=False)
        self.read_bytes += size
        n, total = self._mean.get(block.image, (0, 0))
        self._mean[block.image] = (n + 1, total + size)
        self._is_hit = self._outstanding.pop(block, None) is not None
        if self._is_hit:
            self._n_hits += 1
            self.hit_bytes += size
        elif block in self._unread:
            self.unread_bytes -= self._unread.pop(block)
            self.hit_bytes += size

    def _mean_bytes(self, image: int) -> int:
        n, total = self._mean.get(image, (0, 0))
        return max(1, total // n) if n else 1

    # -- windows ----------------------------------------------------------------------------------

    def _begin(self, image: Image, place: BlockPlace, n_cached_before: int) -> ReadWindow:
        """Return a new window, whose blocks were not predicted for the last one but at a stride."""
        if not (self._is_hit and self._stride.goes_on(image)):
            self._give_up()
        row, column = place.row, place.column
        first_left = max(0, column - n_cached_before)
        window = ReadWindow(image, row, row + 1, column, column + 1, [], first_left)
        if image.n_columns == 1:
            window.n_cached_above = n_cached_before
        return window

    def _give_up(self) -> None:
        """Take what is predicted for fetched in vain, while it is not read."""
        for block, size in self._outstanding.items():
            self._unread[block] = size
            self.unread_bytes += size
            if len(self._unread) > _MAX_REMEMBERED_BLOCKS:
                self._unread.popitem(last=False)  # it stays counted
        due, last = self._unsettled
        self._unsettled = ([*due, *last], list(self._outstanding))
        self._outstanding.clear()

    def _remember(self, window: ReadWindow, shape: WindowShape) -> None:
        shapes = self._shapes.setdefault(window.image.number, deque(maxlen=N_REMEMBERED))
        if not self._may_be_larger(window, shapes):
            shapes.append(shape)

    def _may_be_larger(self, window: ReadWindow, shapes: Sequence[WindowShape]) -> bool:
        """Return whether a window smaller than those before it lies beside what was read before.

        A program reads that from the kernel's pages, which is not seen.
        """
        image, plane = window.image, window.planes[0]
        rows, columns = range(window.top, window.bottom), range(window.left, window.right)
        beside: list[tuple[int, int]] = []
        if len(rows) < extent([shape.n_rows for shape in shapes])[0]:
            beside += product((window.top - 1, window.bottom), columns)
        if len(columns) < extent([shape.n_columns for shape in shapes])[0]:
            beside += product(rows, (window.left - 1, window.right))
        places = (BlockPlace(plane, row, column) for row, column in beside)
        found = (image.block(place) for place in places if image.holds(place))
        return any(block in self._recent for block in found)
