"""Connections to a host by its name: its addresses, and which of them connects first (RFC 8305)."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import trio

from satfs.errors import NotAllowed
from satfs.net.happy_eyeballs import Race, SlowAddresses

#: Judges a host and an address of it; raises `NotAllowed`.
CheckPeer: TypeAlias = Callable[[str, str], None]


#: Most look-ups of names at once. One takes up to half a minute where no resolver responds
#: (resolv.conf(5): three of them, 5 s each, twice), and its thread continues when the request has
#: given up. Without a limit of their own these threads would use up the threads that read the
#: cache.
MAX_LOOKUPS: Final = 16
_lookups: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("lookups of names")


async def resolved_addresses(host: str, port: int, check_peer: CheckPeer | None) -> list[str]:
    """Return the addresses of *host* that may be connected to.

    Raises:
        OSError: the name has no address.
        NotAllowed: *check_peer* refuses all of them.
    """
    found = await _resolved(host, port)
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


async def _resolved(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return what the resolver of the system has for *host*; raises `socket.gaierror`."""
    try:
        limiter = _lookups.get()
    except LookupError:
        _lookups.set(limiter := trio.CapacityLimiter(MAX_LOOKUPS))
    try:
        # An address needs no thread.
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            abandon_on_cancel=True,
            limiter=limiter,
        )


async def first_connected(
    addresses: Sequence[str],
    port: int,
    slow: SlowAddresses,
    on_attempt: Callable[[], None] = lambda: None,
) -> trio.SocketStream:
    """Return a connection to the first of *addresses* that responds, tried as RFC 8305 has it.

    Enters the addresses that were slower in *slow*. *on_attempt* is called when one is tried.

    Raises:
        OSError: none of them responds.
    """
    if len(addresses) == 1:  # there is nothing to choose from
        on_attempt()
        only = await connected_to(addresses[0], port)
        slow.connected(addresses[0], (), trio.current_time())
        return only
    race = Race(slow.ordered(addresses, trio.current_time()))
    streams: list[tuple[str, trio.SocketStream]] = []
    failures: list[OSError] = []
    changed = trio.Event()

    async def attempt(address: str) -> None:
        try:
            streams.append((address, await connected_to(address, port)))
        except OSError as failure:
            failures.append(failure)
            race.failed(address)
        changed.set()

    winner: trio.SocketStream | None = None
    try:
        async with trio.open_nursery() as nursery:
            while not streams and not race.is_lost:
                if (address := race.due(trio.current_time())) is not None:
                    nursery.start_soon(attempt, address)
                    on_attempt()
                    continue
                wait_s = race.wait_s(trio.current_time())
                with trio.move_on_after(math.inf if wait_s is None else wait_s):
                    await changed.wait()
                changed = trio.Event()
            nursery.cancel_scope.cancel()
        if not streams:
            raise failures[0] if failures else OSError("the name has no address")
        address, winner = streams[0]
        slow.connected(address, race.losers(address), trio.current_time())
        return winner
    finally:
        for _, stream in streams:
            if stream is not winner:  # late, or the caller has been cancelled meanwhile
                stream.socket.close()


async def connected_to(address: str, port: int) -> trio.SocketStream:
    """Return a connection to *address*, which is no name; raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)
