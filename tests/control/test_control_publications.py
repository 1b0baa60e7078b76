"""New entries are reported once, earlier ones are not, and none is missed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.control.publications import OVER_S, SETTLED_S, TURNS, SeenPublications
from satfs.errors import BadSettings

NOW_S = 1_800_000_000.0


def capture(id: str, status: str = "published") -> dict[str, Any]:
    return {"id": id, "record": {"capture_id": id, "status": status}}


def scene(id: str) -> dict[str, Any]:
    return {"id": id, "record": {"scene_id": id}}


def task(id: str, **record: Any) -> dict[str, Any]:
    return {"id": id, "record": record}


@pytest.fixture
def seen() -> SeenPublications:
    """Return what was seen after a first look at one task with one capture and one scene."""
    seen = SeenPublications()
    assert not seen.note_captures("t", [capture("a"), capture("b", "planned")], NOW_S)
    assert not seen.note_scenes("a", [scene("a1")], NOW_S)
    seen.is_begun = True
    return seen


def test_the_first_look_tells_nothing(seen: SeenPublications) -> None:
    assert not seen.note_captures("t", [capture("a")], NOW_S + 1)
    assert not seen.note_scenes("a", [scene("a1")], NOW_S + 1)


def test_a_capture_is_news_when_it_is_published(seen: SeenPublications) -> None:
    """And its scenes are, with it; each until it has been reported, and then no more."""
    for _ in range(2):
        (event,) = seen.note_captures("t", [capture("a"), capture("b")], NOW_S + 1)
        assert (event.kind, event.capture_id, event.task_id) == ("capture", "b", "t")
    seen.note(event, NOW_S + 1)
    assert not seen.note_captures("t", [capture("a"), capture("b")], NOW_S + 2)
    (one, two) = seen.note_scenes("b", [scene("b1"), scene("b2")], NOW_S + 2)
    seen.note(one, NOW_S + 2)
    (left,) = seen.note_scenes("b", [scene("b1"), scene("b2")], NOW_S + 3)
    assert left == two


def test_a_scene_that_comes_later_is_news(seen: SeenPublications) -> None:
    (event,) = seen.note_scenes("a", [scene("a1"), scene("a2")], NOW_S + 9 * SETTLED_S)
    assert (event.kind, event.scene_id) == ("scene", "a2")


def test_what_was_withdrawn_and_comes_again_is_no_news(seen: SeenPublications) -> None:
    assert not seen.note_captures("t", [], NOW_S + 1)
    assert not seen.note_captures("t", [capture("a")], NOW_S + 2)


def test_few_tasks_are_all_looked_at_each_time(seen: SeenPublications) -> None:
    over = {"status": "completed", "end": "2020-01-01T00:00:00Z"}
    tasks = [task("t", **over), task("new", **over), task("odd", status=None, end=7)]
    assert sorted(seen.due_tasks(tasks, NOW_S)) == ["new", "odd", "t"]


def test_very_many_finished_tasks_take_turns() -> None:
    """All are looked at in the end, and those that go on each time."""
    seen = SeenPublications()
    over = {"status": "completed", "end": "2020-01-01T00:00:00Z"}
    tasks = [task(f"old{n}", **over) for n in range(3 * TURNS)] + [task("on", status="received")]
    assert len(seen.due_tasks(tasks, NOW_S)) == len(tasks), "none was ever looked at"
    for each in tasks:
        seen.note_captures(each["id"], [], NOW_S)
    looked_at: set[str] = set()
    for turn in range(1, 4):
        due = seen.due_tasks(tasks, NOW_S + turn)
        assert len(due) == TURNS + 1
        assert "on" in due
        for id in due:
            seen.note_captures(id, [], NOW_S + turn)
        looked_at.update(due)
    assert len(looked_at) == len(tasks)


@given(st.lists(st.floats(0, 4 * SETTLED_S), max_size=30), st.floats(0, 2 * OVER_S))
def test_a_capture_published_lately_is_always_looked_at(ages: list[float], later: float) -> None:
    seen = SeenPublications()
    for n, age in enumerate(ages):
        seen.note_captures("t", [capture(str(n))], NOW_S - age)
        seen.note_scenes(str(n), [], NOW_S - age)
    due = set(seen.due_captures(NOW_S))
    assert {str(n) for n, age in enumerate(ages) if age < SETTLED_S} <= due
    assert len(due) == len(ages), "few captures are all looked at"


@given(
    st.dictionaries(st.text(max_size=4), st.lists(st.text(max_size=4), max_size=3)),
    st.booleans(),
)
def test_what_was_seen_is_remembered(captures: dict[str, list[str]], is_begun: bool) -> None:
    seen = SeenPublications(is_begun)
    for id, scenes in captures.items():
        for event in seen.note_captures("t", [capture(id)], NOW_S):
            seen.note(event, NOW_S)
        for event in seen.note_scenes(id, [scene(each) for each in scenes], NOW_S):
            seen.note(event, NOW_S)
    assert SeenPublications.of_text(seen.as_text()) == seen


@given(st.text(max_size=30) | st.sampled_from(('{"satfs_watch": 1}', '{"satfs_watch": 2}', "[]")))
def test_what_is_no_memory_is_not_taken_for_an_empty_one(text: str) -> None:
    """It would report everything again."""
    with pytest.raises(BadSettings):
        SeenPublications.of_text(text)
