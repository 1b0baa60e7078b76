"""What is noted of reading an object: everything is counted, and little is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import Unreachable
from satfs.model import ByteRange
from satfs.read_trace import (
    BYTES,
    DONE,
    GIVEN_UP,
    MAX_FAILURES,
    MAX_REQUESTS,
    MAX_TRAILS,
    UNDER_WAY,
    ReadTraces,
)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trails(clock: Clock) -> ReadTraces:
    return ReadTraces(clock, clock)


def test_a_request_is_under_way_and_then_done(trails: ReadTraces, clock: Clock) -> None:
    trail = trails.of("scene/zip")
    with trail.request(BYTES, ByteRange(0, 10)) as request:
        assert trail.requests[-1].outcome == UNDER_WAY
        clock.now_s += 2
        request.received_bytes = 10
    assert (request.outcome, request.took_s) == (DONE, 2)
    assert trail.own.received_bytes == trails.sums.received_bytes == 10
    assert not trail.own.unlucky


def test_an_error_is_the_outcome_and_goes_on(trails: ReadTraces) -> None:
    trail = trails.of("scene/zip")
    with pytest.raises(Unreachable), trail.request(BYTES):
        raise Unreachable("nobody is there")
    assert trail.requests[-1].outcome == "Unreachable"
    assert trail.own.unlucky == {"Unreachable": 1}


def test_what_is_cancelled_was_given_up(trails: ReadTraces) -> None:
    trail = trails.of("scene/zip")
    with pytest.raises(KeyboardInterrupt), trail.request(BYTES):
        raise KeyboardInterrupt  # cancellation is no Exception, either
    assert trail.requests[-1].outcome == GIVEN_UP


def test_the_stores_own_words_are_not_counted_apart(trails: ReadTraces) -> None:
    """Sums have as many entries as we have words, however many a store invents."""
    trail = trails.of("scene/zip")

    def refuse(number: int) -> None:
        with trail.request(BYTES) as request:
            request.outcome = f"refused: Code{number}"
            raise Unreachable("refused")

    for number in range(50):
        with pytest.raises(Unreachable):
            refuse(number)
    assert trails.sums.unlucky == {"refused": 50}


def test_waits_are_measured_and_their_failures_kept(trails: ReadTraces, clock: Clock) -> None:
    trail = trails.of("scene/zip")
    with trail.waiting():
        clock.now_s += 3
    clock.now_s += 1
    with pytest.raises(Unreachable), trail.waiting():
        raise Unreachable("away")
    with pytest.raises(ValueError, match="secret"), trail.waiting():
        raise ValueError("a secret of somebody else's")
    assert (trail.own.n_waits, trail.own.waited_s, trail.own.longest_wait_s) == (3, 3, 3)
    assert [(each.kind, each.words) for each in trail.failures] == [
        ("Unreachable", "away"),
        ("ValueError", ""),  # a foreign error's words may hold anything
    ]


@given(st.lists(st.integers(0, 2000), max_size=300))
def test_memory_is_bounded_and_sums_are_not_lost(labels: list[int]) -> None:
    """However many objects are read however often: few are kept, and all is counted."""
    trails = ReadTraces()
    for label in labels:
        trail = trails.of(str(label))
        trail.opened()
        trail.served(1)
        with trail.request(BYTES):
            pass
        assert len(trail.requests) <= MAX_REQUESTS
        assert len(trail.failures) <= MAX_FAILURES
    assert len(trails) <= MAX_TRAILS
    assert trails.sums.n_reads == trails.sums.served_bytes == len(labels)
    assert sum(trails.sums.requests.values()) == len(labels)


def test_looking_for_a_trail_makes_none(trails: ReadTraces) -> None:
    assert trails.find("scene/zip") is None
    assert len(trails) == 0
    assert trails.of("scene/zip") is trails.find("scene/zip")
