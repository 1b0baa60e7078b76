"""The facts of a scene from the API's record alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from satfs.api import record_parsers
from satfs.demo.catalogue import make_scene
from satfs.facts.record import facts_of_record
from satfs.model import Scene, SceneId


def test_a_record_of_the_api_is_read() -> None:
    """Time, satellite, product and footprint are under the API's names; clouds in `metadata`."""
    record = make_scene("20260128_155747_636_SN33_L1D_MS_341271").record
    scene = record_parsers.scene({**record, "metadata": {"cloud_percent": 4.5}})
    assert scene is not None
    facts = facts_of_record(scene)
    assert facts.platform == "newsat33"
    assert facts.product == "L1D"
    assert facts.cloud_percent == 4.5
    assert facts.geometry == record["footprint"]
    assert facts.bbox == (-58.41, -34.64, -58.33, -34.57)
    assert not facts.has_delivery


def test_an_id_of_the_vendors_form_states_time_satellite_and_product() -> None:
    """With and without milliseconds, for a record that has neither."""
    for scene_id, microsecond, product in (
        ("20260128_155747_636_SN33_L1D_SR_MS_341271", 636_000, "L1D_SR"),
        ("20260128_155747_SN33_L1B_MS", 0, "L1B"),
    ):
        facts = facts_of_record(Scene(SceneId(scene_id)))
        assert facts.moment == datetime(2026, 1, 28, 15, 57, 47, microsecond, UTC)
        assert facts.platform == "newsat33"
        assert facts.product == product


def test_an_id_of_another_form_states_nothing() -> None:
    """A name is no fact: nothing is guessed of it."""
    for scene_id in ("scene-1", "20261328_155747_SN33_L1B_MS", "x20260128_155747_SN33_L1B_MS"):
        facts = facts_of_record(Scene(SceneId(scene_id)))
        assert (facts.moment, facts.platform, facts.product) == (None, None, None)


_KEYS = [
    "footprint",
    "geometry",
    "metadata",
    "cloud_cover",
    "gsd",
    "satellite_name",
    "sun_azimuth",
    "off_nadir",
    "instruments",
    "timestamp",
    "productname",
]
_VALUES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12)


@example({"sun_azimuth": -1e-20})
@given(
    st.dictionaries(
        st.sampled_from(_KEYS),
        _VALUES | st.lists(_VALUES, max_size=3) | st.dictionaries(st.text(max_size=4), _VALUES),
    )
)
def test_any_record_has_facts(record: dict[str, Any]) -> None:
    """For any content of the fields: known, or None."""
    scene = record_parsers.scene({"scene_id": "x", **record})
    assert scene is not None
    facts = facts_of_record(scene)
    assert facts.cloud_percent is None or 0 <= facts.cloud_percent <= 100
    assert facts.view.sun_azimuth_deg is None or 0 <= facts.view.sun_azimuth_deg < 360
