"""Records as JSON and GeoJSON bytes: the same bytes for the same record, always valid JSON.

Fields are shown as the vendor sent them, in the order sent, indented for people (`json_bytes`).

GeoJSON is RFC 7946. A footprint that is no geometry is shown as null, which the format allows:
programs that meet one bad geometry refuse the whole file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from satfs.facts.geometry import checked_geometry
from satfs.json_bytes import json_bytes
from satfs.model import Capture, Json, Scene, Task, footprint_in

#: Properties that users of a map want first; scalars of the record follow under their own names.
_LEADING: Final = ("scene_id", "capture_id", "product", "timestamp", "directory")


def record_json(thing: Task | Capture | Scene) -> bytes:
    """Return `task.json`, `capture.json` or `scene.json`: the API's record; a scene's has no link.

    Raises:
        Garbled: the record is nested too deeply to be written.
    """
    return json_bytes(thing.record)


def captures_json(captures: Iterable[Capture]) -> bytes:
    """Return `captures.json`: the records of all *captures* of a task, of every status.

    Raises:
        Garbled: a record is nested too deeply to be written.
    """
    return json_bytes([capture.record for capture in captures])


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
        "geometry": checked_geometry(footprint_in(record)),
        "properties": properties,
    }
