"""One delivered product: its rasters, metadata and previews, packed as the vendor packs them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from satfs.demo.archives import DEFLATED, STORED, Member, ZipForm, write_zip
from satfs.demo.georeference import Place
from satfs.demo.imagery import (
    LARGE_BYTES_PER_PIXEL,
    TOA_ORDER,
    VISUAL_ORDER,
    Rasters,
    Tile,
    Unseen,
    develop,
    seen_from_afar,
    vrt,
    write_enlarged,
    write_geotiff,
    write_png,
)
from satfs.demo.terrain import Reflectance

#: Overlap of neighbouring frames of an L1C product, as a share of their height (documented: 10 %).
_OVERLAP: Final = 0.12
#: Side of VISUAL and CLOUD beside a large TOA, in pixels.
_AFAR_PIXELS: Final = 1000
#: Common name, centre and width in micrometres of each band, by its description.
_BANDS: Final = {
    "Blue": ("blue", 0.48, 0.06),
    "Green": ("green", 0.55, 0.07),
    "Red": ("red", 0.65, 0.06),
    "NIR": ("nir08", 0.83, 0.13),
}
#: The name of a raster of each kind in the layout without a directory `rasters/`.
_TILE_NAMES: Final = {"TOA": "analytic", "VISUAL": "visual", "CLOUD": "cloud"}


@dataclass(frozen=True)
class Packing:
    """How a product is packed: compression of rasters and of the rest, and the archive's make."""

    rasters: int = STORED
    rest: int = STORED
    make: ZipForm = field(default_factory=ZipForm)


#: Ways a vendor might pack, by name.
PACKINGS: Final = {
    "stored": Packing(),
    "deflated": Packing(DEFLATED, DEFLATED),
    "mixed": Packing(STORED, DEFLATED),
    "zip64": Packing(make=ZipForm(zip64=True)),
    "folder": Packing(STORED, DEFLATED),  # its folder is named after the scene
    "streamed": Packing(
        DEFLATED, DEFLATED, ZipForm(descriptors=True, comment=b"delivered by demo")
    ),
    # As some programs write zips, though the format does not have them do it.
    "absolute": Packing(STORED, DEFLATED, ZipForm(absolute=True)),
    "directories": Packing(DEFLATED, DEFLATED, ZipForm(directories=True)),
    "zeros": Packing(STORED, DEFLATED, ZipForm(zeros_bytes=32 * 1024)),
}


@dataclass(frozen=True)
class DeliveryForm:
    """The form of the files of a delivery, in any packing.

    `order`: the bands of TOA. `n_tiles`: as many rasters a side and kind, by zone, column and row,
    beside the documents; 0: one for each frame, in `rasters/`. `extension`: of rasters. `has_rpc`:
    rational polynomials take the place of the coordinate system. `border`: of the previews, left
    and right, as a share of the picture's width. `unseen`: how rasters tell what was not seen.
    """

    order: tuple[str, ...] = TOA_ORDER
    n_tiles: int = 0
    extension: str = ".tif"
    has_rpc: bool = False
    border: float = 0.0
    unseen: Unseen = "zero"


_RED_FIRST: Final = ("Red", "Green", "Blue", "NIR")
#: Forms that deliveries have been seen in, by name.
FORMS: Final = {
    "frames": DeliveryForm(),
    "red first": DeliveryForm(order=_RED_FIRST),
    "tiles": DeliveryForm(order=_RED_FIRST, n_tiles=2),
    "upper case tiles": DeliveryForm(order=_RED_FIRST, n_tiles=2, extension=".TIF", border=0.25),
    "rpc": DeliveryForm(order=_RED_FIRST, has_rpc=True, border=0.25),
}
#: Forms that no delivery has been seen in, and that its formats allow.
INVENTED_FORMS: Final = {
    "alpha": DeliveryForm(unseen="alpha"),
    "masks": DeliveryForm(unseen="mask"),
    "floats": DeliveryForm(unseen="nan"),
    "no value without data": DeliveryForm(unseen="untold"),
}


@dataclass(frozen=True)
class Product:
    """The source of a scene's files."""

    scene_id: str
    level: str
    moment: datetime
    satellite: int
    place: Place
    land: Reflectance = field(repr=False)
    n_frames: int = 1
    packing: str = "stored"
    tile: int = 256
    form: DeliveryForm = field(default_factory=DeliveryForm)

    @property
    def stem(self) -> str:
        """Return what the files inside are named after: the scene's id without the task's."""
        return re.sub(r"_MS_\d+$", "_MS", self.scene_id)

    @cached_property
    def rasters(self) -> Rasters:
        """Return what the place's pixels show, TOA in the form's order of bands."""
        drawn = develop(self.land, self.place)
        return replace(drawn, toa=drawn.toa[[TOA_ORDER.index(name) for name in self.form.order]])

    @property
    def path_of_toa(self) -> str:
        """Return the path of the first raster of TOA inside the delivery."""
        if self.form.n_tiles:
            return self.tile_path("TOA", 0, 0)
        return self.frame_path("TOA", 0)

    def frame_path(self, kind: str, number: int) -> str:
        """Return the path of a frame's raster inside the delivery."""
        return f"rasters/{self.stem}_{kind}_{number}{self.form.extension}"

    def tile_path(self, kind: str, column: int, row: int) -> str:
        """Return the path of a tile inside the delivery."""
        zone = f"{self.place.epsg % 100}{'N' if self.place.latitude >= 0 else 'S'}"
        name = f"{self.stem}_{zone}_{column}_{row}_{_TILE_NAMES[kind]}"
        return name + self.form.extension


def write_product(
    product: Product, directory: Path, *, toa_bytes: int = 0, layout: str = "vendor"
) -> Product:
    """Write `delivery.zip`, `preview.png` and `thumbnail.png` into an existing directory.

    With *toa_bytes* the TOA raster is enlarged until it takes about that many bytes, laid out as
    *layout* (one of `imagery.LARGE_LAYOUTS`), and the others show the same ground in larger pixels.
    Returns the product with that ground.
    """
    work = directory / "work"
    (work / "rasters").mkdir(parents=True)
    if toa_bytes:
        product, tiles = _write_large(product, work, toa_bytes, layout)
    elif product.form.n_tiles:
        tiles = _write_tiles(product, work)
    else:
        tiles = _write_frames(product, work, ("TOA", "VISUAL", "CLOUD"))
    stem = product.stem
    for kind, n_bands, dtype in (
        ("TOA", 4, "float32" if product.form.unseen == "nan" else "uint16"),
        ("VISUAL", 3, "uint8"),
        ("CLOUD", 1, "uint8"),
    ):
        columns = max(tile.left + tile.columns for tile in tiles[kind])
        over = product.place.from_afar(columns)
        form = product.form
        text = vrt(tiles[kind], over, n_bands, dtype, has_rpc=form.has_rpc, unseen=form.unseen)
        (work / f"{stem}_{kind}.vrt").write_text(text)
    for name, size in (("preview", 900), ("thumbnail", 220)):
        picture = work / f"{stem}_{name}.png"
        write_png(picture, product.rasters.visual, size, border=product.form.border)
    for name, value in _documents(product).items():
        (work / f"{stem}_{name}").write_text(json.dumps(value, indent=2) + "\n")
    _pack(product, work, directory / "delivery.zip")
    for name in ("preview", "thumbnail"):
        shutil.copyfile(work / f"{stem}_{name}.png", directory / f"{name}.png")
    shutil.rmtree(work)
    return product


def _frames(n_rows: int, n_frames: int) -> list[tuple[int, int]]:
    """Return the rows [top, bottom) of each frame; neighbours overlap."""
    height = n_rows / (n_frames - (n_frames - 1) * _OVERLAP)
    step = height * (1 - _OVERLAP)
    tops = [round(k * step) for k in range(n_frames)]
    return [(top, min(n_rows, round(top + height))) for top in tops]


def _write_frames(product: Product, work: Path, kinds: Sequence[str]) -> dict[str, list[Tile]]:
    """Write the rasters of some kinds, one for each frame; return where each belongs."""
    place, form = product.place, product.form
    tiles: dict[str, list[Tile]] = {kind: [] for kind in kinds}
    for number, (top, bottom) in enumerate(_frames(place.n, product.n_frames)):
        part = product.rasters.part(top, bottom)
        for kind in kinds:
            path = product.frame_path(kind, number)
            write_geotiff(
                work / path,
                part.of(kind),
                place,
                top=top,
                tile=product.tile,
                bands=_order(product, kind),
                has_rpc=form.has_rpc,
                unseen=form.unseen,
            )
            tiles[kind].append(Tile(path, bottom - top, place.n, top))
    return tiles


def _write_tiles(product: Product, work: Path) -> dict[str, list[Tile]]:
    """Write the rasters of all kinds, cut into columns and rows; return where each belongs."""
    place, n = product.place, product.form.n_tiles
    edges = [round(k * place.n / n) for k in range(n + 1)]
    tiles: dict[str, list[Tile]] = {kind: [] for kind in _TILE_NAMES}
    for row, (top, bottom) in enumerate(pairwise(edges)):
        part = product.rasters.part(top, bottom)
        for column, (left, right) in enumerate(pairwise(edges)):
            for kind in _TILE_NAMES:
                path = product.tile_path(kind, column, row)
                write_geotiff(
                    work / path,
                    part.of(kind)[:, :, left:right],
                    place,
                    top=top,
                    left=left,
                    tile=product.tile,
                    bands=_order(product, kind),
                    unseen=product.form.unseen,
                )
                tiles[kind].append(Tile(path, bottom - top, right - left, top, left))
    return tiles


def _order(product: Product, kind: str) -> tuple[str, ...]:
    """Return the descriptions of the bands of a raster; of a mask none."""
    return {"TOA": product.form.order, "VISUAL": VISUAL_ORDER}.get(kind, ())


def _write_large(
    product: Product, work: Path, toa_bytes: int, layout: str
) -> tuple[Product, dict[str, list[Tile]]]:
    """Write one TOA raster of about *toa_bytes*, and the other rasters of what it shows."""
    place, path = product.place, f"rasters/{product.stem}_TOA_0.tif"
    side = max(place.n, int((toa_bytes / LARGE_BYTES_PER_PIXEL) ** 0.5))
    place = Place(place.longitude, place.latitude, side, place.pixel_m)
    write_enlarged(work / path, product.land, place, layout=layout)
    n = min(side, _AFAR_PIXELS)
    product = replace(product, place=place.from_afar(n), land=seen_from_afar(work / path, n))
    tiles = _write_frames(product, work, ("VISUAL", "CLOUD"))
    return product, {"TOA": [Tile(path, side, side)], **tiles}


def _documents(product: Product) -> dict[str, Any]:
    place, moment = product.place, product.moment
    off_nadir = 4.0 + (moment.second * 7 + product.satellite) % 21
    common = {
        "datetime": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "view:azimuth": 101.3,
        "view:off_nadir": off_nadir,
        "view:incidence_angle": round(off_nadir * 1.09, 1),
        "view:sun_azimuth": 78.0,
        "view:sun_elevation": 61.5,
    }
    keys = ("name", "common_name", "center_wavelength", "full_width_half_max")
    bands = [dict(zip(keys, (name, *_BANDS[name]), strict=True)) for name in product.form.order]
    stac = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": product.scene_id,
        "bbox": place.bbox,
        "geometry": place.footprint,
        "properties": {
            **common,
            "gsd": round(place.pixel_m, 2),
            "platform": f"newsat{product.satellite}",
            "constellation": "Aleph1",
            "instruments": ["ms"],
            "license": "proprietary",
            "proj:epsg": None if product.form.has_rpc else place.epsg,
            "eo:cloud_cover": product.rasters.cloud_percent,
            "satl:sat_id": f"newsat{product.satellite}",
            "satl:product_name": product.level,
            "satl:product_version": "2.0.1",
            "satl:satellite_generation": "MarkIV",
        },
        "assets": {
            "analytic": {
                "href": product.path_of_toa,
                "type": "image/tiff; application=geotiff",
                "eo:bands": bands,
            }
        },
    }
    factors = {name: round(2.1e-5 * (1 + k / 9), 8) for k, name in enumerate(_BANDS)}
    angles = {
        "type": "Feature",
        "geometry": place.footprint,
        "properties": {
            "datetime": common["datetime"],
            "solar": {"azimuth": 78.0, "zenith": 28.5},
            "satellite": {"azimuth": 101.3, "zenith": common["view:incidence_angle"]},
        },
    }
    return {
        "metadata_stac.geojson": stac,
        "toa_factors.json": {"toa_factors": factors, "unit": "reflectance per count"},
        "solar_and_viewing_angles.geojson": {"type": "FeatureCollection", "features": [angles]},
    }


def _in_order(stem: str, names: Sequence[str]) -> list[str]:
    """Return member names as the vendor lists them: documents, previews, VRTs, rasters."""
    ends = ("_metadata_stac.geojson", ".png", ".json", "_angles.geojson", ".vrt", ".tif")
    rank = {
        name: next(n for n, end in enumerate(ends) if name.lower().endswith(end)) for name in names
    }
    return sorted(names, key=lambda name: (rank[name], name))


def _pack(product: Product, work: Path, target: Path) -> None:
    packing = PACKINGS[product.packing]
    make = packing.make
    if product.packing == "folder":
        make = ZipForm(folder=f"{product.scene_id}/")
    modified_s = int(product.moment.timestamp()) + 4 * 3600
    names = [str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()]
    members = [
        Member(
            name,
            work / name,
            packing.rasters if name.lower().endswith(".tif") else packing.rest,
            modified_s,
        )
        for name in _in_order(product.stem, names)
    ]
    with target.open("wb") as file:
        write_zip(file, members, make)
