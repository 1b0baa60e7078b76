"""Which sizes a walk needs next: decided by what was listed."""

from __future__ import annotations

import random

import pytest
from fakes.record_lists import list_of
from hypothesis import given
from hypothesis import strategies as st

from satfs.api import record_parsers
from satfs.api.record_list import RecordList
from satfs.model import CaptureId, Scene
from satfs.tree.names import name_of, order_of
from satfs.tree.sizes_ahead import MAX_SCENES, MAX_SCENES_AHEAD, WALK_S, SizesAhead

CAPTURE = CaptureId("cap-1")


def scenes(n_scenes: int) -> RecordList[Scene]:
    """Return a listing in no particular order."""
    entries = [{"scene_id": f"scene-{n:04}", "sceneset_id": CAPTURE} for n in range(n_scenes)]
    random.Random(5).shuffle(entries)
    return list_of(entries, record_parsers.scene)


def visited(listing: RecordList[Scene], order: str) -> list[Scene]:
    """Return the scenes as a program visits them."""
    if order == "names":
        return sorted(listing, key=lambda scene: scene.scene_id)
    return sorted(listing, key=lambda scene: order_of(name_of(scene.scene_id)))


@pytest.mark.parametrize("order", ["names", "readdir"])
@given(n_scenes=st.integers(3, 120))
def test_a_walk_finds_each_size_learnt(order: str, n_scenes: int) -> None:
    """From its third scene on; each scene once, and never more ahead than the limit."""
    listing = scenes(n_scenes)
    ahead = SizesAhead(clock=lambda: 0.0)
    learnt: list[Scene] = []
    for place, scene in enumerate(visited(listing, order)):
        if place >= 2:
            assert scene in learnt
        learnt += ahead.after(CAPTURE, listing, scene.scene_id)
        assert len(learnt) <= place + 1 + MAX_SCENES_AHEAD
    assert len(learnt) == n_scenes - 2 == len({scene.scene_id for scene in learnt})


def test_who_looks_at_single_scenes_causes_no_request_for_others() -> None:
    """One scene, the same one again, one after a pause, or one from elsewhere: no walk."""
    listing = scenes(40)
    names = visited(listing, "names")
    now_s = 0.0
    ahead = SizesAhead(clock=lambda: now_s)
    assert ahead.after(CAPTURE, listing, names[0].scene_id) == ()
    assert ahead.after(CAPTURE, listing, names[0].scene_id) == ()
    now_s += WALK_S + 0.1
    assert ahead.after(CAPTURE, listing, names[1].scene_id) == ()
    assert ahead.after(CAPTURE, listing, names[17].scene_id) == ()
    assert ahead.after(CAPTURE, listing, names[18].scene_id) != ()


def test_another_listing_is_another_walk() -> None:
    """Changed objects are learnt again; a very large capture is left alone."""
    ahead = SizesAhead(clock=lambda: 0.0)
    for _ in range(2):
        listing = scenes(4)
        first, second, *_ = visited(listing, "names")
        assert ahead.after(CAPTURE, listing, first.scene_id) == ()
        assert len(ahead.after(CAPTURE, listing, second.scene_id)) == 2
    listing = scenes(MAX_SCENES + 1)
    for scene in visited(listing, "names")[:3]:
        assert ahead.after(CAPTURE, listing, scene.scene_id) == ()
