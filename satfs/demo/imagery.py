"""Drawn land as the vendor's rasters: tiled LZW GeoTIFFs with overviews, PNG previews, VRTs."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from satfs.demo.georeference import Place
from satfs.demo.terrain import CLEAR, CLOUD, HAZE, NO_DATA, Reflectance
from satfs.errors import Unsupported

try:
    import numpy as np
    import rasterio
    import rasterio.shutil
    from numpy.typing import NDArray
    from rasterio.windows import Window
except ImportError as missing:
    raise Unsupported(f"the demo's imagery needs {missing.name}: install satfs[demo]") from missing

#: A large raster: the side of its tiles, and of what is made at once (whole tiles), in pixels.
_LARGE_TILE: Final = 512
_STRIPE: Final = 1024
#: Size of a large raster on disk per pixel, in bytes, overviews and empty borders included.
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
        raster: NDArray[Any] = getattr(self, kind.lower())
        return raster

    def part(self, top: int, bottom: int) -> Rasters:
        """Return some rows."""
        rows = slice(top, bottom)
        return Rasters(self.toa[:, rows], self.visual[:, rows], self.cloud[:, rows])


def develop(land: Reflectance, place: Place) -> Rasters:
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


#: The order of the bands of TOA as land is drawn, and of VISUAL.
TOA_ORDER: Final = ("Blue", "Green", "Red", "NIR")
VISUAL_ORDER: Final = ("Red", "Green", "Blue")
#: How a raster tells which pixels were not seen: 0 is the value without data; VISUAL has a band of
#: opacity; each raster has a mask of its own; TOA is of floats, of which NaN is the value; not at
#: all. Those that a way is not for do not tell.
Unseen: TypeAlias = Literal["zero", "alpha", "mask", "nan", "untold"]


def write_geotiff(
    path: Path,
    pixels: NDArray[Any],
    place: Place,
    *,
    top: int = 0,
    left: int = 0,
    tile: int = 256,
    bands: Sequence[str] = (),
    has_rpc: bool = False,
    unseen: Unseen = "zero",
) -> None:
    """Write a georeferenced raster whose first pixel is row *top*, column *left* of the place.

    *bands* are the descriptions of the bands; by default those of a raster with as many bands as
    the land has. With *has_rpc* rational polynomials take the place of the coordinate system.
    """
    names = bands or {4: TOA_ORDER, 3: VISUAL_ORDER}.get(len(pixels), ())
    seen = np.any(pixels, axis=0)
    if unseen == "nan" and len(pixels) == len(TOA_ORDER):
        pixels = np.where(seen, pixels, np.nan).astype(np.float32)
    if unseen == "alpha" and len(pixels) == len(VISUAL_ORDER):
        pixels, names = np.concatenate([pixels, 255 * seen[None]]).astype(np.uint8), (*names, "")
    n_bands, rows, columns = pixels.shape
    profile = _profile(n_bands, rows, columns, str(pixels.dtype), place, tile)
    profile["transform"] = place.transform(top, left)
    if has_rpc:
        del profile["transform"], profile["crs"]
        profile["rpcs"] = place.rpc(rows, columns, top)
    if unseen != "zero":
        profile["nodata"] = np.nan if pixels.dtype == np.float32 else None
    if pixels.dtype == np.float32:
        profile["predictor"] = 3
    if n_bands > len(TOA_ORDER) - 1 and pixels.dtype == np.uint8:
        profile.update(photometric="rgb", alpha="yes")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as file,
    ):
        _describe(file, names)
        file.write(pixels)
        if unseen == "mask":
            file.write_mask(seen)
    if n_bands > 1:  # a mask of that size is a few kilobytes, and read whole
        _add_overviews(path, rows)


def _describe(file: Any, bands: Sequence[str]) -> None:
    for n, name in enumerate(bands, 1):
        if name:
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


def write_enlarged(path: Path, land: Reflectance, place: Place, *, layout: str = "vendor") -> None:
    """Write TOA of a place of any size: *land* stretched over it, and a texture of every pixel.

    *layout* is one of `LARGE_LAYOUTS`. Memory does not grow with the size.
    """
    rng = np.random.default_rng(0)
    texture = rng.normal(1, 0.03, (2 * _STRIPE, 2 * _STRIPE)).astype(np.float32)
    profile = _profile(len(land.bands), place.n, place.n, "uint16", place, _LARGE_TILE)
    profile["num_threads"] = os.cpu_count() or 1
    profile.update(LARGE_LAYOUTS[layout])
    if layout == "cog":
        profile["compress"] = "none"  # it is written once more
    with rasterio.open(path, "w", **profile) as file:
        _describe(file, TOA_ORDER)
        for rows, columns in _squares(place.n, _STRIPE):
            part = land.window(place.n, rows, columns)
            down, right = (int(n) for n in rng.integers(0, _STRIPE, 2))
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


def seen_from_afar(path: Path, n: int) -> Reflectance:
    """Return a TOA raster in *n* by *n* pixels, its clouds found by their brightness."""
    with rasterio.open(path) as file:
        bands = file.read(out_shape=(4, n, n)).astype(np.float32)
    blue = bands[0]
    mask = np.where(blue > 3200, CLOUD, np.where(blue > 2400, HAZE, CLEAR)).astype(np.uint8)
    return Reflectance(bands, mask)


def write_png(path: Path, visual: NDArray[np.uint8], size: int, *, border: float = 0.0) -> None:
    """Write an RGB raster as a PNG whose longer side is about *size* pixels; not seen is black.

    Left and right of it are black borders of a share *border* of its width each.
    """
    step = max(1, round(max(visual.shape[1:]) / size))
    rows, columns = (length // step * step for length in visual.shape[1:])
    blocks = visual[:, :rows, :columns].reshape(3, rows // step, step, columns // step, step)
    small = blocks.mean((2, 4)).astype(np.uint8) if step > 1 else visual
    width = round(small.shape[2] * border)
    path.write_bytes(png(np.pad(small, ((0, 0), (0, 0), (width, width)))))


@dataclass(frozen=True)
class Tile:
    """A raster in a VRT: its path relative to the VRT, and where its first pixel belongs."""

    path: str
    rows: int
    columns: int
    top: int = 0
    left: int = 0


def vrt(
    tiles: Sequence[Tile],
    place: Place,
    n_bands: int,
    dtype: str,
    *,
    has_rpc: bool = False,
    unseen: Unseen = "zero",
) -> str:
    """Return a virtual raster over *tiles*, by relative path.

    With *has_rpc* rational polynomials take the place of the coordinate system.
    """
    rows = max(tile.top + tile.rows for tile in tiles)
    columns = max(tile.left + tile.columns for tile in tiles)
    gdal_type = {"uint16": "UInt16", "uint8": "Byte", "float32": "Float32"}[dtype]
    no_data = "0" if unseen == "zero" else "nan" if dtype == "float32" else None
    stated = "" if no_data is None else f"<NoDataValue>{no_data}</NoDataValue>"
    bands = "".join(
        f'<VRTRasterBand dataType="{gdal_type}" band="{band}">{stated}'
        + "".join(_vrt_source(tile, band) for tile in tiles)
        + "</VRTRasterBand>"
        for band in range(1, n_bands + 1)
    )
    if has_rpc:
        items = place.rpc(rows, columns).to_gdal().items()
        where = (
            '<Metadata domain="RPC">'
            + "".join(f'<MDI key="{key}">{value}</MDI>' for key, value in items)
            + "</Metadata>"
        )
    else:
        corner = ", ".join(f"{number:.10g}" for number in place.transform().to_gdal())
        where = f"<SRS>EPSG:{place.epsg}</SRS><GeoTransform>{corner}</GeoTransform>"
    size = f'rasterXSize="{columns}" rasterYSize="{rows}"'
    return f"<VRTDataset {size}>{where}{bands}</VRTDataset>\n"


def _vrt_source(tile: Tile, band: int) -> str:
    size = f'xSize="{tile.columns}" ySize="{tile.rows}"'
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="1">{tile.path}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{tile.left}" yOff="{tile.top}" {size}/>'
        "</SimpleSource>"
    )


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture, given as [band, row, column], as the bytes of a PNG file (RFC 2083).

    GDAL's own writer warns of a picture that has no place on Earth.
    """
    _, rows, columns = pixels.shape
    lines = np.moveaxis(pixels, 0, -1).reshape(rows, columns * 3)
    filtered = np.empty((rows, columns * 3 + 1), np.uint8)
    filtered[:, 0] = 2  # each row as its difference to the one above, which packs better
    filtered[0, 1:] = lines[0]
    filtered[1:, 1:] = lines[1:] - lines[:-1]
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    # Level 3 is a twentieth larger than the default, and three times as quick.
    body = zlib.compress(filtered.tobytes(), 3)
    chunks = _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
