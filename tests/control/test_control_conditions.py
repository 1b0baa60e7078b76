"""Conditions: what people write is understood, and means what it says."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.control.conditions import Condition, holds_with, may_hold, parse_condition, verdict
from satfs.errors import BadSettings
from satfs.facts.scene import SceneFacts, ViewFacts
from satfs.model import SceneId

RECORDS = {
    "scene": {
        "productname": "L1D_SR",
        "timestamp": "2026-02-07T15:57:57.002000+00:00",
        "metadata": {"cloud_cover": 12.5, "is_night": False},
        "bands": ["red", "nir"],
        "footprint": {"type": "Polygon"},
        "nothing": None,
    },
    "capture": {"status": "published"},
    "task": {"status": "completed", "task_id": 341271, "priority": "14"},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("productname=L1D_SR", True),
        ("productname==L1D_SR", True),
        ("productname=L1D", False),
        ("productname!=L1D", True),
        ("productname~l1d", True),
        ("productname~L1?_SR", True),
        ("productname~L1C", False),
        ("metadata.cloud_cover<20", True),
        ("metadata.cloud_cover < 12.5", False),
        ("metadata.cloud_cover<=12.50", True),
        ("scene.metadata.cloud_cover>2", True),
        ("metadata.is_night=false", True),
        ("timestamp>=2026-02-07", True),
        ("timestamp<=2026-02-07", True),
        ("timestamp=2026-02-07", True),
        ("timestamp<2026-02-07", False),
        ("timestamp>2026-02-07T16:00:00+01:00", True),
        ("timestamp>2026-02-07T16:00:00", False),
        ("status=published", True),
        ("task.status=completed", True),
        ("capture.status=completed", False),
        ("task.task_id=341271", True),
        ("task.priority>9", True),
        ("bands=nir", True),
        ("bands!=nir", False),
        ("bands!=blue", True),
        ("no_such=1", False),
        ("no_such!=1", False),
        ("nothing!=1", False),
        ("footprint~Polygon", False),
    ],
)
def test_a_condition_means_what_it_says(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(RECORDS) is holds


@pytest.mark.parametrize("text", ["", "x", "=1", "<", "a b=1", "  "])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadSettings, match="productname=L1D"):
        parse_condition(text)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_numbers_compare_as_numbers(actual: float, wanted: int) -> None:
    """9 is less than 10, also when they are sent as texts, of any length."""
    for value in (actual, str(actual)):
        records = {"scene": {"n": value}}
        assert parse_condition(f"n<{wanted}").holds(records) == (actual < wanted)
        assert parse_condition(f"n>={wanted}").holds(records) == (actual >= wanted)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_dates_compare_as_moments(actual: datetime, wanted: datetime) -> None:
    records = {"scene": {"at": actual.isoformat()}}
    assert parse_condition(f"at<{wanted.isoformat()}").holds(records) == (actual < wanted)
    day = wanted.date()
    assert parse_condition(f"at<={day.isoformat()}").holds(records) == (actual.date() <= day)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(VALUES, st.sampled_from(("=", "!=", "<", "<=", ">", ">=", "~")), st.text(max_size=6))
def test_any_record_can_be_judged(value: Any, sign: str, wanted: str) -> None:
    """A vendor sends anything; a condition holds or it does not."""
    for level in (None, "scene", "task"):
        assert Condition(level, ("f",), sign, wanted).holds({"scene": {"f": value}}) in (
            True,
            False,
        )


@given(st.text(max_size=12))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    with contextlib.suppress(BadSettings):
        parse_condition(text).holds(RECORDS)


def test_a_task_that_breaks_a_condition_is_not_looked_into() -> None:
    """Only what is said of the task itself can be judged before its captures are known."""
    conditions = [parse_condition("task.status=completed"), parse_condition("productname=L1C")]
    assert not may_hold(conditions, {"task": {"status": "received"}})
    assert may_hold(conditions, {"task": {"status": "completed"}})
    assert not verdict(conditions, {"task": {"status": "completed"}})


@pytest.mark.parametrize(
    ("text", "stated", "unstated"),
    [
        ("cloud<20", {"metadata": {"cloud_cover": 30}}, {"metadata": {}}),
        ("off-nadir<20", {"off_nadir": 30}, {}),
        ("bbox=0,0,1,1", {"footprint": {"type": "Point", "coordinates": [5, 5]}}, {}),
        ("from=2026-02-01", {"timestamp": "2026-01-01T00:00:00Z"}, {"timestamp": None}),
        ("product=L1D", {"productname": "L1C"}, {"productname": None}),
    ],
)
def test_a_fact_that_a_record_leaves_open_is_the_deliverys(
    text: str, stated: dict[str, Any], unstated: dict[str, Any]
) -> None:
    """What the record states decides alone; what it does not state is neither true nor false."""
    conditions = [parse_condition(text), parse_condition("supplier=s")]
    ours = {"scene_id": "a", "supplier": "s"}
    delivered = SceneFacts(
        SceneId("a"),
        product="L1D",
        geometry={"type": "Point", "coordinates": [0.5, 0.5]},
        moment=datetime(2026, 2, 2, tzinfo=UTC),
        cloud_percent=4.2,
        view=ViewFacts(off_nadir_deg=12.0),
    )
    is_open, is_denied = {"scene": {**ours, **unstated}}, {"scene": {**ours, **stated}}
    assert verdict(conditions, is_open) is None
    assert may_hold(conditions, is_open)
    assert holds_with(conditions, is_open, delivered)
    assert not holds_with(conditions, is_open, SceneFacts(SceneId("a")))
    assert verdict(conditions, is_denied) is False
    assert not may_hold(conditions, is_denied)
    assert not holds_with(conditions, is_denied, delivered)
    other = {"scene": {**ours, **unstated, "supplier": "t"}}
    assert verdict(conditions, other) is False, "one that is broken decides, whatever is open"
