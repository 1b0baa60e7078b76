"""The outlines of a task: RFC 7946, with times, one feature for each scene."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from satfs.facts.scene import SceneFacts
from satfs.model import Json, SceneId
from satfs.views.gallery import footprints_of
from satfs.views.scene_view import SceneView

NOON = datetime(2026, 2, 14, 12, 0, 0, 5000, UTC)
RING: list[Json] = [[179.99, -16.8], [-179.99, -16.8], [-179.99, -16.7], [179.99, -16.7]]


def seen(number: int, geometry: Any) -> SceneView:
    facts = SceneFacts(SceneId(f"s{number}"), geometry=geometry, moment=NOON - timedelta(number))
    return SceneView(facts, f"captures/c/s{number}")


def test_each_scene_is_a_feature_by_time() -> None:
    """The oldest first; a time is ISO 8601 in UTC; no place is a null geometry."""
    polygon = {"type": "Polygon", "coordinates": [[*RING[:1], [179, 0], [179, 1], RING[0]]]}
    features = json.loads(footprints_of([seen(0, None), seen(1, polygon)]))["features"]
    assert [feature["id"] for feature in features] == ["s1", "s0"]
    assert features[1]["geometry"] is None
    assert features[1]["properties"]["datetime"] == "2026-02-14T12:00:00.005Z"
    assert features[0]["properties"]["directory"] == "captures/c/s1"


def test_rings_are_turned_as_rfc_7946_wants_them() -> None:
    """§3.1.6: whichever way the vendor drew it, the outline goes anticlockwise."""
    square: list[Json] = [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]
    for ring in (square, square[::-1]):
        polygon = {"type": "Polygon", "coordinates": [ring]}
        (feature,) = json.loads(footprints_of([seen(0, polygon)]))["features"]
        assert feature["geometry"]["coordinates"] == [square]


def test_what_crosses_the_antimeridian_is_cut() -> None:
    """RFC 7946 §3.1.9: a part on each side, none of them around the world."""
    polygon = {"type": "Polygon", "coordinates": [[*RING, RING[0]]]}
    (feature,) = json.loads(footprints_of([seen(0, polygon)]))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    parts = feature["geometry"]["coordinates"]
    spans = sorted((min(p[0] for p in ring), max(p[0] for p in ring)) for (ring,) in parts)
    assert spans == [pytest.approx((-180, -179.99)), pytest.approx((179.99, 180))]
