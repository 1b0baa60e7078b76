"""STAC items for a file elsewhere: addresses that lead back to the mount. *Pure*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from satfs.model import Json
from satfs.stac.assets import href, path_of


def relocated(item: Mapping[str, Json], directory: Iterable[str], mountpoint: str | None) -> Json:
    """Return *item*, which lies in *directory* of a mount, for a file at another place.

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
    parts = list(directory)
    for name in path_of(address).split("/"):
        if name == "..":
            parts.pop()
        elif name not in ("", "."):
            parts.append(name)
    if mountpoint is None:
        return href(*parts)
    return f"{mountpoint.rstrip('/')}/{'/'.join(parts)}"
