"""GeoJSON geometries from a vendor: checked, boxed, and cut at the antimeridian. *Pure*.

Geometry itself is shapely's business. It is imported when a geometry crosses the antimeridian or is
compared with another one: a mount that lists directories does without.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast

from satfs.facts.scene import Bbox
from satfs.model import Json

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

#: The nesting depth of positions in each type (RFC 7946 §3.1).
_DEPTHS: Final = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
#: Limit of positions of one geometry. A footprint has five, the outline of a coast some thousands;
#: to cut one ring of this size takes about 50 ms, and 4,000 rings half a second to two.
MAX_POSITIONS: Final = 20_000
#: Longitudes beyond 180 are how a vendor may write what crosses the antimeridian.
_MAX_LONGITUDE: Final = 540.0
#: Positions of the shortest line (RFC 7946 §3.1.4), and of the shortest closed ring (§3.1.6).
_MIN_LINE: Final = 2
_MIN_RING: Final = 4
#: Pieces that are this near each other touch: a tenth of a millimetre, which sums of floats lose.
_ROUNDING_DEGREES: Final = 1e-9


def checked_geometry(value: Json) -> dict[str, Json] | None:
    """Return *value* if it is a GeoJSON geometry in degrees, with type and coordinates only.

    An open ring is closed. None for anything else: another type, a collection, a number that is not
    finite, a ring of fewer than three corners, a line of one position, more than `MAX_POSITIONS`.
    """
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type")
    depth = _DEPTHS.get(kind) if isinstance(kind, str) else None
    if depth is None:
        return None
    coordinates = _checked(value.get("coordinates"), depth)
    if coordinates is None:
        return None
    if kind in ("Polygon", "MultiPolygon"):
        polygons = [coordinates] if kind == "Polygon" else coordinates
        closed = [[_closed(ring) for ring in polygon] for polygon in polygons]
        if any(len(ring) < _MIN_RING for polygon in closed for ring in polygon):
            return None
        coordinates = closed[0] if kind == "Polygon" else closed
    elif kind in ("LineString", "MultiLineString"):
        lines = [coordinates] if kind == "LineString" else coordinates
        if min(map(len, lines)) < _MIN_LINE:
            return None
    geometry = {"type": kind, "coordinates": coordinates}
    n_positions = sum(1 for _ in positions_of(geometry))
    return geometry if n_positions <= MAX_POSITIONS else None


def bbox_of(geometry: Mapping[str, Json]) -> Bbox:
    """Return the box around a checked geometry; see `Bbox` for one across the antimeridian."""
    boxes = [_box(part) for part in _parts(cut_at_antimeridian(geometry))]
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    west, east = _narrowest([(box[0], box[2]) for box in boxes])
    return west, south, east, north


def cut_at_antimeridian(geometry: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return a checked geometry with longitudes in -180 to 180, cut where it crosses ±180.

    So RFC 7946 §3.1.9 wants it. A step of more than 180 degrees between two corners is taken for a
    crossing. A geometry that does not cross is returned as it is. A ring around a pole gets the
    pole as an edge, since in degrees a pole is a line.
    """
    lines = _lines(geometry)
    unwrapped = [_unwrapped(line) for line in lines]
    longitudes = [position[0] for line in unwrapped for position in line]
    if lines == unwrapped and all(-180 <= longitude <= 180 for longitude in longitudes):
        return geometry
    if geometry["type"] in ("Polygon", "MultiPolygon"):
        unwrapped = [_closed_over_pole(ring) for ring in unwrapped]
    return _cut(geometry, unwrapped)


def rfc7946_geometry(geometry: Mapping[str, Json]) -> dict[str, Json]:
    """Return a checked geometry as RFC 7946 has it: cut, shells anticlockwise, holes clockwise.

    See `cut_at_antimeridian`. Readers that follow §3.1.6 to the letter take a ring in the other
    direction for all of the globe but the inside.
    """
    found = cut_at_antimeridian(geometry)
    match found["type"]:
        case "Polygon":
            return {**found, "coordinates": _turned(found["coordinates"])}
        case "MultiPolygon":
            return {**found, "coordinates": [_turned(rings) for rings in found["coordinates"]]}
        case _:
            return dict(found)


def _turned(rings: Sequence[Sequence[Sequence[float]]]) -> list[list[Sequence[float]]]:
    """Return the rings of a polygon, the first one anticlockwise and its holes clockwise."""
    return [
        list(reversed(ring)) if area and (area > 0) == bool(number) else list(ring)
        for number, ring in enumerate(rings)
        for area in [_signed_area(ring)]
    ]


def _signed_area(ring: Sequence[Sequence[float]]) -> float:
    """Return twice the area within a closed ring, negative where it goes clockwise."""
    x, y = ring[0][:2]  # small numbers, so that small rings keep their digits
    return math.fsum(
        (here[0] - x) * (after[1] - y) - (after[0] - x) * (here[1] - y)
        for here, after in pairwise(ring)
    )


def shape_of(geometry: Mapping[str, Json]) -> BaseGeometry:
    """Return a checked geometry as shapely's, cut at the antimeridian and valid."""
    import shapely
    from shapely.geometry import shape

    found = shape(cut_at_antimeridian(geometry))
    return found if found.is_valid else shapely.make_valid(found)


def positions_of(geometry: Mapping[str, Json]) -> Iterator[Sequence[float]]:
    """Yield the positions of a checked geometry, in order."""
    for line in _lines(geometry):
        yield from line


def _checked(value: Json, depth: int) -> list[Any] | None:
    """Return a position (depth 0), or nested lists of them; None when it is anything else."""
    if not isinstance(value, list | tuple):
        return None
    if depth == 0:
        return _position(value)
    inner = []
    for item in value:
        found = _checked(item, depth - 1)
        if found is None:
            return None
        inner.append(found)
    return inner or None


def _position(value: Sequence[Json]) -> list[float] | None:
    if not 2 <= len(value) <= 4:
        return None
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
        # An integer beyond a float is no coordinate, and math would raise.
        if abs(number) > 1e9 or not math.isfinite(number):
            return None
    longitude, latitude = value[0], value[1]
    if abs(longitude) > _MAX_LONGITUDE or abs(latitude) > 90:
        return None
    return list(value[:3])


def _closed(ring: list[list[float]]) -> list[list[float]]:
    return ring if ring[0] == ring[-1] else [*ring, ring[0]]


def _lines(geometry: Mapping[str, Json]) -> list[list[list[float]]]:
    """Return the lines, rings or single positions that a geometry is made of."""
    coordinates = cast(list[Any], geometry["coordinates"])
    match geometry["type"]:
        case "Point":
            return [[coordinates]]
        case "MultiPoint":
            return [[position] for position in coordinates]
        case "LineString":
            return [coordinates]
        case "MultiLineString" | "Polygon":
            return coordinates
        case _:
            return [ring for polygon in coordinates for ring in polygon]


def _parts(geometry: Mapping[str, Json]) -> list[list[list[float]]]:
    """Return the lines of each part on one side of the antimeridian."""
    if geometry["type"] == "MultiPolygon":
        return [[p for ring in polygon for p in ring] for polygon in geometry["coordinates"]]
    if geometry["type"] == "Polygon":
        return [[p for ring in geometry["coordinates"] for p in ring]]
    return _lines(geometry)


def _box(positions: Sequence[Sequence[float]]) -> Bbox:
    longitudes = [float(position[0]) for position in positions]
    latitudes = [float(position[1]) for position in positions]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _narrowest(spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the narrowest span of longitudes that holds all *spans*, over ±180 if need be.

    The span crosses ±180 only when parts touch that meridian on both sides.
    """
    ordered = sorted(spans)
    west, east = ordered[0][0], max(stop for _, stop in ordered)
    if west > -180 or east < 180:
        return west, east
    widest, begin, end = _ROUNDING_DEGREES, west, east
    reach = ordered[0][1]
    for start, stop in ordered[1:]:
        if start - reach > widest:
            widest, begin, end = start - reach, start, reach
        reach = max(reach, stop)
    return begin, end


def _unwrapped(line: list[list[float]]) -> list[list[float]]:
    """Return a line whose longitudes never step by more than 180 degrees, kept around its start."""
    turns = 0
    found = [line[0]]
    for before, here in pairwise(line):
        step = here[0] - before[0]
        if step > 180:
            turns -= 1
        elif step < -180:
            turns += 1
        found.append([here[0] + 360 * turns, *here[1:]] if turns else here)
    return found


def _closed_over_pole(ring: list[list[float]]) -> list[list[float]]:
    """Return an unwrapped ring, closed along the pole that it goes around, if it does."""
    first, last = ring[0], ring[-1]
    if first[0] == last[0]:
        return ring
    pole = math.copysign(90.0, sum(position[1] for position in ring))
    return [*ring, [last[0], pole, *last[2:]], [first[0], pole, *first[2:]], first]


def _cut(geometry: Mapping[str, Json], lines: list[list[list[float]]]) -> Mapping[str, Json]:
    """Return *geometry*, whose unwrapped lines are *lines*, cut at the antimeridian.

    Each ring is cut by itself: a hole need not be unwrapped beside its shell.
    """
    import shapely
    from shapely.geometry import LineString, Point, Polygon, mapping

    match geometry["type"]:
        case "Point" | "MultiPoint":
            cut = _between_antimeridians([Point(line[0]) for line in lines])
        case "LineString" | "MultiLineString":
            cut = _between_antimeridians([LineString(line) for line in lines])
        case kind:
            polygons = geometry["coordinates"]
            rest = iter(_between_antimeridians([Polygon(line) for line in lines]))
            cut = [
                _without_holes([next(rest) for _ in rings])
                for rings in ([polygons] if kind == "Polygon" else polygons)
            ]
    joined = _of_dimension(shapely.union_all(cut), max(map(shapely.get_dimensions, cut)))
    # Through JSON, which has lists where shapely has tuples.
    found = checked_geometry(json.loads(json.dumps(mapping(joined))))
    return geometry if found is None else found


def _between_antimeridians(unwrapped: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Return *unwrapped* shapes in longitudes of -180 to 180.

    All at once in shapely: one by one, 20,000 positions would take seconds.
    """
    import shapely
    from shapely.geometry import box

    shapes = shapely.make_valid(unwrapped)
    west, _, east, _ = shapely.total_bounds(shapes)
    pieces = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360) + 1):
        inside = shapely.intersection(shapes, box(-180 + 360 * turn, -90, 180 + 360 * turn, 90))
        by = [360 * turn, 0]
        pieces.append(shapely.transform(inside, lambda points, by=by: points - by))
    return list(shapely.union_all(pieces, axis=0))


def _without_holes(rings: list[BaseGeometry]) -> BaseGeometry:
    """Return the first of some areas without the others."""
    import shapely

    shell, *holes = (_of_dimension(ring, 2) for ring in rings)
    if not holes:
        return shell
    return shapely.difference(shell, shapely.union_all(holes), grid_size=_ROUNDING_DEGREES)


def _of_dimension(joined: BaseGeometry, wanted: int) -> BaseGeometry:
    """Return the parts of *joined* that have the dimension *wanted*: no lines beside polygons."""
    import shapely

    if joined.geom_type != "GeometryCollection":
        return joined
    parts = [part for part in joined.geoms if shapely.get_dimensions(part) == wanted]
    return shapely.union_all(parts)
