"""Rasters in the layouts that people have, and the work that they do on them."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.objects import StoredObject

#: The side of each raster, in pixels: four bands of 16 bits, which take 134 MB before compression.
SIDE: Final = 4096
#: Blocks at most this far apart in the file can be fetched in one range.
GAP_BYTES: Final = 16 * 1024


def _tiled(side: int, **options: Any) -> dict[str, Any]:
    return {"tiled": True, "blockxsize": side, "blockysize": side, **options}


_DEFLATE: Final = {"compress": "deflate", "zlevel": 1}
#: Creation options of GDAL by the layout's name.
LAYOUTS: Final[Mapping[str, dict[str, Any]]] = {
    "256-lzw": _tiled(256, compress="lzw", interleave="pixel"),
    "256-lzw-predictor": _tiled(256, compress="lzw", predictor=2, interleave="pixel"),
    "256-band-lzw": _tiled(256, compress="lzw", interleave="band"),
    "512-band-lzw": _tiled(512, compress="lzw", interleave="band"),
    "512-deflate": _tiled(512, interleave="pixel", **_DEFLATE),
    "cog-512-deflate": _tiled(512, interleave="pixel"),
    "1024-raw": _tiled(1024, interleave="pixel"),
    "strips-16-deflate": {"blockysize": 16, "interleave": "pixel", **_DEFLATE},
    "strips-1-lzw": {"blockysize": 1, "compress": "lzw", "interleave": "pixel"},
    "bigtiff-256-deflate": _tiled(256, interleave="pixel", bigtiff="yes", **_DEFLATE),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What a program reads: windows as (top, left, side), some bands, at what size.

    No *windows*: all blocks, in the order of their numbers. *bands* count from 1; None is all.
    *out_side* asks for a smaller picture, which GDAL reads from an overview.
    """

    title: str
    windows: Sequence[tuple[int, int, int]]
    bands: Sequence[int] | None = None
    out_side: int | None = None


def _chips() -> Iterator[tuple[int, int, int]]:
    dice = random.Random(3)  # noqa: S311 - repeatable, no secret
    for _ in range(20):
        yield dice.randrange(SIDE - 256), dice.randrange(SIDE - 256), 256


def _points() -> Iterator[tuple[int, int, int]]:
    dice = random.Random(4)  # noqa: S311
    for _ in range(30):
        yield dice.randrange(SIDE), dice.randrange(SIDE), 1


WORK: Final[Mapping[str, Work]] = {
    "window-512": Work("one window of 512 by 512", [(1300, 1700, 512)]),
    "window-1024": Work("one window of 1024 by 1024", [(1300, 1700, 1024)]),
    "chips": Work("20 random chips of 256 by 256", tuple(_chips())),
    "points": Work("30 random points", tuple(_points())),
    "overview": Work("all of it, as 512 by 512", [(0, 0, SIDE)], out_side=512),
    "three-bands": Work("1024 by 1024, three of four bands", [(1300, 1700, 1024)], bands=(1, 2, 3)),
    "whole": Work("all blocks in order", ()),
}


def make_raster_zip(directory: Path, scene_id: str, layout: str) -> StoredObject:
    """Write a zip with one stored raster of that layout, with three overviews.

    Raises:
        ImportError: rasterio or numpy is not installed.
    """
    import numpy
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin

    raster, source = directory / f"{layout}.tif", directory / f"{layout}.source.tif"
    grain = numpy.random.default_rng(1)
    slope = (numpy.add.outer(numpy.arange(SIDE), numpy.arange(SIDE)) // 7).astype("uint16")
    shape = {"width": SIDE, "height": SIDE, "count": 4, "dtype": "uint16"}
    where = {"crs": "EPSG:32721", "transform": from_origin(370_000, 6_170_000, 0.7, 0.7)}
    options = {**shape, **where, **LAYOUTS[layout], "num_threads": 2}
    with rasterio.open(source, "w", driver="GTiff", **options) as image:
        for band in range(1, 5):
            image.write(slope + grain.integers(0, 4000, (SIDE, SIDE), dtype="uint16"), band)
    if layout.startswith("cog"):
        from rasterio.shutil import copy

        cog = {"driver": "COG", "blocksize": 512, "compress": "deflate", "level": 1}
        copy(source, raster, num_threads=2, **cog)
        source.unlink()
    else:
        with rasterio.open(source, "r+") as image:
            image.build_overviews([2, 4, 8], Resampling.nearest)
        source.rename(raster)
    path = directory / f"{scene_id}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.write(raster, f"rasters/{scene_id}_TOA_0.tif")
    raster.unlink()
    return StoredObject(scene_id, path, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Least:
    """What a work needs at least: bytes of the blocks it touches, and ranges that they lie in."""

    size_bytes: int
    n_ranges: int


def least(stored: StoredObject, work: Work) -> Least:
    """Return what the work needs at least of the raster in a zip. Neighbours are one range."""
    from satfs.imagery.layout import Block, Window
    from satfs.imagery.raster import Raster
    from satfs.imagery.spans import merge_spans

    member = stored.member()
    raster = Raster(member.size_bytes)
    with stored.path.open("rb") as file:

        def feed(start: int, stop: int) -> None:
            file.seek(member.start + start)
            raster.feed(start, file.read(stop - start))

        while spans := raster.needs():
            for span in spans:
                feed(span.start, span.stop)
        layout = raster.layout
        if layout is None:
            raise ValueError(f"no layout: {raster.reason}")
        for image in layout.images:
            for table in (image.offsets, image.sizes):
                feed(table.span.start, table.span.stop)
    image = layout.images[0]
    windows = [Window(t, t + side, left, left + side) for t, left, side in work.windows]
    if work.out_side is not None:
        levels = [i for i in layout.images if not i.is_mask and i.width >= work.out_side]
        image = min(levels, key=lambda level: level.width)
    if work.out_side is not None or not windows:
        windows = [Window(0, image.height, 0, image.width)]
    bands = None if work.bands is None else [band - 1 for band in work.bands]
    seen: set[Block] = set()
    n_bytes = n_ranges = 0
    for window in windows:
        new = set(layout.blocks_of_window(image, window, bands)) - seen
        seen |= new
        places = [place for block in new if (place := raster.fetch_span_of(block))]
        n_bytes += sum(map(len, places))
        n_ranges += len(merge_spans(places, GAP_BYTES))
    return Least(n_bytes, n_ranges)
