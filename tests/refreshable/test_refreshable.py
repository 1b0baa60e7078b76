"""A value with a lifetime: one renewal, shared failure, hand-over on cancellation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from satfs.errors import Throttled
from satfs.refreshable import Refreshable


class Source:
    """Counts renewals; each takes a second and gives the next number for ten seconds."""

    def __init__(self, lifetime_s: float = 10.0) -> None:
        self.n_begun = 0
        self.n_done = 0
        self.lifetime_s = lifetime_s
        self.failure: Exception | None = None

    async def renew(self) -> tuple[int, float]:
        self.n_begun += 1
        await trio.sleep(1)
        if self.failure is not None:
            raise self.failure
        self.n_done += 1
        return self.n_done, self.lifetime_s


async def test_many_waiters_cause_one_renewal(autojump_clock: Any) -> None:
    """A hundred tasks that call at once wait for one renewal and get its value."""
    source = Source()
    fresh = Refreshable(source.renew)
    got: list[int] = []

    async def ask() -> None:
        got.append(await fresh.get())

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert got == [1] * 100
    assert source.n_begun == 1


async def test_a_value_is_used_for_its_lifetime(autojump_clock: Any) -> None:
    """Called again within the lifetime nothing is renewed; after it, once."""
    source = Source()
    fresh = Refreshable(source.renew)
    assert fresh.peek() is None
    assert await fresh.get() == 1
    await trio.sleep(9.9)
    assert fresh.peek() == await fresh.get() == 1
    await trio.sleep(0.2)
    assert fresh.peek() is None
    assert fresh.last() == 1
    assert await fresh.get() == 2


async def test_an_endless_lifetime_never_ends(autojump_clock: Any) -> None:
    """`math.inf` is for ever."""
    source = Source(math.inf)
    fresh = Refreshable(source.renew)
    await fresh.get()
    await trio.sleep(86_000)
    assert fresh.peek() == 1


async def test_without_a_lifetime_only_those_who_wait_get_the_value(autojump_clock: Any) -> None:
    """A lifetime of 0 still is one renewal for all who wait, and another for who comes later."""
    source = Source(0.0)
    fresh = Refreshable(source.renew)
    got: list[int] = []

    async def ask() -> None:
        got.append(await fresh.get())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert got == [1] * 5
    assert await fresh.get() == 2


async def test_a_failure_is_raised_to_all_who_waited_then_forgotten(autojump_clock: Any) -> None:
    """Those who waited don't queue up to try one by one; who comes later tries again."""
    source = Source()
    source.failure = Throttled("slow down", retry_after_s=7)
    fresh = Refreshable(source.renew)
    failures: list[Throttled] = []

    async def ask() -> None:
        with pytest.raises(Throttled) as raised:
            await fresh.get()
        failures.append(raised.value)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert source.n_begun == 1
    assert {(str(failure), failure.retry_after_s) for failure in failures} == {("slow down", 7)}
    source.failure = None
    assert await fresh.get() == 1


async def test_a_failed_renewal_leaves_the_last_value_known(autojump_clock: Any) -> None:
    """The earlier value stays available to callers that can use it stale."""
    source = Source()
    fresh = Refreshable(source.renew)
    await fresh.get()
    await trio.sleep(11)
    source.failure = ValueError()
    with pytest.raises(ValueError):  # noqa: PT011 - ours, without words
        await fresh.get()
    assert fresh.peek() is None
    assert fresh.last() == 1


async def test_a_cancelled_renewer_hands_over(autojump_clock: Any) -> None:
    """When the task that renews is cancelled, one of those who wait takes over, and only one."""
    source = Source()
    fresh = Refreshable(source.renew)
    got: list[int] = []

    async def impatient() -> None:
        with trio.move_on_after(0.5):
            await fresh.get()

    async def patient() -> None:
        got.append(await fresh.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await trio.sleep(0.1)
        for _ in range(10):
            nursery.start_soon(patient)
    assert got == [1] * 10
    assert source.n_begun == 2
    assert source.n_done == 1


async def test_a_cancelled_waiter_disturbs_nobody(autojump_clock: Any) -> None:
    """A caller that is cancelled leaves the renewal to the others."""
    source = Source()
    fresh = Refreshable(source.renew)

    async def impatient() -> None:
        with trio.move_on_after(0.5):
            await fresh.get()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fresh.get)
        await trio.sleep(0.1)
        nursery.start_soon(impatient)
    assert fresh.peek() == 1
    assert source.n_begun == 1


async def test_invalidating_another_value_does_nothing(autojump_clock: Any) -> None:
    """Ten tasks that were refused with the same token cause one renewal, not ten."""
    source = Source()
    fresh = Refreshable(source.renew)
    first = await fresh.get()
    for _ in range(10):
        fresh.invalidate(first)
        assert await fresh.get() == 2
    assert source.n_begun == 2


async def test_a_renewal_begun_before_an_invalidation_is_not_believed(autojump_clock: Any) -> None:
    """A call before an invalidation may get the earlier value."""
    source = Source()
    fresh = Refreshable(source.renew)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fresh.get)
        await trio.sleep(0.5)
        fresh.invalidate()
        assert await fresh.get() == 2
    assert fresh.peek() == 2


async def test_a_machine_that_slept_renews(autojump_clock: Any) -> None:
    """The clock of trio stands still in suspend; the wall clock shows that the lifetime is over."""
    source = Source()
    wall_s = 1000.0
    fresh = Refreshable(source.renew, wall_clock=lambda: wall_s)
    await fresh.get()
    wall_s += 3600
    assert fresh.peek() is None
    assert await fresh.get() == 2


async def test_a_wall_clock_set_back_keeps_nothing_alive(autojump_clock: Any) -> None:
    """…and trio's clock does when the wall clock was set back."""
    source = Source()
    wall_s = 1000.0
    fresh = Refreshable(source.renew, wall_clock=lambda: wall_s)
    await fresh.get()
    wall_s -= 3600
    await trio.sleep(11)
    assert fresh.peek() is None


async def test_a_recalled_value_is_stale(autojump_clock: Any) -> None:
    """A value from elsewhere can be peeked at, and is renewed by the next call."""
    source = Source()
    fresh = Refreshable(source.renew)
    fresh.recall(-1)
    assert fresh.peek() is None
    assert fresh.last() == -1
    assert await fresh.get() == 1
    fresh.recall(-2)
    assert fresh.peek() == 1


async def test_a_value_is_forgotten_while_it_is_renewed(autojump_clock: Any) -> None:
    """The renewal goes on, and its value is held; a second one is not begun."""
    source = Source()
    fresh = Refreshable(source.renew)
    fresh.recall(-1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fresh.get)
        await trio.sleep(0.5)
        fresh.forget()
        assert fresh.last() is None
        assert await fresh.get() == 1
    assert (fresh.peek(), source.n_begun) == (1, 1)
