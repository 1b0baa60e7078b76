"""How many connections are worth having, decided from their throughput.

Pure: bytes and seconds in, a number out. First the number is predicted: that of connections which
reach the rate that satfs can handle, at the measured rate of one connection. Then their total rate
is measured. If it is much less than their number times the rate of one, they share a bottleneck (a
line, a core), and only as many are kept as fill it. If many connections have filled the bottleneck
from the beginning, the rate of one alone is not known; so from time to time half as many are tried.

A connection begins slowly (TCP's slow start takes some seven round trips to fill a wide-area line),
so the rate of a short range shows little about that of a long one. Until a long range has ended,
the round trip of the line decides how many connections are tried, from the first response on: on a
longer line more connections pass their slow start together.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Final

#: The highest rate at which this process can receive and serve, in bytes per second
#: (docs/PERFORMANCE.md). No more connections are used than reach it.
GOAL_BYTES_PER_S: Final = 1.5e9
#: On a near line four connections use every core fully, and more only take turns (measured: plain
#: and TLS on loopback, docs/PERFORMANCE.md).
MIN_CONNECTIONS: Final = 4
#: How many are used before anything has been measured.
INITIAL_CONNECTIONS: Final = 8
#: Connections that are tried for each second of delay before a long range has ended: 24 at 30 ms,
#: 64 from 80 ms on. About as many were best on such lines. A connection that is opened later has
#: its slow start while a read waits.
TRIED_PER_S: Final = 800
#: A line is near when a first byte has once come within this time. It is shorter than a wide-area
#: round trip with the delay of a store, and longer than the delay of a busy machine.
NEAR_S: Final = 0.010
#: A line is far when no first byte has come within this time: to another continent, or by
#: satellite.
FAR_S: Final = 0.05
#: A near connection that carries less than this is capped by the store, not by this machine.
NEAR_RATE_BYTES_PER_S: Final = 50e6
#: Below this rate a short range shows the cap, too: no busy machine is that slow by itself.
CAPPED_BYTES_PER_S: Final = 15e6
#: If the rate is below this share of the prediction, connections share a bottleneck.
SHARED: Final = 0.5
#: Factor by which more connections are kept than fill the bottleneck: one is always between two
#: ranges.
SPARE: Final = 1.5
#: Fewer connections must reach this share of the rate of more connections, or the cut is undone:
#: then each is slow for a reason of its own, and more of them help.
STILL_CARRIED: Final = 0.8
#: A number of connections is judged by this many intervals in a row: a single one may contain
#: handshakes, or a short stall.
INTERVALS_TO_COMPARE: Final = 3
#: Intervals in a row with one number of connections before half of it is tried, and seconds between
#: two such trials. A trial that succeeded is followed by the next one at once.
INTERVALS_TO_TRIAL: Final = 6
TRIAL_EVERY_S: Final = 60.0
#: Seconds during which a throttled store gets no more connections.
BACK_OFF_S: Final = 5.0
#: Seconds after which the bottleneck may have changed, and the prediction is tried again.
FORGET_S: Final = 15.0
#: Responses of which the median is looked at, and how many times as late as the soonest one it is
#: where requests wait for something: for a processor or for a line that is full. Some milliseconds
#: besides are a busy machine's. Then the rate of a range shows no rate of a connection, and more of
#: them would wait as well.
N_RESPONSES: Final = 8
LATE_FACTOR: Final = 2.0
LATE_S: Final = 0.02
#: Shortest time over which throughput means anything.
INTERVAL_S: Final = 0.5
#: Shortest range that shows a rate and not a burst, and shortest that lasts longer than the slow
#: start.
MIN_BYTES: Final = 256 * 1024
LONG_BYTES: Final = 4 * 1024 * 1024
#: Shortest time in which a part of a range shows what its connection carries, in seconds.
PART_S: Final = 0.1
#: The second half of a range counts as at most this many times as fast as the whole: on a busy
#: machine it may be received at one moment. In a slow start it is twice as fast.
MAX_LATER: Final = 4.0
#: Seconds for which the best rate that was seen counts.
BEST_COUNTS_S: Final = 300.0


class ConnectionController:
    """Decides how many connections to use at once, between 1 and `most`.

    All times are seconds of any one clock.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._target = min(INITIAL_CONNECTIONS, most)
        self._solo_bytes_per_s: float | None = None  # of a long range with the line to itself
        self._solo_until_s = 0.0
        self._rate_bytes_per_s: float | None = None
        self._next_bytes_per_s: float | None = None
        self._soonest_s = math.inf
        self._responses_s: deque[float] = deque(maxlen=N_RESPONSES)
        self._since_s = 0.0
        self._carried_bytes = 0
        self._n_short = 0
        self._n_even = 0
        self._trial_at_s = 0.0
        self._before: tuple[int, float] | None = None  # connections and bytes/s before a cut
        self._ceiling = most
        self._ceiling_until_s = 0.0
        self._backs_off_until_s = 0.0
        self._limit: int | None = None

    @property
    def target(self) -> int:
        """Return how many connections to use now."""
        return self._target

    @property
    def most(self) -> int:
        """Return the most connections that may ever be used."""
        return self._most

    @property
    def rate_bytes_per_s(self) -> float | None:
        """Return what one connection carries, as last seen, or None before the first range."""
        return self._rate_bytes_per_s

    @property
    def round_trip_s(self) -> float | None:
        """Return the shortest time that a response took, in seconds; None before the first."""
        return self._soonest_s if self._soonest_s < math.inf else None

    @property
    def next_bytes_per_s(self) -> float | None:
        """Return what one connection will carry in its next range; None before the first range.

        More than `rate_bytes_per_s`, which the slow start of a connection makes small.
        """
        return self._next_bytes_per_s

    @property
    def is_near(self) -> bool:
        """Return whether the line is known to be near."""
        return self._soonest_s < NEAR_S

    @property
    def is_far(self) -> bool:
        """Return whether the line is known to be far."""
        return FAR_S <= self._soonest_s < math.inf

    def note_response(self, now_s: float, response_s: float) -> None:
        """Note the time from a request to its first byte, without that to open a connection."""
        self._soonest_s = min(self._soonest_s, response_s)
        self._responses_s.append(response_s)
        self._aim(now_s)

    def note_range(
        self,
        now_s: float,
        n_bytes: int,
        took_s: float,
        later_bytes_per_s: float | None = None,
    ) -> None:
        """Note a finished range: its bytes, the time from its first byte to its last.

        *later_bytes_per_s*: the rate of its second half, where that is known.
        """
        if n_bytes < MIN_BYTES or took_s <= 0:
            return
        rate = n_bytes / took_s
        next_rate = min(max(rate, later_bytes_per_s or 0.0), MAX_LATER * rate)
        self._next_bytes_per_s = _smooth(self._next_bytes_per_s, next_rate)
        self._rate_bytes_per_s = _smooth(self._rate_bytes_per_s, rate)
        # The best seen: most ranges share the line with others.
        is_best = rate >= (self._solo_bytes_per_s or 0.0) or now_s >= self._solo_until_s
        if n_bytes >= LONG_BYTES and is_best:
            self._solo_bytes_per_s, self._solo_until_s = rate, now_s + BEST_COUNTS_S
        self._aim(now_s)

    def note_part(self, now_s: float, n_bytes: int, took_s: float) -> None:
        """Note how much of a range has come so far, in the time since its first byte.

        Where the line is near, that shows what a connection carries, before the first range ends.
        """
        is_long = n_bytes >= MIN_BYTES and took_s >= PART_S
        if self._rate_bytes_per_s is None and self.is_near and is_long:
            self._rate_bytes_per_s = self._next_bytes_per_s = n_bytes / took_s
            self._aim(now_s)

    def note_throttled(self, now_s: float) -> None:
        """Note that the store throttles satfs: half as many connections, for a while."""
        if now_s >= self._backs_off_until_s:  # once for all refusals of one burst
            self._ceiling = max(1, self._target // 2)
        self._backs_off_until_s = self._ceiling_until_s = now_s + BACK_OFF_S
        self._before = None  # the rate of fewer connections is no result of a trial
        self._aim(now_s)

    def note_limit(self, now_s: float, limit: int | None) -> None:
        """Note how many connections the host lets through, or None where no limit is known."""
        if limit != self._limit:
            self._limit = limit
            self._aim(now_s)

    def note_progress(self, now_s: float, n_bytes: int, n_active: int, *, is_wanting: bool) -> int:
        """Note bytes received with *n_active* connections; return the new target.

        *is_wanting*: more ranges wait for a connection than there are connections.
        """
        if n_active < self._target or not is_wanting:
            # Only a number of connections that is fully used shows its rate.
            self._since_s, self._carried_bytes = now_s, 0
            self._n_short = self._n_even = 0
            self._aim(now_s)
            return self._target
        self._carried_bytes += n_bytes
        elapsed_s = now_s - self._since_s
        if elapsed_s >= INTERVAL_S:
            self._compare(now_s, self._carried_bytes / elapsed_s)
            self._since_s, self._carried_bytes = now_s, 0
        return self._target

    def _compare(self, now_s: float, carried_bytes_per_s: float) -> None:
        solo = self._solo_bytes_per_s
        if solo is None:
            return
        if self._before is not None and now_s < self._ceiling_until_s:
            # Fewer were tried: this shows whether the others only took turns.
            many, carried_then = self._before
            if carried_bytes_per_s < STILL_CARRIED * carried_then:
                self._ceiling, self._ceiling_until_s = many, now_s + FORGET_S
            else:
                self._ceiling_until_s = now_s + TRIAL_EVERY_S
                self._trial_at_s = now_s
            self._before = None
            self._n_even = 0
            self._aim(now_s)
            return
        if now_s >= self._ceiling_until_s:
            is_short = carried_bytes_per_s < SHARED * solo * self._target
            self._n_short = self._n_short + 1 if is_short else 0
            if self._n_short >= INTERVALS_TO_COMPARE:
                self._n_short = 0
                self._try(math.ceil(SPARE * carried_bytes_per_s / solo), now_s, carried_bytes_per_s)
        self._n_even += 1
        if self._n_even >= INTERVALS_TO_TRIAL and now_s >= self._trial_at_s:
            self._trial_at_s = now_s + TRIAL_EVERY_S
            self._try(self._target // 2, now_s, carried_bytes_per_s)
        self._aim(now_s)

    def _try(self, fewer: int, now_s: float, carried_bytes_per_s: float) -> None:
        """Use *fewer* for now, if that is fewer, and see whether they carry as much."""
        enough = max(INITIAL_CONNECTIONS, fewer)
        if enough < self._target:
            self._before = (self._target, carried_bytes_per_s)
            self._ceiling, self._ceiling_until_s = enough, now_s + FORGET_S
            self._n_even = 0

    def _aim(self, now_s: float) -> None:
        solo, rate = self._solo_bytes_per_s, self._rate_bytes_per_s
        is_slow = rate is not None and rate < NEAR_RATE_BYTES_PER_S
        is_near = self._soonest_s < NEAR_S and not is_slow
        if is_near:
            wished = MIN_CONNECTIONS
        elif solo is not None:
            wished = max(MIN_CONNECTIONS, math.ceil(GOAL_BYTES_PER_S / solo))
        elif rate is not None and rate < CAPPED_BYTES_PER_S and self._soonest_s < NEAR_S:
            # A slow start takes no time here: a long range has the rate of a short one.
            wished = max(INITIAL_CONNECTIONS, math.ceil(GOAL_BYTES_PER_S / rate))
        else:
            is_known = self._soonest_s < math.inf
            wished = max(
                INITIAL_CONNECTIONS, round(TRIED_PER_S * self._soonest_s) if is_known else 0
            )
            if rate is not None:
                wished = min(wished, max(MIN_CONNECTIONS, math.ceil(GOAL_BYTES_PER_S / rate)))
        if now_s < self._ceiling_until_s:
            wished = min(wished, self._ceiling)
        if self._limit is not None:
            wished = min(wished, self._limit)
        if self._is_late() and wished > INITIAL_CONNECTIONS:
            wished = min(wished, max(self._target, INITIAL_CONNECTIONS))
        self._target = max(1, min(wished, self._most))

    def _is_late(self) -> bool:
        """Return whether requests wait, wherever it is, before they are responded to."""
        if len(self._responses_s) < N_RESPONSES:
            return False
        return statistics.median(self._responses_s) > LATE_FACTOR * self._soonest_s + LATE_S


def _smooth(known: float | None, seen: float) -> float:
    return seen if known is None else 0.7 * known + 0.3 * seen
