"""Connections that are open before they are needed, while programs look up names.

A new connection takes two round trips before its first request. Hosts close idle ones after some
seconds to some tens of seconds, so that the next file that is opened after a pause costs them
again. A request now and then would keep one open, and cost requests for as long as the mount
lives. Here a connection is opened again when a program looks up a name: while the program reads a
listing, walks to a file or waits for a link, the handshake is done. To a host that has never been
used they are opened when it responds for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import trio

#: Connections that are ready to each host. To the store three: the tail of a file comes over one,
#: and the first block that a program reads of it over the others at the same time, half of it each.
READY_CONNECTIONS: Final = 3
#: Connections to the API when a mount begins, before the first look-up: the record of a scene comes
#: over one, and the link to its zip over the other at the same time. The first look-up comes a
#: moment after the start, and a handshake takes as long as both requests in sequence.
READY_AT_FIRST: Final = 2
#: Only to hosts that were used within this time, in seconds: for a program that looks up names all
#: day, and reads no file, no connection to a store is opened.
USED_WITHIN_S: Final = 600.0
#: Least time between two openings, in seconds, however many names are looked up.
LOOK_EVERY_S: Final = 1.0
#: The first request to a host belongs to a look-up that began within this time before its response,
#: in seconds.
LOOKED_WITHIN_S: Final = 2.0
#: A host to which no connection could be opened is not tried again for this many seconds.
RETRY_AFTER_S: Final = 30.0


class HttpClient(Protocol):
    """The part of `net.http.Http` that is needed here."""

    def origins_in_use(self, within_s: float) -> Sequence[str]:
        """Return the origins that have kept a connection open within the last *within_s*."""

    def on_keeping(self, report: Callable[[str], None]) -> None:
        """Call *report* with each origin that keeps connections open, at its first response."""

    async def keep_ready(self, origin: str, n_connections: int) -> bool:
        """Open connections to *origin*, up to *n_connections*; return False where one failed."""


class ReadyConnections:
    """Keeps connections of *clients* ready; `run` does the work, in a task."""

    def __init__(self, clients: Sequence[HttpClient]) -> None:
        self._clients = clients
        self._has_looked = trio.Event()
        self._looked_s = float("-inf")
        self._not_before_s: dict[str, float] = {}

    def look(self) -> None:
        """Note that a program looks up names now. Never waits."""
        self._has_looked.set()
        self._looked_s = trio.current_time()

    async def run(self, first: str | None = None) -> None:
        """Open missing connections whenever a program has looked up a name; never ends.

        To the origin *first*, if it is in use, `READY_AT_FIRST` are opened at once.
        """
        async with trio.open_nursery() as nursery:
            for client in self._clients:
                client.on_keeping(partial(self._note_new, nursery, client))
                if first is not None and first in client.origins_in_use(USED_WITHIN_S):
                    nursery.start_soon(self._keep_ready, client, first, READY_AT_FIRST)
            try:
                while True:
                    await self._has_looked.wait()
                    self._has_looked = trio.Event()
                    now_s = trio.current_time()
                    self._not_before_s = {o: s for o, s in self._not_before_s.items() if s > now_s}
                    for origin, client in self._in_use().items():
                        if origin not in self._not_before_s:
                            nursery.start_soon(self._keep_ready, client, origin)
                    await trio.sleep(LOOK_EVERY_S)
            finally:
                for client in self._clients:
                    client.on_keeping(lambda origin: None)

    def _in_use(self) -> dict[str, HttpClient]:
        """Return the origins in use, each with one client: several may share their connections."""
        return {
            origin: client
            for client in self._clients
            for origin in client.origins_in_use(USED_WITHIN_S)
        }

    def _note_new(self, nursery: trio.Nursery, client: HttpClient, origin: str) -> None:
        """Open connections to a host that has responded for the first time, for a look-up."""
        if trio.current_time() - self._looked_s <= LOOKED_WITHIN_S:
            nursery.start_soon(self._keep_ready, client, origin)

    async def _keep_ready(
        self, client: HttpClient, origin: str, n_connections: int = READY_CONNECTIONS
    ) -> None:
        if not await client.keep_ready(origin, n_connections):
            self._not_before_s[origin] = trio.current_time() + RETRY_AFTER_S
