"""Permits to use a connection: one count for each host, over all holders of connections to it.

The pools of the mount's own process and its worker processes open connections by themselves. Each
request needs a permit first, which names the holder of its connection. So together they observe the
limit of a host (`host_limit`), and a connection that is idle in one of them is used there, or
closed for a request that needs one elsewhere.

Everything except `take` and `watch` returns at once. The counts of one host are in
`host_connections`, and which of its connections are silent in `silent_connections`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from satfs.net.host_connections import Holder, Permit
from satfs.net.host_limit import MIN_ALLOWED, HostLimit
from satfs.net.recalls import Rank, to_recall
from satfs.net.shared_servers import SharedServers
from satfs.net.silent_connections import close_queued, end_silent, move_late
from satfs.net.wanted_host import Waiter, WantedHost

log = structlog.get_logger(__name__)

#: How often permits are checked while any is in use: for silence, and for waiters whose limit has
#: been raised. Seconds.
LOOK_INTERVAL_S: Final = 0.1
#: Share of the longest wait for a processor that is believed in the next interval: it is halved in
#: a third of a second.
WAKE_UP_KEPT: Final = 0.8
#: How long a request waits for a connection that is about to be idle, in seconds: opening another
#: one takes two round trips, and its first bytes come slowly.
IDLE_SOON_S: Final = 0.15
#: How long a waiter waits before a connection that was opened ahead of need is closed for it.
UNUSED_KEPT_S: Final = 0.2

#: The first part of a rank: names and sizes, then ranges for which a reader waits, then read-ahead.
METADATA: Final = 0
AWAITED: Final = 1
READ_AHEAD: Final = 2


class Permits:
    """All permits of one mount.

    Invariants:
        The permits of a host and the idle connections to it are together at most what its limit
        allowed when the last of them was given.
        A waiter is given nothing while one of a smaller rank waits for the same host, but a new
        connection while that one waits for an idle one.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, WantedHost] = {}
        self._holders: list[Holder] = []
        self._order = itertools.count()
        self._has_work = trio.Event()
        self._wake_up_s = 0.0  # how long `watch` waited for a processor of late
        #: Returns how many connections to a host are known to have responded at once; 0 for none.
        self.n_known_before: Callable[[str], int] = lambda origin: 0
        self.servers = SharedServers()
        #: Whether the only connection that a host lets through is left to other processes at times.
        self.ends_turns = False

    def add_holder(self, holder: Holder) -> None:
        """Count the connections of *holder* from now on."""
        self._holders.append(holder)

    async def take(
        self,
        origin: str,
        holders: Sequence[Holder],
        rank: Callable[[], Rank] | None = None,
        *,
        is_patient: bool = True,
        is_moved: bool = False,
        is_alone: bool = False,
    ) -> Permit:
        """Return a permit to use a connection to *origin* of one of *holders*, the best first.

        Waits while the host lets no more connections through; *holders* may be changed meanwhile.
        *rank* is the order of several that wait; it is called again at each choice. *is_patient*:
        see `Permit`. *is_moved*: the request was taken from a silent connection, and any that has
        responded before is better than a new one. *is_alone*: no other request is about to come
        that may have a smaller rank. Then this one waits only if it has to.
        """
        host = self._host(origin)
        is_metadata = rank is None
        host.has_ranges |= not is_metadata
        if rank is None:
            number = next(self._order)

            def rank() -> Rank:
                return (METADATA, number)

        waiter = Waiter(holders, rank, is_metadata=is_metadata, is_moved=is_moved)
        host.waiters.append(waiter)
        if is_moved:
            host.recalls.came()
        try:
            # Tasks that begin together run in any order: all of them are in the queue before one
            # is chosen.
            if not is_alone or len(host.waiters) > 1:
                await trio.lowlevel.checkpoint()
            self._serve(host)
            if not waiter.event.is_set():
                await waiter.event.wait()
            if waiter.is_behind:
                # Woken together, tasks run in any order, and the one whose turn it was uses the
                # connection that is open.
                await trio.lowlevel.checkpoint()
        except BaseException:
            if waiter.permit is not None:
                waiter.permit.end()
            else:
                host.waiters.remove(waiter)
                self._serve(host)
            raise
        if waiter.permit is None:
            raise AssertionError("woken without a permit")
        waiter.permit.is_patient = is_patient
        return waiter.permit

    def known(self, origin: str) -> HostLimit:
        """Return how many connections *origin* lets through, as far as is known."""
        return self._host(origin).limit

    def limit(self, origin: str) -> int | None:
        """Return how many connections may be open to a host with a known limit, else None."""
        return self.known(origin).known(trio.current_time())

    def n_expected(self, origin: str) -> tuple[int, bool]:
        """Return how many connections may be open; see `HostConnections.n_expected`."""
        return self._host(origin).n_expected()

    def n_responding(self) -> dict[str, int]:
        """Return for each host how many connections have responded at once, if any have."""
        seen = {origin: host.limit.n_responding for origin, host in self._hosts.items()}
        return {origin: n for origin, n in seen.items() if n}

    def room(self, origin: str) -> int:
        """Return how many more connections may be opened now."""
        host = self._host(origin)
        return max(0, host.limit.allowed(trio.current_time()) - host.n_open())

    def may_open(self, origin: str, n_connections: int) -> bool:
        """Return whether *origin* is known to let that many more connections through.

        A host of which nothing is known may refuse all but one.
        """
        return self.room(origin) > max(MIN_ALLOWED, n_connections)

    def forget(self) -> None:
        """Forget the limits: the network has changed, for example."""
        for host in self._hosts.values():
            host.limit = HostLimit()
            self._serve(host)

    async def watch(self) -> None:
        """Find silent and idle connections, and serve tasks when a limit is raised; never ends."""
        while True:
            await self._has_work.wait()
            due_s = trio.current_time() + LOOK_INTERVAL_S
            await trio.sleep_until(due_s)
            # After a time without a processor, the tasks that receive run first.
            late_s = trio.current_time() - due_s
            is_late = late_s > LOOK_INTERVAL_S
            self._wake_up_s = max(late_s, WAKE_UP_KEPT * self._wake_up_s)
            for host in self._hosts.values():
                host.limit.wake_up_s = self._wake_up_s
                host.close_unneeded()
                if not is_late:
                    if close_queued(host):
                        host.make_way()
                    end_silent(host)
                    if not host.waiters:
                        move_late(host)
                self._serve(host)
            if all(host.is_at_rest() and not host.n_open() for host in self._hosts.values()):
                self._has_work = trio.Event()

    # -- what becomes of connections -------------------------------------------------------------

    def note_refused_ahead(self, origin: str, n_connections: int = 1) -> None:
        """Note that connections were refused which were opened ahead of need, for no request."""
        for _ in range(n_connections):
            self._host(origin).note_refused()

    def note_closed(self, origin: str) -> None:
        """Note that a connection was closed on this side which had responded."""
        self.known(origin).note_closed(trio.current_time())

    def expect_idle(self, origin: str, holder: Holder) -> None:
        """Make the first task that waits for a connection of *holder* wait for an idle one.

        Connections are opened for other tasks meanwhile. To be followed by `expected_idle`.
        """
        self._host(origin).expected_of = holder

    async def expected_idle(self, origin: str, is_idle: trio.Event) -> None:
        """Wait until the expected connection is idle, or for `IDLE_SOON_S`; expect none then."""
        host = self._host(origin)
        with trio.move_on_after(IDLE_SOON_S):
            await is_idle.wait()
        host.expected_of = None
        self._serve(host)

    def note_ready(self, origin: str) -> None:
        """Note that connections were opened for requests that will soon come."""
        host = self._host(origin)
        host.used_at_s = trio.current_time()
        self._serve(host)

    def note_changed(self, origin: str) -> None:
        """Note that the connections of a host have changed."""
        self._serve(self._host(origin))

    # -- giving permits --------------------------------------------------------------------------

    def _host(self, origin: str) -> WantedHost:
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = WantedHost(origin, self._holders, self.note_changed)
            host.make_way = partial(self._make_way, host)
            host.on_response = partial(self._note_response, host)
            host.limit.recall(self.n_known_before(origin))
        return host

    def _serve(self, host: WantedHost) -> None:
        """Give permits to waiting tasks, in the order of their ranks, as far as it goes."""
        if not host.is_at_rest() or host.n_open():
            self._has_work.set()
        host.close_excess()
        if host.waiters and self._lets_another_go_first(host):
            return
        is_behind = False
        while (waiter := self._first_waiter(host)) is not None:
            if self._is_recalling(host, waiter):
                return
            if self.ends_turns and host.is_turn_over():
                host.close_idle()
            permit = self._permit(host, waiter)
            if permit is None:
                host.limit.note_wanted(trio.current_time(), carried_at_s=host.carried_at_s)
                permit = self._permit(host, waiter)
            if permit is None:
                if not self._has_made_room(host, waiter):
                    return
                continue
            host.waiters.remove(waiter)
            host.permits.append(permit)
            if not permit.takes_idle:
                host.begin_turn()
                self._close_shared(host)
            permit.rank = waiter.rank
            waiter.permit, waiter.is_behind, is_behind = permit, is_behind, True
            waiter.event.set()
        if not host.waiters:
            self._is_recalling(host, None)

    def _is_recalling(self, host: WantedHost, waiter: Waiter | None) -> bool:
        """Return whether connections that are ready are kept for requests that are taken back.

        For those that wait for new connections and come before *waiter*, whose turn it is.
        """
        if not host.may_recall:
            return False
        n_ready, now_s = host.n_idle_proven(), trio.current_time()
        if not n_ready or (waiter is not None and waiter.is_metadata):
            return False
        if host.recalls.keep_ready(now_s, is_moved=waiter is not None and waiter.is_moved):
            return True
        # Where new connections are late, ranges that follow on each other become one (`fit`).
        max_requests = None if host.are_new_ones_late(now_s) else n_ready
        before = None if waiter is None else waiter.rank()
        found = to_recall(host.permits, before, max_requests)
        host.recalls.order(found, now_s)
        return bool(found)

    def _first_waiter(self, host: WantedHost) -> Waiter | None:
        """Return the waiting task whose turn it is; None where it waits for an idle connection."""
        waiters = sorted(host.waiters, key=lambda each: each.rank())
        holder = host.expected_of
        if holder is not None and not sum(host.n_idle(holder)):
            for waiter in waiters:
                if holder in waiter.holders and not waiter.is_metadata:
                    waiters.remove(waiter)
                    break
        return waiters[0] if waiters else None

    def _permit(self, host: WantedHost, waiter: Waiter) -> Permit | None:
        holders = waiter.holders
        best = holders[0]
        idle = {holder: host.n_idle(holder) for holder in holders}
        # Names and sizes are few, and must not wait for others that hang: no steps for them. Any
        # single request to the API may hang: a limit that only silence has shown does not hold for
        # names.
        is_unlimited = host.limit.limit is None or not (host.limit.is_refusing or host.has_ranges)
        may_open = (waiter.is_metadata and is_unlimited) or host.has_room()
        # A new connection of the right holder is better than an old one of another.
        chosen = best if sum(idle[best]) or may_open else None
        if waiter.is_moved:
            chosen = next((holder for holder in holders if idle[holder][0]), chosen)
        if chosen is None:
            chosen = next((holder for holder in holders if sum(idle[holder])), None)
        if chosen is None:
            return None
        n_proven, n_unused = idle[chosen]
        permit = Permit(host, chosen, is_new=not n_proven)
        permit.takes_idle = bool(n_proven or n_unused)
        permit.is_ahead = permit.is_new and permit.takes_idle
        return permit

    # -- hosts that are one server ---------------------------------------------------------------

    def _sharing(self, host: WantedHost) -> list[WantedHost]:
        if not self.servers.is_any_known:
            return []
        return [
            other
            for other in self._hosts.values()
            if other is not host and self.servers.share(host.origin, other.origin)
        ]

    def _make_way(self, host: WantedHost) -> None:
        """Close idle connections to other hosts that may be in the way of those to *host*."""
        in_the_way = [
            other
            for other in self._hosts.values()
            if other is not host
            and self.servers.may_share(host.origin, other.origin)
            and not other.limit.keeps_several
            and other.is_at_rest()
            and other.n_open()
        ]
        for other in in_the_way:
            other.close_idle()
        if in_the_way:
            names = [other.origin for other in in_the_way]
            log.debug("idle connections are in the way", origin=host.origin, others=names)
            self.servers.note_closed(host.origin, names, trio.current_time())

    def _note_response(self, host: WantedHost) -> None:
        self.servers.note_response(host.origin, trio.current_time())

    def _close_shared(self, host: WantedHost) -> None:
        """Close idle connections that are known to be in the way of a new one to *host*."""
        for other in self._sharing(host):
            if other.is_at_rest():
                other.close_idle()

    def _lets_another_go_first(self, host: WantedHost) -> bool:
        """Return whether a request to another host waits for a connection to *host* to end.

        Otherwise requests to one host could follow each other until the other's are given up.
        """
        if not any(other.is_queued() for other in self._sharing(host)):
            return False
        host.close_idle()
        return True

    def _has_made_room(self, host: WantedHost, waiter: Waiter) -> bool:
        """Close an idle connection that *waiter* cannot use; False without one."""
        now_s = trio.current_time()
        for holder in self._holders:
            n_proven, n_unused = host.n_idle(holder)
            if holder in waiter.holders or not (n_proven or n_unused):
                continue
            if not n_proven:
                # Opened ahead of need, perhaps for a worker that is about to be ready. A new one in
                # its place would only cost one more refusal, as long as others receive bytes.
                is_early = now_s - waiter.since_s < UNUSED_KEPT_S
                if is_early or host.n_responding():
                    continue
            holder.close_some_idle(host.origin, 1)
            if n_proven and not n_unused:
                host.limit.note_closed(now_s)
            return True
        return False
