"""The connections of a pool that have no request: which one is used next, and which ones end.

Nothing here waits. A connection leaves the list when it is taken, when it has been idle for too
long, when the other side has closed it, or when others need its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import trio

from satfs.net.pooled_connection import PooledConnection

#: Idle time after which a connection is not used again. S3 closes idle ones after tens of seconds;
#: a request sent into a closed one costs a round trip and a second try.
IDLE_EXPIRY_S: Final = 20.0
#: Seconds between two checks of all idle connections: each check takes a system call per
#: connection, and their number is needed many times for each request. A connection that is taken is
#: checked then.
EXPIRE_EVERY_S: Final = 0.1


class IdleList:
    """At most *max_idle* idle connections; the one that was used last is the last.

    *is_refused* returns whether one that has ended was refused. Such a one stays until it is taken,
    since the request that takes it has to know.

    Invariants:
        `has_responded` of a connection does not change while it is here.
    """

    def __init__(self, max_idle: int, is_refused: Callable[[PooledConnection], bool]) -> None:
        self.max_idle = max_idle
        self._is_refused = is_refused
        self._connections: list[PooledConnection] = []
        self._counts: dict[str, tuple[int, int]] = {}  # by origin, as far as they were asked for
        self._expire_at_s = float("-inf")
        self.wall_clock: Callable[[], float] = time.time

    def __len__(self) -> int:
        """Return how many there are, those included that have expired since the last check."""
        return len(self._connections)

    def __iter__(self) -> Iterator[PooledConnection]:
        """Yield the connections, the one used last at the end."""
        return iter(self._connections)

    def of(self, name: str) -> list[PooledConnection]:
        """Return those to the origin called *name*."""
        return [each for each in self._connections if each.name == name]

    def counts_of(self, name: str) -> tuple[int, int]:
        """Return how many there are to the origin called *name*: responded before, and others.

        Asked for many times for each request.
        """
        if (known := self._counts.get(name)) is None:
            has_responded = [each.has_responded for each in self.of(name)]
            n_proven = sum(has_responded)
            known = self._counts[name] = (n_proven, len(has_responded) - n_proven)
        return known

    def add(self, connection: PooledConnection, *, is_first: bool = False) -> None:
        """Enter a connection that is good; the first in the list is used last and closed first."""
        connection.idle_since = trio.current_time()
        connection.idle_until = connection.idle_since + IDLE_EXPIRY_S
        connection.idle_until_wall = self.wall_clock() + IDLE_EXPIRY_S
        self._counts.clear()
        self._connections.insert(0 if is_first else len(self._connections), connection)
        while len(self._connections) > self.max_idle:
            self._connections.pop(0).dialer.abort()

    def taken(self, name: str) -> Iterator[tuple[PooledConnection, bool]]:
        """Yield connections to the origin called *name*, each taken, and whether it is good.

        First the one on which most bytes come at once, and of equal ones the one used last. One
        that is not good is closed.
        """
        now_s = trio.current_time()
        idle = reversed(self.of(name))
        for connection in sorted(idle, key=lambda each: -each.window_bytes(now_s)):
            self._counts.clear()
            self._connections.remove(connection)
            is_good = not connection.has_expired(now_s, self.wall_clock())
            if is_good:
                connection.take(now_s)
            else:
                connection.dialer.abort()
            yield connection, is_good

    def close(self, connections: list[PooledConnection]) -> None:
        """Close some of them."""
        self._counts.clear()
        for connection in connections:
            self._connections.remove(connection)
            connection.dialer.abort()

    def expire(self) -> None:
        """Close those that have expired, unless that was done a moment ago."""
        now_s = trio.current_time()
        if now_s < self._expire_at_s:
            return
        self._expire_at_s = now_s + EXPIRE_EVERY_S
        self.close(
            [
                each
                for each in self._connections
                if each.has_expired(now_s, self.wall_clock()) and not self._is_refused(each)
            ]
        )


class NothingIdle:
    """The connections of an injected transport, which are not known (`permits.Holder`)."""

    def n_idle(self, origin: str) -> tuple[int, int]:
        """Return none."""
        return 0, 0

    def n_unused_since(self, origin: str, at_s: float) -> int:
        """Return none."""
        return 0

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        """Do nothing."""
