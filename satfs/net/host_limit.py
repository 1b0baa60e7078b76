"""How many connections a host lets through, learnt from the outcome of each.

Pure: counts and moments in, a number out. Hosts, firewalls and load balancers limit the connections
of one client: they refuse further ones (a reset at connect or before the first byte, a 503), or
accept them and keep silent until another one closes. Nothing announces the limit.

Connections are opened in steps: with n connections that have responded at once, three times n may
be open, less those that were refused of late; n may be open in any case. So those that are open and
those that were refused are together at most three times as many as the host lets through, and it
refuses at most twice as many as these, in any order of its responses and refusals. Only a response
shows that a connection is let through: some hosts complete the handshake of TLS, and then send a
503. How many have responded is remembered: only the first transfer of a mount takes these steps, to
3, 9, 27 and 81 connections, and none where another process has read from the host before
(`recall`).

A refusal while other connections respond sets the limit to those that are left. Much later one more
is tried; each time that more than before have responded, twice as many are added.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

#: Connections that may be open at once before any has responded.
MIN_ALLOWED: Final = 2
#: Connections that may be open, or were refused of late, for each that has responded. With four
#: there would be three refusals for each connection let through, and one more for each that ends
#: beside them.
GROWTH: Final = 3
#: Connections that may be open, for each one before it, when no byte has come on any of them for
#: this many times as long as the first byte of a new one takes: their requests hang, and others
#: must not wait for them.
STEP: Final = 4
SILENCES_TO_STEP: Final = 2
#: Seconds after a refusal in which no more connections are opened than were left, and after which
#: it is forgotten: longer than most transfers, so that a file costs one refusal more at most.
#: Doubled by each trial that is refused.
RAISE_AFTER_S: Final = 60.0
MAX_RAISE_AFTER_S: Final = 900.0
#: The same after silence, which may be one slow response, and after which another try costs no
#: refusal.
RAISE_AFTER_SILENCE_S: Final = 5.0
#: Seconds in which a host may still count a connection that was closed on this side.
CLOSING_S: Final = 0.5
#: Seconds to wait before another try, where that may be the reason of a refusal.
CLOSING_WAIT_S: Final = 0.1
#: How long idle connections are kept after the last request, in seconds, where the host lets few
#: through: another process or program may wait for one of them.
IDLE_KEPT_S: Final = 1.0
#: The same where the host is not known to serve two at once: less than the deadlines of who waits,
#: and longer than most pauses, since a new one takes three round trips.
IDLE_KEPT_UNKNOWN_S: Final = 5.0
#: Time in which the end of a connection that the host has closed is surely noticed, in seconds.
SURELY_IDLE_S: Final = 0.3
#: As many responses do not overlap where the host sent one after the other; five did of a host that
#: closes each connection after its response.
SURELY_SEVERAL: Final = 8
#: A host that broke connections off within this time is failing, which is no limit. Seconds.
FAILING_S: Final = 2.0
#: A new connection is silent when its first byte takes this many times as long as that of others,
#: and this many times as long as responses on open connections, which vary more than handshakes;
#: and never before the third number, in seconds.
OPENING_FACTOR: Final = 2.0
SILENCE_FACTOR: Final = 3.0
MIN_SILENCE_S: Final = 0.3
#: Added to that: how many times as long as a task of this process waited for a processor of late. A
#: response on a busy machine waits as often, in the holder of the connection and, on the same
#: machine, in the server: to accept a connection, for two flights of TLS, and for the request.
N_WAKE_UPS: Final = 10
#: Responses that are remembered for that: of some seconds, as a rule. One in four may be slower
#: than what is compared with, so that a few that stalled do not make all others be waited for.
N_RESPONSES: Final = 16
SLOWER_SHARE: Final = 0.25
#: Share of that time after which it is late: reason enough not to count on it.
LATE_FACTOR: Final = 0.75
#: The same while it is not known how long a new connection takes.
UNKNOWN_SILENCE_S: Final = 1.0


class HostLimit:
    """The state of one host. All moments are seconds of any one clock.

    Invariants:
        `limit` is None or at least 1. `allowed` is at least 1.
    """

    def __init__(self) -> None:
        #: The connections that the host lets through, or None while none was refused.
        self.limit: int | None = None
        #: Whether connections were refused at the limit. Otherwise they were silent: another one
        #: costs no refusal.
        self.is_refusing = False
        self._n_responding = 0  # at once, the most that were seen
        self._n_refused = 0
        self._refused_at_s = float("-inf")  # the last of them
        self._step = 1
        self._raise_at_s = 0.0
        self._raise_after_s = RAISE_AFTER_S
        self._closed_at_s: list[float] = []
        self._broken_at_s = float("-inf")
        self._opening_s: float | None = None
        self._responses_s: deque[float] = deque(maxlen=N_RESPONSES)
        self._n_stepped = 0  # allowed without responses
        self._n_recalled = 0
        #: Whether several idle connections are kept open.
        self.keeps_several = False
        self._stepped_at_s = float("-inf")
        #: How long a task of this process waited for a processor of late, in seconds.
        self.wake_up_s = 0.0

    def allowed(self, now_s: float) -> int:
        """Return how many connections may be open now."""
        n_grown = max(MIN_ALLOWED, GROWTH * self._n_responding) - self._n_refused_of_late(now_s)
        n_allowed = max(1, self._n_responding, self._n_recalled, n_grown, self._n_stepped)
        known = self.known(now_s)
        if self.limit is None or known is None:
            return n_allowed
        n_tried = self.limit + 1 if known > self.limit else 1
        return min(known, max(n_tried, n_allowed))

    def known(self, now_s: float) -> int | None:
        """Return how many connections the host may let through now; None without a limit."""
        if self.limit is None or now_s < self._raise_at_s:
            return self.limit
        return self.limit + self._step

    def _n_refused_of_late(self, now_s: float) -> int:
        return self._n_refused if now_s - self._refused_at_s < RAISE_AFTER_S else 0

    @property
    def n_responding(self) -> int:
        """Return how many connections responded at once: the most, and at most a limit."""
        return self._n_responding if self.limit is None else min(self.limit, self._n_responding)

    def idle_kept_s(self) -> float:
        """Return how long idle connections are kept after the last request, in seconds."""
        if self.limit is not None:
            return IDLE_KEPT_S
        return math.inf if self.keeps_several else IDLE_KEPT_UNKNOWN_S

    def note_at_rest(self, for_s: float, n_idle: int) -> None:
        """Note that *n_idle* connections have been open and idle for so many seconds.

        This alone shows that the host serves several at once: the responses on two connections may
        overlap here although the host sent one after the other.
        """
        self.keeps_several |= n_idle > 1 and for_s >= SURELY_IDLE_S

    def recall(self, n_responding: int) -> None:
        """Allow as many connections as have responded at once before, and no more than those."""
        self._n_recalled = n_responding
        self.keeps_several |= n_responding >= SURELY_SEVERAL

    def note_wanted(self, now_s: float, *, carried_at_s: float) -> None:
        """Note that more connections are wanted than are allowed, and when the last byte came."""
        if self.limit is not None:
            return
        if self._n_stepped < (allowed := self.allowed(now_s)):
            self._n_stepped, self._stepped_at_s = allowed, now_s
        elif now_s - max(self._stepped_at_s, carried_at_s) >= SILENCES_TO_STEP * self.silence_s():
            self._n_stepped, self._stepped_at_s = STEP * allowed, now_s

    def silence_s(self) -> float:
        """Return after how many seconds without a byte a new connection counts as silent."""
        busy_s = N_WAKE_UPS * self.wake_up_s
        if self._opening_s is None:
            return UNKNOWN_SILENCE_S + busy_s
        by_opening_s = OPENING_FACTOR * self._opening_s
        return max(MIN_SILENCE_S, by_opening_s, SILENCE_FACTOR * self._response_s()) + busy_s

    def is_late(self, waited_s: float) -> bool:
        """Return whether a new connection without a byte for *waited_s* may not be let through."""
        is_soon = waited_s < LATE_FACTOR * MIN_SILENCE_S
        return not is_soon and waited_s >= LATE_FACTOR * self.silence_s()

    def note_opened(self, took_s: float) -> None:
        """Note the time from the wish for a new connection to its first byte."""
        known_s = self._opening_s
        if known_s is None or took_s < known_s:
            # The first one may have waited for a processor, or for the certificate authorities to
            # be read.
            self._opening_s = took_s
        elif took_s < OPENING_FACTOR * known_s:
            # A connection that waited until another one closed would make the time of silence grow.
            self._opening_s = 0.7 * known_s + 0.3 * took_s

    def note_response(self, took_s: float) -> None:
        """Note the time from a request to its first byte, on a connection that was open."""
        self._responses_s.append(took_s)

    def _response_s(self) -> float:
        """Return a time that most recent responses do not exceed; 0 without any."""
        if not self._responses_s:
            return 0.0
        in_order = sorted(self._responses_s)
        return in_order[int((1 - SLOWER_SHARE) * (len(in_order) - 1))]

    def note_responding(self, now_s: float, n_responding: int) -> None:
        """Note that *n_responding* connections are open at once that have responded."""
        self._n_responding = max(self._n_responding, n_responding)
        if self.limit is not None and n_responding > self.limit:
            self.limit = n_responding
            self._step *= 2
            self._raise_at_s = now_s
            self._raise_after_s = RAISE_AFTER_S

    def note_closed(self, now_s: float) -> None:
        """Note that a connection which had responded was closed on this side."""
        self._closed_at_s.append(now_s)

    def note_broken(self, now_s: float) -> None:
        """Note that the host broke off a connection which had responded."""
        self._broken_at_s = now_s

    def note_refused(
        self, now_s: float, *, n_others: int, n_responding: int, is_silence: bool = False
    ) -> float | None:
        """Note that a new connection was refused, or (*is_silence*) is silent.

        *n_others* connections are open or being opened beside it, of which *n_responding* have
        responded. Returns the seconds to wait before a request to this host over a connection that
        is allowed; None when the refusal is not about a limit.
        """
        self._n_stepped = 0
        if now_s - self._broken_at_s < FAILING_S:
            return None
        # A host that refuses the only connection shows nothing about how many it lets through.
        self._n_refused = self._n_refused_of_late(now_s) + 1 if n_others else 0
        self._refused_at_s = now_s
        if not n_responding:
            return None
        self._closed_at_s = [at for at in self._closed_at_s if now_s - at < CLOSING_S]
        n_closing = len(self._closed_at_s)
        is_trial = self.limit is not None and n_others >= self.limit
        if self.limit is None:
            self._raise_after_s = RAISE_AFTER_SILENCE_S
        if not is_silence:
            self.is_refusing = True
            self._raise_after_s = max(self._raise_after_s, RAISE_AFTER_S)
        left = max(1, n_others + n_closing)
        self.limit = left if self.limit is None else min(self.limit, left)
        self._step = 1
        if is_trial:
            self._raise_after_s = min(2 * self._raise_after_s, MAX_RAISE_AFTER_S)
        self._raise_at_s = now_s + self._raise_after_s
        if not n_closing:
            return 0.0
        self._closed_at_s.pop(0)  # explains one refusal, not all later ones
        return CLOSING_WAIT_S
