"""Where the blocks of a raster lie in its images, and how they are counted.

A raster file holds images: the full one, its overviews, their masks, and further pages. Each is cut
into blocks (tiles, or strips, which are blocks as wide as the image) of one size; those at the
right and at the bottom reach over the edge. With pixel interleave a block holds all bands; with
band interleave each band is a *plane* with blocks of its own. Blocks are numbered as in the file's
tables: from left to right, then from top to bottom, then plane after plane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from satfs.model import ByteRange

#: Bytes before and behind each block when a COG states that they repeat the block's size and its
#: last bytes (GDAL's COG driver: BLOCK_LEADER=SIZE_AS_UINT4, BLOCK_TRAILER=LAST_4_BYTES_REPEATED).
LEADER_BYTES: Final = 4


class Block(Struct, frozen=True, order=True):
    """A block of a file: the image's number in the layout, and the block's number in the image."""

    image: int
    number: int


class BlockPlace(Struct, frozen=True, order=True):
    """Where a block is in its image, counted in blocks from 0; `plane` is 0 in pixel interleave."""

    plane: int
    row: int
    column: int


class Window(Struct, frozen=True):
    """Rows [top, bottom) and columns [left, right) of one image, in that image's own pixels."""

    top: int
    bottom: int
    left: int
    right: int


class Table(Struct, frozen=True):
    """A table of block offsets or block sizes: one unsigned integer for each block.

    `letter` is the type of an item as `struct` and `array` name it. `inline` holds the items of a
    table so short that it lies in its directory.
    """

    span: ByteRange
    item_bytes: int
    letter: str
    inline: bytes | None = None


class Image(Struct, frozen=True):
    """One image of the file, and its blocks. Sizes are in pixels unless a name ends otherwise.

    `page` counts the full images from 0. `level` is 0 for the full image, and n for the nth
    overview of it, in the order of the file; a mask has the level of the image that it masks.
    `compression` and `predictor` are the numbers that TIFF gives them.
    """

    number: int
    page: int
    level: int
    is_mask: bool
    width: int
    height: int
    block_width: int
    block_height: int
    n_bands: int
    is_tiled: bool
    is_band_interleaved: bool
    compression: int
    predictor: int
    directory: ByteRange
    offsets: Table
    sizes: Table

    @property
    def n_columns(self) -> int:
        """Return how many blocks lie side by side."""
        return -(-self.width // self.block_width)

    @property
    def n_rows(self) -> int:
        """Return how many blocks lie one below the other."""
        return -(-self.height // self.block_height)

    @property
    def n_planes(self) -> int:
        """Return how many planes there are: the bands of a band-interleaved image, else 1."""
        return self.n_bands if self.is_band_interleaved else 1

    @property
    def n_blocks(self) -> int:
        """Return how many blocks the image has, sparse ones included."""
        return self.n_columns * self.n_rows * self.n_planes

    def place(self, number: int) -> BlockPlace:
        """Return where block *number* is."""
        rest, column = divmod(number, self.n_columns)
        plane, row = divmod(rest, self.n_rows)
        return BlockPlace(plane, row, column)

    def block(self, place: BlockPlace) -> Block:
        """Return the block at a place that lies in the image."""
        number = (place.plane * self.n_rows + place.row) * self.n_columns + place.column
        return Block(self.number, number)

    def holds(self, place: BlockPlace) -> bool:
        """Return whether a place lies in the image."""
        return (
            0 <= place.plane < self.n_planes
            and 0 <= place.row < self.n_rows
            and 0 <= place.column < self.n_columns
        )


class Structure(Struct, frozen=True):
    """The statements of GDAL's COG driver in a file's ghost area (GDAL, "COG driver", 2024).

    A statement is only kept while the file is as the driver left it: a program that edits such a
    file in place sets KNOWN_INCOMPATIBLE_EDITION, and then nothing is to be relied on.
    """

    has_directories_first: bool = False
    has_leaders: bool = False
    has_trailers: bool = False


class Layout(Struct, frozen=True):
    """The images of one file, as far as they are known, in the order of the file.

    `is_complete` is False while directories are still to come, and stays False when there are more
    of them than are read.
    """

    byte_order: str
    is_big: bool
    images: tuple[Image, ...]
    structure: Structure = Structure()
    is_complete: bool = True

    @property
    def n_pages(self) -> int:
        """Return how many full images there are."""
        return 1 + max((image.page for image in self.images), default=-1)

    def image(self, level: int = 0, *, is_mask: bool = False) -> Image | None:
        """Return the first page's full image (level 0), an overview or a mask; None without one."""
        wanted = (0, level, is_mask)
        return next((i for i in self.images if (i.page, i.level, i.is_mask) == wanted), None)

    def block_coordinates(self, block: Block) -> BlockPlace:
        """Return where a block is in its image."""
        return self.images[block.image].place(block.number)

    def blocks_of_window(
        self, image: Image, window: Window, bands: Sequence[int] | None = None
    ) -> Iterator[Block]:
        """Yield the blocks that a window touches, in the order of their numbers.

        The window is clipped to the image. *bands* count from 0; None is all of them. They only
        matter in band interleave. A large window is never held as a list.
        """
        rows = _touched(window.top, window.bottom, image.height, image.block_height)
        columns = _touched(window.left, window.right, image.width, image.block_width)
        planes: Sequence[int] = range(image.n_planes) if bands is None else sorted(set(bands))
        if not image.is_band_interleaved:
            planes = range(1 if planes else 0)
        # Three loops: itertools.product would first make a list of each range.
        for plane in planes:
            for row in rows:
                for column in columns:
                    place = BlockPlace(plane, row, column)
                    if image.holds(place):
                        yield image.block(place)


def _touched(start: int, stop: int, length: int, step: int) -> range:
    """Return which steps a range touches within [0, length)."""
    start, stop = max(0, start), min(stop, length)
    return range(start // step, -(-stop // step)) if start < stop else range(0)
