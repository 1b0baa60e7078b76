"""Cyclic garbage goes, and nobody waits for it, however much is alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from satfs import gc_tuning
from satfs.gc_tuning import Collector


class Cycle:
    """Garbage that only a collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    with made.by_hand():
        yield made


def look(collector: Collector, n_times: int = gc_tuning._LOOKS) -> None:
    """Let half a minute pass, or less."""
    for _ in range(n_times):
        collector.look()


@pytest.fixture
def oldest() -> Iterator[list[float]]:
    """A list that grows with each collection of the oldest generation, by how many it found."""
    found: list[float] = []

    def heard(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            found.append(info["collected"])

    gc.callbacks.append(heard)
    yield found
    gc.callbacks.remove(heard)


def grow(n_containers: int) -> list[list[int]]:
    return [[number] for number in range(n_containers)]


def test_many_new_things_are_never_looked_at_all_together(
    collector: Collector, oldest: list[float]
) -> None:
    """Not while they are made, nor afterwards: they are set aside."""
    kept = []
    oldest.clear()
    for _ in range(5):
        kept.append(grow(4 * gc_tuning._MUCH))
        look(collector, 1)
    assert oldest == []
    look(collector, 3 * gc_tuning._LOOKS)
    assert gc.get_freeze_count() > 20 * gc_tuning._MUCH * 0.9
    assert len(gc.get_objects(2)) < gc_tuning._MUCH
    assert len(kept) == 5


def test_old_garbage_goes_within_half_a_minute(collector: Collector) -> None:
    """As Python's own collector would have it, as long as little is alive."""
    lost = Cycle()
    seen = weakref.ref(lost)
    gc.collect(1)  # now it is old
    del lost
    assert seen() is not None
    look(collector)
    assert seen() is None


def test_garbage_among_what_was_set_aside_goes_with_it(collector: Collector) -> None:
    """When most of it has gone by itself, the rest is looked at again."""
    kept = grow(4 * gc_tuning._MUCH)
    lost = Cycle()
    seen = weakref.ref(lost)
    gc.collect(1)
    look(collector, 1)
    del lost
    look(collector, 2 * gc_tuning._LOOKS)
    assert seen() is not None
    kept.clear()
    look(collector)
    assert seen() is None


def test_python_has_its_way_again_afterwards() -> None:
    """Thresholds are as before, and nothing is set aside."""
    before = gc.get_threshold()
    with Collector().by_hand():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def test_it_looks_twice_a_second(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For as long as the mount lives."""
    looks: list[float] = []
    monkeypatch.setattr(Collector, "look", lambda _: looks.append(trio.current_time()))
    nursery.start_soon(Collector().run)
    await trio.sleep(5.1)
    assert len(looks) == 10
