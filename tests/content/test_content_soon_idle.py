"""Whether a range waits for a connection that will soon be idle, instead of a new one."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.fetch.connection_controller import ConnectionController
from satfs.content.fetch.soon_idle import MAX_WAIT_S, SoonIdle, cold_start_s, left_s
from satfs.model import ByteRange

KIB = 1024
STORE = "https://store.example"
TRIP_S = 0.03


@dataclass
class Holder:
    """Connections: how many are idle that have responded, and that were opened ahead."""

    idle: tuple[int, int] = (0, 0)

    def n_idle(self, origin: str) -> tuple[int, int]:
        return self.idle if origin == STORE else (0, 0)

    def n_unused_since(self, origin: str, at_s: float) -> int:
        return 0

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        raise AssertionError("nothing is to be closed")


@dataclass(eq=False)
class Range:
    """A range of which *n_received* bytes have come since a moment."""

    n_bytes: int
    n_received: int = 0
    first_byte_at_s: float | None = None
    is_bulk: bool = False
    attempt: Any = field(init=False)

    def __post_init__(self) -> None:
        self.attempt = SimpleNamespace(start=0, first_byte_at_s=self.first_byte_at_s)

    @property
    def front(self) -> int:
        return self.n_received

    @property
    def missing(self) -> ByteRange:
        return ByteRange(self.n_received, self.n_bytes)


def soon_idle(holder: Holder, trip_s: float = TRIP_S) -> SoonIdle:
    controller = ConnectionController(32)
    controller.note_response(0.0, trip_s)
    return SoonIdle(holder, controller)


async def waited_s(soon: SoonIdle, wanted: Range, origin: str = STORE) -> float:
    began_s = trio.current_time()
    await soon.wait(wanted, origin)  # type: ignore[arg-type]
    return trio.current_time() - began_s


async def end_after(seconds: float, soon: SoonIdle, moved: Range, origin: str = STORE) -> None:
    with soon.moving(moved, origin):  # type: ignore[arg-type]
        await trio.sleep(seconds)


@given(n_bytes=st.integers(1, 1 << 30), trip_s=st.floats(0, 2), more=st.integers(0, 1 << 20))
def test_a_new_connection_costs_more_the_longer_the_range_and_the_line(
    n_bytes: int, trip_s: float, more: int
) -> None:
    """Never less than the handshakes, and a round trip more for twice the bytes at most."""
    cold_s = cold_start_s(n_bytes, trip_s, is_open=False)
    assert cold_s >= 2 * trip_s
    assert cold_start_s(n_bytes + more, trip_s, is_open=False) >= cold_s
    assert cold_start_s(2 * n_bytes, trip_s, is_open=False) <= cold_s + trip_s + 1e-9
    assert cold_start_s(n_bytes, trip_s, is_open=True) == pytest.approx(cold_s - 2 * trip_s)


@given(
    n_received=st.integers(0, 1 << 30), n_missing=st.integers(0, 1 << 30), took_s=st.floats(0, 9)
)
def test_what_has_not_begun_to_come_has_no_end_in_sight(
    n_received: int, n_missing: int, took_s: float
) -> None:
    """The rest comes as fast as what has come."""
    found_s = left_s(n_received, n_missing, took_s)
    assert found_s >= 0
    assert (found_s == float("inf")) is (n_received == 0)


async def test_a_range_waits_for_a_connection_that_is_idle_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Half of a block has come in 10 ms: its connection is idle before a new one would be open."""
    soon = soon_idle(Holder())
    moved = Range(600 * KIB, 300 * KIB, trio.current_time())
    await trio.sleep(0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_after, 0.012, soon, moved)
        await trio.testing.wait_all_tasks_blocked()
        assert await waited_s(soon, Range(16 * KIB)) == pytest.approx(0.012)


async def test_one_range_waits_for_each(autojump_clock: trio.testing.MockClock) -> None:
    """The second of two that are requested together opens a connection of its own."""
    soon = soon_idle(Holder())
    moved = Range(600 * KIB, 300 * KIB, trio.current_time())
    await trio.sleep(0.01)
    found: list[float] = []

    async def wait() -> None:
        found.append(await waited_s(soon, Range(600 * KIB)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_after, 0.01, soon, moved)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)
        nursery.start_soon(wait)
    assert sorted(found) == pytest.approx([0.0, 0.01])


@pytest.mark.parametrize(
    ("holder", "wanted", "moved", "trip_s"),
    [
        (Holder((1, 0)), Range(16 * KIB), Range(600 * KIB, 300 * KIB, 0.0), TRIP_S),
        (Holder(), Range(16 * KIB, is_bulk=True), Range(600 * KIB, 300 * KIB, 0.0), TRIP_S),
        (Holder(), Range(16 * KIB), Range(600 * KIB), TRIP_S),  # its first byte has not come
        (Holder(), Range(16 * KIB), Range(64 * KIB * KIB, 300 * KIB, 0.0), TRIP_S),
        (Holder(), Range(16 * KIB), Range(600 * KIB, 300 * KIB, 0.0), 0.0003),  # a near line
    ],
)  # fmt: skip
async def test_a_range_does_not_wait_where_that_is_slower(
    holder: Holder, wanted: Range, moved: Range, trip_s: float, autojump_clock: Any
) -> None:
    """Where one is idle, for bulk, and where the other's end is not near."""
    soon = soon_idle(holder, trip_s)
    began_s = trio.current_time()
    if moved.first_byte_at_s is not None:
        moved.attempt.first_byte_at_s = began_s
    await trio.sleep(0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_after, 0.5, soon, moved)
        await trio.testing.wait_all_tasks_blocked()
        assert await waited_s(soon, wanted) == 0


async def test_it_does_not_wait_for_a_connection_to_another_host(autojump_clock: Any) -> None:
    soon = soon_idle(Holder())
    moved = Range(600 * KIB, 300 * KIB, trio.current_time())
    await trio.sleep(0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_after, 0.02, soon, moved, "https://other.example")
        await trio.testing.wait_all_tasks_blocked()
        assert await waited_s(soon, Range(16 * KIB)) == 0


async def test_where_the_other_stops_it_waits_no_longer_than_a_new_connection_takes(
    autojump_clock: Any,
) -> None:
    soon = soon_idle(Holder())
    moved = Range(600 * KIB, 300 * KIB, trio.current_time())
    await trio.sleep(0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_after, 60, soon, moved)
        await trio.testing.wait_all_tasks_blocked()
        wanted = Range(600 * KIB)
        expected_s = cold_start_s(wanted.n_bytes, TRIP_S, is_open=False)
        assert await waited_s(soon, wanted) == pytest.approx(expected_s)
        assert expected_s < MAX_WAIT_S
        nursery.cancel_scope.cancel()
