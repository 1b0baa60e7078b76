"""Conditions on scenes, compared with computations of another kind."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import BadSettings
from satfs.facts.scene import SceneFacts, ViewFacts
from satfs.facts.selection import FIELDS, plain_condition, scene_condition
from satfs.model import SceneId

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)


def _facts(**fields: Any) -> SceneFacts:
    return SceneFacts(SceneId("x"), **fields)


def _holds(facts: SceneFacts, text: str) -> bool:
    name, sign, value = next(
        (text[: text.index(sign)], sign, text[text.index(sign) + len(sign) :])
        for sign in ("<=", ">=", "!=", "<", ">", "=", "~")
        if sign in text
    )
    condition = scene_condition(name, sign, value)
    assert condition is not None
    return condition.holds(facts)


def _convex(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the hull of *points*, counter-clockwise (Andrew's monotone chain)."""
    ordered = sorted(set(points))

    def half(each: list[tuple[float, float]]) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        for point in each:
            while len(found) > 1 and _turn(found[-2], found[-1], point) <= 0:
                found.pop()
            found.append(point)
        return found[:-1]

    return half(ordered) + half(ordered[::-1])


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _are_apart(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    """Return whether a line separates two convex polygons (theorem of the separating axis)."""
    for polygon in (one, other):
        for a, b in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            normal = (a[1] - b[1], b[0] - a[0])
            spans = [[normal[0] * x + normal[1] * y for x, y in each] for each in (one, other)]
            if max(spans[0]) < min(spans[1]) or max(spans[1]) < min(spans[0]):
                return True
    return False


_POINTS = st.lists(
    st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=3, max_size=8, unique=True
)


def _polygon(corners: list[tuple[float, float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[list(c) for c in [*corners, corners[0]]]]}


@given(_POINTS, _POINTS)
def test_areas_meet_as_an_independent_computation_says(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    """Random convex polygons: shapely's answer is that of the theorem of the separating axis."""
    first, second = _convex(one), _convex(other)
    if min(len(first), len(second)) < 3:
        return
    facts = _facts(geometry=_polygon(first))
    found = _holds(facts, "intersects=" + json.dumps(_polygon(second)))
    assert found == (not _are_apart(first, second))


@given(st.floats(-179, 179), st.floats(-80, 70), st.floats(0.1, 30), st.floats(0.1, 10), st.data())
def test_a_box_meets_a_footprint_as_intervals_say(
    west: float, south: float, width: float, height: float, data: st.DataObject
) -> None:
    """Also across the antimeridian, where west is greater than east."""
    x, y = data.draw(st.floats(-179, 179)), data.draw(st.floats(-80, 70))
    ring = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1], [x, y]]
    east = west + width
    east = east if east <= 180 else east - 360
    gap = min((x - west) % 360 - width, (west - x) % 360 - 1)
    if abs(gap) < 1e-6 or min(abs(y - south - height), abs(south - y - 1)) < 1e-6:
        return
    meets = ((x - west) % 360 < width or (west - x) % 360 < 1) and (
        y < south + height and south < y + 1
    )
    facts = _facts(geometry={"type": "Polygon", "coordinates": [ring]})
    assert _holds(facts, f"bbox={west},{south},{east},{south + height}") == meets


def test_numbers_dates_and_products() -> None:
    """Clouds, angles, dates and products compare as people mean them; days are days of UTC."""
    facts = _facts(
        cloud_percent=19.5,
        view=ViewFacts(off_nadir_deg=25.0),
        moment=datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC),
        product="L1D_SR",
    )
    for text in (
        "cloud<20", "cloud<=19.5", "cloud>5%", "off-nadir<=25", "from=2026-01-31", "to=2026-01-31",
        "to=2026-01-31T23:59:59Z", "product=l1d_sr", "product~L1D", "product!=L1C",
    ):  # fmt: skip
        assert _holds(facts, text), text
    for text in (
        "cloud>20", "off-nadir<25", "from=2026-02-01", "to=2026-01-30", "product=L1D",
        "to=2026-01-31T23:59:58Z", "bbox=-180,-90,180,90",
    ):  # fmt: skip
        assert not _holds(facts, text), text


def test_what_is_not_known_fulfils_nothing() -> None:
    """No footprint, no clouds, no time: such a scene is in no selection, not even by `!=`."""
    for text in ("bbox=-180,-90,180,90", "cloud<=100", "cloud!=5", "off-nadir>=0", "product!=L1C"):
        assert not _holds(_facts(), text)
    assert not _holds(_facts(), "from=1970-01-02")


def test_since_is_a_date_before_now() -> None:
    """`since 7 days` is resolved in the user's program, before a request to a mount."""
    for text in ("since 7 days", "since=7days", "Since 1 week"):
        plain = plain_condition(text, NOW, Path.read_bytes)
        assert plain == "from=2026-01-25T12:00:00+00:00"
    assert plain_condition("cloud<20", NOW, Path.read_bytes) == "cloud<20"


def test_an_area_is_read_from_a_file(tmp_path: Path) -> None:
    """A geometry, a feature and a collection of features, all of whose areas count."""
    near, far = _polygon([(0, 0), (2, 0), (2, 2)]), _polygon([(50, 50), (52, 50), (52, 52)])
    feature = {"type": "Feature", "geometry": near, "properties": {}}
    other = {"type": "Feature", "geometry": far, "properties": {}}
    path = tmp_path / "area.geojson"
    for value, meets_far in (
        (near, False),
        (feature, False),
        ({"type": "FeatureCollection", "features": [feature, other]}, True),
        ({"type": "GeometryCollection", "geometries": [near, far]}, True),
    ):
        path.write_text(json.dumps(value))
        plain = plain_condition(f"intersects={path}", NOW, Path.read_bytes)
        assert _holds(_facts(geometry=near), plain)
        assert _holds(_facts(geometry=far), plain) == meets_far


@pytest.mark.parametrize(
    "text",
    ["bbox=1,2,3", "bbox=0,0,0,91", "bbox=a,b,c,d", "cloud=many", "cloud~2", "from=soon", "to=x",
     "intersects={}", "bbox<1,2,3,4", "intersects=[]"],
)  # fmt: skip
def test_what_makes_no_sense_is_said(text: str) -> None:
    """A selection that cannot be meant is refused before anything is fetched."""
    with pytest.raises(BadSettings):
        _holds(_facts(), text)


def test_a_file_without_an_area_is_said(tmp_path: Path) -> None:
    """A missing file, one that is no JSON, and one without a geometry."""
    bad = tmp_path / "bad.geojson"
    bad.write_text("nothing")
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    for path in (tmp_path / "missing", bad, empty):
        with pytest.raises(BadSettings, match=path.name):
            plain_condition(f"intersects={path}", NOW, Path.read_bytes)


@given(st.sampled_from(sorted(FIELDS)), st.sampled_from(["=", "<", "~"]), st.text(max_size=30))
def test_any_text_is_a_condition_or_said_to_be_none(name: str, sign: str, value: str) -> None:
    """No text in a request crashes a mount."""
    try:
        condition = scene_condition(name, sign, value)
    except BadSettings:
        return
    assert condition is not None
    condition.holds(_facts())
