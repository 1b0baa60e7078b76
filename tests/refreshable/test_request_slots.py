"""Slots for requests: how many run at once, and what silent ones cannot do."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from satfs.request_slots import COUNTED_S, MAX_HELD_PER_SLOT, RequestSlots


async def hold(slots: RequestSlots, seconds: float, began: list[float]) -> None:
    async with slots.held():
        began.append(trio.current_time())
        await trio.sleep(seconds)


async def began_at(n_requests: int, seconds: float, n_slots: int = 4) -> list[float]:
    slots, began = RequestSlots(n_slots), list[float]()
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(n_requests):
            nursery.start_soon(hold, slots, seconds, began)
    return [round(each - start_s, 3) for each in began]


async def test_quick_requests_run_as_many_at_once_as_there_are_slots(
    autojump_clock: MockClock,
) -> None:
    """A slot that is returned is given to the next one in line at once."""
    assert await began_at(12, 0.1) == [0.0] * 4 + [0.1] * 4 + [0.2] * 4


async def test_silent_requests_leave_their_slots_to_others(autojump_clock: MockClock) -> None:
    """Requests that hang count for half a second, and are never more than the second limit."""
    began = await began_at(4 * MAX_HELD_PER_SLOT + 1, 100.0)
    waves = [wave * COUNTED_S for wave in range(MAX_HELD_PER_SLOT) for _ in range(4)]
    assert began == [*waves, 100.0]


async def test_a_request_that_is_cancelled_returns_its_slot(autojump_clock: MockClock) -> None:
    """Also one that still waits for a slot: the next in line goes on."""
    slots, began = RequestSlots(1), list[float]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, 0.2, began)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.1) as scope:
            await hold(slots, 1.0, began)
        assert scope.cancelled_caught
        nursery.start_soon(hold, slots, 0.0, began)
    assert began[1] - began[0] == pytest.approx(0.2)
