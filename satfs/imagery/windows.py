"""The windows in which a program reads blocks, and where the present one is expected to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product, takewhile
from typing import Final

from msgspec import Struct, field

from satfs.imagery.layout import Block, BlockPlace, Image

#: The share of the last windows that must have had what is predicted of the next. With less, more
#: than a fifth of it would be fetched in vain.
MIN_CONFIDENCE: Final = 0.8
#: The same of a block that lies beside the first one of a window: it is fetched in the same range,
#: without a request of its own, and saves one, and a round trip, when it is read. Most of the
#: allowance (`pattern.ALLOWANCE_BYTES`) is kept for what is more certain. Half of all chips that
#: are half as wide as a block touch two columns of them.
MIN_BESIDE_CONFIDENCE: Final = 0.4
#: The width that a first row of two blocks is expected to reach, in pixels: a window of 512 by 512
#: has three columns in tiles of 256 by 256, and two in tiles of 512 by 512.
_USUAL_WIDTH: Final = 1024
#: A strip is as wide as the image, so that the width of a window does not show its height. It is
#: expected to become this number of times as high as it is, and to hold at least this number of
#: bytes (one tile of 256 by 256 pixels, four bands of 16 bits), but not to pass one of these
#: heights, in pixels: they are the usual ones of chips and windows, and so are their doubles.
_GROWTH: Final = 4
_MIN_GROUP_BYTES: Final = 512 * 1024
_USUAL_HEIGHTS: Final = (64, *(256 * 2**k for k in range(24)))
#: A window that is higher than all before it is expected to go on for one row for each six it has.
_ROWS_PER_VAIN: Final = 6
#: A program that reads more planes of each block than this reads everything.
_MAX_PLANES: Final = 512
#: Sparse blocks beside a block that are looked for, and blocks of a window of which it is counted
#: how many are sparse.
_MAX_SPARSE: Final = 64
_MAX_COUNTED: Final = 1024
#: Whether a block was never written.
IsSparse = Callable[[Block], bool]


class ReadWindow(Struct):
    """Blocks of rows [top, bottom) and columns [left, right) that are read as one window."""

    image: Image
    top: int
    bottom: int
    left: int
    right: int
    planes: list[int]
    #: Where the window may begin: blocks from here to `left` are cached, so that a program may have
    #: read them from the kernel's pages, without a request.
    first_left: int
    read: set[int] = field(default_factory=set)
    #: Strips directly above the first one that were cached: the window may have begun with any of
    #: them, as one does that overlaps a window before it.
    n_cached_above: int = 0

    def takes(
        self, image: Image, place: BlockPlace, n_out_of_order: int, is_sparse: IsSparse
    ) -> bool:
        """Return whether a block continues the window: inside, to the right of it, or below it.

        A strip does so too that is at most *n_out_of_order* rows away. A program reads sparse
        blocks without a request, so that there may be some between the window and this one.
        """
        if image.number != self.image.number:
            return False
        if n_out_of_order and image.n_columns == 1:
            return self.top - n_out_of_order <= place.row <= self.bottom + n_out_of_order
        if self._takes_next(place, place.row, place.column):
            return True
        left = (BlockPlace(place.plane, place.row, n) for n in reversed(range(place.column)))
        above = (BlockPlace(place.plane, n, place.column) for n in reversed(range(place.row)))
        n_left, n_above = (
            sum(1 for _ in takewhile(is_sparse, map(image.block, islice(places, _MAX_SPARSE))))
            for places in (left, above)
        )
        return self._takes_next(place, place.row - n_above, place.column - n_left)

    def _takes_next(self, place: BlockPlace, first_row: int, first_column: int) -> bool:
        """Return whether *place*, or the blocks from these to it, continues the window."""
        is_right, is_below = place.column >= self.right, place.row >= self.bottom
        # A program that has read several rows and goes back to the first one reads what lies beside
        # its window in the same way: gdalwarp, or a map that is moved.
        is_beside = is_right and place.row == self.top and place.plane == self.planes[0]
        return (
            self.top <= place.row
            and first_row <= self.bottom
            and self.first_left <= place.column
            and first_column <= self.right
            and not (is_right and is_below and first_column > self.left)
            and not (is_beside and self.bottom - self.top > 1)
        )

    def add(self, place: BlockPlace) -> None:
        """Enter a block that continues the window."""
        self.top = min(self.top, place.row)
        self.bottom = max(self.bottom, place.row + 1)
        self.left = min(self.left, place.column)
        self.right = max(self.right, place.column + 1)
        if place.plane not in self.planes:
            self.planes.append(place.plane)
        self.read.add(self.image.block(place).number)

    def shape(self, is_sparse: IsSparse) -> WindowShape:
        """Return the shape that it has come to have. Sparse blocks count as read."""
        n_rows, n_columns = self.bottom - self.top, self.right - self.left
        n_read, n_blocks = len(self.read), n_rows * n_columns * len(self.planes)
        if self.image.n_columns == 1:
            # Strips between two requests that overtook each other may not have been seen.
            n_read = n_blocks
        elif n_read < n_blocks <= _MAX_COUNTED:
            rows, columns = range(self.top, self.bottom), range(self.left, self.right)
            places = (BlockPlace(*each) for each in product(self.planes, rows, columns))
            n_read += sum(map(is_sparse, map(self.image.block, places)))
        return WindowShape(n_rows, n_columns, frozenset(self.planes), n_read / n_blocks)


class WindowShape(Struct, frozen=True):
    """The shape of a window, in blocks; `fill` is the share of its blocks that was read."""

    n_rows: int
    n_columns: int
    planes: frozenset[int]
    fill: float


class NextBlocks:
    """The blocks that may be read next: of *window*, whose last block was at *last*.

    *shapes* are those of the last windows of the same image, and *mean_bytes* is the mean length
    of its blocks.
    """

    def __init__(
        self,
        window: ReadWindow,
        last: BlockPlace,
        shapes: Sequence[WindowShape],
        mean_bytes: int,
    ) -> None:
        self._window = window
        self._last = last
        self._shapes = shapes
        self._mean_bytes = mean_bytes
        #: Which share of the blocks of the last windows was read.
        self.fill = sum(shape.fill for shape in shapes) / len(shapes) if shapes else 1.0

    def likely(self) -> Iterator[list[tuple[Block, float]]]:
        """Yield rows of blocks that may come next, with the confidence in each block.

        The first is the rest of the present row; the likeliest come first.
        """
        window, last, shapes, fill = self._window, self._last, self._shapes, self.fill
        image = window.image
        rows, columns = range(window.top, window.bottom), range(window.left, window.right)
        here = image.block(last).number
        row = range(last.row, last.row + 1)
        yield [(b, fill) for b in _blocks(image, last.plane, row, columns) if b.number > here]
        planes = self._planes() if self._is_plane_wise else [(last.plane, 1.0)]
        share = fill
        if self._has_shape:
            # The blocks that the last windows had to the right and below.
            n_columns, column_share = extent([shape.n_columns for shape in shapes])
            _, row_share = extent([shape.n_rows for shape in shapes])
            share = min(fill, column_share, row_share)
            columns = range(window.left, max(window.right, window.left + n_columns))
            rows = range(window.top, self._known_bottom())
        for plane, confidence in planes:
            top = last.row if plane == last.plane else window.top
            for number in range(top, rows.stop):
                row = range(number, number + 1)
                found = _blocks(image, plane, row, columns)
                yield [(block, min(share, confidence)) for block in found]

    @property
    def _is_plane_wise(self) -> bool:
        """Return whether other planes are predicted now.

        They are read after the whole of the first one. Where the last windows differ in size, that
        one shows how large this window is, and what is to be fetched of the others, as whole rows.
        """
        if len(self._window.planes) > 1:
            return True
        if not self._shapes:
            return False
        sizes = Counter((shape.n_rows, shape.n_columns) for shape in self._shapes)
        ((size, n_windows),) = sizes.most_common(1)
        is_steady = n_windows >= MIN_CONFIDENCE * len(self._shapes)
        return is_steady and (len(self._shapes) > 1 or size == (1, 1))

    def beside(self) -> Sequence[Block]:
        """Return the blocks beside a first row of two that is expected to become longer."""
        window = self._window
        is_begun = len(window.read) == 2 == window.right - window.left
        if not is_begun or self._has_shape:
            return ()
        # A window touches a column more than it is wide, unless it begins where a block does. In
        # band interleave the blocks of that column in the first row are few of all its blocks.
        n_columns = _USUAL_WIDTH // window.image.block_width + (window.image.n_planes > 1)
        return self._to_the_right(window.first_left + n_columns)

    def perhaps_beside(self) -> Sequence[Block]:
        """Return the blocks beside the first one that windows had often, though not always.

        In band interleave they are those of the first plane, whose width the others have as well.
        """
        window, shapes = self._window, self._shapes
        if len(window.read) != 1 or not self._has_shape:
            return ()
        n_columns, _ = extent([shape.n_columns for shape in shapes], MIN_BESIDE_CONFIDENCE)
        return self._to_the_right(window.left + n_columns)

    def _to_the_right(self, stop: int) -> Sequence[Block]:
        window, last = self._window, self._last
        row = range(last.row, last.row + 1)
        return list(_blocks(window.image, last.plane, row, range(window.right, stop)))

    def rows_below(self) -> Iterator[list[Block]]:
        """Yield the rows below a window that is expected to become higher."""
        window, image, plane = self._window, self._window.image, self._last.plane
        columns = range(window.left, window.right)
        bottom = self._known_bottom()
        for row in range(bottom, self._expected_bottom()):
            yield list(_blocks(image, plane, range(row, row + 1), columns))

    @property
    def _has_shape(self) -> bool:
        """Return whether a window is expected to be like those before it: from the second on.

        Programs read windows of one size. A wrong prediction costs what one of many saves.
        """
        return bool(self._shapes)

    def _known_bottom(self) -> int:
        """Return where the window ends if it becomes as high as those before it."""
        window = self._window
        if not self._has_shape:
            return window.bottom
        n_rows, _ = extent([shape.n_rows for shape in self._shapes])
        return min(max(window.bottom, window.top + n_rows), window.image.n_rows)

    def _planes(self) -> list[tuple[int, float]]:
        """Return which planes are read, with confidence: the current one first.

        Before the first window has ended, all that are as far apart as the last two are expected:
        most programs read all bands.
        """
        window, shapes, current = self._window, self._shapes, self._last.plane
        n = window.image.n_planes
        if n > _MAX_PLANES:  # a program that reads a thousand planes of each tile reads everything
            return [(current, 1.0)]
        step = window.planes[-1] - window.planes[-2] if len(window.planes) > 1 else 1
        way = 1 if step > 0 else -1
        order = sorted(range(n), key=lambda plane: way * (plane - current) % n)
        if not shapes:
            # Bands 3, 2, 1 are a picture in true colour, and no fourth one follows.
            coming = range(window.planes[-1], n if way > 0 else -1, step)
            seen = {*window.planes, *coming}
            return [(plane, 1.0 if plane in seen else 0.0) for plane in order]
        return [
            (
                plane,
                1.0
                if plane in window.planes
                else sum(plane in shape.planes for shape in shapes) / len(shapes),
            )
            for plane in order
        ]

    def _expected_bottom(self) -> int:
        """Return where a window is expected to end that has at least two rows, in rows of blocks.

        The first windows are taken for squares, and those of strips for several times as high as
        they are. Later ones are expected to become as high as one before them. One that has become
        higher than all is expected to go on for a sixth of its height: if it ends there, less than
        a fifth of what was read was fetched in vain.
        """
        window = self._window
        n_rows = window.bottom - window.top
        if n_rows < 2:
            return window.bottom
        known = [shape.n_rows for shape in self._shapes if shape.n_rows >= n_rows]
        if self._has_shape and known:
            return window.top + min(known)
        if self._has_shape and n_rows == 2:
            return window.bottom  # after windows of one row: two points side by side
        image = window.image
        expected = n_rows + n_rows // _ROWS_PER_VAIN
        if image.n_columns == 1:
            n_group = _MIN_GROUP_BYTES // self._mean_bytes
            usual = [_n_touched(height, image.block_height) for height in _USUAL_HEIGHTS]
            limits = [
                next((n - n_above for n in usual if n - n_above >= n_rows), expected)
                for n_above in {0, window.n_cached_above}
            ]
            expected = min(max(_GROWTH * n_rows, n_group), *limits)
        elif not self._has_shape:
            # It touches a column more than it is wide, and a row more than it is high.
            width = (window.right - window.left - 1) * image.block_width
            expected = max(expected, -(-width // image.block_height) + 1)
        return window.top + expected


def _blocks(image: Image, plane: int, rows: range, columns: range) -> Iterator[Block]:
    """Yield the blocks of some rows and columns of a plane, as far as the image has them."""
    for row, column in product(rows, columns):
        place = BlockPlace(plane, row, column)
        if image.holds(place):
            yield image.block(place)


def _n_touched(height: int, block_height: int) -> int:
    """Return the greatest number of blocks that *height* rows of pixels touch."""
    return -(-height // block_height) + (block_height > 1)


def extent(lengths: Sequence[int], min_share: float = MIN_CONFIDENCE) -> tuple[int, float]:
    """Return the greatest length that *min_share* of the last windows reached, and their share."""
    if not lengths:
        return 1, 0.0
    ordered = sorted(lengths, reverse=True)
    n_enough = -(-round(min_share * 100) * len(ordered) // 100)
    length = ordered[n_enough - 1]
    return length, sum(other >= length for other in ordered) / len(ordered)
