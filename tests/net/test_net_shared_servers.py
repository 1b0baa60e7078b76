"""Two names of one server that serves one connection at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from satfs.net.permits import Permits
from satfs.net.shared_servers import SOON_S, SharedServers
from satfs.net.wanted_host import REFUSED_S

API, STORE, ELSEWHERE = "https://api:443", "https://store:443", "https://elsewhere:443"
PEERS = {API: "('192.0.2.1', 443)", STORE: "('192.0.2.1', 443)", ELSEWHERE: "('192.0.2.2', 443)"}


class Pool:
    """Idle connections by host, all of which have responded before."""

    def __init__(self) -> None:
        self.idle: Counter[str] = Counter()

    def n_idle(self, origin: str) -> tuple[int, int]:
        return self.idle[origin], 0

    def n_unused_since(self, origin: str, at_s: float) -> int:
        return 0

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        self.idle[origin] -= n_connections


@asynccontextmanager
async def watching(pool: Pool) -> AsyncIterator[Permits]:
    permits = Permits()
    permits.add_holder(pool)
    permits.servers.peer_of = PEERS.get
    async with trio.open_nursery() as nursery:
        nursery.start_soon(permits.watch)
        yield permits
        nursery.cancel_scope.cancel()


async def use(permits: Permits, pool: Pool, origin: str, *, is_idle: bool = False) -> None:
    """Make one request, and keep its connection."""
    permit = await permits.take(origin, [pool])
    assert permit.takes_idle is is_idle
    pool.idle[origin] -= is_idle
    permit.begin()
    permit.carried()
    pool.idle[origin] += 1
    permit.end()


async def make_known(permits: Permits, pool: Pool) -> None:
    """Have a request to the store respond when the connection to the API is closed."""
    await use(permits, pool, API)
    waiting = await permits.take(STORE, [pool])
    waiting.begin()
    await trio.sleep(2)
    assert not pool.idle[API], "it was in the way"
    waiting.carried()
    waiting.end()
    pool.idle[STORE] = 1


async def test_idle_connections_to_another_name_are_closed(autojump_clock: object) -> None:
    """For a request that is silent; those to other servers stay."""
    pool = Pool()
    async with watching(pool) as permits:
        await use(permits, pool, ELSEWHERE)
        await make_known(permits, pool)
        assert pool.idle == {API: 0, STORE: 1, ELSEWHERE: 1}
        assert permits.servers.share(API, STORE)
        assert not permits.servers.share(ELSEWHERE, STORE)


async def test_later_requests_wait_for_no_silence(autojump_clock: object) -> None:
    """A new connection to one name has the idle ones to the other closed at once."""
    pool = Pool()
    async with watching(pool) as permits:
        await make_known(permits, pool)
        for origin, other in ((API, STORE), (STORE, API)):
            await use(permits, pool, origin)
            assert (pool.idle[origin], pool.idle[other]) == (1, 0)
            await use(permits, pool, origin, is_idle=True)


@pytest.mark.parametrize("is_refused", [False, True], ids=["waits", "is refused"])
async def test_requests_to_one_name_leave_a_gap_for_those_to_the_other(
    autojump_clock: object, *, is_refused: bool
) -> None:
    """Ranges that follow each other would hold the only connection until a look-up is given up."""
    pool = Pool()
    async with watching(pool) as permits, trio.open_nursery() as nursery:
        await make_known(permits, pool)
        pool.idle[STORE] -= 1
        carrying = await permits.take(STORE, [pool])
        carrying.begin()
        carrying.carried()
        look_up = await permits.take(API, [pool])
        look_up.begin()
        if is_refused:
            look_up.refused()
            look_up.end()
        await trio.sleep(REFUSED_S / 2)
        pool.idle[STORE] += 1
        carrying.end()
        order: list[str] = []

        async def read_on() -> None:
            permit = await permits.take(STORE, [pool])
            order.append("range")
            permit.end()

        nursery.start_soon(read_on)
        await trio.sleep(0.2)
        assert not pool.idle[STORE], "the server takes the next one"
        order.append("look-up")
        if not is_refused:
            look_up.carried()
            look_up.end()
    assert order == ["look-up", "range"]


async def test_a_server_that_keeps_several_is_left_alone(autojump_clock: object) -> None:
    """A slow response shows nothing about a host of which two connections were idle at once."""
    pool = Pool()
    async with watching(pool) as permits:
        await use(permits, pool, API)
        pool.idle[API] = 2
        await trio.sleep(1)
        slow = await permits.take(STORE, [pool])
        slow.begin()
        await trio.sleep(3)
        slow.carried()
        slow.end()
        assert pool.idle[API] == 2


def test_a_response_that_comes_much_later_shows_nothing() -> None:
    """The host was slow."""
    servers = SharedServers()
    servers.note_closed(STORE, [API], 10.0)
    servers.note_response(STORE, 10.0 + 2 * SOON_S)
    assert not servers.share(STORE, API)
    servers.note_closed(STORE, [API], 20.0)
    servers.note_response(STORE, 20.0 + SOON_S / 2)
    assert servers.share(API, STORE)


def test_hosts_of_which_no_address_is_known_share_nothing() -> None:
    assert not SharedServers().may_share(API, STORE)
