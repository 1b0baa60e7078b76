"""Geometries of a vendor: checked, boxed, and cut at the antimeridian as RFC 7946 wants it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry import Point, shape

from satfs.facts.geometry import (
    _ROUNDING_DEGREES,
    bbox_of,
    checked_geometry,
    cut_at_antimeridian,
    positions_of,
    rfc7946_geometry,
    shape_of,
)


def _square(west: float, south: float, width: float, height: float) -> dict[str, Any]:
    ring = [
        [west, south],
        [west + width, south],
        [west + width, south + height],
        [west, south + height],
        [west, south],
    ]
    return {"type": "Polygon", "coordinates": [ring]}


def _wrapped(geometry: dict[str, Any]) -> dict[str, Any]:
    """Return a polygon with each longitude in [-180, 180)."""
    rings = [[[(x + 180) % 360 - 180, y] for x, y in ring] for ring in geometry["coordinates"]]
    return {"type": "Polygon", "coordinates": rings}


_SQUARES = st.builds(
    _square,
    st.floats(-179, 179),
    st.floats(-80, 70),
    st.floats(0.01, 20),
    st.floats(0.01, 10),
)


@given(_SQUARES, st.booleans())
def test_cut_at_the_antimeridian_a_square_keeps_its_area_and_its_box(
    square: dict[str, Any], is_wrapped: bool
) -> None:
    """Written with longitudes beyond 180 or with a jump: the same pieces, all within ±180."""
    (west, south), (east, north) = square["coordinates"][0][0], square["coordinates"][0][2]
    given_as = checked_geometry(_wrapped(square) if is_wrapped else square)
    assert given_as is not None
    cut = cut_at_antimeridian(given_as)
    assert all(-180 <= position[0] <= 180 for position in positions_of(cut))
    assert shape(cut).is_valid
    assert shape(cut).area == pytest.approx((east - west) * (north - south), rel=1e-6)
    box = bbox_of(given_as)
    expected = (west, south, east if east <= 180 else east - 360, north)
    assert box == pytest.approx(expected, abs=1e-9)


@given(_SQUARES, st.floats(-180, 180), st.floats(-85, 85))
def test_a_point_lies_in_the_shape_as_on_the_globe(
    square: dict[str, Any], longitude: float, latitude: float
) -> None:
    """Compared with plain arithmetic on angles."""
    (west, south), (east, north) = square["coordinates"][0][0], square["coordinates"][0][2]
    turned = (longitude - west) % 360
    margin = 1e-6
    if min(abs(turned), abs(turned - 360), abs(turned - (east - west))) < margin:
        return
    if min(abs(latitude - south), abs(latitude - north)) < margin:
        return
    is_inside = turned < east - west and south < latitude < north
    checked = checked_geometry(square)
    assert checked is not None
    assert shape_of(checked).contains(Point(longitude, latitude)) == is_inside


@given(_SQUARES, st.booleans())
def test_a_hole_stays_a_hole_across_the_antimeridian(
    square: dict[str, Any], is_wrapped: bool
) -> None:
    """Also one that is on the other side, or whose ring begins there."""
    (west, south), (east, north) = square["coordinates"][0][0], square["coordinates"][0][2]
    width, height = (east - west) / 3, (north - south) / 3
    (hole,) = _square(west + width, south + height, width, height)["coordinates"]
    ring = [*hole[2:], *hole[1:3]]
    holed = {"type": "Polygon", "coordinates": [*square["coordinates"], ring]}
    checked = checked_geometry(_wrapped(holed) if is_wrapped else holed)
    assert checked is not None
    assert shape_of(checked).area == pytest.approx(8 * width * height, rel=1e-6)
    # Corners are rounded, also one that lies next to the equator.
    expected = pytest.approx(bbox_of(checked_geometry(square) or {}), abs=_ROUNDING_DEGREES)
    assert bbox_of(checked) == expected


@given(st.floats(60, 89), st.floats(-180, 180), st.sampled_from([1, -1]), st.sampled_from([1, -1]))
def test_around_a_pole_the_pole_is_inside(
    latitude: float, start: float, hemisphere: int, direction: int
) -> None:
    """Whether longitudes jump or go on beyond 180; the box has all longitudes."""
    steps = [start + direction * 72.0 * n for n in range(6)]
    for longitudes in (steps, [(longitude + 180) % 360 - 180 for longitude in steps]):
        ring = [[longitude, hemisphere * latitude] for longitude in longitudes]
        checked = checked_geometry({"type": "Polygon", "coordinates": [ring]})
        assert checked is not None
        found = shape_of(checked)
        assert found.area == pytest.approx(360 * (90 - latitude))
        assert found.intersects(Point(17, hemisphere * 89.5))
        south, north = sorted((hemisphere * latitude, hemisphere * 90.0))
        assert bbox_of(checked) == pytest.approx((-180, south, 180, north))


@given(
    st.floats(60, 74), st.floats(75, 89), st.floats(-180, 180), st.floats(-540, 540),
    st.sampled_from([1, -1]), st.sampled_from([1, -1]),
)  # fmt: skip
def test_a_hole_around_a_pole_is_a_hole(
    outer: float, inner: float, start: float, start_of_hole: float, hemisphere: int, direction: int
) -> None:
    """Wherever its ring begins: what is left is a band around the pole."""
    rings = [
        [[(start + 72.0 * n + 180) % 360 - 180, hemisphere * outer] for n in range(6)],
        [
            [(start_of_hole + direction * 72.0 * n + 180) % 360 - 180, hemisphere * inner]
            for n in range(6)
        ],
    ]
    checked = checked_geometry({"type": "Polygon", "coordinates": rings})
    assert checked is not None
    found = shape_of(checked)
    assert found.area == pytest.approx(360 * (inner - outer))
    assert not found.contains(Point(17, hemisphere * 89.9))
    south, north = sorted((hemisphere * outer, hemisphere * inner))
    assert bbox_of(checked) == pytest.approx((-180, south, 180, north))


def test_a_ring_that_is_open_is_closed() -> None:
    """Some programs leave the last corner out."""
    square = _square(0, 0, 1, 1)
    square["coordinates"][0].pop()
    checked = checked_geometry(square)
    assert checked is not None
    assert checked["coordinates"][0][0] == checked["coordinates"][0][-1]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"type": "Polygon"},
        {"type": ["Polygon"], "coordinates": []},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Point", "coordinates": [math.nan, 0]},
        {"type": "Point", "coordinates": [0, 91]},
        {"type": "Point", "coordinates": [True, 0]},
        {"type": "Point", "coordinates": [10**400, 0]},
        {"type": "Point", "coordinates": ["0", "0"]},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "MultiPoint", "coordinates": [[0, 0]] * 20_001},
    ],
)
def test_what_is_no_geometry_is_none(value: Any) -> None:
    """It becomes null in a map, and takes nothing else with it."""
    assert checked_geometry(value) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-400, 400) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=40,
)


@given(
    st.sampled_from(
        ["Point", "LineString", "Polygon", "MultiPolygon", "MultiPoint", "MultiLineString"]
    ),
    _JSON,
)
@example("LineString", [[181.0, 0.0]])
@example("MultiLineString", [[[181.0, 0.0]]])
@example("LineString", [[181.0, 0.0], [181.0, 0.0]])
@example("Polygon", [[[181.0, 0.0], [181.0, 0.0], [181.0, 0.0]]])
def test_any_coordinates_are_a_geometry_or_none(kind: str, coordinates: Any) -> None:
    """An accepted geometry is JSON, has a box, and can be cut."""
    checked = checked_geometry({"type": kind, "coordinates": coordinates})
    if checked is None:
        return
    assert json.loads(json.dumps(checked, allow_nan=False)) == checked
    west, south, east, north = bbox_of(checked)
    assert all(map(math.isfinite, (west, south, east, north)))
    assert south <= north
    cut_at_antimeridian(checked)


@given(_SQUARES, st.booleans(), st.booleans(), st.booleans())
def test_outer_rings_go_anticlockwise_and_holes_clockwise(
    square: dict[str, Any], is_turned: bool, is_hole_turned: bool, is_wrapped: bool
) -> None:
    """RFC 7946 §3.1.6, also for the pieces that a cut leaves; shapely judges, and area is kept."""
    (west, south), _, (east, north), *_ = square["coordinates"][0]
    middle = _square(
        west + (east - west) / 4,
        south + (north - south) / 4,
        (east - west) / 2,
        (north - south) / 2,
    )
    rings = [square["coordinates"][0], middle["coordinates"][0]]
    given_as = {
        "type": "Polygon",
        "coordinates": [
            ring[::-1] if is_so else ring
            for ring, is_so in zip(rings, (is_turned, is_hole_turned), strict=True)
        ],
    }
    checked = checked_geometry(_wrapped(given_as) if is_wrapped else given_as)
    assert checked is not None

    found = shape(rfc7946_geometry(checked))

    polygons = list(found.geoms) if found.geom_type == "MultiPolygon" else [found]
    assert all(polygon.exterior.is_ccw for polygon in polygons)
    assert not any(hole.is_ccw for polygon in polygons for hole in polygon.interiors)
    assert found.area == pytest.approx(0.75 * (east - west) * (north - south), rel=1e-6)


def test_a_ring_without_an_inside_has_no_direction() -> None:
    """And what has no rings is as it was."""
    for geometry in (
        {"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [3, 3], [1, 1]]]},
        {"type": "LineString", "coordinates": [[1, 1], [2, 2]]},
    ):
        assert rfc7946_geometry(geometry) == geometry
