"""`net/preconnect.py`: connections come about while somebody looks, and at no other time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from satfs.net.preconnect import (
    LOOK_EVERY_S,
    LOOKED_WITHIN_S,
    READY_AT_FIRST,
    READY_CONNECTIONS,
    RETRY_AFTER_S,
    USED_WITHIN_S,
    ReadyConnections,
)

STORE = "https://store.test:443"


class Client:
    """The connections that were requested, and when; `is_up` is whether they open."""

    def __init__(self, used_at_s: float | None) -> None:
        self.used_at_s = used_at_s
        self.is_up = True
        self.n_expected = READY_CONNECTIONS
        self.wanted_at_s: list[float] = []
        self.report: Callable[[str], None] = lambda origin: None

    def origins_in_use(self, within_s: float) -> Sequence[str]:
        since_s = trio.current_time() - within_s
        return [STORE] if self.used_at_s is not None and self.used_at_s >= since_s else []

    def on_keeping(self, report: Callable[[str], None]) -> None:
        self.report = report

    async def keep_ready(self, origin: str, n_connections: int) -> bool:
        assert (origin, n_connections) == (STORE, self.n_expected)
        self.wanted_at_s.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return self.is_up


@asynccontextmanager
async def running(client: Client) -> Any:
    ready = ReadyConnections([client])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.run)
        yield ready
        nursery.cancel_scope.cancel()


async def test_nothing_is_opened_while_nobody_looks(autojump_clock: Any) -> None:
    client = Client(trio.current_time())
    async with running(client):
        await trio.sleep(3600)
    assert not client.wanted_at_s


async def test_a_host_that_a_mount_begins_with_has_two_connections_before_a_look(
    autojump_clock: Any,
) -> None:
    """One for the record of a scene, one for the link to its zip; no others, and none again."""
    client, unused = Client(trio.current_time()), Client(None)
    client.n_expected = READY_AT_FIRST
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ReadyConnections([client, unused]).run, STORE)
        await trio.sleep(3600)
        nursery.cancel_scope.cancel()
    assert len(client.wanted_at_s) == 1
    assert not unused.wanted_at_s


async def test_a_thousand_looks_in_a_second_are_one(autojump_clock: Any) -> None:
    client = Client(trio.current_time())
    async with running(client) as ready:
        began_s = trio.current_time()
        while trio.current_time() < began_s + 10 * LOOK_EVERY_S - 0.0005:
            ready.look()
            await trio.sleep(LOOK_EVERY_S / 1000)
    assert len(client.wanted_at_s) in (10, 11)


async def test_hosts_that_were_not_used_lately_are_left_alone(autojump_clock: Any) -> None:
    """A walk of names for a whole day opens no connection to a store."""
    client = Client(trio.current_time())
    async with running(client) as ready:
        for _ in range(30):
            await trio.sleep(USED_WITHIN_S / 10)
            ready.look()
        await trio.sleep(1)
    assert len(client.wanted_at_s) in (9, 10)


async def test_a_host_that_is_down_is_tried_seldom(autojump_clock: Any) -> None:
    client = Client(trio.current_time())
    client.is_up = False
    async with running(client) as ready:
        for _ in range(int(3 * RETRY_AFTER_S)):
            ready.look()
            await trio.sleep(1)
        assert len(client.wanted_at_s) <= 4
        client.is_up = True
        await trio.sleep(RETRY_AFTER_S)
        n_before = len(client.wanted_at_s)
        for _ in range(5):
            ready.look()
            await trio.sleep(LOOK_EVERY_S)
    assert len(client.wanted_at_s) - n_before >= 4


async def test_a_host_that_responds_for_the_first_time_gets_connections_at_once(
    autojump_clock: Any,
) -> None:
    """The look-up that led to the request has been taken in before; none need follow."""
    client = Client(None)
    async with running(client) as ready:
        await trio.sleep(1)
        client.report(STORE)
        await trio.sleep(1)
        assert not client.wanted_at_s, "nobody has looked"
        ready.look()
        await trio.sleep(LOOKED_WITHIN_S / 2)
        client.report(STORE)
        await trio.sleep(0.1)
        assert len(client.wanted_at_s) == 1
        await trio.sleep(LOOKED_WITHIN_S)
        client.report(STORE)
        await trio.sleep(0.1)
        assert len(client.wanted_at_s) == 1
    client.report(STORE)  # a response that comes while the mount ends
