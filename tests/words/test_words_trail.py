"""The trace of an object's reads: everything is counted, and little is kept."""

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
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def traces(clock: Clock) -> ReadTraces:
    return ReadTraces(clock, clock)


def test_a_request_is_under_way_and_then_done(traces: ReadTraces, clock: Clock) -> None:
    trace = traces.of("scene/zip")
    with trace.request(BYTES, ByteRange(0, 10)) as request:
        assert trace.requests[-1].outcome == UNDER_WAY
        clock.now_s += 2
        request.received_bytes = 10
    assert (request.outcome, request.took_s) == (DONE, 2)
    assert trace.own.received_bytes == traces.sums.received_bytes == 10
    assert not trace.own.unlucky


def test_an_error_is_the_outcome_and_goes_on(traces: ReadTraces) -> None:
    trace = traces.of("scene/zip")
    with pytest.raises(Unreachable), trace.request(BYTES):
        raise Unreachable("nobody is there")
    assert trace.requests[-1].outcome == "Unreachable"
    assert trace.own.unlucky == {"Unreachable": 1}


def test_what_is_cancelled_was_given_up(traces: ReadTraces) -> None:
    trace = traces.of("scene/zip")
    with pytest.raises(KeyboardInterrupt), trace.request(BYTES):
        raise KeyboardInterrupt  # cancellation is no Exception, either
    assert trace.requests[-1].outcome == GIVEN_UP


def test_the_stores_own_words_are_not_counted_apart(traces: ReadTraces) -> None:
    """Sums have as many entries as we have words, however many a store invents."""
    trace = traces.of("scene/zip")

    def refuse(number: int) -> None:
        with trace.request(BYTES) as request:
            request.outcome = f"refused: Code{number}"
            raise Unreachable("refused")

    for number in range(50):
        with pytest.raises(Unreachable):
            refuse(number)
    assert traces.sums.unlucky == {"refused": 50}


def test_waits_are_measured_and_their_failures_kept(traces: ReadTraces, clock: Clock) -> None:
    trace = traces.of("scene/zip")
    with trace.waiting():
        clock.now_s += 3
    clock.now_s += 1
    with pytest.raises(Unreachable), trace.waiting():
        raise Unreachable("away")
    with pytest.raises(ValueError, match="secret"), trace.waiting():
        raise ValueError("a secret of somebody else's")
    assert (trace.own.n_waits, trace.own.waited_s, trace.own.longest_wait_s) == (3, 3, 3)
    assert [(each.kind, each.words) for each in trace.failures] == [
        ("Unreachable", "away"),
        ("ValueError", ""),  # a foreign error's words may hold anything
    ]


@given(st.lists(st.integers(0, 2000), max_size=300))
def test_memory_is_bounded_and_sums_are_not_lost(labels: list[int]) -> None:
    """However many objects are read however often: few are kept, and all is counted."""
    traces = ReadTraces()
    for label in labels:
        trace = traces.of(str(label))
        trace.opened()
        trace.served(1)
        with trace.request(BYTES):
            pass
        assert len(trace.requests) <= MAX_REQUESTS
        assert len(trace.failures) <= MAX_FAILURES
    assert len(traces) <= MAX_TRAILS
    assert traces.sums.n_reads == traces.sums.served_bytes == len(labels)
    assert sum(traces.sums.requests.values()) == len(labels)


def test_looking_for_a_trail_makes_none(traces: ReadTraces) -> None:
    assert traces.find("scene/zip") is None
    assert len(traces) == 0
    assert traces.of("scene/zip") is traces.find("scene/zip")
