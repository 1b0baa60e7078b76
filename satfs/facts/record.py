"""Facts of a scene from the API's record alone. *Pure*.

The vendor documents some fields of a record (`scene_id`, `productname`, `satellite_name`,
`timestamp`, `footprint`). Clouds and angles are looked up in the record and in its `metadata`,
under the names of the vendor's own STAC items and under plain ones.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from satfs.facts import values
from satfs.facts.geometry import bbox_of, checked_geometry
from satfs.facts.scene import SceneFacts, ViewFacts
from satfs.model import Json, Scene

#: `20260128_155747_636_SN33_L1D_SR_MS_341271`: day, time, milliseconds where there are some,
#: satellite, product.
_SCENE_ID: Final = re.compile(
    r"(\d{8})_(\d{6})(?:_(\d{3}))?_SN(\d{1,4})_(L\d[A-Z]{0,8}(?:_SR)?)(?:_|$)"
)
_CLOUDS: Final = ("eo:cloud_cover", "cloud_percent", "cloud_cover", "cloud_coverage")


def facts_of_record(scene: Scene) -> SceneFacts:
    """Return what the record of *scene* states.

    Time, satellite and product that it does not state are taken from an id that has the form of the
    vendor's.
    """
    # `items` once: each access to a record decodes it.
    fields = dict(scene.record.items())
    record: Mapping[str, Json] = ChainMap(fields, dict(values.fields(fields.get("metadata"))))
    geometry = checked_geometry(scene.footprint)
    by_id = _of_id(scene.scene_id)
    return SceneFacts(
        scene_id=scene.scene_id,
        capture_id=scene.capture_id,
        product=values.text(scene.product_name) or by_id.product,
        geometry=geometry,
        bbox=None if geometry is None else bbox_of(geometry),
        moment=scene.timestamp or by_id.moment,
        platform=values.text(record.get("satellite_name"))
        or values.text(record.get("platform"))
        or by_id.platform,
        constellation=values.text(record.get("constellation")),
        instruments=values.texts(record.get("instruments")),
        gsd_m=values.number(record.get("gsd"), 0.01, 1000),
        cloud_percent=values.first_number(record, _CLOUDS, 0, 100),
        view=view_of(record),
    )


def view_of(record: Mapping[str, Json]) -> ViewFacts:
    """Return the angles in a record, or in the properties of a STAC item."""

    def angle(name: str, least: float, most: float) -> float | None:
        keys = (f"view:{name}", name, f"{name}_angle")
        return values.first_number(record, keys, least, most)

    def azimuth(name: str) -> float | None:
        return values.first(*(values.azimuth(record.get(key)) for key in (f"view:{name}", name)))

    return ViewFacts(
        azimuth_deg=azimuth("azimuth"),
        off_nadir_deg=angle("off_nadir", 0, 90),
        incidence_angle_deg=values.first_number(
            record, ("view:incidence_angle", "incidence_angle"), 0, 90
        ),
        sun_azimuth_deg=azimuth("sun_azimuth"),
        sun_elevation_deg=angle("sun_elevation", -90, 90),
    )


class _Stated(Struct, frozen=True):
    """The facts in an id."""

    moment: datetime | None = None
    platform: str | None = None
    product: str | None = None


def _of_id(scene_id: str) -> _Stated:
    """Return what an id of the vendor's form states."""
    match = _SCENE_ID.match(scene_id)
    if match is None:
        return _Stated()
    day, clock, milliseconds, satellite, product = match.groups()
    try:
        at = datetime.strptime(day + clock, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return _Stated()
    at = at.replace(microsecond=1000 * int(milliseconds or 0))
    return _Stated(at, f"newsat{int(satellite)}", product)
