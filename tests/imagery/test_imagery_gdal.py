"""GDAL itself reads the blocks that the layout names, in the order that the pattern counts on."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rasterio
from imagery.rasters import LAYOUTS, learn
from rasterio.windows import Window as GdalWindow

from satfs.imagery.layout import Block, Window
from satfs.imagery.pattern import AccessPattern
from satfs.imagery.raster import Raster
from satfs.model import ByteRange

RasterOf = Callable[[str], Path]
Reads = list[ByteRange]

WRITTEN_BY_GDAL = [name for name in LAYOUTS if "tifffile" not in name]


@contextmanager
def recorded(path: Path) -> Iterator[tuple[Any, Reads]]:
    """Open a raster with GDAL; every read of the file that it makes is appended to the list."""
    reads: Reads = []

    class Recorded(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            start = self.tell()
            data = super().read(size)
            assert data is not None
            reads.append(ByteRange(start, start + len(data)))
            return data

    def opener(name: str, _mode: str = "rb", **_: Any) -> Recorded:
        return Recorded(name, "rb")

    with rasterio.open(str(path), opener=opener) as file:
        file.read(1, window=GdalWindow(0, 0, 1, 1))  # what is read once, of directories and tables
        reads.clear()
        yield file, reads


def blocks_in(raster: Raster, reads: Reads) -> list[Block]:
    """Return the blocks that were read, in order; each must have been read whole, at once."""
    found = []
    for span in reads:
        block = raster.block_at(span.start)
        if block is not None:
            assert span == raster.span_of(block)
            found.append(block)
    return found


@pytest.mark.parametrize("name", WRITTEN_BY_GDAL)
def test_gdal_reads_a_window_block_by_block(raster_of: RasterOf, name: str) -> None:
    """Rows, then columns; in band interleave band by band; each block in one read of its span."""
    path = raster_of(name)
    raster = learn(path.read_bytes(), whole=True)
    assert raster.layout is not None
    image = raster.layout.images[0]
    top, left = image.height // 3, image.width // 3
    window = Window(top, min(top + 300, image.height), left, min(left + 400, image.width))
    with recorded(path) as (file, reads):
        rows, columns = (window.top, window.bottom), (window.left, window.right)
        file.read(window=GdalWindow.from_slices(rows, columns))
    expected = [
        block for block in raster.layout.blocks_of_window(image, window) if raster.span_of(block)
    ]
    kept = {Block(0, 0)}  # GDAL holds it since it was opened
    assert [b for b in blocks_in(raster, reads) if b not in kept] == [
        b for b in expected if b not in kept
    ]


@pytest.mark.parametrize("name", ["overviews", "COG, deflate", "COG, deflate, mask"])
def test_gdal_reads_a_smaller_picture_from_an_overview(raster_of: RasterOf, name: str) -> None:
    """A quarter of the size: only blocks of the overview of that size."""
    path = raster_of(name)
    raster = learn(path.read_bytes(), whole=True)
    assert raster.layout is not None
    level = raster.layout.image(2) if name == "overviews" else raster.layout.image(1)
    assert level is not None
    with recorded(path) as (file, reads):
        file.read(out_shape=(4, level.height, level.width))
    images = {block.image for block in blocks_in(raster, reads)}
    assert images == {level.number}


@pytest.mark.parametrize(
    "name", ["big-endian BigTIFF", "COG, deflate", "strips of 1 row, LZW", "strips, band"]
)
def test_chips_that_gdal_reads_are_foreseen(raster_of: RasterOf, name: str) -> None:
    """Of 25 chips of 128 pixels a side, few blocks are waited for, and few fetched in vain."""
    path = raster_of(name)
    raster = learn(path.read_bytes(), whole=True)
    assert raster.layout is not None
    image = raster.layout.images[0]
    dice = random.Random(5)
    pattern = AccessPattern(allowance_bytes=raster.size_bytes // 20)
    fetched: set[Block] = set()
    read: set[Block] = set()
    n_waits = 0
    with rasterio.Env(GDAL_CACHEMAX=1), recorded(path) as (file, reads):
        for _ in range(25):
            reads.clear()
            column, row = dice.randrange(900 - 128), dice.randrange(700 - 128)
            file.read(window=GdalWindow(column, row, 128, 128))
            for block in blocks_in(raster, reads):
                n_waits += block not in fetched
                fetched.add(block)
                read.add(block)
                span = raster.span_of(block)
                assert span is not None
                pattern.read(image, block.number, span)
                fetched |= set(pattern.predict(raster.span_of))
    assert n_waits <= len(read) / 2
    assert len(fetched - read) <= len(read) / 5
