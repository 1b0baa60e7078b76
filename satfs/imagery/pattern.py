"""Which blocks one open file will be asked for next, from those that it was asked for.

Programs read rasters in windows. GDAL reads a window from left to right and then from top to
bottom, block by block; in band interleave it does so for one band after the other. So the blocks
that one file was asked for are grouped into windows, and the shape of the last ones, counted in
blocks, is what is expected of the next. A program that reads points has windows of one block, and
nothing is predicted for it.

What is predicted is fetched, and a prediction that is wrong was fetched in vain. The sum of what
was fetched in vain and of what is predicted and not yet read never exceeds a fifth of what was
read, plus an allowance without which nothing could be predicted at the start.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from satfs.imagery.layout import Block, BlockPlace, Image
from satfs.model import ByteRange

#: How much may be fetched in vain: one byte for so many that are read.
READ_PER_VAIN: Final = 5
#: What may be fetched in vain beyond that, once for each open file, in bytes: the other three bands
#: of a tile of 512 by 512 pixels of 16 bits, or the rest of one chip's tiles.
ALLOWANCE_BYTES: Final = 2 * 1024 * 1024
#: The share of the last windows that must have had what is predicted of the next. With less, more
#: than a fifth of it would be fetched in vain.
MIN_CONFIDENCE: Final = 0.8
#: Windows whose shapes are remembered for each image: enough for a share, few enough to follow a
#: program that begins to do something else.
N_REMEMBERED: Final = 8
#: Windows that must have been read before the extent of the next is predicted from theirs.
_N_FOR_SHAPE: Final = 2
#: Predictions that one call returns.
MAX_PREDICTIONS: Final = 64
#: While so many predictions are open none is added: they are more than are in flight at once, and
#: to look for further ones after each strip of a single row would cost more than to read it.
MAX_OUTSTANDING: Final = 32
#: Places that one call looks at in order to find its predictions.
_MAX_TRIES: Final = 512
#: Blocks of a window, and of the past, that are remembered. Beyond it a window is continued as a
#: new one of the same columns, and the oldest blocks are forgotten.
_MAX_REMEMBERED_BLOCKS: Final = 8192
#: A read of everything has begun when so many bytes lie one behind the other in the file, over at
#: least two whole rows of blocks: from an image's first block on, and from anywhere else. The
#: second is more than a window of 512 rows takes in strips (16 bytes a pixel, 1000 pixels).
BULK_BYTES: Final = 2 * 1024 * 1024
BULK_BYTES_ELSEWHERE: Final = 8 * 1024 * 1024
_BULK_ROWS: Final = 2
#: How far apart two blocks may be that still count as one behind the other: what lies between a
#: COG's blocks is 8 bytes, or the block of a mask.
_BULK_GAP_BYTES: Final = 64 * 1024

#: Where a block lies, if it is known: see `raster.Raster.span_of`.
SpanOf = Callable[[Block], ByteRange | None]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A block that is expected to be read next, and how sure that is: from 0 to 1."""

    block: Block
    confidence: float


@dataclass(slots=True)
class _Window:
    """Blocks of rows [top, bottom) and columns [left, right) that are read as one window."""

    image: Image
    top: int
    bottom: int
    left: int
    right: int
    planes: list[int]
    read: set[int] = field(default_factory=set)

    def takes(self, image: Image, place: BlockPlace) -> bool:
        """Return whether a block continues the window: inside, to the right of it, or below it."""
        if image.number != self.image.number:
            return False
        is_right, is_below = place.column == self.right, place.row == self.bottom
        return (
            self.top <= place.row <= self.bottom
            and self.left <= place.column <= self.right
            and not (is_right and is_below)
        )

    def add(self, place: BlockPlace) -> None:
        """Enter a block that continues the window."""
        self.bottom = max(self.bottom, place.row + 1)
        self.right = max(self.right, place.column + 1)
        if place.plane not in self.planes:
            self.planes.append(place.plane)
        self.read.add(self.image.block(place).number)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a window was, in blocks; `fill` is the share of its blocks that was read."""

    n_rows: int
    n_columns: int
    planes: frozenset[int]
    fill: float


class AccessPattern:
    """The pattern of one open file: given each block that is read, it predicts the next ones.

    Deterministic, without a clock, bounded in memory (some megabytes at worst) and in time: a call
    takes microseconds as a rule, and a few milliseconds at worst.
    """

    def __init__(self, *, allowance_bytes: int = ALLOWANCE_BYTES) -> None:
        self._allowance_bytes = allowance_bytes
        self._window: _Window | None = None
        self._last: tuple[Image, BlockPlace] | None = None
        self._shapes: dict[int, deque[_Shape]] = {}
        self._recent: OrderedDict[Block, None] = OrderedDict()
        #: Predicted and not read: in this window, and in those before it; with sizes in bytes.
        self._outstanding: dict[Block, int] = {}
        self._vain: OrderedDict[Block, int] = OrderedDict()
        self._mean: dict[int, tuple[int, int]] = {}
        self._run_start = 0
        self._run_stop = -1
        self._run_blocks = 0
        self._is_run_from_first = False
        #: Bytes of blocks that were read, and of those among them that had been predicted.
        self.read_bytes = 0
        self.hit_bytes = 0
        #: Bytes of blocks that were predicted for a window that has ended, and were not read.
        self.vain_bytes = 0

    @property
    def outstanding(self) -> Collection[Block]:
        """Return the blocks that are predicted and may still be read."""
        return self._outstanding.keys()

    def has_seen(self, block: Block) -> bool:
        """Return whether a block was read of late, or predicted."""
        return block in self._recent or block in self._outstanding or block in self._vain

    def is_expected(self, block: Block) -> bool:
        """Return whether a block is predicted and may still be read."""
        return block in self._outstanding

    @property
    def outstanding_bytes(self) -> int:
        """Return the bytes of blocks that are predicted and may still be read."""
        return sum(self._outstanding.values())

    @property
    def bulk_ahead_bytes(self) -> int:
        """Return how far to read ahead of a program that reads everything; 0 for any other.

        That is as much again as was read in one piece from an image's first block on, and a sixth
        of what was read in one piece from anywhere else. It is 0 while the window is no higher than
        one of those before it.
        """
        window = self._window
        if window is None or self._run_blocks < _BULK_ROWS * window.image.n_columns:
            return 0
        shapes = self._shapes.get(window.image.number, ())
        if any(shape.n_rows >= window.bottom - window.top for shape in shapes):
            return 0
        n_bytes = self._run_stop - self._run_start
        if self._is_run_from_first:
            return n_bytes if n_bytes >= BULK_BYTES else 0
        return n_bytes // (READ_PER_VAIN + 1) if n_bytes >= BULK_BYTES_ELSEWHERE else 0

    def read(self, image: Image, number: int, span: ByteRange) -> None:
        """Note that a program reads block *number* of an image, which lies at *span*."""
        block = Block(image.number, number)
        place = image.place(number)
        if self._last is not None and self._last == (image, place):
            return
        self._count(block, len(span))
        self._follow_run(image, block, span)
        window = self._window
        if window is None or not window.takes(image, place):
            window = self._begin(image, place)
        elif len(window.read) >= _MAX_REMEMBERED_BLOCKS:
            window = _Window(image, place.row, place.row + 1, window.left, window.right, [])
        window.add(place)
        self._window = window
        self._last = (image, place)

    def predict(self, span_of: SpanOf) -> tuple[Prediction, ...]:
        """Return the blocks to fetch now, the next one first; each is returned once.

        They count as fetched from now on. *span_of* gives sizes where they are known, and names
        sparse blocks, which are not predicted.
        """
        window, last = self._window, self._last
        if window is None or last is None or len(self._outstanding) >= MAX_OUTSTANDING:
            return ()
        free = self.read_bytes // READ_PER_VAIN + self._allowance_bytes
        free -= self.vain_bytes + self.outstanding_bytes
        if free <= 0:
            return ()
        predictions: list[Prediction] = []
        tried: set[Block] = set()
        for n_tries, (block, confidence) in enumerate(self._candidates(window, last[1])):
            if n_tries >= _MAX_TRIES or len(predictions) >= MAX_PREDICTIONS:
                break
            is_known = block in tried or block in self._recent or block in self._outstanding
            if is_known or confidence < MIN_CONFIDENCE:
                continue
            tried.add(block)
            span = span_of(block)
            if span is not None and not span:
                continue
            size = len(span) if span else self._mean_bytes(block.image)
            if size > free:
                break
            free -= size
            if block in self._vain:  # fetched already, and wanted after all
                self.vain_bytes -= self._vain.pop(block)
            self._outstanding[block] = size
            predictions.append(Prediction(block, confidence))
        return tuple(predictions)

    # -- counting ---------------------------------------------------------------------------------

    def _count(self, block: Block, size: int) -> None:
        if block in self._recent:
            self._recent.move_to_end(block)
            return
        self._recent[block] = None
        if len(self._recent) > _MAX_REMEMBERED_BLOCKS:
            self._recent.popitem(last=False)
        self.read_bytes += size
        n, total = self._mean.get(block.image, (0, 0))
        self._mean[block.image] = (n + 1, total + size)
        if self._outstanding.pop(block, None) is not None:
            self.hit_bytes += size
        elif block in self._vain:
            self.vain_bytes -= self._vain.pop(block)
            self.hit_bytes += size

    def _mean_bytes(self, image: int) -> int:
        n, total = self._mean.get(image, (0, 0))
        return max(1, total // n) if n else 1

    def _follow_run(self, image: Image, block: Block, span: ByteRange) -> None:
        if not span:
            return
        if not 0 <= span.start - self._run_stop <= _BULK_GAP_BYTES or self._run_stop < 0:
            self._run_start, self._run_blocks = span.start, 0
            self._is_run_from_first = block.number == 0
        self._run_stop = span.stop
        self._run_blocks += 1

    # -- windows ----------------------------------------------------------------------------------

    def _begin(self, image: Image, place: BlockPlace) -> _Window:
        """Return a new window; what was predicted for the last one was fetched in vain."""
        if self._window is not None:
            self._remember(self._window)
        for block, size in self._outstanding.items():
            self._vain[block] = size
            self.vain_bytes += size
            if len(self._vain) > _MAX_REMEMBERED_BLOCKS:
                self._vain.popitem(last=False)  # it stays counted
        self._outstanding.clear()
        return _Window(image, place.row, place.row + 1, place.column, place.column + 1, [])

    def _remember(self, window: _Window) -> None:
        n_rows, n_columns = window.bottom - window.top, window.right - window.left
        n_blocks = n_rows * n_columns * len(window.planes)
        shape = _Shape(n_rows, n_columns, frozenset(window.planes), len(window.read) / n_blocks)
        shapes = self._shapes.setdefault(window.image.number, deque(maxlen=N_REMEMBERED))
        shapes.append(shape)

    def _candidates(self, window: _Window, last: BlockPlace) -> Iterator[tuple[Block, float]]:
        """Yield blocks that may come next, the likeliest first, with the confidence in each."""
        image = window.image
        shapes: Sequence[_Shape] = self._shapes.get(image.number, ())
        fill = sum(shape.fill for shape in shapes) / len(shapes) if shapes else 1.0
        planes = self._planes(window, last.plane, shapes)

        def blocks(plane: int, rows: range, columns: range) -> Iterator[Block]:
            for row, column in product(rows, columns):
                place = BlockPlace(plane, row, column)
                if image.holds(place):
                    yield image.block(place)

        rows, columns = range(window.top, window.bottom), range(window.left, window.right)
        # The rest of the row.
        here = image.block(last).number
        for block in blocks(last.plane, range(last.row, window.bottom), columns):
            if block.number > here:
                yield block, fill
        # What the last windows had to the right and below.
        bottom = window.bottom
        if len(shapes) >= _N_FOR_SHAPE:
            n_columns, column_share = _extent([shape.n_columns for shape in shapes])
            n_rows, row_share = _extent([shape.n_rows for shape in shapes])
            share = min(fill, column_share, row_share)
            right = max(window.right, window.left + n_columns)
            bottom = max(window.bottom, window.top + n_rows)
            for plane, confidence in planes:
                top = last.row if plane == last.plane else window.top
                for block in blocks(plane, range(top, bottom), range(window.left, right)):
                    yield block, min(share, confidence)
        # The next rows: of a window as high as it is wide, or of one that has become high.
        lower = range(bottom, self._expected_bottom(window, shapes))
        for block in blocks(last.plane, lower, columns):
            yield block, fill
        # What the window has in other planes: they come after the whole of this one, so that what
        # is fetched for them too early takes the place of what comes before.
        if shapes or len(window.read) == 1 or len(window.planes) > 1:
            for plane, confidence in planes:
                if plane != last.plane:
                    for block in blocks(plane, rows, columns):
                        yield block, min(fill, confidence)

    def _planes(
        self, window: _Window, current: int, shapes: Sequence[_Shape]
    ) -> list[tuple[int, float]]:
        """Return which planes are read, with confidence: the current one first.

        Before the first window has ended all of them are expected: most programs read all bands.
        """
        n = window.image.n_planes
        if n > _MAX_TRIES:  # a program that reads a thousand planes of each tile reads everything
            return [(current, 1.0)]
        order = sorted(range(n), key=lambda plane: (plane - current) % n)
        if not shapes:
            return [(plane, 1.0) for plane in order]
        return [
            (
                plane,
                1.0
                if plane in window.planes
                else sum(plane in shape.planes for shape in shapes) / len(shapes),
            )
            for plane in order
        ]

    def _expected_bottom(self, window: _Window, shapes: Sequence[_Shape]) -> int:
        """Return where a window is expected to end that has at least two rows, in rows of blocks.

        The first windows are taken for squares. One that has become higher than those before it is
        expected to go on for a sixth of its height: if it ends there, less than a fifth of what
        was read was fetched in vain.
        """
        n_rows = window.bottom - window.top
        has_shape = len(shapes) >= _N_FOR_SHAPE
        if n_rows < 2 or (has_shape and any(shape.n_rows >= n_rows for shape in shapes)):
            return window.bottom
        image = window.image
        width = (window.right - window.left) * image.block_width
        square = -(-width // image.block_height) if image.n_columns > 1 and not has_shape else 0
        return window.top + max(square, n_rows + n_rows // (READ_PER_VAIN + 1))


def _extent(lengths: Sequence[int]) -> tuple[int, float]:
    """Return the greatest length that enough of the last windows reached, and their share."""
    if not lengths:
        return 1, 0.0
    ordered = sorted(lengths, reverse=True)
    n_enough = -(-round(MIN_CONFIDENCE * 100) * len(ordered) // 100)
    length = ordered[n_enough - 1]
    return length, sum(other >= length for other in ordered) / len(ordered)
