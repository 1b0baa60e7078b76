"""Deadlines of the kernel's requests: what postpones them, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from satfs.errors import DeadlineReached
from satfs.fuse.deadlines import LOOK_S, PendingCalls

DEADLINE_S = 10.0


class Store:
    """What has come from a store that sends bytes for a while."""

    def __init__(self, bytes_per_s: float = 0.0) -> None:
        self.bytes_per_s = bytes_per_s
        self.until_s = float("inf")

    def received_bytes(self) -> float:
        return self.bytes_per_s * min(trio.current_time(), self.until_s)


@asynccontextmanager
async def watched(store: Store) -> AsyncIterator[PendingCalls]:
    """Yield calls whose deadlines are watched."""
    calls = PendingCalls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.watch, store.received_bytes)
        await trio.testing.wait_all_tasks_blocked()
        yield calls
        nursery.cancel_scope.cancel()


async def lasts_s(store: Store, *, is_read: bool = True) -> float:
    """Return after how many seconds a call that waits for ever ends."""
    async with watched(store) as calls:
        began_s = trio.current_time()
        with pytest.raises(DeadlineReached), calls.within(DEADLINE_S, is_read=is_read):
            await trio.sleep_forever()
        return trio.current_time() - began_s
    raise AssertionError


async def test_silence_ends_a_call_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """Where nothing happens, it is not postponed."""
    for is_read in (True, False):
        assert await lasts_s(Store(), is_read=is_read) == pytest.approx(DEADLINE_S)


async def test_bytes_that_come_postpone_a_read(autojump_clock: trio.testing.MockClock) -> None:
    """At most once more its time; a look-up, which waits for no bytes, is not postponed."""
    slow = Store(bytes_per_s=1000.0)
    assert await lasts_s(slow) == pytest.approx(2 * DEADLINE_S)
    assert await lasts_s(slow, is_read=False) == pytest.approx(DEADLINE_S)


async def test_the_deadline_counts_from_the_last_byte(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A store that falls silent ends the read after its whole time."""
    slow = Store(bytes_per_s=1000.0)
    slow.until_s = trio.current_time() + 4.0
    assert await lasts_s(slow) == pytest.approx(4.0 + DEADLINE_S, abs=2 * LOOK_S)
