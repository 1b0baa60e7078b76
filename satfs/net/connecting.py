"""Connections to a host by its name: its addresses, and a race of those (RFC 8305)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio

from satfs.errors import NotAllowed
from satfs.net.happy_eyeballs import Race, SlowAddresses

#: Judges a host and an address of it; raises `NotAllowed`.
CheckPeer: TypeAlias = Callable[[str, str], None]


async def resolved_addresses(host: str, port: int, check_peer: CheckPeer | None) -> list[str]:
    """Return the addresses of *host* that may be connected to.

    Raises:
        OSError: the name has no address.
        NotAllowed: *check_peer* refuses all of them.
    """
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    allowed: list[str] = []
    refused: NotAllowed | None = None
    for address in dict.fromkeys(str(each[4][0]) for each in found):
        try:
            if check_peer is not None:
                check_peer(host, address)
        except NotAllowed as refusal:
            refused = refusal
        else:
            allowed.append(address)
    if not allowed and refused is not None:
        raise refused
    return allowed


async def first_connected(
    addresses: Sequence[str], port: int, slow: SlowAddresses
) -> trio.SocketStream:
    """Return a connection to the first of *addresses* that responds, tried as RFC 8305 has it.

    Notes in *slow* which addresses lost.

    Raises:
        OSError: none does.
    """
    race = Race(slow.ordered(addresses, trio.current_time()))
    streams: list[tuple[str, trio.SocketStream]] = []
    failures: list[OSError] = []
    changed = trio.Event()

    async def attempt(address: str) -> None:
        try:
            streams.append((address, await trio.open_tcp_stream(address, port)))
        except OSError as failure:
            failures.append(failure)
            race.failed(address)
        changed.set()

    async with trio.open_nursery() as nursery:
        while not streams and not race.is_lost:
            if (address := race.due(trio.current_time())) is not None:
                nursery.start_soon(attempt, address)
                continue
            wait_s = race.wait_s(trio.current_time())
            with trio.move_on_after(math.inf if wait_s is None else wait_s):
                await changed.wait()
            changed = trio.Event()
        nursery.cancel_scope.cancel()
    if not streams:
        raise failures[0] if failures else OSError("the name has no address")
    winner, stream = streams[0]
    slow.connected(winner, race.losers(winner), trio.current_time())
    for _, late in streams[1:]:
        late.socket.close()
    return stream
