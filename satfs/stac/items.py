"""A scene as a STAC item, in a mount or for a file at another place. *Pure*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from satfs.facts.geometry import rfc7946_geometry
from satfs.facts.scene import SceneFacts
from satfs.model import Json, names_in
from satfs.stac.assets import SceneFiles, assets_of, href, path_of

STAC_VERSION: Final = "1.1.0"
_BASE: Final = "https://stac-extensions.github.io"
#: Each extension, and how its fields begin. Projection 1.2.0 is the only version that knows both
#: `proj:code` and `proj:epsg`, and readers of today want either; eo 1.1.0 is the last one that
#: knows `eo:bands`.
_EXTENSIONS: Final = (
    ("proj:", f"{_BASE}/projection/v1.2.0/schema.json"),
    ("eo:", f"{_BASE}/eo/v1.1.0/schema.json"),
    ("view:", f"{_BASE}/view/v1.0.0/schema.json"),
    ("file:", f"{_BASE}/file/v2.1.0/schema.json"),
    ("raster:", f"{_BASE}/raster/v2.0.0/schema.json"),
    ("processing:", f"{_BASE}/processing/v1.2.0/schema.json"),
)
#: A scene without any time was taken between these: nothing narrower is known (STAC wants either a
#: moment or both ends of an interval).
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(2200, 1, 1, tzinfo=UTC)


class ItemPlace(Struct, frozen=True):
    """The place of an item, which decides its links; see `satfs.stac` for `root`.

    The addresses are relative. `collection_id` is given if and only if `collection` is. An item
    without any link is valid as well.
    """

    root: str | None = None
    parent: str | None = None
    collection: str | None = None
    collection_id: str | None = None
    task_id: str | None = None


def collection_id(task_id: str) -> str:
    """Return the id of a task's collection."""
    return f"task-{task_id}"


def item_of(facts: SceneFacts, files: SceneFiles, place: ItemPlace) -> dict[str, Any]:
    """Return the STAC item of a scene whose files are *files*, at *place*."""
    properties = _properties(facts, place)
    assets = assets_of(facts, files)
    geometry = None if facts.geometry is None else rfc7946_geometry(facts.geometry)
    used = {*properties, *(name for asset in assets.values() for name in asset)}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [
            address
            for prefix, address in _EXTENSIONS
            if any(name.startswith(prefix) for name in used)
        ],
        "id": facts.scene_id,
        "geometry": geometry,
    }
    if facts.bbox is not None and geometry is not None:
        item["bbox"] = list(facts.bbox)
    item |= {"properties": properties, "links": _links(place), "assets": assets}
    if place.collection_id is not None:
        item["collection"] = place.collection_id
    return item


def time_text(moment: datetime) -> str:
    """Return a moment in UTC as RFC 3339 has it, to the microsecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def json_link(rel: str, address: str, title: str | None = None) -> dict[str, str]:
    """Return a link to a STAC object."""
    media_type = "application/geo+json" if rel == "item" else "application/json"
    link = {"rel": rel, "href": address, "type": media_type}
    return link if title is None else {**link, "title": title}


def _links(place: ItemPlace) -> list[dict[str, str]]:
    links = (("root", place.root), ("parent", place.parent), ("collection", place.collection))
    return [json_link(rel, address) for rel, address in links if address is not None]


def _properties(facts: SceneFacts, place: ItemPlace) -> dict[str, Any]:
    view = facts.view
    known: dict[str, Any] = {
        **_times(facts.moment),
        "platform": facts.platform,
        "constellation": facts.constellation,
        "instruments": list(facts.instruments) or None,
        "gsd": facts.gsd_m,
        "eo:cloud_cover": facts.cloud_percent,
        "view:azimuth": view.azimuth_deg,
        "view:off_nadir": view.off_nadir_deg,
        "view:incidence_angle": view.incidence_angle_deg,
        "view:sun_azimuth": view.sun_azimuth_deg,
        "view:sun_elevation": view.sun_elevation_deg,
        "processing:level": facts.product,
        "satl:product_name": facts.product,
        "satl:outcome_id": facts.capture_id,
        "satl:task_id": place.task_id,
    }
    properties = {name: value for name, value in known.items() if value is not None}
    if "datetime" not in properties:
        properties = {"datetime": None, **properties}
    if facts.epsg is not None:
        properties |= {"proj:code": f"EPSG:{facts.epsg}", "proj:epsg": facts.epsg}
    elif facts.rasters and all(raster.transform is None for raster in facts.rasters):
        properties["proj:code"] = None  # rasters that are not in a map projection: L1C with RPC
    for name, value in facts.vendor_properties.items():
        properties.setdefault(name, "other" if (name, value) == _OLD_LICENSE else value)
    return properties


#: STAC 1.1 calls `other` what 1.0 called `proprietary`.
_OLD_LICENSE: Final = ("license", "proprietary")


def _times(moment: datetime | None) -> dict[str, str]:
    if moment is not None:
        return {"datetime": time_text(moment)}
    return {"start_datetime": time_text(_BEGINNING), "end_datetime": time_text(_END)}


def relocated(item: Mapping[str, Json], directory: Iterable[str], mountpoint: str | None) -> Json:
    """Return *item*, a file in *directory* of a mount, for a file at another place.

    *directory* are the names below the mountpoint. With *mountpoint* addresses are absolute paths,
    as GDAL and GeoPandas open them; without, they are relative to the mountpoint. Of the links only
    that to the collection is kept, which STAC demands of an item that has one.
    """
    names = list(directory)

    def moved(address: str) -> str:
        return _moved(address, names, mountpoint)

    assets = {key: {**asset, "href": moved(asset["href"])} for key, asset in item["assets"].items()}
    links = [
        {**link, "href": moved(link["href"])}
        for link in item["links"]
        if link["rel"] == "collection"
    ]
    return {**item, "assets": assets, "links": links}


def item_collection(items: Iterable[Json]) -> dict[str, Any]:
    """Return *items* as a collection of features, which GDAL's STACIT and GIS programs open."""
    return {"type": "FeatureCollection", "features": list(items)}


def _moved(address: str, directory: list[str], mountpoint: str | None) -> str:
    """Return a relative *address* of a file in *directory*, relative to the mountpoint or absolute.

    An absolute one is a path of the file system, without the escapes of an address.
    """
    names = names_in(path_of(address), directory)
    if mountpoint is None:
        return href(*names)
    return f"{mountpoint.rstrip('/')}/{'/'.join(names)}"
