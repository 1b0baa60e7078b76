"""Names with dead addresses: tried side by side (RFC 8305), in the loop and in the workers."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from fakes.origin import ramp, serving
from fakes.silence import silent_addresses
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.transfer.opener import Opener
from satfs.errors import Unreachable
from satfs.net import connecting
from satfs.net.addresses import origin_of
from satfs.net.happy_eyeballs import (
    ATTEMPT_DELAY_S,
    MAX_REMEMBERED,
    SLOW_S,
    Race,
    SlowAddresses,
    interleaved,
)
from satfs.net.http import Http

ADDRESSES = st.lists(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), max_size=12, unique=True
)


@given(ADDRESSES)
def test_families_take_turns_and_none_is_lost(addresses: list[str]) -> None:
    """RFC 8305 §4: the order within a family stays, the family of the first begins."""
    order = interleaved(addresses)
    assert sorted(order) == sorted(addresses)
    assert order[:1] == addresses[:1]
    for is_ipv6 in (False, True):
        kept = [each for each in order if (":" in each) == is_ipv6]
        assert kept == [each for each in addresses if (":" in each) == is_ipv6]
    n_both = min(sum(":" in each for each in order), sum(":" not in each for each in order))
    turns = [":" in each for each in order[: 2 * n_both]]
    assert all(first != second for first, second in itertools.pairwise(turns))


@given(ADDRESSES, st.sets(st.integers(0, 11)))
def test_addresses_that_lost_come_last_for_a_while(addresses: list[str], chosen: set[int]) -> None:
    slow = SlowAddresses()
    losers = [each for number, each in enumerate(addresses) if number in chosen]
    slow.add(losers, 0.0)
    order = slow.ordered(addresses, 1.0)
    assert sorted(order) == sorted(addresses)
    assert set(order[len(order) - len(losers) :]) == set(losers)
    assert slow.ordered(addresses, SLOW_S) == interleaved(addresses)
    for each in losers:
        slow.connected(each, [], 1.0)
    assert slow.at(1.0) == ()


def test_what_is_remembered_is_limited() -> None:
    slow = SlowAddresses()
    slow.add((f"10.0.{number // 256}.{number % 256}" for number in range(2 * MAX_REMEMBERED)), 0.0)
    assert len(slow.at(0.0)) == MAX_REMEMBERED


@given(st.integers(1, 10), st.data())
def test_attempts_begin_in_order_a_delay_apart_or_after_a_failure(
    n_addresses: int, data: st.DataObject
) -> None:
    """No address waits longer than one delay, and none is tried twice."""
    addresses = [f"10.0.0.{number}" for number in range(n_addresses)]
    race, now_s = Race(addresses), 0.0
    begun: list[str] = []
    failed: list[str] = []
    while (wait_s := race.wait_s(now_s)) is not None:
        assert wait_s <= ATTEMPT_DELAY_S
        now_s += wait_s
        address = race.due(now_s)
        assert address is not None
        assert race.due(now_s) is None
        begun.append(address)
        if data.draw(st.booleans()):
            race.failed(address)
            failed.append(address)
            assert race.wait_s(now_s) in (0.0, None)
    assert begun == addresses
    assert race.due(now_s + 1) is None
    running = [each for each in begun if each not in failed]
    assert race.is_lost == (not running)
    for number, winner in enumerate(running):
        assert sorted(race.losers(winner)) == sorted([*failed, *running[:number]])


# -- dead addresses before the good one ------------------------------------------------------------


def dead_addresses(n_dead: int) -> list[str]:
    """Return IPv6 addresses for documentation (RFC 3849)."""
    return [f"2001:db8::{number + 1}" for number in range(n_dead)]


@pytest.mark.parametrize("n_dead", [0, 1, 2, 4])
async def test_the_loop_pays_once_for_dead_addresses(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, n_dead: int
) -> None:
    """A delay for each at the first connection of all, nothing later."""
    tried: list[str] = []
    ours: Any = object()

    async def connect(address: str, port: int) -> Any:
        tried.append(address)
        if address in dead_addresses(n_dead):
            await trio.sleep_forever()
        await trio.sleep(0.01)
        return ours

    monkeypatch.setattr(connecting, "connected_to", connect)
    slow = SlowAddresses()
    addresses = [*dead_addresses(n_dead), "192.0.2.1"]
    began_s = trio.current_time()
    assert await connecting.first_connected(addresses, 443, slow) is ours
    assert trio.current_time() - began_s <= ATTEMPT_DELAY_S * n_dead + 0.02
    tried.clear()
    for _ in range(5):
        began_s = trio.current_time()
        assert await connecting.first_connected(addresses, 443, slow) is ours
        assert trio.current_time() - began_s < 0.02
    assert tried == ["192.0.2.1"] * 5


@pytest.fixture
def silent() -> Iterator[list[str]]:
    """Return a port, and four addresses of this machine where it swallows packets."""
    with silent_addresses(4) as (port, addresses):
        yield [str(port), *addresses]


def resolving(monkeypatch: pytest.MonkeyPatch, name: str, addresses: list[str]) -> None:
    """Have *name* lead to *addresses*, in this order."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        if host not in (name, name.encode()):
            return real(host, port, *arguments, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def opened_by(opener: Opener, origin: tuple[str, str]) -> Any:
    opener.open(origin)
    ((_, opened),) = opener.opened()
    return opened


@pytest.mark.slow
@pytest.mark.parametrize("n_dead", [1, 4])
def test_a_worker_gets_past_addresses_that_swallow_packets(
    monkeypatch: pytest.MonkeyPatch, silent: list[str], n_dead: int
) -> None:
    """Well before its time for one connection is over; later it tries the good one first."""
    port, dead = int(silent[0]), silent[1 : 1 + n_dead]
    with socket.create_server(("127.0.0.1", port)) as server:
        resolving(monkeypatch, "many.example", [*dead, "127.0.0.1"])
        opener = Opener()
        for _ in range(2):
            found = opened_by(opener, ("http", f"many.example:{port}"))
            assert isinstance(found, socket.socket), found
            assert found.getpeername() == server.getsockname()
            assert found.gettimeout() == opener.connect_timeout_s
            found.close()
        assert set(opener._slow.at(0.0)) == set(dead)
        opener.close()


def test_a_worker_that_was_told_tries_slow_addresses_last(
    monkeypatch: pytest.MonkeyPatch, silent: list[str]
) -> None:
    """The loop has learnt of the dead addresses: the worker never tries them."""
    port, dead = int(silent[0]), silent[1:]
    tried: list[str] = []

    def race(order: list[str]) -> Race:
        tried.extend(order)
        return Race(order)

    monkeypatch.setattr("satfs.content.transfer.opener.Race", race)
    with socket.create_server(("127.0.0.1", port)):
        resolving(monkeypatch, "many.example", [*dead, "127.0.0.1"])
        opener = Opener()
        opener.avoid(dead)
        opened_by(opener, ("http", f"many.example:{port}")).close()
        assert tried[0] == "127.0.0.1"
        opener.close()


def test_a_worker_tells_that_all_addresses_are_dead(
    monkeypatch: pytest.MonkeyPatch, silent: list[str]
) -> None:
    resolving(monkeypatch, "many.example", silent[1:])
    opener = Opener()
    opener.connect_timeout_s = 0.3
    assert isinstance(opened_by(opener, ("http", f"many.example:{silent[0]}")), TimeoutError)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        resolving(monkeypatch, "many.example", ["127.0.0.1"])
        port = unused.getsockname()[1]
        refused = opened_by(opener, ("http", f"many.example:{port}"))
        assert isinstance(refused, OSError)
        assert not isinstance(refused, TimeoutError)
    opener.close()


async def test_the_client_reads_past_a_dead_address_and_tells_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real sockets: a queue that is full in front of the good address."""
    async with serving() as origin:
        with silent_addresses(1, origin.port) as (_, dead):
            resolving(monkeypatch, "many.example", [*dead, "127.0.0.1"])
            async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=2) as http:
                url = f"http://many.example:{origin.port}/ramp/1000"
                assert (await http.request("GET", url, headers={})).body == ramp(0, 1000)
                assert http.slow_addresses() == tuple(dead)


async def test_a_name_that_cannot_be_resolved_is_no_limit_of_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a connection carries, the resolver fails for another one."""
    async with serving() as origin:
        resolving(monkeypatch, "many.example", ["127.0.0.1"])
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=2) as http:
            url = f"http://many.example:{origin.port}/ramp/1000"
            async with http.stream(url, headers={}) as response:

                def fail(*_: Any, **__: Any) -> Any:
                    raise socket.gaierror(socket.EAI_AGAIN, "try again")

                monkeypatch.setattr(socket, "getaddrinfo", fail)
                with pytest.raises(Unreachable):
                    await http.request("GET", url, headers={})
                assert http.permits.known(origin_of(url)).limit is None
                assert b"".join([chunk async for chunk in response.chunks()]) == ramp(0, 1000)


async def test_names_that_are_not_resolved_take_no_place_of_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No resolver responds: the threads go on when the requests have given up."""
    may_end, real = threading.Event(), socket.getaddrinfo

    def hang(host: Any, port: Any, *_: Any, flags: int = 0, **__: Any) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            may_end.wait(10)
        return real(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with Http(connect_timeout_s=0.2, progress_timeout_s=5, max_connections=99) as http:
            async with trio.open_nursery() as nursery:

                async def request(number: int) -> None:
                    with pytest.raises(Unreachable):
                        await http.request("GET", f"http://{number}.example/", headers={})

                for number in range(60):
                    nursery.start_soon(request, number)
            with trio.fail_after(2):
                assert await trio.to_thread.run_sync(int) == 0
    finally:
        may_end.set()


async def test_a_connection_that_comes_with_the_cancellation_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else knows of it."""
    with socket.create_server(("127.0.0.1", 0)) as server, trio.CancelScope() as scope:
        real, streams = connecting.connected_to, []

        async def connect(address: str, port: int) -> trio.SocketStream:
            streams.append(await real(address, port))
            scope.cancel()
            return streams[-1]

        monkeypatch.setattr(connecting, "connected_to", connect)
        addresses, port = ["127.0.0.1", "127.0.0.2"], server.getsockname()[1]
        await connecting.first_connected(addresses, port, SlowAddresses())
    assert scope.cancelled_caught
    assert streams[0].socket.fileno() == -1
