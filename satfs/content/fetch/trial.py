"""How a flight's attempts are counted: since when nothing has come, and when that is too long."""

from __future__ import annotations

import trio

from satfs.content.fetch.links import LinkRefusals
from satfs.errors import DeadlineReached, SatfsError
from satfs.net.retry import wait_before_next_s


class AttemptCounts:
    """Attempts since a flight last made progress."""

    def __init__(self, held_until: int, give_up_s: float) -> None:
        self.wait_s = 0.0
        self.last: SatfsError | None = None
        self._give_up_s = give_up_s
        self._begin(held_until)

    def _begin(self, held_until: int) -> None:
        self.since_s = trio.current_time()
        self.refusals = LinkRefusals()
        self.n_garbled = 0
        self.n_other_version = 0
        self.n_deaths = 0
        self.last = None
        self._n_failed = 0
        self._held_until = held_until

    def look(self, held_until: int) -> None:
        """Begin anew if there was progress: what fails after it has its own time."""
        if held_until > self._held_until:
            self._begin(held_until)

    @property
    def left_s(self) -> float:
        """Return the time that is left for attempts."""
        return max(0.0, self.since_s + self._give_up_s - trio.current_time())

    def failed(self, failure: SatfsError | None, draw: float) -> None:
        """Take in a failure that may pass: the next attempt waits a little longer."""
        self._n_failed += 1
        if not isinstance(failure, DeadlineReached) or self.last is None:
            # Running out of time is the end of a failure, not its reason.
            self.last = failure
        self.wait_s = wait_before_next_s(self._n_failed, failure, draw)

    @property
    def is_over(self) -> bool:
        """Tell whether the next attempt would come too late."""
        return self.wait_s >= self.left_s
