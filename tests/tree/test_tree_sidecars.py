"""Sidecars: records as stable, valid JSON and GeoJSON bytes."""

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from satfs.errors import Garbled
from satfs.json_bytes import STEERING, json_bytes
from satfs.model import Capture, CaptureId, Scene, SceneId, Task, TaskId
from satfs.tree import sidecars

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec=None, exclude_categories=())), inner, max_size=4
        )
    ),
    max_leaves=12,
)
records = st.dictionaries(st.text(), anything, max_size=6)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def strict(content: bytes) -> Any:
    """Parse as the strictest reader would: UTF-8, no NaN, one value, a final newline."""
    assert content.endswith(b"\n")
    return json.loads(content.decode("utf-8"), parse_constant=refuse)


def without_odd_numbers(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [without_odd_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: without_odd_numbers(item) for key, item in value.items()}
    return value


@given(records)
@example({"a": math.nan, "b": [math.inf, {"c": -math.inf}]})
@example({"lone": "\ud800", "\udfff": 1})
def test_any_record_is_valid_json(record: dict[str, Any]) -> None:
    """A sidecar holds the record as sent; only values that JSON cannot hold are null."""
    content = sidecars.record_json(Task(TaskId("1"), record=record))
    assert strict(content) == without_odd_numbers(record)
    assert list(strict(content)) == list(record)


@given(records)
@example({"csi \x9b31m": "del \x7f", "a": ["\u202etxt.exe", "\u2066x\u2069", "\u200f", "\u2028"]})
def test_no_record_steers_a_terminal(record: dict[str, Any]) -> None:
    """No sidecar steers a terminal: what could is shown as an escape of JSON."""
    for content in (
        sidecars.record_json(Task(TaskId("1"), record=record)),
        b"".join(sidecars.footprints_geojson([(Scene(SceneId("s"), record=record), "s")])),
    ):
        text = content.decode("utf-8")
        for character in text.replace("\n", ""):
            assert unicodedata.category(character) not in ("Cc", "Zl", "Zp")
            assert unicodedata.bidirectional(character) not in (
                "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"
            )  # fmt: skip
            assert character not in "\u061c\u200e\u200f"


@given(records)
@example({"a": [], "b": {}, "c": [[], {}], "d": 1e300, "e": 10**30, "f": '\\ " \u00e9 \U0001f600'})
def test_a_record_is_indented_as_python_does(record: dict[str, Any]) -> None:
    """By two spaces, numbers and texts as Python's own encoder writes them."""
    plain = json.dumps(without_odd_numbers(record), indent=2, ensure_ascii=False)
    expected = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", plain) + "\n"
    assert json_bytes(record) == expected.encode("utf-8", "backslashreplace")


@given(records)
def test_the_same_record_has_the_same_bytes(record: dict[str, Any]) -> None:
    """Reading a sidecar twice gives the same bytes."""
    scene = Scene(SceneId("s"), record=record)
    again = Scene(SceneId("s"), record=json.loads(json.dumps(record)))
    assert sidecars.record_json(scene) == sidecars.record_json(again)


@given(records, anything)
@example({}, {"type": "Polygon", "coordinates": [[[0, math.nan]]]})
@example({}, {"type": "Polygon", "coordinates": [[["0", 1]]]})
@example({}, {"type": "Circle", "coordinates": []})
@example({}, {"type": ["Point"], "coordinates": []})
@example({"scene_id": "other", "cloud": 4.2, "metadata": {"a": 1}}, None)
def test_any_footprint_is_valid_geojson(record: dict[str, Any], footprint: Any) -> None:
    """An odd footprint is a null geometry (RFC 7946 §3.2): it hides no other scene from a map."""
    scene = Scene(SceneId("s"), CaptureId("c"), "L1D", record={**record, "footprint": footprint})
    written = b"".join(sidecars.footprints_geojson([(scene, "s"), (scene, "t")]))
    collection = strict(written)
    assert written == json_bytes(collection)
    nothing = b"".join(sidecars.footprints_geojson([]))
    assert nothing == json_bytes(strict(nothing))
    assert collection["type"] == "FeatureCollection"
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert feature["properties"]["scene_id"] == "s"
        assert feature["geometry"] is None or feature["geometry"]["type"]
        assert not any(isinstance(value, list | dict) for value in feature["properties"].values())
    assert [feature["properties"]["directory"] for feature in collection["features"]] == ["s", "t"]


@pytest.mark.parametrize(
    "footprint",
    [
        {"type": "Polygon", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Point", "coordinates": [[1, 2]]},
        {"type": "MultiPolygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
    ],
)
def test_a_footprint_of_the_wrong_depth_hides_no_other_scene(
    footprint: dict[str, Any], tmp_path: Path
) -> None:
    """One such geometry in a file keeps GeoPandas from reading all others."""
    geopandas = pytest.importorskip("geopandas")
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    scenes = [Scene(SceneId("s"), record={"footprint": each}) for each in (square, footprint)]
    path = tmp_path / "footprints.geojson"
    path.write_bytes(b"".join(sidecars.footprints_geojson((scene, "s") for scene in scenes)))
    found = geopandas.read_file(path).geometry
    assert (found[0].geom_type, found[1]) == ("Polygon", None)


def test_a_footprint_shows_on_a_map_with_what_matters() -> None:
    """A feature has the geometry, the ids, and every scalar of the record as a property."""
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    scene = Scene(
        SceneId("s"),
        CaptureId("c"),
        "L1D_SR",
        record={
            "timestamp": "2026-01-28T15:57:48Z",
            "footprint": square,
            "satellite_name": "newsat33",
            "bands": {},
        },
    )
    feature = strict(sidecars.footprint_geojson(scene))
    assert feature == {
        "type": "Feature",
        "id": "s",
        "geometry": square,
        "properties": {
            "scene_id": "s",
            "capture_id": "c",
            "product": "L1D_SR",
            "timestamp": "2026-01-28T15:57:48Z",
            "satellite_name": "newsat33",
        },
    }


def test_captures_are_listed_whatever_their_status() -> None:
    """`captures.json` is the array of the records, in the order of the listing."""
    captures = [Capture(CaptureId(name), record={"capture_id": name}) for name in "ba"]
    assert strict(sidecars.captures_json(captures)) == [{"capture_id": "b"}, {"capture_id": "a"}]


def test_bytes_are_these() -> None:
    """The form is fixed: indented by two, the record's order, UTF-8, a final newline."""
    task = Task(TaskId("1"), record={"task_id": 1, "name": "Fjörð\n"})
    assert sidecars.record_json(task) == '{\n  "task_id": 1,\n  "name": "Fjörð\\n"\n}\n'.encode()


def test_a_bottomless_record_is_an_error_of_the_vendor() -> None:
    """A record nested beyond all reason is Garbled, not a crash."""
    record: dict[str, Any] = {}
    for _ in range(100_000):
        record = {"a": record}
    with pytest.raises(Garbled):
        sidecars.record_json(Task(TaskId("1"), record=record))
