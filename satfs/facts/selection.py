"""Conditions on scenes in the words that imagery people use. *Pure*.

    bbox=-58.5,-34.7,-58.3,-34.5    intersects={"type":"Polygon",…}    cloud<20    off-nadir<=25
    from=2026-01-15    to=2026-02-01T12:00:00Z    product=L1D_SR

Conditions are judged by facts, of the record alone or of the delivery, too. A fact that is not
known fulfils no condition: a scene without a footprint is in no area. `is_stated` tells apart what
facts deny from what they do not state.

`plain_condition` turns conditions that only the user's own program can resolve, since they name a
file or the present moment (`intersects=FILE.geojson`, `since 7 days`), into the ones above.
"""

from __future__ import annotations

import json
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from satfs.api.json_document import document
from satfs.errors import BadSettings, Garbled
from satfs.facts import values
from satfs.facts.geometry import MAX_POSITIONS, checked_geometry, positions_of, shape_of
from satfs.facts.scene import SceneFacts

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

#: The words, and the operators that each may have.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "bbox": ("=",),
    "intersects": ("=",),
    "cloud": ("<", "<=", ">", ">=", "=", "!="),
    "off-nadir": ("<", "<=", ">", ">=", "=", "!="),
    "from": ("=",),
    "to": ("=",),
    "product": ("=", "!=", "~"),
}
#: Largest file of an area, in bytes, and how many values it may hold.
MAX_AREA_BYTES: Final = 4 * 1024 * 1024
_MAX_AREA_VALUES: Final = 300_000

#: Operators of conditions that compare.
COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SINCE: Final = re.compile(
    r"\s*since\s*(?:=\s*)?(\d{1,5})\s*(minute|hour|day|week|month|year)s?\s*", re.IGNORECASE
)
_HOURS: Final = {"minute": 1 / 60, "hour": 1, "day": 24, "week": 168, "month": 730, "year": 8766}
#: A date as the API writes it.
DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_FILE: Final = re.compile(r"\s*intersects\s*=\s*(?!\s*\{)(.+?)\s*", re.DOTALL)


#: The fact that each word of a selection is about.
_FACTS: Final[Mapping[str, Callable[[SceneFacts], object | None]]] = {
    "bbox": lambda facts: facts.geometry,
    "intersects": lambda facts: facts.geometry,
    "cloud": lambda facts: facts.cloud_percent,
    "off-nadir": lambda facts: facts.view.off_nadir_deg,
    "from": lambda facts: facts.moment,
    "to": lambda facts: facts.moment,
    "product": lambda facts: facts.product,
}


@dataclass(frozen=True, slots=True)
class SceneCondition:
    """One condition; made by `scene_condition`."""

    name: str
    holds: Callable[[SceneFacts], bool] = field(repr=False)

    def is_stated(self, facts: SceneFacts) -> bool:
        """Return whether *facts* have that which the condition is about."""
        return _FACTS[self.name](facts) is not None


def scene_condition(name: str, sign: str, value: str) -> SceneCondition | None:
    """Return the condition that a field, an operator and a value are; None for another field.

    Raises:
        BadSettings: the field is one of `FIELDS`, and the rest makes no sense.
    """
    if name not in FIELDS:
        return None
    if sign not in FIELDS[name]:
        raise BadSettings(f"--where {name}: the operator is one of {' '.join(FIELDS[name])}")
    if name == "bbox":
        return SceneCondition(name, _overlaps(_box(value)))
    if name == "intersects":
        return SceneCondition(name, _overlaps(_area(value)))
    if name in ("from", "to"):
        return SceneCondition(name, _by_time(name, value))
    if name == "product":
        return SceneCondition(name, _by_product(sign, value))
    return SceneCondition(name, _by_number(name, sign, value))


def plain_condition(text: str, now: datetime, read: Callable[[Path], bytes]) -> str:
    """Return *text* without what depends on the user's machine: a file, and the present moment.

    `since 7 days` becomes a date before *now*; `intersects=FILE` the geometry in that file, which
    *read* returns. Any other text is returned as it is.

    Raises:
        BadSettings: the file cannot be read, or holds no geometry.
    """
    if (since := _SINCE.fullmatch(text)) is not None:
        hours = int(since[1]) * _HOURS[since[2].lower()]
        try:
            start = now - timedelta(hours=hours)
        except OverflowError:
            raise BadSettings(f"--where {text!r} lies too far back") from None
        return f"from={start.astimezone(UTC).isoformat()}"
    if (file := _FILE.fullmatch(text)) is not None:
        geometry = area_of_file(file[1], read)
        return f"intersects={json.dumps(geometry, separators=(',', ':'))}"
    return text


def area_of_file(name: str, read: Callable[[Path], bytes]) -> Mapping[str, Any]:
    """Return the geometry in a GeoJSON file: a geometry, a feature, or a collection of features.

    Raises:
        BadSettings: the file cannot be read, is too large, or holds no polygon, line or point.
    """
    try:
        body = read(Path(os.path.expanduser(name)))
    except OSError as failure:
        raise BadSettings(f"{name} cannot be read: {failure.strerror}") from failure
    if len(body) > MAX_AREA_BYTES:
        raise BadSettings(f"{name} is larger than {MAX_AREA_BYTES // 2**20} MiB: simplify it")
    try:
        value = document(body, _MAX_AREA_VALUES)
    except Garbled:
        raise BadSettings(f"{name} is no GeoJSON") from None
    found = [geometry for geometry in map(checked_geometry, _geometries(value)) if geometry]
    if not found:
        raise BadSettings(f"{name} holds no geometry in degrees (GeoJSON, RFC 7946)")
    if len(found) == 1:
        return found[0]
    return _united(found)


def _geometries(value: Any) -> list[Any]:
    if not isinstance(value, Mapping):
        return []
    if value.get("type") == "Feature":
        return _geometries(value.get("geometry"))
    key = {"FeatureCollection": "features", "GeometryCollection": "geometries"}.get(
        str(value.get("type"))
    )
    if key is None:
        return [value]
    entries = value.get(key)
    if not isinstance(entries, list):
        return []
    # One level: a collection in a collection is not looked into.
    return [e.get("geometry") if key == "features" else e for e in entries if isinstance(e, dict)]


def _united(geometries: list[dict[str, Any]]) -> Mapping[str, Any]:
    import shapely
    from shapely.geometry import mapping

    united = shapely.union_all([shape_of(geometry) for geometry in geometries])
    found = checked_geometry(json.loads(json.dumps(mapping(united))))
    if found is None:
        raise BadSettings(
            "an area may be made of polygons, lines or points, and not of several of these, with"
            f" at most {MAX_POSITIONS} corners"
        )
    return found


def _box(value: str) -> Mapping[str, Any]:
    """Return the area of `west,south,east,north`; west is greater across the antimeridian."""
    numbers = [values.number(part.strip()) for part in value.split(",")]
    if len(numbers) != 4 or None in numbers:
        raise BadSettings("--where bbox takes west,south,east,north in degrees")
    west, south, east, north = (float(number or 0) for number in numbers)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise BadSettings("--where bbox: longitudes are -180 to 180, latitudes -90 to 90")
    boxes = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in boxes
        ],
    }


def _area(value: str) -> Mapping[str, Any]:
    try:
        geometry = checked_geometry(document(value.encode(), _MAX_AREA_VALUES))
    except (Garbled, UnicodeEncodeError):
        geometry = None
    if geometry is None:
        raise BadSettings("--where intersects takes a GeoJSON file, or a geometry of GeoJSON")
    return geometry


def _overlaps(area: Mapping[str, Any]) -> Callable[[SceneFacts], bool]:
    """Return whether a footprint and *area* share a point; the area is prepared once, at need."""
    prepared: list[BaseGeometry] = []

    def holds(facts: SceneFacts) -> bool:
        import shapely

        if facts.geometry is None:
            return False
        if not prepared:
            # Each box of a bbox is on one side of the antimeridian: nothing has to be cut.
            shape = shape_of(area) if any(True for _ in positions_of(area)) else None
            if shape is None:
                return False
            shapely.prepare(shape)
            prepared.append(shape)
        return bool(prepared[0].intersects(shape_of(facts.geometry)))

    return holds


def _by_time(name: str, value: str) -> Callable[[SceneFacts], bool]:
    """Return whether a scene was taken at or after (`from`), or before the end of (`to`), a time.

    A day without a time is a day of UTC, and belongs to both.
    """
    moment = values.time(value)
    if moment is None:
        raise BadSettings(f"--where {name} takes a date such as 2026-01-15 or 2026-01-15T12:00:00Z")
    is_day = DAY.fullmatch(value) is not None
    if name == "from":
        return lambda facts: facts.moment is not None and facts.moment >= moment
    if is_day:
        after = moment + timedelta(days=1)
        return lambda facts: facts.moment is not None and facts.moment < after
    return lambda facts: facts.moment is not None and facts.moment <= moment


def _by_product(sign: str, value: str) -> Callable[[SceneFacts], bool]:
    wanted = value.casefold()

    def holds(facts: SceneFacts) -> bool:
        if facts.product is None:
            return False
        product = facts.product.casefold()
        return wanted in product if sign == "~" else (product == wanted) == (sign == "=")

    return holds


def _by_number(name: str, sign: str, value: str) -> Callable[[SceneFacts], bool]:
    limit = values.number(value.removesuffix("%").strip())
    if limit is None:
        raise BadSettings(f"--where {name} takes a number, not {value!r}")
    compare = COMPARISONS[sign]

    def holds(facts: SceneFacts) -> bool:
        known = facts.cloud_percent if name == "cloud" else facts.view.off_nadir_deg
        return known is not None and compare(known, limit)

    return holds
