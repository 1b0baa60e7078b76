"""Leave to use a connection: one count for each host, over all that hold connections to it.

The pools of the mount's own process and its worker processes open connections by themselves. Each
request needs a permit first, which says whose connection it uses. So together they keep to what a
host lets through (`hostlimit`), and a connection that is idle in one of them is used there, or
closed for a request that needs one elsewhere.

Everything except `take` and `watch` returns at once. Longer than 400 lines, since the counts of a
host, and what changes them, have one owner.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
import trio

from satfs.net.hostlimit import GROWTH, HostLimit

log = structlog.get_logger(__name__)

#: How often permits are looked at while any is in use: for silence, and for waiters whose limit has
#: been raised. Seconds.
LOOK_INTERVAL_S: Final = 0.1
#: Longest wait for another process to look whether bytes have come, in seconds. On a busy machine
#: it has no processor for as long as that; a process that was stopped never looks.
LOOKING_S: Final = 2.0

#: How long a request waits for a connection that is about to be idle, in seconds: opening another
#: one takes two round trips, and its first bytes come slowly.
IDLE_SOON_S: Final = 0.15
#: How long a waiter waits before a connection that was opened ahead of need is closed for it.
UNUSED_KEPT_S: Final = 0.2

#: Order in which waiters get permits, the smallest first: names and sizes, then what a reader waits
#: for, then what is read ahead.
Rank = tuple[int, int]
METADATA: Final = 0
AWAITED: Final = 1
READ_AHEAD: Final = 2


class Crowded(Exception):
    """The host lets no further connection through; try again after *wait_s*, with a permit.

    Never leaves the content package or `net/http.py`.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__("no further connection is let through")
        self.wait_s = wait_s


class Holder(Protocol):
    """A holder of connections: a pool, or the worker processes."""

    def n_idle(self, origin: str) -> tuple[int, int]:
        """Return the connections to *origin* without a request: answered before, and never used.

        Those being opened ahead of need count as never used.
        """

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        """Close that many of them, soon; they are not counted any more from now on."""


class Permit:
    """Leave for one request over one connection of *holder*. End it with `end`.

    *scope* is cancelled when the connection is found to be silent while others carry. *is_new*:
    the connection has not responded before. *is_patient*: a connection that has responded before is
    waited for, also while others carry.
    """

    def __init__(self, permits: Permits, host: _Host, holder: Holder, *, is_new: bool) -> None:
        self.holder = holder
        self.is_new = is_new
        self.is_patient = False
        self.scope = trio.CancelScope()
        self.began_s = trio.current_time()
        self.has_responded = False
        self.takes_idle = False  # an idle connection is counted twice until the request has it
        self.is_ahead = False  # its connection was opened before, or begun to be, for no request
        self.is_counted = True
        self.wait_s: float | None = None  # as `HostLimit.note_refused` returned it, when silent
        #: Makes the holder look whether bytes wait on the connection. The holder then calls
        #: `note_no_bytes`, `note_bytes` or `responded`, at once or later.
        self.look: Callable[[], None] | None = None
        self.silent_since_s = self.began_s
        self._look_began_s: float | None = None
        self._is_looked_at = False
        self._permits = permits
        self._host = host

    @property
    def origin(self) -> str:
        """Return the origin that requests may go to."""
        return self._host.origin

    @property
    def is_proven(self) -> bool:
        """Return whether the host has ever answered on its connection."""
        return self.has_responded or not self.is_new

    def begin(self) -> None:
        """Note that the request has its connection, or that one is being opened for it."""
        self.takes_idle = False
        self.began_s = self.silent_since_s = trio.current_time()
        self._look_began_s, self._is_looked_at = None, False

    def note_no_bytes(self) -> None:
        """Note that the holder has looked, and no bytes wait on the connection."""
        self._is_looked_at = True

    def note_bytes(self) -> None:
        """Note that bytes wait on the connection: its silence begins now, if it is one."""
        self.silent_since_s = trio.current_time()
        self._look_began_s = None

    def is_looked_at(self, now_s: float) -> bool:
        """Return whether the holder has found no bytes; makes it look where it has not.

        A process without a processor has not read what has come: that is no silence of the host.
        """
        if self.look is None:
            return True
        if self._look_began_s is None:
            self._begin_look(self.look, now_s)
        began_s = self._look_began_s
        if began_s is None:  # bytes were found at once
            return False
        if self._is_looked_at or now_s - began_s >= LOOKING_S:
            self._look_began_s = None  # before the next decision it looks again
            return True
        return False

    def _begin_look(self, look: Callable[[], None], now_s: float) -> None:
        self._look_began_s, self._is_looked_at = now_s, False
        look()

    def note_connection(
        self,
        *,
        is_new: bool,
        is_ahead: bool = False,
        has_bytes: Callable[[], bool] = lambda: False,
    ) -> None:
        """Note which connection the request has: a new one, or one that has answered before.

        Not always the one that the permit was given for: requests that begin at the same time may
        exchange theirs. *is_ahead*: it was opened before the request. *has_bytes* returns whether
        bytes wait to be received there.
        """
        self.is_new, self.is_ahead = is_new, is_ahead
        self.look = lambda: self.note_bytes() if has_bytes() else self.note_no_bytes()

    def responded(self) -> None:
        """Note that the host has answered on this connection."""
        if not self.has_responded:
            self.has_responded = True
            self._permits.note_responding(self._host, self)

    def carried(self) -> None:
        """Note that bytes came."""
        self.responded()
        self._host.carried_at_s = trio.current_time()

    def broke(self) -> None:
        """Note that the host broke the connection off."""
        if self.has_responded:
            self._host.limit.note_broken(trio.current_time())

    def refused(self) -> None:
        """Note that the host refused the connection.

        Raises:
            Crowded: others are let through, so that this is the host's limit. Otherwise nothing is
                raised, and the failure is one like any other.
        """
        wait_s = self._permits.note_refused(self._host, self)
        if wait_s is not None:
            raise Crowded(wait_s)

    def raise_if_silent(self) -> None:
        """Raise what ended *scope*, if that was silence.

        Raises:
            Crowded: others carry.
        """
        if self.wait_s is not None and self.scope.cancelled_caught:
            raise Crowded(self.wait_s)

    def end(self) -> None:
        """Give the permit back, when its connection is idle again or closed."""
        self._permits.take_back(self._host, self)


class _Waiter:
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


class _Host:
    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.limit = HostLimit()
        self.permits: list[Permit] = []
        self.waiters: list[_Waiter] = []
        self.carried_at_s = float("-inf")
        self.expected_of: Holder | None = None  # a connection of it will soon be idle


class Permits:
    """All permits of one mount.

    Invariants:
        The permits of a host and the idle connections to it are together at most what its limit
        allowed when the last of them was given.
        A waiter is given nothing while one of a smaller rank waits for the same host, but a new
        connection while that one waits for an idle one.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._holders: list[Holder] = []
        self._order = itertools.count()
        self._has_work = trio.Event()
        #: Returns how many connections to a host are known to have answered at once; 0 for none.
        self.n_known_before: Callable[[str], int] = lambda origin: 0

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
    ) -> Permit:
        """Return a permit to use a connection to *origin* of one of *holders*, the best first.

        Waits while the host lets no more through. *rank* is the order of several that wait;
        it is called again at each choice. *is_patient*: see `Permit`. *is_moved*: the request was
        taken from a silent connection, and any that has answered before is better than a new one.
        """
        host = self._host(origin)
        is_metadata = rank is None
        if rank is None:
            number = next(self._order)

            def rank() -> Rank:
                return (METADATA, number)

        waiter = _Waiter(holders, rank, is_metadata=is_metadata, is_moved=is_moved)
        host.waiters.append(waiter)
        try:
            # Tasks that begin together run in any order: all of them are in the queue before one
            # is chosen.
            await trio.lowlevel.checkpoint()
            self._serve(host)
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
        """Return what is known of how many connections *origin* lets through."""
        return self._host(origin).limit

    def limit(self, origin: str) -> int | None:
        """Return how many connections may be open to a host with a known limit, else None."""
        host = self._host(origin)
        return None if host.limit.limit is None else host.limit.allowed(trio.current_time())

    def n_expected(self, origin: str) -> int:
        """Return how many connections may be open soon: by the limit, or once those now answer."""
        host, now_s = self._host(origin), trio.current_time()
        limit = host.limit
        if limit.limit is not None:
            return limit.allowed(now_s)
        unproven = [p.silent_since_s for p in host.permits if p.is_counted and not p.is_proven]
        oldest_s = min(unproven, default=now_s)
        n_answering = self._n_answering(host)
        if n_answering and limit.is_late(now_s - oldest_s):
            return n_answering
        return GROWTH * limit.allowed(now_s)

    def n_responding(self) -> dict[str, int]:
        """Return for each host how many connections have answered at once, if any have."""
        seen = {origin: host.limit.n_responding for origin, host in self._hosts.items()}
        return {origin: n for origin, n in seen.items() if n}

    def room(self, origin: str) -> int:
        """Return how many more connections may be opened now."""
        host = self._host(origin)
        return max(0, host.limit.allowed(trio.current_time()) - self._n_open(host))

    def forget(self) -> None:
        """Forget what was learnt: the network has changed, for example."""
        for host in self._hosts.values():
            host.limit = HostLimit()
            self._serve(host)

    async def watch(self) -> None:
        """Find silent connections, and serve waiting tasks when a limit is raised; never ends."""
        while True:
            await self._has_work.wait()
            due_s = trio.current_time() + LOOK_INTERVAL_S
            await trio.sleep_until(due_s)
            # Where this process had no processor, the tasks that receive have their turn first.
            is_late = trio.current_time() - due_s > LOOK_INTERVAL_S
            for host in self._hosts.values():
                if not is_late:
                    self._look(host)
                    self._move_late(host)
                self._serve(host)
            if not any(host.permits or host.waiters for host in self._hosts.values()):
                self._has_work = trio.Event()

    # -- what becomes of connections -------------------------------------------------------------

    def note_responding(self, host: _Host, permit: Permit) -> None:
        """Take in the first answer on the connection of *permit*."""
        now_s = trio.current_time()
        if not permit.is_new:
            host.limit.note_response(now_s - permit.began_s)
        elif not permit.is_ahead:
            # Of one that was opened ahead the handshakes would be missing, and over a far line each
            # connection that is opened for a request would look silent.
            host.limit.note_opened(now_s - permit.began_s)
        host.limit.note_responding(now_s, self._n_answering(host))
        self._serve(host)

    def note_refused(self, host: _Host, permit: Permit) -> float | None:
        """Take in a refusal; see `HostLimit.note_refused`."""
        permit.is_counted = False
        return self._note_refused(host)

    def note_refused_ahead(self, origin: str, n_connections: int) -> None:
        """Take in that connections were refused which were opened ahead of need."""
        for _ in range(n_connections):
            self._note_refused(self._host(origin))

    def note_closed(self, origin: str) -> None:
        """Take in that a connection was closed on this side which had answered."""
        self._host(origin).limit.note_closed(trio.current_time())

    def expect_idle(self, origin: str, holder: Holder) -> None:
        """Have the first task that waits for a connection of *holder* wait for an idle one.

        Others have connections opened meanwhile. To be followed by `expected_idle`.
        """
        self._host(origin).expected_of = holder

    async def expected_idle(self, origin: str, is_idle: trio.Event) -> None:
        """Wait until the expected connection is idle, or for `IDLE_SOON_S`; expect none then."""
        host = self._host(origin)
        with trio.move_on_after(IDLE_SOON_S):
            await is_idle.wait()
        host.expected_of = None
        self._serve(host)

    def note_idle(self, origin: str) -> None:
        """Take in that the idle connections of a holder are others than before."""
        self._serve(self._host(origin))

    def take_back(self, host: _Host, permit: Permit) -> None:
        """Take a permit back."""
        if permit in host.permits:
            host.permits.remove(permit)
            self._serve(host)

    def _note_refused(self, host: _Host, *, is_silence: bool = False) -> float | None:
        before, n_others = host.limit.limit, self._n_open(host)
        if is_silence:
            # What was opened at the same time and is as late is not let through either, with a
            # request or without one.
            n_others = self._n_answering(host) + len(self._not_late(host))
        wait_s = host.limit.note_refused(
            trio.current_time(),
            n_others=n_others,
            n_answering=self._n_answering(host),
            is_silence=is_silence,
        )
        if host.limit.limit != before:
            log.info("host lets few connections through", origin=host.origin, n=host.limit.limit)
        log.debug("connection refused", origin=host.origin, n_others=n_others, wait_s=wait_s)
        return wait_s

    def _look(self, host: _Host) -> None:
        """Cancel what is silent while others carry, or could.

        Silence of a new connection is a limit. That of another one may be a slow response, or a
        connection that was exchanged for a new one behind it: it is only moved, and later.
        """
        now_s = trio.current_time()
        silence_s = host.limit.silence_s()
        silent = [
            permit
            for permit in list(host.permits)
            if permit.is_new
            and permit.is_counted
            and not permit.has_responded
            and now_s - permit.silent_since_s >= silence_s
            and (host.carried_at_s > permit.began_s or self._has_idle_elsewhere(host))
            and permit.is_looked_at(now_s)
        ]
        for permit in silent:
            permit.is_counted = False
        for permit in silent:
            permit.wait_s = self._note_refused(host, is_silence=True)
            if permit.wait_s is None:
                permit.is_counted = True
            else:
                permit.scope.cancel()
        if any(permit.wait_s is not None for permit in silent):
            self._close_unused(host)
        for permit in host.permits:
            if (
                permit.is_counted
                and not (permit.is_new or permit.is_patient or permit.has_responded)
                and now_s - permit.silent_since_s >= 2 * silence_s
                and host.carried_at_s > permit.began_s
                and permit.is_looked_at(now_s)
            ):
                permit.is_counted = False
                permit.wait_s = 0.0
                permit.scope.cancel()

    def _not_late(self, host: _Host) -> list[Permit]:
        """Return the permits for new connections of which the first byte may still come."""
        now_s = trio.current_time()
        return [
            permit
            for permit in host.permits
            if permit.is_counted
            and not permit.is_proven
            and not host.limit.is_late(now_s - permit.silent_since_s)
        ]

    def _move_late(self, host: _Host) -> None:
        """Move requests from connections that are late to idle ones that have answered before.

        Those that began first, where no other request waits. It costs nothing where the connection
        is only slow.
        """
        n_idle = sum(self._n_idle(host, holder)[0] for holder in self._holders)
        if host.waiters or not n_idle:
            return
        now_s, in_time = trio.current_time(), self._not_late(host)
        late = [
            permit
            for permit in host.permits
            if permit.is_counted
            and not permit.is_proven
            and permit not in in_time
            and permit.is_looked_at(now_s)
        ]
        for permit in late[:n_idle]:
            permit.is_counted = False
            permit.wait_s = 0.0
            permit.scope.cancel()

    def _close_unused(self, host: _Host) -> None:
        """Have the connections closed that were opened ahead of need and never answered."""
        for holder in self._holders:
            if n_unused := holder.n_idle(host.origin)[1]:
                holder.close_some_idle(host.origin, n_unused)

    # -- counting --------------------------------------------------------------------------------

    def _host(self, origin: str) -> _Host:
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host(origin)
            host.limit.recall(self.n_known_before(origin))
        return host

    def _n_idle(self, host: _Host, holder: Holder) -> tuple[int, int]:
        """Return the idle connections of *holder* that no permit was given for."""
        n_proven, n_unused = holder.n_idle(host.origin)
        for permit in host.permits:
            if permit.holder is holder and permit.takes_idle and permit.is_counted:
                if n_proven:
                    n_proven -= 1
                elif n_unused:
                    n_unused -= 1
        return n_proven, n_unused

    def _n_open(self, host: _Host) -> int:
        n_idle = sum(self._n_idle(host, holder)[0] for holder in self._holders)
        n_idle += sum(self._n_idle(host, holder)[1] for holder in self._holders)
        return n_idle + sum(permit.is_counted for permit in host.permits)

    def _n_answering(self, host: _Host) -> int:
        n_idle = sum(self._n_idle(host, holder)[0] for holder in self._holders)
        return n_idle + len([p for p in host.permits if p.is_counted and p.is_proven])

    def _has_room(self, host: _Host) -> bool:
        n_open = self._n_open(host)
        n_unproven = n_open - self._n_answering(host)
        return n_open < host.limit.allowed(trio.current_time(), n_unproven=n_unproven)

    def _has_idle_elsewhere(self, host: _Host) -> bool:
        return any(self._n_idle(host, holder)[0] for holder in self._holders)

    # -- giving permits --------------------------------------------------------------------------

    def _serve(self, host: _Host) -> None:
        """Give permits to waiting tasks, in the order of their ranks, as far as it goes."""
        if host.permits or host.waiters:
            self._has_work.set()
        is_behind = False
        while (waiter := self._first_waiter(host)) is not None:
            permit = self._permit(host, waiter)
            if permit is None:
                host.limit.note_wanted(trio.current_time())
                permit = self._permit(host, waiter)
            if permit is None:
                if not self._has_made_room(host, waiter):
                    return
                continue
            host.waiters.remove(waiter)
            host.permits.append(permit)
            waiter.permit, waiter.is_behind, is_behind = permit, is_behind, True
            waiter.event.set()

    def _first_waiter(self, host: _Host) -> _Waiter | None:
        """Return the waiting task whose turn it is; None where it waits for an idle connection."""
        waiters = sorted(host.waiters, key=lambda each: each.rank())
        holder = host.expected_of
        if holder is not None and not sum(self._n_idle(host, holder)):
            for waiter in waiters:
                if holder in waiter.holders and not waiter.is_metadata:
                    waiters.remove(waiter)
                    break
        return waiters[0] if waiters else None

    def _permit(self, host: _Host, waiter: _Waiter) -> Permit | None:
        holders = waiter.holders
        best = holders[0]
        idle = {holder: self._n_idle(host, holder) for holder in holders}
        # Names and sizes are few, and must not wait for others that hang: no steps for them.
        may_open = (waiter.is_metadata and host.limit.limit is None) or self._has_room(host)
        # A new connection where the bytes are wanted is better than an old one elsewhere.
        chosen = best if sum(idle[best]) or may_open else None
        if waiter.is_moved:
            chosen = next((holder for holder in holders if idle[holder][0]), chosen)
        if chosen is None:
            chosen = next((holder for holder in holders if sum(idle[holder])), None)
        if chosen is None:
            return None
        n_proven, n_unused = idle[chosen]
        permit = Permit(self, host, chosen, is_new=not n_proven)
        permit.takes_idle = bool(n_proven or n_unused)
        permit.is_ahead = permit.is_new and permit.takes_idle
        return permit

    def _has_made_room(self, host: _Host, waiter: _Waiter) -> bool:
        """Have an idle connection closed that *waiter* cannot use; False without one."""
        now_s = trio.current_time()
        for holder in self._holders:
            n_proven, n_unused = self._n_idle(host, holder)
            if holder in waiter.holders or not (n_proven or n_unused):
                continue
            if not n_proven:
                # Opened ahead of need, perhaps for a worker that is about to be ready. A new one
                # in its place would only cost a refusal more, as long as others carry.
                is_early = now_s - waiter.since_s < UNUSED_KEPT_S
                if is_early or self._n_answering(host):
                    continue
            holder.close_some_idle(host.origin, 1)
            if n_proven and not n_unused:
                host.limit.note_closed(now_s)
            return True
        return False
