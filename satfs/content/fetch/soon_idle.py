"""Whether a range waits for a connection that is about to be idle, instead of a new one.

A new connection takes two round trips before its first request (TCP, and TLS 1.3: RFC 8446 §2), and
then begins with ten segments, which each round trip doubles (RFC 5681 §3.1, RFC 6928): the
half-megabyte of a raster's block takes five round trips more than over a connection that has just
carried as much. So a range waits where another one ends sooner than that. Of ranges that are
requested together each has its own connection: next time these are up to speed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from msgspec import Struct, field

from satfs.content.fetch.connection_controller import ConnectionController
from satfs.content.fetch.range_request import RangeRequest
from satfs.net.host_connections import Holder

#: Bytes that a connection carries in its first round trip: ten segments (RFC 6928).
INITIAL_WINDOW_BYTES: Final = 14_600
#: Round trips before the first request of a connection that is to be opened.
OPENING_TRIPS: Final = 2
#: Longest wait, in seconds: more than a new connection takes over most lines.
MAX_WAIT_S: Final = 0.5


def cold_start_s(n_bytes: int, round_trip_s: float, *, is_open: bool) -> float:
    """Return how much longer *n_bytes* take over a connection that has carried nothing.

    *is_open*: it was opened before. The result is in seconds.
    """
    n_doublings = math.log2(1 + n_bytes / INITIAL_WINDOW_BYTES)
    return round_trip_s * (n_doublings + (0 if is_open else OPENING_TRIPS))


def left_s(n_received: int, n_missing: int, took_s: float) -> float:
    """Return when a range will have come, in seconds, as fast as it came in *took_s* seconds."""
    return n_missing * took_s / n_received if n_received > 0 else math.inf


class _Moved(Struct, eq=False):
    range_request: RangeRequest
    origin: str
    ended: trio.Event = field(default_factory=trio.Event)
    is_awaited: bool = False

    def left_s(self, now_s: float) -> float:
        began_s = self.range_request.attempt.first_byte_at_s
        if began_s is None:
            return math.inf
        n_received = self.range_request.front - self.range_request.attempt.start
        return left_s(n_received, len(self.range_request.missing), now_s - began_s)


class SoonIdle:
    """The ranges that are moved over connections of *holder* now.

    Invariants:
        One range at most waits for the end of each.
    """

    def __init__(self, holder: Holder, controller: ConnectionController) -> None:
        self._holder = holder
        self._controller = controller
        self._moved: dict[RangeRequest, _Moved] = {}

    @contextmanager
    def moving(self, range_request: RangeRequest, origin: str) -> Iterator[None]:
        """Count a range as moved for the time of the block."""
        moved = self._moved[range_request] = _Moved(range_request, origin)
        try:
            yield
        finally:
            del self._moved[range_request]
            moved.ended.set()

    async def wait(self, range_request: RangeRequest, origin: str) -> None:
        """Wait for the end of another range where that is sooner than what a new connection takes.

        At most for as long as that, in case the other range stalls.
        """
        n_proven, n_unused = self._holder.n_idle(origin)
        round_trip_s = self._controller.round_trip_s
        if n_proven or range_request.is_bulk or round_trip_s is None or not self._moved:
            return
        n_bytes = len(range_request.missing)
        limit_s = min(cold_start_s(n_bytes, round_trip_s, is_open=n_unused > 0), MAX_WAIT_S)
        now_s = trio.current_time()
        soon = [
            each
            for each in self._moved.values()
            if each.origin == origin and not each.is_awaited and each.left_s(now_s) < limit_s
        ]
        if not soon:
            return
        soonest = min(soon, key=lambda each: each.left_s(now_s))
        soonest.is_awaited = True
        try:
            with trio.move_on_after(limit_s):
                await soonest.ended.wait()
        finally:
            soonest.is_awaited = False
