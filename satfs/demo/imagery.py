"""Drawn land as the vendor's rasters: tiled LZW GeoTIFFs with overviews, PNG previews, VRTs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from satfs.demo.png import png
from satfs.demo.terrain import CLEAR, CLOUD, HAZE, NO_DATA, Land
from satfs.errors import Unsupported

try:
    import numpy as np
    import rasterio
    import rasterio.shutil
    import rasterio.warp
    from numpy.typing import NDArray
    from rasterio.transform import Affine
    from rasterio.windows import Window
except ImportError as missing:
    raise Unsupported(f"the demo's imagery needs {missing.name}: install satfs[demo]") from missing

#: How far the ground track is turned against north, in degrees: a near-polar orbit's.
TRACK_DEGREES: Final = 9.5

#: A large raster: the side of its tiles, and of what is made at once (whole tiles), in pixels.
_LARGE_TILE: Final = 512
_STRIPE: Final = 1024
#: What such a raster takes on disk per pixel, in bytes, overviews and empty borders included.
#: Measured; good to a tenth.
LARGE_BYTES_PER_PIXEL: Final = 5.45

#: How a large raster may be laid out: creation options of GDAL beside those of every raster here.
#: `vendor` is what deliveries have; the others are what people make of them.
LARGE_LAYOUTS: Final[Mapping[str, Mapping[str, str]]] = {
    "vendor": {"interleave": "pixel"},
    "bands": {"interleave": "band"},
    "cog": {"interleave": "pixel"},
}

#: The tone curve of VISUAL: reflectances of black, and of the shoulder, in red, green, blue.
_BLACK: Final = (330.0, 480.0, 560.0)
_SHOULDER: Final = (2300.0, 2200.0, 2050.0)


@dataclass(frozen=True)
class Place:
    """Where a square of *n* pixels lies: its centre in degrees, and its pixels' size in metres."""

    longitude: float
    latitude: float
    n: int
    pixel_m: float

    @property
    def epsg(self) -> int:
        """Return the code of the UTM zone."""
        zone = int((self.longitude + 180) // 6) + 1
        return (32600 if self.latitude >= 0 else 32700) + zone

    @cached_property
    def corner(self) -> tuple[float, float]:
        """Return the upper left corner in metres; it lies on a whole pixel."""
        crs = f"EPSG:{self.epsg}"
        x, y = rasterio.warp.transform("EPSG:4326", crs, [self.longitude], [self.latitude])
        half = self.n * self.pixel_m / 2
        left = math.floor((x[0] - half) / self.pixel_m) * self.pixel_m
        top = math.ceil((y[0] + half) / self.pixel_m) * self.pixel_m
        return left, top

    def transform(self, first_row: int = 0) -> Affine:
        """Return pixel to metres for a raster that starts at a row of the place; north is up."""
        left, top = self.corner
        return Affine(self.pixel_m, 0, left, 0, -self.pixel_m, top - first_row * self.pixel_m)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Return the corners of what was seen, in pixels: a square turned inside the square."""
        turn = math.radians(TRACK_DEGREES)
        half = self.n / 2
        reach = half / (abs(math.cos(turn)) + abs(math.sin(turn)))
        square = [(-reach, reach), (reach, reach), (reach, -reach), (-reach, -reach)]
        return [
            (
                half + x * math.cos(turn) - y * math.sin(turn),
                half + x * math.sin(turn) + y * math.cos(turn),
            )
            for x, y in square
        ]

    @cached_property
    def footprint(self) -> dict[str, Any]:
        """Return the GeoJSON polygon of what was seen, in degrees, counter-clockwise, closed."""
        left, top = self.corner
        xs = [left + x * self.pixel_m for x, _ in self.corners]
        ys = [top - y * self.pixel_m for _, y in self.corners]
        lons, lats = rasterio.warp.transform(f"EPSG:{self.epsg}", "EPSG:4326", xs, ys)
        ring = [[round(lon, 6), round(lat, 6)] for lon, lat in zip(lons, lats, strict=True)]
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    def seen(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return which pixels of a window were seen: those between the corners."""
        y = np.arange(rows.start, rows.stop)[:, None] + 0.5
        x = np.arange(columns.start, columns.stop)[None, :] + 0.5
        inside = np.ones((y.size, x.size), bool)
        corners = self.corners
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            inside &= (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0) >= 0
        return inside

    def from_afar(self, n: int) -> Place:
        """Return the same square in *n* by *n* larger pixels."""
        return Place(self.longitude, self.latitude, n, self.pixel_m * self.n / n)

    @cached_property
    def bbox(self) -> list[float]:
        """Return west, south, east, north of the footprint, in degrees."""
        lons, lats = zip(*self.footprint["coordinates"][0], strict=True)
        return [min(lons), min(lats), max(lons), max(lats)]


@dataclass(frozen=True)
class Rasters:
    """The three rasters of a product, as [band, row, column]."""

    toa: NDArray[np.uint16]
    visual: NDArray[np.uint8]
    cloud: NDArray[np.uint8]

    @property
    def cloud_percent(self) -> float:
        """Return how much of what was seen is under cloud or haze."""
        n_seen = int((self.cloud != NO_DATA).sum())
        return round(100.0 * int((self.cloud > CLEAR).sum()) / max(1, n_seen), 1)

    def of(self, kind: str) -> NDArray[Any]:
        """Return the raster that a file name calls TOA, VISUAL or CLOUD."""
        by_kind: dict[str, NDArray[Any]] = {
            "TOA": self.toa,
            "VISUAL": self.visual,
            "CLOUD": self.cloud,
        }
        return by_kind[kind]

    def part(self, top: int, bottom: int) -> Rasters:
        """Return some rows."""
        rows = slice(top, bottom)
        return Rasters(self.toa[:, rows], self.visual[:, rows], self.cloud[:, rows])


def develop(land: Land, place: Place) -> Rasters:
    """Return the rasters of a piece of land as seen from the place's track; 0 where not seen."""
    seen = place.seen(slice(0, place.n), slice(0, place.n))
    toa = np.where(seen, land.bands, 0).astype(np.uint16)
    black = np.asarray(_BLACK, np.float32)[:, None, None]
    shoulder = np.asarray(_SHOULDER, np.float32)[:, None, None]
    light = np.clip((land.bands[[2, 1, 0]] - black) / (shoulder - black), 0, 6)
    tone = 1 - np.exp(np.float32(-1.7) * light ** np.float32(0.85))
    visual = np.where(seen, np.clip(tone * 255, 1, 255), 0).astype(np.uint8)
    cloud = np.where(seen, land.mask, NO_DATA).astype(np.uint8)[None]
    return Rasters(toa, visual, cloud)


def _profile(
    n_bands: int, rows: int, columns: int, dtype: str, place: Place, tile: int
) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "count": n_bands,
        "height": rows,
        "width": columns,
        "dtype": dtype,
        "crs": f"EPSG:{place.epsg}",
        "transform": place.transform(),
        "nodata": 0,
        "tiled": True,
        "blockxsize": tile,
        "blockysize": tile,
        "compress": "lzw",
        "predictor": 2,
        "interleave": "pixel",
        "bigtiff": "if_safer",
    }


_BAND_NAMES: Final = {4: ("Blue", "Green", "Red", "NIR"), 3: ("Red", "Green", "Blue")}


def write_geotiff(
    path: Path, pixels: NDArray[Any], place: Place, *, top: int = 0, tile: int = 256
) -> None:
    """Write a georeferenced raster whose first row is row *top* of the place."""
    n_bands, rows, columns = pixels.shape
    profile = _profile(n_bands, rows, columns, str(pixels.dtype), place, tile)
    profile["transform"] = place.transform(top)
    with rasterio.open(path, "w", **profile) as file:
        _describe(file, n_bands)
        file.write(pixels)
    if n_bands > 1:  # a mask of that size is a few kilobytes, and read whole
        _add_overviews(path, rows)


def _describe(file: Any, n_bands: int) -> None:
    for n, name in enumerate(_BAND_NAMES.get(n_bands, ()), 1):
        file.set_band_description(n, name)
    file.update_tags(TIFFTAG_SOFTWARE="satfs demo", AREA_OR_POINT="Area")


def _add_overviews(path: Path, rows: int) -> None:
    factors = [2**k for k in range(1, 8) if rows / 2**k >= 100]
    if not factors:
        return
    threads = str(os.cpu_count() or 1)
    with (
        rasterio.Env(COMPRESS_OVERVIEW="LZW", PREDICTOR_OVERVIEW="2", GDAL_NUM_THREADS=threads),
        rasterio.open(path, "r+") as file,
    ):
        file.build_overviews(factors, rasterio.enums.Resampling.average)


def write_enlarged(
    path: Path, land: Land, place: Place, seed: int = 0, *, layout: str = "vendor"
) -> None:
    """Write TOA of a place of any size: *land* stretched over it, and a texture of every pixel.

    *layout* is one of `LARGE_LAYOUTS`. Memory does not grow with the size.
    """
    dice = np.random.default_rng(seed)
    texture = dice.normal(1, 0.03, (2 * _STRIPE, 2 * _STRIPE)).astype(np.float32)
    profile = _profile(len(land.bands), place.n, place.n, "uint16", place, _LARGE_TILE)
    profile["num_threads"] = os.cpu_count() or 1
    profile.update(LARGE_LAYOUTS[layout])
    if layout == "cog":
        profile["compress"] = "none"  # it is written once more
    with rasterio.open(path, "w", **profile) as file:
        _describe(file, len(land.bands))
        for rows, columns in _squares(place.n, _STRIPE):
            part = land.window(place.n, rows, columns)
            down, right = (int(n) for n in dice.integers(0, _STRIPE, 2))
            part *= texture[down : down + part.shape[1], right : right + part.shape[2]]
            seen = np.where(place.seen(rows, columns), part, 0).astype(np.uint16)
            file.write(seen, window=Window.from_slices(rows, columns))
    if layout == "cog":
        _make_cog(path)
    else:
        _add_overviews(path, place.n)


def _make_cog(path: Path) -> None:
    """Replace a raster by the same as a cloud-optimised GeoTIFF, overviews in front."""
    plain = path.with_suffix(".plain.tif")
    path.rename(plain)
    options = {
        "blocksize": _LARGE_TILE,
        "compress": "deflate",
        "level": 1,  # the fastest
        "predictor": "yes",
        "resampling": "average",
        "num_threads": os.cpu_count() or 1,
    }
    rasterio.shutil.copy(plain, path, driver="COG", **options)
    plain.unlink()


def _squares(n: int, side: int) -> Iterator[tuple[slice, slice]]:
    starts = range(0, n, side)
    for top in starts:
        for left in starts:
            yield slice(top, min(top + side, n)), slice(left, min(left + side, n))


def seen_from_afar(path: Path, n: int) -> Land:
    """Return a TOA raster in *n* by *n* pixels, its clouds found by their brightness."""
    with rasterio.open(path) as file:
        bands = file.read(out_shape=(4, n, n)).astype(np.float32)
    blue = bands[0]
    mask = np.where(blue > 3200, CLOUD, np.where(blue > 2400, HAZE, CLEAR)).astype(np.uint8)
    return Land(bands, mask)


def write_png(path: Path, visual: NDArray[np.uint8], size: int) -> None:
    """Write an RGB raster as a PNG whose longer side is about *size* pixels; not seen is black."""
    step = max(1, round(max(visual.shape[1:]) / size))
    rows, columns = (length // step * step for length in visual.shape[1:])
    blocks = visual[:, :rows, :columns].reshape(3, rows // step, step, columns // step, step)
    small = blocks.mean((2, 4)).astype(np.uint8) if step > 1 else visual
    path.write_bytes(png(small))


@dataclass(frozen=True)
class Tile:
    """A raster that a VRT shows: its path relative to the VRT, and where its first row belongs."""

    path: str
    rows: int
    columns: int
    top: int = 0


def vrt(tiles: Sequence[Tile], place: Place, n_bands: int, dtype: str) -> str:
    """Return a virtual raster over *tiles*, by relative path."""
    rows = max(tile.top + tile.rows for tile in tiles)
    gdal_type = {"uint16": "UInt16", "uint8": "Byte"}[dtype]
    bands = "".join(
        f'<VRTRasterBand dataType="{gdal_type}" band="{band}"><NoDataValue>0</NoDataValue>'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{tile.path}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{tile.columns}" ySize="{tile.rows}"/>'
            f'<DstRect xOff="0" yOff="{tile.top}" xSize="{tile.columns}" ySize="{tile.rows}"/>'
            "</SimpleSource>"
            for tile in tiles
        )
        + "</VRTRasterBand>"
        for band in range(1, n_bands + 1)
    )
    corner = ", ".join(f"{number:.10g}" for number in place.transform().to_gdal())
    return (
        f'<VRTDataset rasterXSize="{tiles[0].columns}" rasterYSize="{rows}">'
        f"<SRS>EPSG:{place.epsg}</SRS><GeoTransform>{corner}</GeoTransform>{bands}</VRTDataset>\n"
    )
