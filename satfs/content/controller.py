"""How many connections pay, decided from what they carry.

Pure: bytes and seconds in, a number out. The first answer is a prediction: so many connections as
it would take, at the rate that one connection was seen to carry, to reach the rate that we can
handle at all. Then what was gained is measured: a level that carried no more than a lower one is
given up.
"""

from __future__ import annotations

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
#: Gain, relative to the connections added, below which the added ones are given back.
WORTHWHILE_GAIN: Final = 0.25
#: Seconds during which a throttled store is not asked for more at once.
BACK_OFF_S: Final = 5.0
#: Seconds after which a level that did not pay is tried again: lines change.
FORGET_S: Final = 30.0
#: Shortest time over which throughput means anything.
INTERVAL_S: Final = 0.5


class ConnectionController:
    """Decides how many connections to use at once, between 1 and `most`.

    All times are seconds of any one clock.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._target = min(FIRST_GUESS, most)
        self._rate_bytes_per_s: float | None = None
        self._soonest_s = float("inf")
        self._since_s: float | None = None
        self._carried_bytes = 0
        self._level: tuple[int, float] | None = None  # (connections, bytes per second) before
        self._ceiling: tuple[int, float] | None = None  # (connections, believed until)
        self._hold_until_s = 0.0

    @property
    def target(self) -> int:
        """Return how many connections to use now."""
        return self._target

    @property
    def rate_bytes_per_s(self) -> float | None:
        """Return what one connection carries, as last seen, or None before the first range."""
        return self._rate_bytes_per_s

    def note_range(self, n_bytes: int, took_s: float, first_byte_s: float) -> None:
        """Take in one finished range: bytes, time from first byte to last, time to the first."""
        self._soonest_s = min(self._soonest_s, first_byte_s)
        if n_bytes < 256 * 1024 or took_s <= 0:
            return  # too short to tell a rate from a burst
        rate = n_bytes / took_s
        known = self._rate_bytes_per_s
        self._rate_bytes_per_s = rate if known is None else 0.7 * known + 0.3 * rate

    def note_throttled(self, now_s: float) -> None:
        """Take in that the store asked us to slow down: half as many, for a while."""
        if now_s >= self._hold_until_s:
            self._target = max(1, self._target // 2)
        self._hold_until_s = now_s + BACK_OFF_S
        self._reset(now_s)

    def note_progress(self, now_s: float, n_bytes: int, n_active: int, *, is_wanting: bool) -> int:
        """Take in bytes received with *n_active* connections; return the new target.

        *is_wanting*: more ranges wait for a connection than there are connections.
        """
        if self._since_s is None or n_active < self._target or not is_wanting:
            # Only a level that is fully used tells what it can carry.
            self._reset(now_s)
            if is_wanting and now_s >= self._hold_until_s:
                self._move_to(self._wished(now_s))
            return self._target
        self._carried_bytes += n_bytes
        elapsed_s = now_s - self._since_s
        if elapsed_s < INTERVAL_S:
            return self._target
        carried = self._carried_bytes / elapsed_s
        self._judge(now_s, carried)
        self._reset(now_s)
        return self._target

    def _judge(self, now_s: float, carried_bytes_per_s: float) -> None:
        before = self._level
        here = self._target
        self._level = (here, carried_bytes_per_s)
        if before is not None and before[0] < here:
            added = here / before[0] - 1
            gained = carried_bytes_per_s / max(before[1], 1.0) - 1
            if gained < WORTHWHILE_GAIN * added:
                self._ceiling = (before[0], now_s + FORGET_S)
                self._level = before
                self._target = before[0]
                return
        if now_s >= self._hold_until_s:
            self._move_to(self._wished(now_s))

    def _move_to(self, wished: int) -> None:
        """Go up to what is wished; down only on a near line, where that is known to be enough."""
        if wished > self._target or wished == FEWEST:
            self._target = min(wished, self._most)

    def _wished(self, now_s: float) -> int:
        rate = self._rate_bytes_per_s
        if self._soonest_s < NEAR_S and rate is not None and rate >= NEAR_RATE_BYTES_PER_S:
            return FEWEST
        wished = self._target if rate is None else max(FEWEST, round(GOAL_BYTES_PER_S / rate))
        # At most four times at once, so that a level below is known to compare with.
        wished = min(wished, 4 * self._target)
        if self._ceiling is not None:
            if now_s < self._ceiling[1]:
                wished = min(wished, self._ceiling[0])
            else:
                self._ceiling = None
        return max(1, wished)

    def _reset(self, now_s: float) -> None:
        self._since_s = now_s
        self._carried_bytes = 0
