"""Permits: the connections of all holders together keep to what a host lets through."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from satfs.net.host_connections import LOOKING_S, MAX_LOOK_AGE_S, Crowded, Holder
from satfs.net.host_limit import (
    IDLE_KEPT_S,
    IDLE_KEPT_UNKNOWN_S,
    RAISE_AFTER_S,
    SURELY_SEVERAL,
)
from satfs.net.permits import IDLE_SOON_S, LOOK_INTERVAL_S, METADATA, READ_AHEAD, Permits
from satfs.net.wanted_host import TURN_S

HOST = "https://store:443"


@dataclass(eq=False)
class FakeHolder:
    """Holds idle connections: that have responded, and that have not."""

    n_proven: int = 0
    n_unused: int = 0
    unused_since_s: float = 0.0
    closed: list[int] = field(default_factory=list)

    def n_idle(self, origin: str) -> tuple[int, int]:
        return self.n_proven, self.n_unused

    def n_unused_since(self, origin: str, at_s: float) -> int:
        return self.n_unused if self.unused_since_s <= at_s else 0

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        self.closed.append(n_connections)
        n_of_unused = min(self.n_unused, n_connections)
        self.n_unused -= n_of_unused
        self.n_proven -= n_connections - n_of_unused


@dataclass
class LimitedHost:
    """Answers on so many connections, refuses others or keeps silent on them."""

    permits: Permits
    holder: FakeHolder
    n_let_through: int
    is_silent: bool = False
    n_open: int = 0
    n_refused: int = 0
    max_bytes: int = 0

    async def request(self, took_s: float = 1.0) -> None:
        """Request until there is a response, as the clients of permits do."""
        while True:
            permit = await self.permits.take(HOST, [self.holder], lambda: (READ_AHEAD, 0))
            try:
                if permit.takes_idle:
                    self.holder.n_proven -= 1
                else:
                    self.n_open += 1
                permit.begin()
                if self.n_open > self.n_let_through:
                    self.n_open -= 1
                    self.n_refused += 1
                    if not self.is_silent:
                        await trio.sleep(0.01)
                        permit.refused()
                        raise AssertionError("not taken for a limit")
                    with permit.scope:
                        await trio.sleep_forever()
                    permit.raise_if_silent()
                self.max_bytes = max(self.max_bytes, self.n_open - self.holder.n_proven)
                for _ in range(20):
                    await trio.sleep(took_s / 20)
                    permit.carried()
                self.holder.n_proven += 1
            except Crowded as crowded:
                await trio.sleep(crowded.wait_s)
            else:
                return
            finally:
                permit.end()


@asynccontextmanager
async def watching(*holders: Holder) -> AsyncIterator[Permits]:
    permits = Permits()
    for holder in holders:
        permits.add_holder(holder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(permits.watch)
        yield permits
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("n_let_through", [1, 2, 3, 4, 6, 10, 16])
@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "queues"])
async def test_what_a_host_lets_through_is_found_and_used(
    autojump_clock: trio.testing.MockClock, n_let_through: int, *, is_silent: bool
) -> None:
    """Every request gets a response; at most 3 N connections are refused, and all N are used."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        host = LimitedHost(permits, holder, n_let_through, is_silent)
        await host.request(0.1)  # how long the object is
        async with trio.open_nursery() as nursery:
            for _ in range(8 * n_let_through):
                nursery.start_soon(host.request)
    assert host.max_bytes == n_let_through
    assert host.n_refused <= 3 * n_let_through


async def test_a_limit_that_is_gone_is_left_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A host that lets all through again is used as before, some minutes later."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        host = LimitedHost(permits, holder, 2)
        await host.request(0.1)
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(host.request)
        assert permits.limit(HOST) == 2
        host.n_let_through = 64
        await trio.sleep(RAISE_AFTER_S)
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(host.request)
    assert host.max_bytes >= 32


async def test_an_idle_connection_is_used_where_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Where no more may be opened, another holder's idle one carries the request."""
    here, there = FakeHolder(), FakeHolder(n_proven=1)
    async with watching(here, there) as permits:
        permits.known(HOST).note_refused(0.0, n_others=1, n_responding=1)
        permit = await permits.take(HOST, [here, there])
        assert permit.holder is there
        assert not permit.is_new
        permit.end()


async def test_an_idle_connection_is_closed_for_a_request_elsewhere(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A request that only one holder can make gets the place of another's idle connection."""
    here, there = FakeHolder(), FakeHolder(n_proven=1)
    async with watching(here, there) as permits:
        permits.known(HOST).note_refused(0.0, n_others=1, n_responding=1)
        permit = await permits.take(HOST, [here])
        assert permit.holder is here
        assert there.closed == [1]
        permit.end()


@pytest.mark.parametrize(
    ("n_responding", "is_limited", "kept_s"),
    [(1, True, IDLE_KEPT_S), (1, False, IDLE_KEPT_UNKNOWN_S), (2, False, None)],
    ids=["few", "unknown", "several"],
)
async def test_idle_connections_are_not_kept_from_another_process(
    autojump_clock: trio.testing.MockClock,
    n_responding: int,
    is_limited: bool,
    kept_s: float | None,
) -> None:
    """Where the host may serve no other connection meanwhile; elsewhere the pool closes them.

    All at once, since the host may wait for a request on any of them.
    """
    holder = FakeHolder(n_proven=n_responding, n_unused=2)
    async with watching(holder) as permits:
        if is_limited:
            permits.known(HOST).note_refused(0.0, n_others=1, n_responding=1)
            holder.n_unused = 0
        permit = await permits.take(HOST, [holder])
        permit.carried()
        await trio.sleep(20)
        assert not holder.closed, "it is in use"
        permit.end()
        await trio.sleep((kept_s or 3600) - 2 * LOOK_INTERVAL_S)
        assert not holder.closed
        await trio.sleep(3 * LOOK_INTERVAL_S)
        assert sum(holder.n_idle(HOST)) == (0 if kept_s else n_responding + 2)


@pytest.mark.parametrize(
    ("limit", "is_refusing", "ends_turns", "is_ended"),
    [
        (1, False, True, True),
        (1, False, False, False),
        (1, True, True, False),
        (2, False, True, False),
    ],
)
async def test_the_only_connection_is_left_to_others_now_and_then(
    autojump_clock: trio.testing.MockClock,
    limit: int,
    is_refusing: bool,
    ends_turns: bool,
    is_ended: bool,
) -> None:
    """A host that lets connections wait serves the next one: another process may be that."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        permits.ends_turns = ends_turns
        known = permits.known(HOST)
        known.note_refused(0.0, n_others=limit, n_responding=limit, is_silence=not is_refusing)
        assert (known.limit, known.is_refusing) == (limit, is_refusing)
        began_s, opened_s = trio.current_time(), []
        while trio.current_time() < began_s + 3.5 * TURN_S:
            permit = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0))
            if permit.takes_idle:
                holder.n_proven -= 1
            else:
                opened_s.append(trio.current_time() - began_s)
            permit.begin()
            await trio.sleep(TURN_S / 10)
            permit.carried()
            holder.n_proven += 1
            permit.end()
        turns_s = [at_s - before_s for before_s, at_s in itertools.pairwise(opened_s)]
        assert len(turns_s) == (3 if is_ended else 0)
        assert all(TURN_S <= turn_s < 1.2 * TURN_S for turn_s in turns_s)


@pytest.mark.parametrize("n_before", [SURELY_SEVERAL - 1, SURELY_SEVERAL])
async def test_a_host_that_served_several_before_keeps_its_idle_connections(
    autojump_clock: trio.testing.MockClock, n_before: int
) -> None:
    """The first look-up comes a while after the mount: it finds a connection that is open."""
    holder = FakeHolder(n_proven=1, n_unused=1)
    async with watching(holder) as permits:
        permits.n_known_before = lambda origin: n_before
        permit = await permits.take(HOST, [holder])
        permit.carried()
        permit.end()
        await trio.sleep(2 * IDLE_KEPT_UNKNOWN_S)
        assert sum(holder.n_idle(HOST)) == (2 if n_before >= SURELY_SEVERAL else 0)


async def test_connections_that_are_ready_are_kept_from_when_they_were_opened(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A program looks up names, and a file is opened a moment later."""
    holder = FakeHolder(n_proven=1)
    async with watching(holder) as permits:
        permit = await permits.take(HOST, [holder])
        permit.carried()
        permit.end()
        await trio.sleep(IDLE_KEPT_UNKNOWN_S - 1)
        holder.n_unused = 2
        permits.note_ready(HOST)
        await trio.sleep(IDLE_KEPT_UNKNOWN_S - 1)
        assert not holder.closed
        await trio.sleep(2)
        assert holder.closed == [3]


async def test_a_request_behind_connections_without_one_is_let_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A host of one connection at a time waits for a request on those that came first."""
    holder, other = FakeHolder(), FakeHolder(n_unused=2)
    async with watching(holder, other) as permits:
        permit = await permits.take(HOST, [holder])
        permit.begin()
        await trio.sleep(2)
        assert not other.n_unused
        assert not permit.scope.cancel_called, "its request waits there, and is served now"
        permit.carried()
        permit.end()
        assert permits.limit(HOST) is None


async def test_a_connection_opened_ahead_is_kept_while_others_carry(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A new one in its place, for a holder that cannot use it, would cost one refusal more."""
    ours, other = FakeHolder(), FakeHolder()
    async with watching(ours, other) as permits:
        first = await permits.take(HOST, [ours], lambda: (READ_AHEAD, 0))
        first.carried()
        other.n_unused = 2
        with trio.move_on_after(0.5):
            await permits.take(HOST, [ours], lambda: (READ_AHEAD, 1))
            raise AssertionError("a third connection beside two that may not be let through")
        assert not other.closed
        first.end()
        # Nothing carries: what was opened ahead may be of no use.
        permit = await permits.take(HOST, [ours], lambda: (READ_AHEAD, 2))
        permit.end()


async def test_a_connection_opened_ahead_does_not_make_others_look_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its first byte comes after one round trip, that of a new one after three."""
    holder = FakeHolder(n_unused=1)
    async with watching(holder) as permits:
        ahead = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0))
        assert ahead.takes_idle
        holder.n_unused = 0
        ahead.begin()
        await trio.sleep(0.1)
        ahead.carried()
        new = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 1))
        new.begin()
        for _ in range(9):
            await trio.sleep(0.1)
            ahead.carried()
        assert not new.scope.cancel_called
        new.carried()
        assert permits.known(HOST).limit is None
        ahead.end()
        new.end()


async def test_requests_that_exchange_their_connections_are_counted_right() -> None:
    """Leave for a new connection, used on one that was idle by then: the other one opens it."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        first = await permits.take(HOST, [holder])
        second = await permits.take(HOST, [holder])
        first.carried()
        holder.n_proven = 1
        first.end()
        third = await permits.take(HOST, [holder])
        assert (second.is_new, third.is_new) == (True, False)
        second.note_connection(is_new=False)
        third.note_connection(is_new=True)
        assert (second.is_proven, third.is_proven) == (True, False)


async def test_a_permit_for_a_connection_that_was_refused_opens_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Refused between the permit and the request: another one would be refused as well.

    Nor is it counted among those that are left, of which the limit follows.
    """
    holder = FakeHolder(n_unused=2)
    async with watching(holder) as permits:
        holder.n_proven = 1
        carrying = await permits.take(HOST, [holder])
        carrying.check_connection()
        holder.n_proven = 0
        carrying.begin()
        carrying.carried()
        waiting = [await permits.take(HOST, [holder]) for _ in range(2)]
        assert all(permit.takes_idle for permit in waiting)
        for n_unused in (1, 0):
            holder.n_unused = n_unused
            permits.note_refused_ahead(HOST)
        assert permits.limit(HOST) == 1
        for permit in waiting:
            with pytest.raises(Crowded):
                permit.check_connection()
            permit.end()
        carrying.end()


async def test_names_go_before_bytes(autojump_clock: trio.testing.MockClock) -> None:
    """While a bulk read holds all connections, the next free one is for a size or a link."""
    holder = FakeHolder()
    order: list[str] = []
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_refused(0.0, n_others=1, n_responding=1)
        held = await permits.take(HOST, [holder])

        async def ask(name: str, kind: int) -> None:
            permit = await permits.take(HOST, [holder], lambda: (kind, 0))
            order.append(name)
            permit.end()

        nursery.start_soon(ask, "bytes", READ_AHEAD)
        await trio.sleep(1)
        nursery.start_soon(ask, "size", METADATA)
        await trio.sleep(1)
        assert order == []
        held.end()
    assert order == ["size", "bytes"]


async def test_who_gives_up_waiting_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """A waiter that is cancelled takes no connection, then or later."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        permits.known(HOST).note_refused(0.0, n_others=1, n_responding=1)
        held = await permits.take(HOST, [holder])
        with trio.move_on_after(1):
            await permits.take(HOST, [holder])
        held.end()
        assert permits.room(HOST) == 1


async def test_a_range_is_moved_from_a_known_connection_that_is_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While others carry, soon; the host's limit is not lowered for it."""
    holder = FakeHolder(n_proven=2)
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_opened(0.1)
        carrying = await permits.take(HOST, [holder])
        silent = await permits.take(HOST, [holder], is_patient=False)

        async def carry() -> None:
            for _ in range(100):
                carrying.carried()
                await trio.sleep(0.1)

        nursery.start_soon(carry)
        began_s = trio.current_time()
        with silent.scope:
            await trio.sleep_forever()
        assert trio.current_time() - began_s < 1
        with pytest.raises(Crowded):
            silent.raise_if_silent()
        assert permits.limit(HOST) is None


async def test_where_responses_are_slow_no_connection_counts_as_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A request that was moved would have the store send the same bytes twice."""
    holder = FakeHolder(n_proven=1)
    async with watching(holder) as permits:
        for _ in range(3):
            (await permits.take(HOST, [holder])).end()
            slow = await permits.take(HOST, [holder])
            await trio.sleep(0.8)
            slow.carried()
            slow.end()
        permits.known(HOST).note_opened(0.05)
        carrying = await permits.take(HOST, [holder])
        new = await permits.take(HOST, [FakeHolder()])
        with new.scope:
            for _ in range(9):
                carrying.carried()
                await trio.sleep(0.1)
            new.carried()
        new.raise_if_silent()
        assert permits.limit(HOST) is None


@pytest.mark.parametrize(
    ("waited_s", "until_s"),
    [
        pytest.param(math.inf, 1.0, id="nothing has come"),
        pytest.param(None, None, id="a response has begun"),
        pytest.param(0.0, None, id="bytes wait there"),
        pytest.param(0.01, None, id="it has just sent its part, or tried another address"),
        pytest.param(-1, LOOKING_S + 1.0, id="it does not look"),
    ],
)
async def test_whoever_holds_a_connection_looks_before_it_counts_as_silent(
    autojump_clock: trio.testing.MockClock, waited_s: float | None, until_s: float | None
) -> None:
    """A process without a processor has not read what has come: that is no silence of the host."""
    holder = FakeHolder()
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_opened(0.1)
        carrying = await permits.take(HOST, [holder])
        carrying.begin()
        other = await permits.take(HOST, [holder])
        other.begin()
        if waited_s is None:
            other.look = other.responded
        elif waited_s < 0:
            other.look = lambda: None
        else:
            other.note_connection(is_new=True, waited_s=lambda: waited_s)

        async def carry() -> None:
            for _ in range(100):
                carrying.carried()
                await trio.sleep(0.1)

        nursery.start_soon(carry)
        with trio.move_on_after(until_s if until_s is not None else 5.0) as waiting, other.scope:
            await trio.sleep_forever()
        assert waiting.cancelled_caught is (until_s is None)
        assert (permits.limit(HOST) is None) is (until_s is None)


@pytest.mark.parametrize(("late_s", "is_silent_at"), [(0.0, (0.25, 0.6)), (0.05, (0.6, 1.4))])
async def test_a_busy_machine_gives_new_connections_longer(
    autojump_clock: trio.testing.MockClock, late_s: float, is_silent_at: tuple[float, float]
) -> None:
    """Where each task waits for a processor, a server on the way does so too, several times."""
    holder = FakeHolder()
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_opened(0.01)
        carrying = await permits.take(HOST, [holder])
        carrying.begin()

        async def carry() -> None:
            while True:
                carrying.carried()
                await trio.sleep(0.09)
                # No task runs meanwhile.
                autojump_clock.jump(late_s)

        nursery.start_soon(carry)
        await trio.sleep(0.3)
        other = await permits.take(HOST, [holder])
        other.begin()
        began_s = trio.current_time()
        with trio.fail_after(5), other.scope:
            await trio.sleep_forever()
        soonest_s, latest_s = is_silent_at
        assert soonest_s < trio.current_time() - began_s < latest_s
        nursery.cancel_scope.cancel()


async def test_requests_that_hang_hold_no_others_up(autojump_clock: trio.testing.MockClock) -> None:
    """Names and sizes wait for no other request at a host that has refused nothing."""
    holder = FakeHolder()
    async with watching(holder) as permits, trio.open_nursery() as nursery:

        async def hang() -> None:
            await permits.take(HOST, [holder])

        for _ in range(20):
            nursery.start_soon(hang)
        await trio.sleep(0.01)
        with trio.fail_after(0.01):
            await permits.take(HOST, [holder])


@pytest.mark.parametrize("n_tasks", [2, 6])
async def test_tasks_that_begin_together_have_their_turns_by_rank(
    autojump_clock: trio.testing.MockClock, n_tasks: int
) -> None:
    """In whatever order trio runs them, the first bytes of a file get the first connections."""
    for _ in range(20):
        holder = FakeHolder()
        given: list[int] = []
        async with watching(holder) as permits, trio.open_nursery() as nursery:

            async def take(number: int, given: list[int], permits: Permits) -> None:
                await permits.take(HOST, [holder], lambda: (READ_AHEAD, number))  # noqa: B023
                given.append(number)

            for number in range(n_tasks):
                nursery.start_soon(take, number, given, permits)
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert given[0] == 0
        assert sorted(given) == list(range(len(given)))


async def test_of_requests_beside_a_tail_one_waits_for_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first one; for the others connections are opened meanwhile."""
    holder = FakeHolder()
    is_idle, order = trio.Event(), []
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        tail = await permits.take(HOST, [holder])
        tail.responded()
        permits.expect_idle(HOST, holder)
        nursery.start_soon(permits.expected_idle, HOST, is_idle)

        async def take(number: int) -> None:
            permit = await permits.take(HOST, [holder], lambda: (READ_AHEAD, number))
            order.append((number, permit.takes_idle))

        for number in range(3):
            nursery.start_soon(take, number)
        await trio.sleep(0.05)
        assert order == [(1, False), (2, False)]
        holder.n_proven = 1
        tail.end()
        is_idle.set()
        await trio.sleep(0.05)
        assert order[2:] == [(0, True)]
        nursery.cancel_scope.cancel()


async def test_a_connection_that_does_not_become_idle_is_not_waited_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Then another one is opened."""
    holder = FakeHolder()
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.expect_idle(HOST, holder)
        nursery.start_soon(permits.expected_idle, HOST, trio.Event())
        began_s = trio.current_time()
        await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0))
        assert trio.current_time() - began_s == pytest.approx(IDLE_SOON_S)


async def test_a_request_that_was_not_sent_is_taken_back_to_a_connection_that_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The range that is wanted first does not wait for a new connection behind a later one."""
    worker, loop = FakeHolder(), FakeHolder()
    async with watching(worker, loop) as permits:
        first = await permits.take(HOST, [worker, loop], lambda: (READ_AHEAD, 1))
        recalled = trio.Event()
        first.recall = recalled.set
        first.begin()
        loop.n_proven = 1
        given: list[int] = []

        async def take(order: int, *, is_moved: bool = False) -> None:
            permit = await permits.take(
                HOST, [loop], lambda: (READ_AHEAD, order), is_moved=is_moved
            )
            given.append(order)
            loop.n_proven -= permit.takes_idle
            permit.begin()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, 2)
            await recalled.wait()
            assert given == []
            first.taken_back()
            first.end()
            await trio.testing.wait_all_tasks_blocked()
            assert given == []
            nursery.start_soon(take, 1)
            nursery.cancel_scope.deadline = trio.current_time() + 1
            await take(1, is_moved=True)
            assert given[0] == 1


async def test_a_request_that_was_sent_keeps_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The one whose turn it is gets the connection that is ready as soon as that is known."""
    worker, loop = FakeHolder(), FakeHolder()
    async with watching(worker, loop) as permits:
        first = await permits.take(HOST, [worker, loop], lambda: (READ_AHEAD, 1))
        recalled = trio.Event()
        first.recall = recalled.set
        first.begin()
        loop.n_proven = 1

        async def report() -> None:
            await recalled.wait()
            first.not_taken_back()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(report)
            with trio.fail_after(0.01):
                permit = await permits.take(HOST, [loop], lambda: (READ_AHEAD, 2))
        assert permit.takes_idle
        assert first.is_recalled


@pytest.mark.parametrize("outcome", ["taken back", "passed on", "sent", "no report"])
async def test_silence_ends_what_was_not_sent_at_this_moment(
    autojump_clock: trio.testing.MockClock, outcome: str
) -> None:
    """A request that gets a connection which has responded, just then, keeps it."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        known = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0))
        known.begin()
        await trio.sleep(0.1)
        known.responded()
        silent = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 1))
        recalled = trio.Event()
        silent.recall = recalled.set
        silent.begin()
        while not recalled.is_set():
            await trio.sleep(0.05)
            known.carried()
        assert not silent.scope.cancel_called
        match outcome:
            case "taken back":
                silent.taken_back()
                silent.end()
            case "passed on":
                silent.responded()
                silent.not_taken_back()
            case "sent":
                silent.not_taken_back()
        await trio.sleep(0.3)
        assert silent.scope.cancel_called is (outcome == "sent")
        assert silent.is_counted is (outcome == "passed on")
        await trio.sleep(LOOKING_S)  # the holder had no processor until now
        assert silent.scope.cancel_called is (outcome in ("sent", "no report"))
        assert permits.known(HOST).limit == 1


async def test_connections_beyond_the_limit_that_never_responded_are_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No request is sent on one that is still being opened when the limit is known."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        permit = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0))
        permit.begin()
        permit.responded()
        other = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0))
        other.begin()
        with pytest.raises(Crowded):
            other.refused()
        other.end()
        holder.n_unused = 2
        permits.note_changed(HOST)
        assert holder.closed == [2]


@pytest.mark.parametrize(
    ("unused_since_s", "limit"),
    [pytest.param(-1.0, 3, id="open-before"), pytest.param(1.0, 1, id="opened-behind")],
)
async def test_what_was_opened_ahead_and_is_silent_is_closed_with_the_limit(
    autojump_clock: trio.testing.MockClock, unused_since_s: float, limit: int
) -> None:
    """A connection that waits in vain is given to no request again.

    The limit is what responds, and what was open before the one that is silent.
    """
    holder = FakeHolder(n_proven=1, n_unused=2)
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_opened(0.1)
        holder.unused_since_s = trio.current_time() + unused_since_s
        carrying = await permits.take(HOST, [holder])
        carrying.begin()
        holder.n_proven = 0
        silent = await permits.take(HOST, [holder])
        silent.begin()

        async def carry() -> None:
            for _ in range(20):
                carrying.carried()
                await trio.sleep(0.1)

        nursery.start_soon(carry)
        with silent.scope:
            await trio.sleep(5)
        with pytest.raises(Crowded):
            silent.raise_if_silent()
        assert permits.limit(HOST) == limit
        assert holder.closed == [2]
        nursery.cancel_scope.cancel()


async def test_a_look_of_before_does_not_count(autojump_clock: trio.testing.MockClock) -> None:
    """Bytes may have come since the holder found none, and wait until it has a processor."""
    holder, n_looks = FakeHolder(), 0
    async with watching(holder) as permits:
        permit = await permits.take(HOST, [holder])

        def look() -> None:
            nonlocal n_looks
            n_looks += 1

        permit.begin()
        permit.look = look
        assert not permit.is_looked_at(trio.current_time())
        permit.note_waited()
        await trio.sleep(2 * MAX_LOOK_AGE_S)
        assert not permit.is_looked_at(trio.current_time())
        assert n_looks == 2
        permit.note_waited()
        await trio.sleep(MAX_LOOK_AGE_S / 2)
        assert permit.is_looked_at(trio.current_time())
        permit.end()


async def test_a_name_waits_for_no_others_that_hang(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Silence alone limits no names; a request that was silent is sent once more, and waits."""
    holder, n_sent = FakeHolder(), 0
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_opened(0.1)

        async def hang() -> None:
            nonlocal n_sent
            for is_last_try in (False, True, True):
                permit = await permits.take(HOST, [holder])
                permit.is_last_try = is_last_try
                permit.begin()
                n_sent += 1
                with permit.scope:
                    await trio.sleep_forever()
                permit.end()

        for _ in range(20):
            nursery.start_soon(hang)
        for _ in range(10):
            with trio.fail_after(0.01):
                permit = await permits.take(HOST, [holder])
            permit.begin()
            permit.carried()
            await trio.sleep(1)
            permit.carried()
            permit.end()
        assert permits.limit(HOST) is not None
        assert n_sent == 40
        nursery.cancel_scope.cancel()


async def test_a_size_keeps_to_the_limit_of_a_store_that_silence_has_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A store where ranges are silent has connections wait, whatever is requested there."""
    holder = FakeHolder()
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        permits.known(HOST).note_opened(0.1)
        carrying, silent = [
            await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0)) for _ in range(2)
        ]
        for permit in (carrying, silent):
            permit.begin()

        async def carry() -> None:
            while True:
                carrying.carried()
                await trio.sleep(0.1)

        nursery.start_soon(carry)
        with silent.scope:
            await trio.sleep_forever()
        silent.end()
        assert permits.limit(HOST) == 1
        with trio.move_on_after(0.5) as limit:
            await permits.take(HOST, [holder])
        assert limit.cancelled_caught
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("n_silent", [1, 2])
async def test_what_was_begun_behind_silent_connections_is_not_waited_for(
    autojump_clock: trio.testing.MockClock, n_silent: int
) -> None:
    """A host that has two wait has all wait that came later; one may have lost a packet."""
    holder = FakeHolder(n_proven=1)
    async with watching(holder) as permits, trio.open_nursery() as nursery:
        limit = permits.known(HOST)
        limit.note_opened(0.4)
        limit.note_responding(trio.current_time(), 2)
        carrying = await permits.take(HOST, [holder])
        carrying.begin()
        holder.n_proven = 0

        async def carry() -> None:
            while True:
                carrying.carried()
                await trio.sleep(0.1)

        nursery.start_soon(carry)
        for _ in range(n_silent):
            (await permits.take(HOST, [holder])).begin()
        await trio.sleep(limit.silence_s() / 2)
        later = await permits.take(HOST, [holder])
        later.begin()
        began_s = trio.current_time()
        with later.scope:
            await trio.sleep(5)
        waited_s = trio.current_time() - began_s
        assert (waited_s < 0.75 * limit.silence_s()) == (n_silent > 1)
        with pytest.raises(Crowded):
            later.raise_if_silent()
        assert permits.limit(HOST) == 1
        nursery.cancel_scope.cancel()


async def test_late_connections_are_not_counted_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Ranges are made for as many connections as may be open, or as respond."""
    holder = FakeHolder()
    async with watching(holder) as permits:
        permits.known(HOST).note_opened(0.4)
        first = await permits.take(HOST, [holder])
        first.responded()
        new = await permits.take(HOST, [holder])
        assert permits.n_expected(HOST) == (3, False)
        await trio.sleep(0.7)
        assert permits.n_expected(HOST) == (1, True)
        new.responded()
        assert permits.n_expected(HOST) == (6, False)


async def test_a_late_request_is_moved_to_a_connection_that_is_idle(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Where no other request waits for it. That its own connection is slow is no limit."""
    here, there = FakeHolder(), FakeHolder()
    async with watching(here, there) as permits:
        permits.known(HOST).note_opened(0.4)
        first = await permits.take(HOST, [there])
        first.note_connection(is_new=False)
        late = await permits.take(HOST, [here, there])
        late.begin()
        began_s = trio.current_time()
        there.n_proven = 1
        first.end()
        with late.scope:
            await trio.sleep(5)
        assert 0.6 < trio.current_time() - began_s < 0.8
        with pytest.raises(Crowded):
            late.raise_if_silent()
        late.end()
        assert permits.limit(HOST) is None
        moved = await permits.take(HOST, [here, there], is_moved=True)
        assert (moved.holder, moved.takes_idle) == (there, True)


async def test_connections_beside_the_first_are_for_hosts_that_let_them_through() -> None:
    """A host of which nothing is known may let one through, and refuse the others."""
    permits = Permits()
    permits.n_known_before = lambda origin: 5 if origin == HOST else 0
    assert permits.may_open(HOST, 2)
    assert not permits.may_open("https://other.test:443", 2)


async def test_a_request_that_comes_alone_waits_for_no_turn() -> None:
    """Where others wait, it takes its place among them as before."""
    holder = FakeHolder()
    permits = Permits()
    with trio.testing.assert_no_checkpoints():
        first = await permits.take(HOST, [holder], lambda: (READ_AHEAD, 0), is_alone=True)
    permits.known(HOST).limit = 1
    order: list[int] = []

    async def take(number: int, *, is_alone: bool) -> None:
        permit = await permits.take(HOST, [holder], lambda: (READ_AHEAD, number), is_alone=is_alone)
        order.append(number)
        permit.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: take(1, is_alone=False))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: take(2, is_alone=True))
        await trio.testing.wait_all_tasks_blocked()
        first.end()
    assert order == [1, 2]
