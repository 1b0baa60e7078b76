"""A trace of the reads of one object: requests, waits and failures, in bounded memory.

Code that requests, waits or fails adds an entry here; `satfs.introspection` makes an explanation of
the entries. No decision depends on them. *Pure*: the clocks are handed in.

No secret gets in: a request is a kind and a byte range, a failure one of our own (`satfs.errors`),
whose words hold none; of any other only the class is kept.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cachetools import LRUCache
from msgspec import Struct, field

from satfs.errors import SatfsError
from satfs.model import ByteRange

#: Objects of which traces are kept, the least recently used forgotten first. With the next two this
#: makes some 10 MB at most, and 1 kB for an object that was only listed.
MAX_TRAILS: Final = 512
#: Requests and failures kept for each object: the last ones. Older ones are only counted.
MAX_REQUESTS: Final = 64
MAX_FAILURES: Final = 8
#: Longest sentence of a failure that is kept.
_MAX_CHARACTERS: Final = 300

#: The purpose of a request.
LINK, SIZE, CONFIRM, BYTES = "link", "size", "confirm", "bytes"
#: How a request can end, besides by an error, which is shown by its class.
UNDER_WAY, DONE, GIVEN_UP = "under way", "done", "given up"


class TracedRequest(Struct):
    """One request. *at_s* is wall clock; the other times are durations, None until known.

    *span* is the requested range, where that is known; *outcome* one of the words above, or what
    went wrong.
    """

    what: str
    at_s: float
    span: ByteRange | None = None
    first_byte_s: float | None = None
    took_s: float | None = None
    received_bytes: int = 0
    outcome: str = UNDER_WAY


class TracedFailure(Struct, frozen=True):
    """The failure that a program got instead of bytes. *at_s* is wall clock."""

    at_s: float
    kind: str
    words: str


class TraceTotals(Struct):
    """Sums over a trace, or over all of them. Times are in seconds."""

    n_opens: int = 0
    n_reads: int = 0
    n_waits: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    served_bytes: int = 0
    received_bytes: int = 0
    predicted_bytes: int = 0
    """Bytes of raster blocks that were fetched before they were read, and then were read."""
    unread_bytes: int = 0
    """Bytes of raster blocks that were predicted for a handle that was closed without them."""
    requests: Counter[str] = field(default_factory=Counter)
    unlucky: Counter[str] = field(default_factory=Counter)
    """How many requests ended otherwise than well, by outcome (what comes before a colon)."""
    n_failures: int = 0


class ReadTrace:
    """The notes about one object. Never waits; safe from the event loop only."""

    def __init__(
        self,
        label: str,
        sums: TraceTotals,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.label = label
        self.own = TraceTotals()
        self.requests: deque[TracedRequest] = deque(maxlen=MAX_REQUESTS)
        self.failures: deque[TracedFailure] = deque(maxlen=MAX_FAILURES)
        self._both = (self.own, sums)
        self._clock = clock
        self._wall_clock = wall_clock

    def opened(self) -> None:
        """Note that a program opened the object."""
        for totals in self._both:
            totals.n_opens += 1

    def served(self, n_bytes: int) -> None:
        """Note that a read was answered with *n_bytes*."""
        for totals in self._both:
            totals.n_reads += 1
            totals.served_bytes += n_bytes

    def predicted(self, n_read_bytes: int, n_unread_bytes: int) -> None:
        """Note how many bytes of predicted raster blocks were read, and how many never."""
        for totals in self._both:
            totals.predicted_bytes += n_read_bytes
            totals.unread_bytes += n_unread_bytes

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that a read waits during the body, and the failure that it may end with."""
        since_s = self._clock()
        try:
            yield
        except Exception as failure:
            self._failed(failure)
            raise
        finally:
            waited_s = self._clock() - since_s
            for totals in self._both:
                totals.n_waits += 1
                totals.waited_s += waited_s
                totals.longest_wait_s = max(totals.longest_wait_s, waited_s)

    @contextmanager
    def request(self, what: str, span: ByteRange | None = None) -> Iterator[TracedRequest]:
        """Note the request that is made during the body, which may fill in what it learns."""
        request = TracedRequest(what, self._wall_clock(), span)
        self.requests.append(request)
        for totals in self._both:
            totals.requests[what] += 1
        since_s = self._clock()
        try:
            yield request
            if request.outcome == UNDER_WAY:
                request.outcome = DONE
        except Exception as failure:
            if request.outcome == UNDER_WAY:
                request.outcome = type(failure).__name__
            raise
        finally:
            # A request that neither returned nor raised an error was cancelled.
            request.took_s = self._clock() - since_s
            if request.outcome == UNDER_WAY:
                request.outcome = GIVEN_UP
            for totals in self._both:
                totals.received_bytes += request.received_bytes
                if request.outcome != DONE:
                    # Without the store's own text, of which there may be any number.
                    totals.unlucky[request.outcome.partition(":")[0]] += 1

    def _failed(self, failure: Exception) -> None:
        words = str(failure)[:_MAX_CHARACTERS] if isinstance(failure, SatfsError) else ""
        self.failures.append(TracedFailure(self._wall_clock(), type(failure).__name__, words))
        for totals in self._both:
            totals.n_failures += 1


class ReadTraces:
    """The traces of the objects used last, and sums over all."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.sums = TraceTotals()
        self._clock = clock
        self._wall_clock = wall_clock
        self._traces: LRUCache[str, ReadTrace] = LRUCache(MAX_TRAILS)

    def __len__(self) -> int:
        """Return how many objects there are notes about."""
        return len(self._traces)

    def of(self, label: str) -> ReadTrace:
        """Return the trace of the object called *label*, or a new one."""
        trace: ReadTrace | None = self._traces.get(label)
        if trace is None:
            trace = self._traces[label] = ReadTrace(label, self.sums, self._clock, self._wall_clock)
        return trace

    def find(self, label: str) -> ReadTrace | None:
        """Return the trace of the object called *label*, if there is one."""
        found: ReadTrace | None = self._traces.get(label)
        return found
