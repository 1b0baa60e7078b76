"""The layout of files that others write is what another reader says it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagery.rasters import LAYOUTS, learn, plain_image

from satfs.imagery.layout import Block, BlockPlace, Image, Layout, Window
from satfs.imagery.raster import Raster
from satfs.model import ByteRange

RasterOf = Callable[[str], Path]

WRITTEN_BY_GDAL = [name for name in LAYOUTS if "tifffile" not in name]
#: Without those whose first directory was written once more, behind the blocks, for overviews.
WRITTEN_AT_ONCE = [name for name in WRITTEN_BY_GDAL if "overviews" not in name]


def pages_of(file: tifffile.TiffFile) -> Iterator[Any]:
    """Yield every image directory as tifffile finds it: a directory, then those inside it."""
    for page in file.pages:
        yield page
        yield from page.pages or ()


def items(page: Any, *tags: int) -> list[int]:
    value = next(page.tags[tag].value for tag in tags if tag in page.tags)
    return list(value) if isinstance(value, tuple) else [value]


def span_in(page: Any, number: int) -> ByteRange:
    """Return where a block lies, as tifffile reads the tables."""
    offset, size = items(page, 324, 273)[number], items(page, 325, 279)[number]
    return ByteRange(offset, offset + size) if size else ByteRange(0, 0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_and_tables_are_those_that_tifffile_reads(raster_of: RasterOf, name: str) -> None:
    """Sizes, blocks, bands, interleave, compression, and where every single block lies."""
    path = raster_of(name)
    raster = learn(path.read_bytes(), whole=True)
    assert raster.layout is not None, raster.reason
    assert raster.layout.is_complete
    with tifffile.TiffFile(path) as file:
        assert raster.layout.is_big == file.is_bigtiff
        assert raster.layout.byte_order == file.byteorder
        pages = list(pages_of(file))
        assert len(raster.layout.images) == len(pages)
        for image, page in zip(raster.layout.images, pages, strict=True):
            assert (image.width, image.height) == (page.imagewidth, page.imagelength)
            assert image.is_tiled == page.is_tiled
            if page.is_tiled:
                assert (image.block_width, image.block_height) == (page.tilewidth, page.tilelength)
            else:
                assert image.block_height == min(page.rowsperstrip, page.imagelength)
            assert image.n_bands == page.samplesperpixel
            assert image.is_band_interleaved == (page.planarconfig == 2 and image.n_bands > 1)
            assert (image.compression, image.predictor) == (page.compression, page.predictor)
            assert image.is_mask == bool(page.subfiletype & 4)
            assert image.n_blocks == len(items(page, 324, 273))
            for number in range(image.n_blocks):
                assert raster.span_of(Block(image.number, number)) == span_in(page, number)


@pytest.mark.parametrize("name", WRITTEN_BY_GDAL)
def test_overviews_are_those_that_gdal_finds(raster_of: RasterOf, name: str) -> None:
    """Level n is GDAL's overview n - 1; masks are found for the levels that have one."""
    path = raster_of(name)
    layout = learn(path.read_bytes()).layout
    assert layout is not None
    with rasterio.open(path) as file:
        factors = file.overviews(1)
        has_mask = "mask" in name
    for level in range(len(factors) + 1):
        image, mask = layout.image(level), layout.image(level, is_mask=True)
        with rasterio.open(path, **({"OVERVIEW_LEVEL": level - 1} if level else {})) as file:
            assert image is not None
            assert (image.width, image.height) == (file.width, file.height)
        assert (mask is not None) == has_mask
        assert mask is None or (mask.width, mask.height) == (image.width, image.height)
    assert layout.image(len(factors) + 1) is None
    assert layout.n_pages == 1


def test_pages_and_overviews_inside_directories_are_told_apart(raster_of: RasterOf) -> None:
    """SubIFDs are overviews of the image that holds them; the next in the chain is a page."""
    layout = learn(raster_of("tifffile, SubIFDs, BigTIFF").read_bytes()).layout
    assert layout is not None
    assert [(i.page, i.level, i.is_mask) for i in layout.images] == [
        (0, 0, False),
        (0, 1, False),
        (0, 2, False),
        (1, 0, False),
    ]
    pages = learn(raster_of("tifffile, pages, big-endian").read_bytes()).layout
    assert pages is not None
    assert pages.n_pages == 15
    assert all(image.level == 0 for image in pages.images)


@given(data=st.data(), name=st.sampled_from(sorted(LAYOUTS)))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_how_the_bytes_come_makes_no_difference(
    raster_of: RasterOf, data: st.DataObject, name: str
) -> None:
    """Cut anywhere, in any order, twice or with gaps: in the end the same layout and spans."""
    content = raster_of(name).read_bytes()
    raster = Raster(len(content))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=12)))
    pieces = list(zip([0, *cuts], [*cuts, len(content)], strict=True))
    for start, stop in data.draw(st.permutations(pieces)):
        raster.feed(start, content[start:stop])
    n_asked = 0
    while spans := raster.needs():
        for span in spans:
            assert 0 <= span.start < span.stop <= len(content)
            raster.feed(span.start, memoryview(content)[span.start : span.stop])
        n_asked += 1
        assert n_asked < 100
    whole = learn(content, whole=True)
    assert raster.layout == whole.layout
    assert raster.layout is not None
    image = data.draw(st.sampled_from(raster.layout.images))
    block = Block(image.number, data.draw(st.integers(0, image.n_blocks - 1)))
    for span in raster.needs_of(block):
        raster.feed(span.start, content[span.start : span.stop])
    assert not raster.needs_of(block)
    assert raster.span_of(block) == whole.span_of(block)


@pytest.mark.parametrize("name", WRITTEN_AT_ONCE)
def test_one_read_of_the_head_is_enough_for_the_first_image(raster_of: RasterOf, name: str) -> None:
    """A file of GDAL begins with its directory: the first need brings the first image."""
    content = raster_of(name).read_bytes()
    raster = Raster(len(content))
    (span,) = raster.needs()
    raster.feed(span.start, content[span.start : span.stop])
    assert raster.layout is not None


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_byte_of_a_block_leads_back_to_it(raster_of: RasterOf, name: str) -> None:
    """First, middle and last byte; a byte that is in no block leads to none."""
    raster = learn(raster_of(name).read_bytes(), whole=True)
    assert raster.layout is not None
    spans = []
    for image in raster.layout.images:
        for number in range(image.n_blocks):
            block = Block(image.number, number)
            span = raster.span_of(block)
            assert span is not None
            if not span:
                continue
            spans.append(span)
            for position in (span.start, (span.start + span.stop) // 2, span.stop - 1):
                assert raster.block_at(position) == block
            assert raster.following(span.start) == block
    outside = [s.stop for s in spans if all(not o.start <= s.stop < o.stop for o in spans)]
    assert all(raster.block_at(position) is None for position in [0, 4, *outside])


@pytest.mark.parametrize("name", WRITTEN_BY_GDAL)
def test_a_window_touches_the_blocks_that_gdal_says(raster_of: RasterOf, name: str) -> None:
    """Coordinates and windows agree with GDAL's own block windows, in every plane."""
    path = raster_of(name)
    layout = learn(path.read_bytes()).layout
    assert layout is not None
    image = layout.images[0]
    with rasterio.open(path) as file:
        windows = {(r, c): w for (r, c), w in file.block_windows(1)}
    for (row, column), w in windows.items():
        window = Window(w.row_off, w.row_off + w.height, w.col_off, w.col_off + w.width)
        blocks = list(layout.blocks_of_window(image, window))
        places = [layout.block_coordinates(block) for block in blocks]
        assert [(p.plane, p.row, p.column) for p in places] == [
            (plane, row, column) for plane in range(image.n_planes)
        ]
        assert [image.block(place) for place in places] == blocks
    assert len(windows) * image.n_planes == image.n_blocks


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    side=st.sampled_from([16, 64, 256]),
    n_bands=st.integers(1, 4),
    is_band=st.booleans(),
    window=st.tuples(*[st.integers(-100, 3100)] * 4),
)
def test_blocks_of_a_window_are_those_that_overlap_it(
    width: int,
    height: int,
    side: int,
    n_bands: int,
    is_band: bool,
    window: tuple[int, int, int, int],
) -> None:
    """Exactly these, ascending, each in the image."""
    image = plain_image(width, height, side, n_bands=n_bands, is_band_interleaved=is_band)
    layout = Layout("<", False, (image,))
    area = Window(*window)
    found = list(layout.blocks_of_window(image, area))
    assert [block.number for block in found] == sorted({block.number for block in found})
    expected = {
        number
        for number in range(image.n_blocks)
        if _overlaps(image, layout.block_coordinates(Block(0, number)), area)
    }
    assert {block.number for block in found} == expected


def _overlaps(image: Image, place: BlockPlace, window: Window) -> bool:
    top, left = place.row * image.block_height, place.column * image.block_width
    bottom, right = (
        min(top + image.block_height, image.height),
        min(left + image.block_width, image.width),
    )
    return max(top, window.top) < min(bottom, window.bottom) and max(left, window.left) < min(
        right, window.right
    )
