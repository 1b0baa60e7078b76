"""Records as JSON and GeoJSON bytes: the same bytes for the same record, always valid JSON.

Fields are shown as the vendor sent them, in the order sent, indented for people (`json_bytes`).

GeoJSON is RFC 7946. A footprint that is no geometry is shown as null, which the format allows, so
that one odd scene does not hide the others from a map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from satfs.json_bytes import json_bytes
from satfs.model import Capture, Json, Scene, Task

_GEOMETRIES: Final = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
)
#: Properties that users of a map want first; scalars of the record follow under their own names.
_LEADING: Final = ("scene_id", "capture_id", "product", "timestamp", "directory")


def task_json(task: Task) -> bytes:
    """Return `task.json`: the API's record of *task*.

    Raises:
        Garbled: the record is nested too deeply to be written.
    """
    return json_bytes(task.record)


def captures_json(captures: Iterable[Capture]) -> bytes:
    """Return `captures.json`: the records of all *captures* of a task, of every status.

    Raises:
        Garbled: a record is nested too deeply to be written.
    """
    return json_bytes([capture.record for capture in captures])


def capture_json(capture: Capture) -> bytes:
    """Return `capture.json`: the API's record of *capture*.

    Raises:
        Garbled: the record is nested too deeply to be written.
    """
    return json_bytes(capture.record)


def scene_json(scene: Scene) -> bytes:
    """Return `scene.json`: the API's record of *scene*, which holds no link.

    Raises:
        Garbled: the record is nested too deeply to be written.
    """
    return json_bytes(scene.record)


def footprint_geojson(scene: Scene) -> bytes:
    """Return `footprint.geojson`: *scene* as one GeoJSON feature.

    Raises:
        Garbled: the footprint is nested too deeply to be written.
    """
    return json_bytes(_feature(scene, None))


def footprints_geojson(scenes: Iterable[tuple[Scene, str]]) -> Iterator[bytes]:
    """Yield `footprints.geojson`, feature by feature, for each *(scene, name of its directory)*.

    Raises:
        Garbled: a footprint is nested too deeply to be written.
    """
    yield b'{\n  "type": "FeatureCollection",\n  "features": ['
    between = b"\n    "
    for scene, directory in scenes:
        yield between + json_bytes(_feature(scene, directory))[:-1].replace(b"\n", b"\n    ")
        between = b",\n    "
    yield b"]\n}\n" if between == b"\n    " else b"\n  ]\n}\n"


def _feature(scene: Scene, directory: str | None) -> dict[str, Json]:
    record = dict(scene.record.items())  # once: a record is decoded each time
    timestamp = record.get("timestamp")
    properties: dict[str, Json] = {
        "scene_id": scene.scene_id,
        "capture_id": scene.capture_id,
        "product": scene.product_name,
        "timestamp": timestamp if isinstance(timestamp, str | int | float) else None,
    }
    if directory is not None:
        properties["directory"] = directory
    # GIS programs make columns of scalars; a nested object would be a column of text.
    properties |= {
        name: value
        for name, value in record.items()
        if name not in _LEADING and (value is None or isinstance(value, str | int | float))
    }
    return {
        "type": "Feature",
        "id": scene.scene_id,
        "geometry": _geometry(record.get("footprint", record.get("geometry"))),
        "properties": properties,
    }


def _geometry(footprint: object) -> Json:
    """Return *footprint* if it is a GeoJSON geometry, else None."""
    if not isinstance(footprint, Mapping) or footprint.get("type") not in _GEOMETRIES:
        return None
    coordinates = footprint.get("coordinates")
    if not isinstance(coordinates, list) or not _are_positions(coordinates):
        return None
    return {"type": footprint["type"], "coordinates": coordinates}


def _are_positions(coordinates: list[Any]) -> bool:
    """Return whether all leaves are numbers that exist; waits for no recursion however deep."""
    pending: list[Any] = [coordinates]
    while pending:
        here = pending.pop()
        if isinstance(here, list):
            pending.extend(here)
        elif isinstance(here, bool) or not isinstance(here, int | float) or not _is_finite(here):
            return False
    return True


def _is_finite(number: int | float) -> bool:
    return isinstance(number, int) or math.isfinite(number)
