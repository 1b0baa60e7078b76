"""Locks by key: one task at a time opens an object."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from satfs.content.cache.open_objects import alone_with


async def test_a_lock_goes_when_what_it_guarded_failed() -> None:
    """A failed `open` must not leave its lock behind: there is one for each version ever tried."""
    locks: dict[str, trio.Lock] = {}

    with pytest.raises(ValueError, match="no"):
        async with alone_with(locks, "a version"):
            raise ValueError("no")

    assert locks == {}


async def test_a_lock_stays_for_the_next_in_line() -> None:
    locks: dict[str, trio.Lock] = {}
    order: list[int] = []

    async def enter(number: int) -> None:
        async with alone_with(locks, "a version"):
            await trio.testing.wait_all_tasks_blocked()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(enter, number)

    assert sorted(order) == [0, 1, 2]
    assert locks == {}
