"""The delivery's own STAC item, `*_metadata_stac.geojson`, and its angles. *Pure*.

Every field is checked by itself, and one that makes no sense counts as missing. Items of the
vendor's archive have `proj:epsg` as text, which the projection extension does not allow; items of
STAC 1.1 have `proj:code` and `bands`. Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from posixpath import basename
from typing import Final

from msgspec import Struct, field

from satfs.api.json_document import document
from satfs.api.record_parsers import without_secrets
from satfs.errors import Garbled
from satfs.facts import values
from satfs.facts.geometry import checked_geometry
from satfs.facts.member_kinds import raster_kind
from satfs.facts.record import view_of
from satfs.facts.scene import BandFacts, ViewFacts
from satfs.model import Json

#: Values of one document. An item of 20 assets with eight bands each has 2,000.
MAX_VALUES: Final = 60_000
MAX_BANDS: Final = 1024
MAX_ASSETS: Final = 1000
MAX_PROPERTIES: Final = 64

#: Common names of the eo extension 1.1.0 (and `nir08` and the like, which it lists as well).
COMMON_NAMES: Final = frozenset(
    {"pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071"}
    | {"rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22"}
    | {"lwir", "lwir11", "lwir12"}
)


class VendorItem(Struct, frozen=True):
    """The facts of the delivery's own item; see `SceneFacts` for the fields of the same names.

    `bands` are those of each asset, by the file name of its `href` and by its key.
    """

    geometry: Mapping[str, Json] | None = None
    moment: datetime | None = None
    product: str | None = None
    platform: str | None = None
    constellation: str | None = None
    instruments: tuple[str, ...] = ()
    gsd_m: float | None = None
    cloud_percent: float | None = None
    epsg: int | None = None
    view: ViewFacts = field(default_factory=ViewFacts)
    vendor_properties: Mapping[str, Json] = field(default_factory=dict)
    bands: Mapping[str, tuple[BandFacts, ...]] = field(default_factory=dict)


def read_item(body: bytes) -> VendorItem | None:
    """Return what the item in *body* states; None when it is no STAC item.

    Older deliveries have a collection of items: what all of them state is stated of the delivery.
    """
    item = _item_in(_document(body))
    if item is None:
        return None
    properties = values.fields(item.get("properties"))
    return VendorItem(
        geometry=checked_geometry(item.get("geometry")),
        moment=values.time(properties.get("datetime")),
        product=values.text(properties.get("satl:product_name")),
        platform=values.text(properties.get("platform")),
        constellation=values.text(properties.get("constellation")),
        instruments=values.texts(properties.get("instruments")),
        gsd_m=values.number(properties.get("gsd"), 0.01, 1000),
        cloud_percent=values.number(properties.get("eo:cloud_cover"), 0, 100),
        epsg=values.epsg(properties.get("proj:code")) or values.epsg(properties.get("proj:epsg")),
        view=view_of(properties),
        vendor_properties=_passed_on(properties),
        bands=_bands_of_assets(item.get("assets"), properties.get("eo:bands")),
    )


def read_angles(body: bytes) -> ViewFacts:
    """Return the sun's and the satellite's angles that `*_viewing_angles.geojson` states."""
    collection = _document(body)
    features = collection.get("features")
    feature = features[0] if isinstance(features, list) and features else collection
    properties = values.fields(values.fields(feature).get("properties"))
    sun = values.fields(properties.get("solar"))
    stated = view_of(properties)
    zenith = values.number(sun.get("zenith"), 0, 180)
    elevation = None if zenith is None else 90 - zenith
    return ViewFacts(
        stated.azimuth_deg,
        stated.off_nadir_deg,
        stated.incidence_angle_deg,
        values.first(stated.sun_azimuth_deg, values.azimuth(sun.get("azimuth"))),
        values.first(stated.sun_elevation_deg, elevation),
    )


def bands_of(item: VendorItem | None, name: str, kind: str, n_bands: int) -> tuple[BandFacts, ...]:
    """Return the *n_bands* bands that *item* states for the raster called *name*, of that *kind*.

    Empty when it states none, or another number of them: which is which is not known then.
    """
    if item is None:
        return ()
    found = item.bands.get(name) or item.bands.get(kind) or ()
    return found if len(found) == n_bands else ()


def common_name_of(description: str | None) -> str | None:
    """Return the common name that equals a band's description without regard to case, or None."""
    name = (description or "").strip().lower()
    return name if name in COMMON_NAMES else None


def _document(body: bytes) -> Mapping[str, Json]:
    try:
        return values.fields(without_secrets(document(body, MAX_VALUES)))
    except Garbled:
        return {}


def _item_in(found: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """Return the item that *found* is or holds; of several items, what their properties share."""
    features = found.get("features") if found.get("type") == "FeatureCollection" else [found]
    items = [
        each
        for each in (features if isinstance(features, list) else [])
        if isinstance(each, dict) and each.get("type") == "Feature"
    ]
    if len(items) < 2:
        return items[0] if items else None
    first, *others = [values.fields(each.get("properties")) for each in items]
    shared = {
        key: value
        for key, value in first.items()
        if all(key in each and each[key] == value for each in others)
    }
    return {"type": "Feature", "properties": shared}


def _passed_on(properties: Mapping[str, Json]) -> dict[str, Json]:
    """Return the vendor's own scalars (`satl:…`), and the licence."""
    wanted = (
        (key, value)
        for key, value in properties.items()
        if key.startswith(("satl:", "satl-qa:")) or key in ("license", "grid:code")
    )
    found = [(key, value) for key, value in wanted if values.is_scalar_fit(key, value)]
    return dict(found[:MAX_PROPERTIES])


def _bands_of_assets(assets: Json, at_top: Json) -> dict[str, tuple[BandFacts, ...]]:
    found: dict[str, tuple[BandFacts, ...]] = {}
    if top := _bands(at_top):
        found["analytic"] = top
    if not isinstance(assets, dict) or len(assets) > MAX_ASSETS:
        return found
    for key, asset in assets.items():
        if not isinstance(asset, dict):
            continue
        bands = _bands(asset.get("eo:bands")) or _bands(asset.get("bands"))
        href = asset.get("href")
        if bands and isinstance(href, str) and len(href) <= 1024:
            found[basename(href.partition("?")[0])] = bands
        kind = raster_kind(key)
        if bands and kind is not None:
            found[kind.value] = bands
    return found


def _bands(value: Json) -> tuple[BandFacts, ...]:
    """Return the bands in `eo:bands`, or in `bands` of STAC 1.1."""
    if not isinstance(value, list) or len(value) > MAX_BANDS:
        return ()
    return tuple(_band(values.fields(entry)) for entry in value)


def _band(entry: Mapping[str, Json]) -> BandFacts:
    def either(name: str) -> Json:
        return entry.get(name, entry.get(f"eo:{name}"))

    common = values.text(either("common_name"))
    return BandFacts(
        name=values.text(entry.get("name")),
        common_name=common if common in COMMON_NAMES else None,
        center_wavelength_um=values.number(either("center_wavelength"), 0.1, 100),
        full_width_half_max_um=values.number(either("full_width_half_max"), 0.0001, 100),
    )
