"""The scenes of a task as pictures and outlines: `index.html` with `map.js`, and GeoJSON. *Pure*.

The page is the same for every task, and needs no network: Leaflet, its style and the outlines of
the continents are in it. The data of a task is in `map.js`, a classic script, since a page
that was opened from a file may load no other data.

A preview is laid on the map only where its place is certain: the extent of the rasters is known,
and the picture has the same shape (vendors add borders). The page compares the shapes when the
picture has been loaded; here is what it compares with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import quote

from satfs.facts.geometry import positions_of, rfc7946_geometry
from satfs.facts.scene import MemberKind, RasterFacts
from satfs.imagery.utm import degrees_of
from satfs.json_bytes import json_bytes
from satfs.model import Json
from satfs.views.scene_view import SceneView, newest_last, time_text

#: Decimal places of degrees: a centimetre, a hundredth of a pixel.
_PLACES: Final = 7
#: How exactly frames and tiles of one picture have to share a grid, in pixels.
_SAME_GRID: Final = 0.01


@cache
def page() -> bytes:
    """Return `index.html`. Reads the parts of the page from the package the first time."""
    style = _part("leaflet.css") + _part("gallery.css")
    library = _part("leaflet.js").partition("\n//# sourceMappingURL=")[0]
    scripts = [library, f"window.satfsLand = {_part('land-110m.json')};", _part("gallery.js")]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    text = _part("index.html")
    for mark, content in {
        "{{licences}}": _licences(),
        "{{hashes}}": hashes,
        "{{style}}": style,
        "{{library}}": scripts[0],
        "{{land}}": scripts[1],
        "{{gallery}}": scripts[2],
    }.items():
        text = text.replace(mark, content, 1)
    return text.encode()


def map_script(
    task_id: str, task_name: str | None, scenes: Sequence[SceneView], n_unknown: int = 0
) -> bytes:
    """Return `map.js`: the task and its scenes, newest first.

    *n_unknown* of the scenes are known by their records alone; the page shows that number.

    Raises:
        Garbled: a geometry is nested too deeply to be written.
    """
    task: Json = {"id": task_id, "name": task_name}
    shown: list[Json] = [_scene(scene) for scene in reversed(newest_last(scenes))]
    return script_of("satfsTask", {"task": task, "unknown": n_unknown, "scenes": shown})


def script_of(variable: str, value: Json) -> bytes:
    """Return a script that sets a global *variable*; text in *value* ends no script.

    `<` is in strings alone, where an escape means the same; `json_bytes` escapes the line
    separators that older browsers end a line at.
    """
    text = json_bytes(value).replace(b"<", b"\\u003c").rstrip()
    return f"window.{variable} = ".encode() + text + b";\n"


def _part(name: str) -> str:
    return (resources.files("satfs.views") / "page" / name).read_text("utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _licences() -> str:
    texts = [_part(f"{name}.LICENSE").replace("--", "- -") for name in ("leaflet", "world-atlas")]
    return "\n\n".join(texts)


def _scene(scene: SceneView) -> Json:
    facts = scene.facts

    def address(path: str | None) -> str | None:
        return None if path is None else _address(path)

    return {
        "id": facts.scene_id,
        "directory": _address(scene.directory + "/"),
        "preview": address(scene.picture(MemberKind.PREVIEW, MemberKind.THUMBNAIL)),
        "thumbnail": address(scene.picture(MemberKind.THUMBNAIL, MemberKind.PREVIEW)),
        "delivery": address(scene.delivery and f"{scene.directory}/{scene.delivery}"),
        "time": time_text(facts.moment),
        "product": facts.product,
        "platform": facts.platform,
        "clouds": facts.cloud_percent,
        "gsd": facts.gsd_m,
        "offNadir": facts.view.off_nadir_deg,
        "outline": _outline(scene),
        "points": _points(scene),
        "place": _place(scene),
    }


def _address(path: str) -> str:
    """Return a relative path as a URL; it begins with a directory's name, so it has no scheme."""
    return quote(path.encode("utf-8", "surrogatepass"), safe="/")


def _outline(scene: SceneView) -> Json:
    """Return rings of [latitude, longitude] by polygon, as Leaflet has them; None without one."""
    geometry = scene.facts.geometry
    if geometry is None:
        return None
    coordinates = geometry["coordinates"]
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(str(geometry["type"]))
    if not isinstance(polygons, list):
        return None
    return [[[_point(*position[:2]) for position in ring] for ring in rings] for rings in polygons]


def _points(scene: SceneView) -> Json:
    """Return [latitude, longitude] of each position of points and lines; None for an area."""
    geometry = scene.facts.geometry
    if geometry is None or geometry["type"] in ("Polygon", "MultiPolygon"):
        return None
    return [_point(*position[:2]) for position in positions_of(geometry)]


def _place(scene: SceneView) -> Json:
    """Return the place of a scene's picture: its width divided by its height, and three corners.

    The corners are the upper left, upper right and lower left one. None where they are not known.
    """
    rasters = scene.facts.rasters_of(MemberKind.VISUAL)
    rasters = rasters or scene.facts.rasters_of(MemberKind.ANALYTIC)
    grid = _common_grid(rasters)
    if grid is None:
        return None
    epsg, left, top, right, bottom, aspect = grid
    corners = [degrees_of(epsg, *corner) for corner in ((left, top), (right, top), (left, bottom))]
    shown = [_point(*corner) for corner in corners if corner is not None]
    return {"aspect": round(aspect, 5), "corners": shown} if len(shown) == 3 else None


def _common_grid(
    rasters: Sequence[RasterFacts],
) -> tuple[int, float, float, float, float, float] | None:
    """Return EPSG, left, top, right, bottom and aspect of rasters on one grid."""
    boxes = list(_boxes(rasters))
    if not boxes or len(boxes) < len(rasters):
        return None
    epsg, step_x, step_y, left, top, _, _ = boxes[0]
    for other_epsg, other_x, other_y, other_left, other_top, _, _ in boxes:
        if (other_epsg, other_x, other_y) != (epsg, step_x, step_y):
            return None
        for offset in ((other_left - left) / step_x, (other_top - top) / step_y):
            if abs(offset - round(offset)) > _SAME_GRID:
                return None
    left, top = min(box[3] for box in boxes), max(box[4] for box in boxes)
    right, bottom = max(box[5] for box in boxes), min(box[6] for box in boxes)
    aspect = ((right - left) / step_x) / ((bottom - top) / step_y)
    return epsg, left, top, right, bottom, aspect


def _boxes(
    rasters: Sequence[RasterFacts],
) -> Iterator[tuple[int, float, float, float, float, float, float]]:
    """Yield EPSG, pixel size and edges of each raster that has a grid whose north is up."""
    for raster in rasters:
        if raster.transform is None or raster.epsg is None or not raster.width or not raster.height:
            continue
        a, b, c, d, e, f = raster.transform
        if not b and not d and a > 0 > e:
            yield raster.epsg, a, e, c, f, c + a * raster.width, f + e * raster.height


def _point(longitude: float, latitude: float) -> list[Json]:
    """Return [latitude, longitude], as Leaflet has it."""
    return [round(float(latitude), _PLACES), round(float(longitude), _PLACES)]


def footprints_of(scenes: Sequence[SceneView]) -> bytes:
    """Return `footprints.geojson`: one feature for each of *scenes*, by time (RFC 7946).

    Geometries are cut at the antimeridian, and rings turned the right way. `datetime` is text in
    ISO 8601, which GDAL and QGIS take for a field of time. A scene whose place is not known has a
    null geometry.

    Raises:
        Garbled: a geometry is nested too deeply to be written.
    """
    features: list[Json] = [_feature(scene) for scene in newest_last(scenes)]
    return json_bytes({"type": "FeatureCollection", "features": features})


def _feature(scene: SceneView) -> dict[str, Json]:
    facts = scene.facts
    geometry = None if facts.geometry is None else rfc7946_geometry(facts.geometry)
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
    return {"type": "Feature", "id": facts.scene_id, "geometry": geometry, "properties": properties}
