"""Rasters in many layouts, written by GDAL and by tifffile; and bytes made into a known raster."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.shutil import copy
from rasterio.transform import Affine

from satfs.imagery.layout import Image, Table
from satfs.imagery.raster import Raster
from satfs.model import ByteRange

TRANSFORM: Final = Affine(0.7, 0, 370_000.7, 0, -0.7, 6_170_000.3)
EPSG: Final = 32721


def pixels(n_bands: int = 4, height: int = 700, width: int = 900, dtype: str = "uint16") -> Any:
    """Return smooth pixels with some noise, so that every compression has something to do."""
    rng = np.random.default_rng(height * width)
    ramp = np.add.outer(np.arange(height), np.arange(width)) // 7
    noise = rng.integers(0, 9, (n_bands, height, width))
    return ((ramp + noise) % 255).astype(dtype)


@cache
def noisy_pixels(side: int) -> Any:
    """Return four bands of *side* by *side* pixels that no compression makes much smaller."""
    ramp = np.add.outer(np.arange(side), np.arange(side)) // 7
    noise = np.random.default_rng(1).integers(0, 4000, (4, side, side))
    return (ramp + noise).astype("uint16")


def write(path: Path, data: NDArray[Any] | None = None, **options: Any) -> Path:
    """Write a georeferenced GeoTIFF with creation options of GDAL's GTiff driver."""
    data = pixels() if data is None else data
    n_bands, height, width = data.shape
    size = {"count": n_bands, "height": height, "width": width, "dtype": str(data.dtype)}
    where = {"crs": CRS.from_epsg(EPSG), "transform": TRANSFORM}
    with rasterio.open(path, "w", driver="GTiff", **size, **where, **options) as file:
        for band in range(1, n_bands + 1):  # before any block: the directory stays in front
            file.set_band_description(band, f"band {band}")
        file.write(data)
    return path


def _tiled(side: int, **options: Any) -> Callable[[Path], Path]:
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": side, "blockysize": side}
    return lambda path: write(path, **tiles, **options)


def _with_overviews(path: Path) -> Path:
    _tiled(128, compress="lzw", predictor=2)(path)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.average)
    return path


def _with_mask(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        _tiled(256, compress="deflate")(path)
        with rasterio.open(path, "r+") as file:
            mask = np.zeros((700, 900), np.uint8)
            mask[100:500, 100:700] = 255
            file.write_mask(mask)
            assert MaskFlags.per_dataset in file.mask_flag_enums[0]
            file.build_overviews([2, 4], Resampling.nearest)
    return path


def _cog(*, has_mask: bool, **options: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        source = path.with_suffix(".source.tif")
        (_with_mask if has_mask else _tiled(256))(source)
        copy(source, path, driver="COG", blocksize=128, **options)
        source.unlink()
        return path

    return make


def _sparse(path: Path) -> Path:
    data = pixels()
    data[:, 200:, :500] = 0
    return write(
        path, data, tiled=True, blockxsize=128, blockysize=128, compress="lzw", sparse_ok=True
    )


def _jpeg(path: Path) -> Path:
    data = pixels(3, dtype="uint8")
    options = {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"}
    return write(path, data, tiled=True, blockxsize=256, blockysize=256, **options)


def _floats(path: Path) -> Path:
    data = pixels(2, dtype="float32")
    options = {"compress": "zstd", "predictor": 3, "nodata": -9999.0}
    return write(path, data, tiled=True, blockxsize=256, blockysize=256, **options)


def _sub_directories(path: Path) -> Path:
    data = pixels(1, 640, 512)[0]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(data, subifds=2, tile=(64, 64))
        file.write(data[::2, ::2], subfiletype=1, tile=(64, 64))
        file.write(data[::4, ::4], subfiletype=1, tile=(64, 64))
        file.write(data[:64, :64], rowsperstrip=7)
    return path


def _pages(path: Path) -> Path:
    with tifffile.TiffWriter(path, byteorder=">") as file:
        for _ in range(5):
            file.write(pixels(3, 33, 65, "uint8"), photometric="minisblack", rowsperstrip=4)
    return path


#: How to make a file of each layout, by the layout's name.
LAYOUTS: Final[Mapping[str, Callable[[Path], Path]]] = {
    "256 tiles, pixel, LZW": _tiled(256, compress="lzw", interleave="pixel"),
    "512 tiles, band, LZW": _tiled(512, compress="lzw", interleave="band"),
    "512 tiles, pixel, deflate": _tiled(512, compress="deflate", interleave="pixel"),
    "COG, deflate": _cog(has_mask=False, compress="deflate"),
    "COG, deflate, mask": _cog(has_mask=True, compress="deflate"),
    "COG, BigTIFF": _cog(has_mask=False, compress="lzw", bigtiff="yes"),
    "1024 tiles, uncompressed": _tiled(1024),
    "strips of 1 row, LZW": lambda path: write(path, blockysize=1, compress="lzw"),
    "strips of 16 rows, LZW": lambda path: write(path, blockysize=16, compress="lzw"),
    "strips, band": lambda path: write(path, blockysize=16, interleave="band"),
    "BigTIFF, 256 tiles, deflate": _tiled(256, compress="deflate", bigtiff="yes"),
    "big-endian": _tiled(256, compress="lzw", endianness="big"),
    "big-endian BigTIFF": _tiled(64, interleave="band", endianness="big", bigtiff="yes"),
    "sparse": _sparse,
    "overviews": _with_overviews,
    "mask and overviews": _with_mask,
    "one block": lambda path: write(path, pixels(1, 60, 50, "uint8"), blockysize=60),
    "JPEG": _jpeg,
    "ZSTD, floats, predictor 3": _floats,
    "tifffile, SubIFDs, BigTIFF": _sub_directories,
    "tifffile, pages, big-endian": _pages,
}


def learn(data: bytes, *, whole: bool = False) -> Raster:
    """Return a raster that was given what it needed, and with *whole* every byte."""
    raster = Raster(len(data))
    for _ in range(10_000):
        spans = raster.needs()
        if not spans:
            break
        for span in spans:
            raster.feed(span.start, data[span.start : span.stop])
    else:
        raise AssertionError("it never has enough")
    if whole:
        raster.feed(0, data)
    return raster


Fields = Sequence[tuple[int, int, Sequence[int] | bytes]]

_LETTERS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


def directory(fields: Fields, next_offset: int = 0, *, at: int = 8, order: str = "<") -> bytes:
    """Return a classic directory that is to lie *at* an offset, and behind it its long values.

    A field is (tag, type, values): unsigned integers of the type, or the bytes of other types,
    then with a count of bytes.
    """
    entries, behind = b"", b""
    start = at + 2 + 12 * len(fields) + 4
    for tag, type_, values in fields:
        raw = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"{order}{len(values)}{_LETTERS[type_]}", *values)
        )
        entries += struct.pack(order + "HHI", tag, type_, len(values))
        if len(raw) <= 4:
            entries += raw.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", start + len(behind))
            behind += raw + b"\0" * (len(raw) % 2)
    head = struct.pack(order + "H", len(fields))
    return head + entries + struct.pack(order + "I", next_offset) + behind


def tiff(*directories: bytes, order: str = "<", first: int = 8, size_bytes: int = 0) -> bytes:
    """Return a classic TIFF of directories one behind the other, padded to a size."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, first)
    return (head + b"".join(directories)).ljust(size_bytes, b"\0")


def tiled_fields(
    n: int, side: int = 16, *, offsets: tuple[int, Sequence[int]], sizes: tuple[int, Sequence[int]]
) -> list[tuple[int, int, Sequence[int] | bytes]]:
    """Return the fields of a square image of n by n tiles, with tables given as (type, items)."""
    return [
        (256, 4, [n * side]),
        (257, 4, [n * side]),
        (277, 3, [1]),
        (322, 3, [side]),
        (323, 3, [side]),
        (324, *offsets),
        (325, *sizes),
    ]


def plain_image(
    width: int,
    height: int,
    block_width: int,
    block_height: int | None = None,
    *,
    n_bands: int = 1,
    is_band_interleaved: bool = False,
    number: int = 0,
) -> Image:
    """Return an image of blocks without a file, for what only counts blocks."""
    nothing = Table(ByteRange(0, 0), 4, "I")
    return Image(
        number=number,
        page=0,
        level=number,
        is_mask=False,
        width=width,
        height=height,
        block_width=block_width,
        block_height=block_height or block_width,
        n_bands=n_bands,
        is_tiled=block_width < width,
        is_band_interleaved=is_band_interleaved,
        compression=1,
        predictor=1,
        directory=ByteRange(8, 100),
        offsets=nothing,
        sizes=nothing,
    )
