"""The connections of one host: the permit of each request, its outcome, and the counts.

`Permits` gives the permits, for all hosts; here is the state of one host, which changes as its
connections respond, are refused or end. Nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
import trio

from satfs.net.host_limit import HostLimit
from satfs.net.recalls import Rank, Recalls

log = structlog.get_logger(__name__)

#: Longest wait for another process to test whether bytes have come, in seconds. On a busy machine
#: it may have no processor for so long; a stopped process never does it.
LOOKING_S: Final = 2.0
#: A connection counts as silent only if its holder has found no bytes within this time, in seconds:
#: two intervals of `Permits.watch`. After it, bytes may have come that wait until the holder has a
#: processor.
MAX_LOOK_AGE_S: Final = 0.2
#: Share of the time of silence after which a connection that was begun after silent ones counts as
#: silent, too: usually about the time that a new one takes to its first byte.
BEHIND_SHARE: Final = 0.5
#: Share of the time of silence in which a holder with a processor has done its part of opening a
#: connection: its last part is due after two of three round trips, or three of four, and the time
#: of silence is twice the whole.
HOLDER_SHARE: Final = 0.5


class Crowded(Exception):
    """The host lets no further connection through; try again after *wait_s*, with a permit.

    Never leaves the content package or `net/http.py`.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__("no further connection is let through")
        self.wait_s = wait_s


class TakenBack(Crowded):
    """The request was not sent: another connection may be ready for it."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Holder(Protocol):
    """A holder of connections: a pool, or the worker processes."""

    def n_idle(self, origin: str) -> tuple[int, int]:
        """Return the connections to *origin* without a request: responded before, and never used.

        Connections that are being opened ahead of need count as never used.
        """

    def n_unused_since(self, origin: str, at_s: float) -> int:
        """Return how many of the never used ones are open, and were begun at *at_s* or before."""

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        """Close that many of them, soon; they are not counted any more from now on."""


class Permit:
    """Permission for one request over one connection of *holder*. End it with `end`.

    *scope* is cancelled when the connection is silent while others receive bytes. *is_new*: the
    connection has not responded before. *is_patient*: the request waits for a connection that has
    responded before, also while others receive bytes.
    """

    def __init__(self, host: HostConnections, holder: Holder, *, is_new: bool) -> None:
        self.holder = holder
        self.is_new = is_new
        self.is_patient = False
        self.is_last_try = False  # its request was taken from a silent connection before
        self.scope = trio.CancelScope()
        self.began_s = trio.current_time()
        self.has_responded = False
        self.takes_idle = False  # it is for an idle connection, which is counted until `begin`
        self.is_ahead = False  # its connection was opened before, or begun to be, for no request
        self.is_counted = True
        self.wait_s: float | None = None  # as `HostLimit.note_refused` returned it, when silent
        #: Makes the holder look whether bytes wait on the connection. The holder then calls
        #: `note_waited` or `responded`, at once or later.
        self.look: Callable[[], None] | None = None
        #: Takes the request back, unless it was sent. The holder then calls `taken_back` or
        #: `not_taken_back`.
        self.recall: Callable[[], None] | None = None
        self.rank: Callable[[], Rank] | None = None
        self.is_recalled = False
        self.recalled_at_s = -math.inf  # for silence
        self.silent_since_s = self.began_s
        self._look_began_s: float | None = None
        self._looked_at_s = -math.inf  # when the holder last reported that there are no bytes
        self._host = host

    @property
    def origin(self) -> str:
        """Return the origin to which requests may be sent."""
        return self._host.origin

    @property
    def is_proven(self) -> bool:
        """Return whether the host has ever responded on its connection."""
        return self.has_responded or not self.is_new

    @property
    def is_opening(self) -> bool:
        """Return whether its connection is open or being opened, and has never responded."""
        return self.is_counted and not self.is_proven

    def taken_back(self) -> None:
        """Note that the request was taken back; its connection is still being opened."""
        self.is_counted = False
        self._host.recalls.left_openings_s.append(self.silent_since_s)
        self._host.recalls.reported(self, is_taken_back=True)

    def not_taken_back(self) -> None:
        """Note that the request was sent before it could be taken back."""
        if self.wait_s is not None and not self.scope.cancel_called:
            if self.has_responded:
                # It has a connection that has responded before, since that became idle.
                self.wait_s, self.is_counted = None, True
            else:
                self.scope.cancel()
        self._host.recalls.reported(self, is_taken_back=False)
        self._host.note_changed()

    def end_in_silence(self, wait_s: float) -> None:
        """End the request, whose connection is silent: raised is `Crowded`, with *wait_s*.

        A request that was not sent is taken back: it may get another connection at this moment.
        """
        self.wait_s = wait_s
        if self.recall is None or self.is_recalled:
            self.scope.cancel()
        else:
            self.is_recalled = True
            self.recalled_at_s = trio.current_time()
            self.recall()

    def check_connection(self) -> None:
        """Raise `Crowded` at `begin` where its idle connection is gone, and none may be opened."""
        if not self.takes_idle or any(self.holder.n_idle(self.origin)) or self._host.has_room():
            return
        self.is_counted = False
        raise Crowded(0.0)

    def begin(self) -> None:
        """Note that the request has its connection, or that one is being opened for it."""
        self.takes_idle = False
        self.began_s = self.silent_since_s = trio.current_time()
        if self.is_ahead and self.recall is not None and self._host.recalls.left_openings_s:
            # The oldest, as the holder does.
            self.silent_since_s = self._host.recalls.left_openings_s.pop(0)
        self._look_began_s, self._looked_at_s = None, -math.inf

    def note_waited(self, waited_s: float = math.inf) -> None:
        """Note that the holder has tested for bytes: it has waited *waited_s* seconds for the host.

        0.0 where bytes wait to be received. Where that is much less than the silence, the holder
        itself was late, or has tried another address: silence begins then.
        """
        since_s = trio.current_time() - waited_s
        if since_s - self.silent_since_s >= HOLDER_SHARE * self._host.limit.silence_s():
            self.silent_since_s, self._look_began_s = since_s, None
        else:
            self._looked_at_s = trio.current_time()

    def is_looked_at(self, now_s: float) -> bool:
        """Return whether the holder has found no bytes; makes it test where it has not.

        A process without a processor has not read the bytes that have come: this is no silence of
        the host.
        """
        if self.look is None:
            return True
        began_s = self._look_began_s
        if began_s is None or began_s <= self._looked_at_s < now_s - MAX_LOOK_AGE_S:
            began_s = self._begin_look(self.look, now_s)
        if began_s is None:  # bytes were found at once
            return False
        if self._looked_at_s >= began_s or now_s - began_s >= LOOKING_S:
            self._look_began_s = None  # before the next decision it tests again
            return True
        return False

    def _begin_look(self, look: Callable[[], None], now_s: float) -> float | None:
        self._look_began_s = now_s
        look()
        return self._look_began_s

    def note_connection(
        self,
        *,
        is_new: bool,
        is_ahead: bool = False,
        waited_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """Note the connection of the request: a new one, or one that has responded before.

        Not always the one that the permit was given for: requests that begin together may exchange
        theirs. *is_ahead*: it was opened before. *waited_s* is as for `note_waited`.
        """
        self.is_new, self.is_ahead = is_new, is_ahead
        self.look = lambda: self.note_waited(waited_s())

    def responded(self) -> None:
        """Note that the host has responded on this connection."""
        if not self.has_responded:
            self.has_responded = True
            self._host.note_responding(self)

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
        self.is_counted = False
        wait_s = self._host.note_refused()
        if wait_s is not None:
            raise Crowded(wait_s)

    def raise_if_silent(self) -> None:
        """Raise what ended *scope*, if that was silence.

        Raises:
            Crowded: other connections receive bytes.
        """
        if self.wait_s is not None and self.scope.cancelled_caught:
            raise Crowded(self.wait_s)

    def end(self) -> None:
        """Give the permit back, when its connection is idle again or closed."""
        self._host.take_back(self)


class HostConnections:
    """The permits of one host, and the idle connections to it of all *holders*.

    *on_change* is called with the origin when more permits may be given than before.
    """

    def __init__(
        self, origin: str, holders: Sequence[Holder], on_change: Callable[[str], None]
    ) -> None:
        self.origin = origin
        self.limit = HostLimit()
        self.permits: list[Permit] = []
        self.carried_at_s = float("-inf")
        #: When several connections were last found silent at once, and others behind them.
        self.queue_seen_s = float("-inf")
        self.recalls = Recalls()
        self._holders = holders
        self._on_change = on_change

    # -- what becomes of connections -------------------------------------------------------------

    def note_responding(self, permit: Permit) -> None:
        """Note the first response on the connection of *permit*."""
        now_s = trio.current_time()
        if not permit.is_new:
            self.limit.note_response(now_s - permit.began_s)
        elif not permit.is_ahead:
            # Of one that was opened ahead the handshakes would be missing, and over a far line each
            # connection that is opened for a request would look silent.
            self.limit.note_opened(now_s - permit.began_s)
        self.limit.note_responding(now_s, self.n_responding())
        self._on_change(self.origin)

    def note_refused(self, *, silent_since_s: float | None = None) -> float | None:
        """Note a refusal, of a permit that is not counted any more; see `HostLimit`.

        *silent_since_s*: it was no refusal, but silence since then.
        """
        before, n_others = self.limit.limit, self.n_open()
        if (since_s := silent_since_s) is not None:
            # Connections that were begun with it or after it wait as well. Open connections that
            # were begun before it, and have had no request, may be let through.
            n_unused = sum(each.n_unused_since(self.origin, since_s) for each in self._holders)
            n_others = self.n_responding() + n_unused
        wait_s = self.limit.note_refused(
            trio.current_time(),
            n_others=n_others,
            n_responding=self.n_responding(),
            is_silence=silent_since_s is not None,
        )
        if self.limit.limit != before:
            log.info("host lets few connections through", origin=self.origin, n=self.limit.limit)
        log.debug("connection refused", origin=self.origin, n_others=n_others, wait_s=wait_s)
        return wait_s

    def note_changed(self) -> None:
        """Note that a request may get a connection that it could not get before."""
        self._on_change(self.origin)

    def take_back(self, permit: Permit) -> None:
        """Take a permit back."""
        if permit in self.permits:
            self.permits.remove(permit)
            self.recalls.reported(permit, is_taken_back=False)
            if not self.permits:
                self.recalls.left_openings_s.clear()
            self._on_change(self.origin)

    def close_unused(self) -> None:
        """Close the connections that were opened ahead of need and never responded."""
        self.recalls.left_openings_s.clear()
        for holder in self._holders:
            if n_unused := holder.n_idle(self.origin)[1]:
                holder.close_some_idle(self.origin, n_unused)

    def close_excess(self) -> None:
        """Close connections that never responded, as many as are beyond a known limit."""
        if (known := self.limit.known(trio.current_time())) is None:
            return
        n_excess = self.n_open() - known
        for holder in self._holders:
            if (n_closed := min(n_excess, self.n_idle(holder)[1])) > 0:
                holder.close_some_idle(self.origin, n_closed)
                n_excess -= n_closed

    # -- counting --------------------------------------------------------------------------------

    def n_idle(self, holder: Holder) -> tuple[int, int]:
        """Return the idle connections of *holder* that no permit was given for, as it does."""
        n_proven, n_unused = holder.n_idle(self.origin)
        if not (n_proven or n_unused):
            return 0, 0
        taking = [each for each in self.permits if each.takes_idle and each.holder is holder]
        n_taken = sum(each.is_counted for each in taking)
        return max(0, n_proven - n_taken), max(0, n_unused - max(0, n_taken - n_proven))

    def n_idle_proven(self) -> int:
        """Return the idle connections of all holders that have responded, without a permit."""
        return sum(self.n_idle(holder)[0] for holder in self._holders)

    def n_open(self) -> int:
        """Return how many connections are open, or being opened."""
        return sum(sum(each.n_idle(self.origin)) for each in self._holders) + len(self._in_use())

    def n_responding(self) -> int:
        """Return how many of these have responded."""
        n_idle = sum(holder.n_idle(self.origin)[0] for holder in self._holders)
        return n_idle + len([1 for each in self._in_use() if each.has_responded or not each.is_new])

    def _in_use(self) -> list[Permit]:
        return [each for each in self.permits if each.is_counted and not each.takes_idle]

    def n_expected(self) -> tuple[int, bool]:
        """Return how many connections may be open, and whether the host lets no more through."""
        now_s = trio.current_time()
        if self.limit.limit is None and self.are_new_ones_late(now_s):
            return self.n_responding(), True
        return self.limit.allowed(now_s), self.limit.limit is not None

    def are_new_ones_late(self, now_s: float) -> bool:
        """Return whether others receive bytes, and a new one may not be let through."""
        opening_s = [each.silent_since_s for each in self._opening()]
        oldest_s = min([*opening_s, *self.recalls.left_openings_s], default=now_s)
        return self.limit.is_late(now_s - oldest_s) and self.n_responding() > 0

    def is_silent(self, permit: Permit, now_s: float) -> bool:
        """Return whether no byte has come for so long that the host may not let it through."""
        silence_s, silent_s = self.limit.silence_s(), now_s - permit.silent_since_s
        is_behind_others = permit.began_s <= self.queue_seen_s >= now_s - silence_s
        return silent_s >= (BEHIND_SHARE * silence_s if is_behind_others else silence_s)

    def has_room(self) -> bool:
        """Return whether one more connection may be opened now."""
        return self.n_open() < self.limit.allowed(trio.current_time())

    def not_late(self) -> list[Permit]:
        """Return the permits for new connections of which the first byte may still come."""
        now_s, is_late = trio.current_time(), self.limit.is_late
        return [each for each in self._opening() if not is_late(now_s - each.silent_since_s)]

    def _opening(self) -> list[Permit]:
        new = [each for each in self.permits if each.is_new and not each.has_responded]
        return [each for each in new if each.is_counted]
