"""`footprints.geojson`: the outlines of a whole task, with times, for a map. *Pure*.

RFC 7946: longitudes and latitudes, cut at the antimeridian. `datetime` is text in ISO 8601, which
GDAL and QGIS take for a field of time. A scene whose place is not known has a null geometry.
"""

from __future__ import annotations

from collections.abc import Sequence

from satfs.facts.geometry import cut_at_antimeridian
from satfs.json_bytes import json_bytes
from satfs.model import Json
from satfs.views.scene_view import SceneView, newest_last, time_text


def footprints_of(scenes: Sequence[SceneView]) -> bytes:
    """Return one feature for each of *scenes*, by time.

    Raises:
        Garbled: a geometry is nested too deeply to be written.
    """
    features: list[Json] = [_feature(scene) for scene in newest_last(scenes)]
    return json_bytes({"type": "FeatureCollection", "features": features})


def _feature(scene: SceneView) -> dict[str, Json]:
    facts = scene.facts
    geometry = None if facts.geometry is None else dict(cut_at_antimeridian(facts.geometry))
    properties: dict[str, Json] = {
        "scene_id": facts.scene_id,
        "capture_id": facts.capture_id,
        "datetime": time_text(facts.moment),
        "product": facts.product,
        "platform": facts.platform,
        "cloud_percent": facts.cloud_percent,
        "gsd_m": facts.gsd_m,
        "off_nadir_deg": facts.view.off_nadir_deg,
        "sun_elevation_deg": facts.view.sun_elevation_deg,
        "epsg": facts.epsg,
        "directory": scene.directory,
    }
    return {
        "type": "Feature",
        "id": facts.scene_id,
        "geometry": geometry,
        "properties": properties,
    }
