"""Which blocks of a raster a user has chosen: of a window, of a box on Earth, of the overviews.

A window is given in pixels of the full image, or as a box in degrees, which the projection that the
header states leads to pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from satfs.errors import Unsupported
from satfs.imagery.geotiff import Facts
from satfs.imagery.layout import Block, Image, Layout, Window
from satfs.imagery.raster import Raster
from satfs.imagery.spans import merge_spans
from satfs.imagery.utm import degrees_of, metres_of
from satfs.model import ByteRange

#: West, south, east, north in degrees; west is greater than east across the antimeridian.
Box: TypeAlias = tuple[float, float, float, float]

#: Blocks of one raster that are chosen at most: those of a quarter of a million tiles of 256 by 256
#: pixels are a raster of 131,072 pixels a side, some 100 GB. It is fetched as a file.
MAX_BLOCKS: Final = 250_000
#: Points along each side of a box, or of a raster, that are projected. A side of 100 km is curved
#: by some 100 m in UTM; between two neighbouring points that is less than a pixel.
_N_POINTS: Final = 65
#: Limit of the memory for one byte of a table, in bytes: an offset of four bytes takes twelve more
#: to be found by its position (`imagery/tables.py`), and a piece has its overhead. Tables of other
#: blocks may take as much again.
_KEPT_PER_BYTE: Final = 8
#: Blocks of a group at most: to look up which tables these need takes 60 ms.
_MAX_GROUP: Final = 32_768


class BlockChoice(Struct, frozen=True):
    """Blocks to fetch: of a *window* or a *box* of the full image, and those of all overviews.

    Masks of the images go with them. *window* is (column, row, width, height), in pixels.
    """

    window: tuple[int, int, int, int] | None = None
    box: Box | None = None
    has_overviews: bool = False


def chosen_blocks(layout: Layout, facts: Facts, choice: BlockChoice) -> list[Block]:
    """Return the blocks of *choice*; none where its window or box lies outside of the raster.

    Raises:
        Unsupported: there are more than `MAX_BLOCKS`, or a box is given and the projection of the
            raster is not known.
    """
    full = layout.image()
    if full is None:
        return []
    windows: list[Window] = []
    if choice.window is not None:
        column, row, width, height = choice.window
        windows = [Window(row, row + height, column, column + width)]
    elif choice.box is not None:
        windows = windows_of_box(full, facts, choice.box)
    blocks: dict[Block, None] = {}
    for image in layout.images:
        if image.page != 0:
            continue
        everything = [Window(0, image.height, 0, image.width)] if choice.has_overviews else []
        for window in everything if image.level else windows:
            for block in layout.blocks_of_window(image, window):
                blocks[block] = None
                if len(blocks) > MAX_BLOCKS:
                    raise Unsupported(
                        f"these are over {MAX_BLOCKS:,} blocks: fetch the file as a whole"
                    )
    return list(blocks)


def windows_of_box(image: Image, facts: Facts, box: Box) -> list[Window]:
    """Return the pixels of *image* that a box touches; none when it lies outside.

    A raster around the Earth touches a box across its own edge on both sides: two windows.

    Raises:
        Unsupported: the raster is not georeferenced, or in a projection that is not known here.
    """
    if facts.epsg is None or facts.transform is None:
        raise Unsupported(
            "it states no map projection, so that no box in degrees leads to its pixels; give them"
            " as --window"
        )
    extent = _extent(image, facts.epsg, facts.transform)
    if extent is None:
        raise Unsupported(
            f"its projection, EPSG:{facts.epsg}, is not one that satfs knows (UTM on WGS 84, Web"
            " Mercator, longitude and latitude); give the pixels as --window"
        )
    a, b, _, d, e, _ = facts.transform
    if a * e - b * d == 0:
        return []
    windows = (
        _window(
            image, [_pixel(facts.transform, *point) for point in _projected(facts.epsg, common)]
        )
        for common in _common(extent, box)
    )
    return [window for window in windows if window is not None]


def _window(image: Image, corners: Sequence[tuple[float, float]]) -> Window | None:
    """Return the pixels of *image* among some points given as column and row; None for none."""
    pixels = [pixel for pixel in corners if all(map(math.isfinite, pixel))]
    if not pixels:
        return None
    columns, rows = [column for column, _ in pixels], [row for _, row in pixels]
    window = Window(
        max(0, math.floor(min(rows))),
        min(image.height, math.ceil(max(rows))),
        max(0, math.floor(min(columns))),
        min(image.width, math.ceil(max(columns))),
    )
    is_empty = window.top >= window.bottom or window.left >= window.right
    return None if is_empty else window


def table_needs(raster: Raster, blocks: Sequence[Block]) -> list[ByteRange]:
    """Return the spans of the file's tables without which the places of *blocks* are not known."""
    return merge_spans(span for block in blocks for span in raster.needs_of(block))


def table_groups(
    raster: Raster, blocks: Sequence[Block], buffer_bytes: int
) -> Iterator[Sequence[Block]]:
    """Yield *blocks* in groups, of which each is looked up soon, in tables that are kept at once.

    The tables are read in buffers of *buffer_bytes*, which have the places of other blocks, too.
    """
    max_bytes = raster.max_kept_bytes // _KEPT_PER_BYTE
    group: list[Block] = []
    buffers: set[int] = set()
    for block in blocks:
        needed = {
            number
            for span in raster.needs_of(block)
            for number in range(span.start // buffer_bytes, -(-span.stop // buffer_bytes))
        }
        is_full = len(buffers | needed) * buffer_bytes > max_bytes
        if group and (is_full or len(group) == _MAX_GROUP):
            yield group
            group, buffers = [], set()
        group.append(block)
        buffers |= needed
    if group:
        yield group


def block_spans(raster: Raster, blocks: Sequence[Block], gap_bytes: int) -> list[ByteRange]:
    """Return where *blocks* lie, in order; those at most *gap_bytes* apart are one span.

    Sparse blocks lie nowhere, and so does a block whose place is not known.
    """
    spans = (raster.fetch_span_of(block) for block in blocks)
    return merge_spans((span for span in spans if span), gap_bytes)


def _extent(image: Image, epsg: int, transform: Sequence[float]) -> Box | None:
    """Return the box around an image in degrees; east may be beyond 180. None: not known."""
    a, b, c, d, e, f = transform
    points = []
    for column, row in _border(0.0, 0.0, float(image.width), float(image.height)):
        point = degrees_of(epsg, a * column + b * row + c, d * column + e * row + f)
        if point is None:
            return None
        points.append(point)
    longitudes, latitudes = [x for x, _ in points], [y for _, y in points]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _common(extent: Box, box: Box) -> Iterator[Box]:
    """Yield what two boxes have in common, in the longitudes of *extent*."""
    west, south, east, north = box
    if east < west:
        east += 360
    south, north = max(south, extent[1]), min(north, extent[3])
    for turn in (0, -360, 360):
        left, right = max(west + turn, extent[0]), min(east + turn, extent[2])
        if left < right and south < north:
            yield left, south, right, north


def _projected(epsg: int, box: Box) -> Iterator[tuple[float, float]]:
    for longitude, latitude in _border(*box):
        point = metres_of(epsg, longitude, latitude)
        if point is not None:
            yield point


def _border(left: float, bottom: float, right: float, top: float) -> Iterator[tuple[float, float]]:
    """Yield points along the four sides of a rectangle."""
    for i in range(_N_POINTS):
        share = i / (_N_POINTS - 1)
        x, y = left + share * (right - left), bottom + share * (top - bottom)
        yield from ((x, bottom), (x, top), (left, y), (right, y))


def _pixel(transform: Sequence[float], x: float, y: float) -> tuple[float, float]:
    """Return column and row of a point; the transform is not degenerate."""
    a, b, c, d, e, f = transform
    determinant = a * e - b * d
    x, y = x - c, y - f
    return (e * x - b * y) / determinant, (a * y - d * x) / determinant
