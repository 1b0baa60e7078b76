"""How many connections pay, decided from what they carry.

Pure: bytes and seconds in, a number out. First a prediction: so many connections as it would take,
at the rate that one was seen to carry while it had the line nearly to itself, to reach the rate
that we can handle at all. Then what they carry together is measured: where it is much less than so
many times one, they share something narrower, and as many as fill that are kept.
"""

from __future__ import annotations

import math
from typing import Final

#: The most that this process can receive and serve, bytes per second (docs/PERFORMANCE.md): more
#: connections than reach it are never wanted.
GOAL_BYTES_PER_S: Final = 1.5e9
#: On a near line four connections fill every core, and more take turns (measured: plain and TLS on
#: loopback, docs/PERFORMANCE.md).
FEWEST: Final = 4
#: How many are used before anything has been measured.
FIRST_GUESS: Final = 8
#: A line is near when a first byte was ever seen to come this soon: shorter than a wide-area round
#: trip with a store's own delay, longer than a busy machine's.
NEAR_S: Final = 0.010
#: A near connection that carries less than this is capped by the store, not by this machine.
NEAR_RATE_BYTES_PER_S: Final = 50e6
#: Share of what was predicted below which connections are found to share a narrower line.
SHARED: Final = 0.5
#: So many more than fill a shared line are kept: one of them is always between two ranges.
SPARE: Final = 1.5
#: Seconds during which a throttled store is not asked for more.
BACK_OFF_S: Final = 5.0
#: Seconds after which a line is taken to have changed, and the prediction is tried again.
FORGET_S: Final = 30.0
#: Shortest time over which throughput means anything.
INTERVAL_S: Final = 0.5
#: Shortest range that tells a rate from a burst.
SHORTEST_BYTES: Final = 256 * 1024


class ConnectionController:
    """Decides how many connections to use at once, between 1 and `most`.

    All times are seconds of any one clock.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._target = min(FIRST_GUESS, most)
        self._solo_bytes_per_s: float | None = None
        self._rate_bytes_per_s: float | None = None
        self._soonest_s = float("inf")
        self._since_s = 0.0
        self._carried_bytes = 0
        self._ceiling = most
        self._ceiling_until_s = 0.0

    @property
    def target(self) -> int:
        """Return how many connections to use now."""
        return self._target

    @property
    def rate_bytes_per_s(self) -> float | None:
        """Return what one connection carries, as last seen, or None before the first range."""
        return self._rate_bytes_per_s

    def note_range(
        self, now_s: float, n_bytes: int, took_s: float, first_byte_s: float, n_active: int
    ) -> None:
        """Take in a finished range: its bytes, the time from its first byte to its last.

        *first_byte_s* is the time from asking to the first byte; *n_active* how many connections
        there were, this one included.
        """
        self._soonest_s = min(self._soonest_s, first_byte_s)
        if n_bytes < SHORTEST_BYTES or took_s <= 0:
            return
        rate = n_bytes / took_s
        self._rate_bytes_per_s = _smooth(self._rate_bytes_per_s, rate)
        if self._solo_bytes_per_s is None or n_active <= FEWEST:
            self._solo_bytes_per_s = _smooth(self._solo_bytes_per_s, rate)
            self._aim(now_s)

    def note_throttled(self, now_s: float) -> None:
        """Take in that the store asked us to slow down: half as many, for a while."""
        if now_s >= self._ceiling_until_s or self._ceiling > self._target:
            self._ceiling = max(1, self._target // 2)
        self._ceiling_until_s = now_s + BACK_OFF_S
        self._aim(now_s)

    def note_progress(self, now_s: float, n_bytes: int, n_active: int, *, is_wanting: bool) -> int:
        """Take in bytes received with *n_active* connections; return the new target.

        *is_wanting*: more ranges wait for a connection than there are connections.
        """
        if n_active < self._target or not is_wanting:
            # Only a level that is fully used tells what it can carry.
            self._since_s, self._carried_bytes = now_s, 0
            self._aim(now_s)
            return self._target
        self._carried_bytes += n_bytes
        elapsed_s = now_s - self._since_s
        if elapsed_s >= INTERVAL_S:
            self._judge(now_s, self._carried_bytes / elapsed_s)
            self._since_s, self._carried_bytes = now_s, 0
        return self._target

    def _judge(self, now_s: float, carried_bytes_per_s: float) -> None:
        solo = self._solo_bytes_per_s
        if solo is not None and carried_bytes_per_s < SHARED * solo * self._target:
            enough = math.ceil(SPARE * carried_bytes_per_s / solo)
            self._ceiling = max(FEWEST, min(enough, self._target))
            self._ceiling_until_s = now_s + FORGET_S
        self._aim(now_s)

    def _aim(self, now_s: float) -> None:
        solo = self._solo_bytes_per_s
        if solo is None:
            wished = FIRST_GUESS
        elif self._soonest_s < NEAR_S and solo >= NEAR_RATE_BYTES_PER_S:
            wished = FEWEST
        else:
            wished = max(FEWEST, math.ceil(GOAL_BYTES_PER_S / solo))
        if now_s < self._ceiling_until_s:
            wished = min(wished, self._ceiling)
        self._target = max(1, min(wished, self._most))


def _smooth(known: float | None, seen: float) -> float:
    return seen if known is None else 0.7 * known + 0.3 * seen
