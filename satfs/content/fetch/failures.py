"""Which error a response of the store becomes, and for how long attempts may fail."""

from __future__ import annotations

import trio

from satfs.content.transfer.store_responses import ResponseClass, ResponseKind
from satfs.errors import (
    DeadlineReached,
    Garbled,
    NotAllowed,
    NotThere,
    SatfsError,
    Throttled,
    Unreachable,
)
from satfs.net.processor_waits import ProcessorWaits
from satfs.net.refused_credentials import Refusals
from satfs.net.retry import wait_before_next_s


def error_for(
    response: ResponseClass, label: str, retry_after_s: float | None = None
) -> SatfsError:
    """Return the error for a *response* without bytes, for the object called *label*.

    *retry_after_s*: the seconds that it requires to wait, if any; then it is a `Throttled`.
    """
    match response.kind:
        case ResponseKind.RENEW | ResponseKind.REFUSED:
            return refused(label, response.code)
        case ResponseKind.GONE:
            return NotThere(f"the object store has no {label}")
        case ResponseKind.REDIRECT:  # one with an address is followed
            return Garbled(f"the object store redirects {label} to no address: {response.code}")
        case ResponseKind.RETRY | ResponseKind.SLOW_DOWN:
            text = f"the object store is busy: {label}: {response.code}"
            if retry_after_s is None:
                return Unreachable(text)
            return Throttled(text, retry_after_s=retry_after_s)
        case _:
            return Garbled(
                f"the object store's response for {label} makes no sense: {response.code}"
            )


def refused(label: str, code: str) -> NotAllowed:
    """Return the error for an object that the store refuses with *code*."""
    return NotAllowed(f"the object store refuses {label}: {code}")


class AttemptCounts:
    """Attempts since a range request last made progress."""

    def __init__(self, held_until: int, give_up_s: float) -> None:
        self.wait_s = 0.0
        self.is_first = True
        self.last: SatfsError | None = None
        self._give_up_s = give_up_s
        self._begin(held_until)

    def _begin(self, held_until: int) -> None:
        self.since_s = trio.current_time()
        self._waits = ProcessorWaits()
        self.refusals = Refusals()
        self.n_garbled = 0
        self.n_gone = 0
        self.n_other_version = 0
        self.n_deaths = 0
        self.n_crowded = 0
        self.was_taken_back = False
        self.last = None
        self._n_failed = 0
        self._held_until = held_until

    def look(self, held_until: int) -> None:
        """Start the time limit again if there was progress since it began."""
        if held_until > self._held_until:
            self._begin(held_until)

    def waited(self, seconds: float) -> None:
        """Note *seconds* without a request: other connections had their turn."""
        self.since_s += seconds

    @property
    def left_s(self) -> float:
        """Return the time that is left for attempts."""
        return max(0.0, self.since_s + self._give_up_s - trio.current_time())

    @property
    def is_starved(self) -> bool:
        """Return whether no response was read because this process had no processor."""
        return self._waits.explain(trio.current_time() - self.since_s)

    def failed(self, failure: SatfsError | None, draw: float) -> None:
        """Note a temporary failure: the next attempt waits a little longer."""
        self._n_failed += 1
        if not isinstance(failure, DeadlineReached) or self.last is None:
            # Running out of time is the end of a failure, not its reason.
            self.last = failure
        self.wait_s = wait_before_next_s(self._n_failed, failure, draw)

    def paused(self, pause_s: float, label: str) -> SatfsError | None:
        """Make the next attempt wait for *pause_s*, as another process has to.

        Returns the error to raise when the attempt would come too late.
        """
        self.wait_s = pause_s
        text = f"the object store is busy: {label}: it requires a wait of {pause_s:.3g} s"
        return Throttled(text, retry_after_s=pause_s) if self.is_over else None

    @property
    def is_over(self) -> bool:
        """Return whether the next attempt would come too late."""
        return self.wait_s >= self.left_s
