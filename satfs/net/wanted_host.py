"""A host that tasks want connections to: those that wait for one, and when it is at rest.

Nothing here waits; `permits` gives the permits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import trio

from satfs.net.host_connections import Holder, HostConnections, Permit
from satfs.net.recalls import Rank

#: After how many seconds without a byte a request goes before those to the same server under
#: another name: they would take its turn, one after the other.
QUEUED_S: Final = 0.1
#: For how many seconds after a refusal the same holds: the next try comes within about that time.
REFUSED_S: Final = 1.0
#: How long the only connection that a host lets through is used without a pause, in seconds: less
#: than the deadline of a call of another process that waits for its turn, and much more than the
#: handshake that follows.
TURN_S: Final = 5.0


class Waiter:
    """A task that waits for a permit. Its arguments are those of `Permits.take`."""

    def __init__(
        self,
        holders: Sequence[Holder],
        rank: Callable[[], Rank],
        *,
        is_metadata: bool,
        is_moved: bool,
    ) -> None:
        self.holders = holders
        self.is_metadata = is_metadata
        self.is_moved = is_moved
        self.rank = rank
        self.since_s = trio.current_time()
        self.event = trio.Event()
        self.permit: Permit | None = None
        self.is_behind = False  # another one was given a permit at the same moment, before it


class WantedHost(HostConnections):
    """The state of a host in `Permits` beside its connections: the tasks that wait for one."""

    def __init__(
        self,
        origin: str,
        holders: Sequence[Holder],
        on_change: Callable[[str], None],
    ) -> None:
        super().__init__(origin, holders, on_change)
        self.waiters: list[Waiter] = []
        self.has_ranges = False  # ranges were requested: it is a store
        self.expected_of: Holder | None = None  # a connection of it will soon be idle
        #: When it last had a request, or was about to; None until it is looked at.
        self.used_at_s: float | None = None
        self._turn_began_s = -math.inf
        self._refused_at_s = -math.inf  # while there was no other connection
        #: Closes idle connections to other hosts, which may be the same server.
        self.make_way: Callable[[], None] = lambda: None
        #: Called when a new connection has responded.
        self.on_response: Callable[[], None] = lambda: None

    def note_responding(self, permit: Permit) -> None:
        """See `HostConnections`."""
        super().note_responding(permit)
        if permit.is_new:
            self.on_response()

    def note_refused(self, *, silent_since_s: float | None = None) -> float | None:
        """See `HostConnections`."""
        wait_s = super().note_refused(silent_since_s=silent_since_s)
        if wait_s is None and not self.n_open():
            self._refused_at_s = trio.current_time()
            self.make_way()
        return wait_s

    def is_turn_over(self) -> bool:
        """Return whether the next connection in the host's queue should have its turn.

        A host that refuses has no queue, and a new connection would take the place of the old one.
        """
        if self.limit.limit != 1 or self.limit.is_refusing:
            return False
        is_over = trio.current_time() - self._turn_began_s >= TURN_S
        return is_over and self.n_idle_proven() == 1 == self.n_responding()

    def begin_turn(self) -> None:
        """Note that a new connection is opened."""
        if not self.n_responding():  # else it is tried beside the one that has its turn
            self._turn_began_s = trio.current_time()

    def is_queued(self) -> bool:
        """Return whether a request waits for a connection that may have to wait for another."""
        now_s = trio.current_time()
        is_any = any(
            each.is_opening and now_s - each.silent_since_s >= QUEUED_S for each in self.permits
        )
        is_refused = now_s - self._refused_at_s < REFUSED_S
        return (is_any or is_refused) and not self.n_responding()

    def is_at_rest(self) -> bool:
        """Return whether it has no request; otherwise it is in use now."""
        if self.permits or self.waiters:
            self.used_at_s = trio.current_time()
            return False
        return True

    def close_unneeded(self) -> None:
        """Close all connections of a host at rest that another process may wait for."""
        if not self.is_at_rest():
            return
        if self.used_at_s is None:
            self.used_at_s = trio.current_time()
        rested_s = trio.current_time() - self.used_at_s
        self.limit.note_at_rest(rested_s, self.n_idle_proven())
        if rested_s >= self.limit.idle_kept_s():
            self.close_idle()

    def close_idle(self) -> None:
        """Close all connections without a request."""
        for holder in self._holders:
            if n_idle := sum(holder.n_idle(self.origin)):
                holder.close_some_idle(self.origin, n_idle)

    @property
    def may_recall(self) -> bool:
        """Return whether any request could be taken back, or is being taken back."""
        is_recalling = not self.recalls.is_idle
        return is_recalling or any(each.recall is not None for each in self.permits)
