"""Rasters in the layouts that people have, and the work that they do on them."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
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
    *out_side* asks for a smaller picture, which GDAL reads from an overview. With *n_processes*,
    so many read at once, each other windows of as many (see `windows_of`): of one raster in turn
    of *n_rasters*. With *is_copy* the file is copied as it is, and nothing is unpacked.
    """

    title: str
    windows: Sequence[tuple[int, int, int]]
    bands: Sequence[int] | None = None
    out_side: int | None = None
    n_processes: int = 1
    n_rasters: int = 1
    is_copy: bool = False
    #: Layouts that it is done on: all, if none is named.
    layouts: tuple[str, ...] = ()

    def windows_of(self, process: int) -> Sequence[tuple[int, int, int]]:
        """Return the windows that one process reads, counted from 0."""
        return self.windows if self.n_processes == 1 else tuple(_chips(50, seed=100 + process))


def _chips(n: int = 20, seed: int = 3) -> Iterator[tuple[int, int, int]]:
    dice = random.Random(seed)  # noqa: S311 - repeatable, no secret
    for _ in range(n):
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
    # Beside all blocks in order: without compression both read the same bytes.
    "cp": Work("the file, by cp", (), is_copy=True, layouts=("1024-raw",)),
    "training-1": Work(
        "8 processes, 50 chips each, one raster", (), n_processes=8, layouts=("256-lzw",)
    ),
    "training-8": Work(
        "8 processes, 50 chips each, eight rasters", (), n_processes=8, n_rasters=8,
        layouts=("256-lzw",),
    ),
}  # fmt: skip


def cases() -> Iterator[tuple[str, str]]:
    """Yield each layout with each work that is done on it."""
    for layout, (name, work) in product(LAYOUTS, WORK.items()):
        if not work.layouts or layout in work.layouts:
            yield layout, name


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


def copies_of(stored: StoredObject, n: int) -> list[StoredObject]:
    """Return *n* objects of equal bytes and other scenes, the first one being *stored* itself."""
    copies = [stored]
    for number in range(1, n):
        scene_id = f"{stored.scene_id}_{number}"
        path = stored.path.with_name(f"{scene_id}.zip")
        path.hardlink_to(stored.path)
        copies.append(StoredObject(scene_id, path, stored.size_bytes))
    return copies


@dataclass(frozen=True, slots=True)
class Least:
    """What a work needs at least: bytes of the blocks it touches, and ranges that they lie in.

    `n_round_trips` is how many of them follow on each other in one process: one for each window
    that has new blocks, since nobody knows before where a random window lies.
    """

    size_bytes: int
    n_ranges: int
    n_round_trips: int


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
    if work.n_processes > 1:
        by_process = [work.windows_of(process) for process in range(work.n_processes)]
    else:
        by_process = [work.windows]
    windows = [Window(t, t + side, left, left + side) for t, left, side in chain(*by_process)]
    if work.out_side is not None:
        levels = [i for i in layout.images if not i.is_mask and i.width >= work.out_side]
        image = min(levels, key=lambda level: level.width)
    if work.out_side is not None or not windows:
        windows = [Window(0, image.height, 0, image.width)]
    bands = None if work.bands is None else [band - 1 for band in work.bands]
    if work.is_copy:
        return Least(stored.member().size_bytes, 1, 1)
    seen: set[Block] = set()
    n_bytes = n_ranges = n_round_trips = 0
    n_each = len(windows) // work.n_rasters
    for number, window in enumerate(windows):
        if work.n_rasters > 1 and number % n_each == 0:
            seen.clear()  # another raster
        new = set(layout.blocks_of_window(image, window, bands)) - seen
        seen |= new
        places = [place for block in new if (place := raster.fetch_span_of(block))]
        n_bytes += sum(map(len, places))
        n_ranges += len(merge_spans(places, GAP_BYTES))
        n_round_trips += bool(places)
    return Least(n_bytes, n_ranges, -(-n_round_trips // work.n_processes))
