"""Which range requests are in flight: starts and cancels them, in one nursery.

Each is a task here; its way through failures is in `range_retry`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVarTuple

import structlog
import trio

from satfs.content.cache.blocks import BlockCache
from satfs.content.fetch.connection_choice import ConnectionChoice
from satfs.content.fetch.connection_controller import ConnectionController
from satfs.content.fetch.range_request import (
    MIN_RANGE_BYTES,
    ObjectSource,
    RangeRequest,
    TransferStatus,
    choose,
    range_length,
)
from satfs.content.fetch.range_retry import RangeRetry
from satfs.content.transfer.interface import BulkMover, WorkerDied
from satfs.errors import Misuse, SatfsError
from satfs.model import Link

log = structlog.get_logger(__name__)
Ts = TypeVarTuple("Ts")

#: Requests that a read waits for may exceed the controller's number by this many: a random read
#: does not queue behind a bulk transfer.
URGENT_EXTRA: Final = 32
#: A range should not take longer than this on its connection, so that a reader is not kept waiting
#: for its end.
RANGE_TIME_S: Final = 1.5
#: Longest range while the rate of a connection is not known: a range cannot be made shorter for the
#: connections that come later, and at 2 MB/s it takes a second.
FIRST_RANGE_BYTES: Final = 2 * 1024 * 1024
#: A request that a read waits for is begun again on another connection when its rate is less than
#: this share of the usual one, after this time, and at most this many times.
SLOW_SHARE: Final = 0.1
SLOW_AFTER_S: Final = 3.0
MAX_REISSUES: Final = 1
#: Connections opened ahead of need are not trusted for longer: stores close idle ones.
STAYS_READY_S: Final = 10.0
#: How often slow requests are looked for, while any is in flight.
WATCH_INTERVAL_S: Final = 0.5


class Dispatcher:
    """All transfers of one mount.

    Invariants:
        At most `controller.target` requests are active, and `URGENT_EXTRA` more that are urgent.
        A request is in `_queue`, or in `_active`, or has ended; `end` is called exactly once.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        cache: BlockCache,
        controller: ConnectionController,
        attempts: RangeRetry,
        connections: ConnectionChoice,
        *,
        range_bytes: int,
    ) -> None:
        self._nursery = nursery
        self._cache = cache
        self.controller = controller
        self._attempts = attempts
        self._connections = connections
        self._bulk = connections.bulk
        self._range_bytes = range_bytes
        #: In the order of their arrival, as are the urgent ones among them.
        self._queue: dict[RangeRequest, None] = {}
        self._urgent: dict[RangeRequest, None] = {}
        self._active: dict[RangeRequest, None] = {}
        self._n_by_reader: Counter[object] = Counter()
        self._is_watching = False
        #: Readers that a request is queued or in flight for; counted by `ObjectRequests`.
        self.n_wanting = 0
        self._n_ready = 0
        self._ready_until_s = 0.0
        self._starts_early = False
        self.counters: Counter[str] = Counter()
        attempts.claiming.slot_freed = self.pump

    # -- for readers -----------------------------------------------------------------------------

    def range_bytes(
        self, window_bytes: int, n_connections: int | None = None, *, goes_on: bool = False
    ) -> int:
        """Return how long ranges should be for a reader with this window.

        The reader has *n_connections*, or as many as the controller allows. *goes_on*: the window
        will move on.
        """
        longest, target = self._range_bytes, self.controller.target
        if n_connections is not None:
            target = min(target, n_connections)
        rate = self.controller.next_bytes_per_s
        if rate is None:
            is_near = self.controller.is_near
            longest = min(longest, MIN_RANGE_BYTES if is_near else FIRST_RANGE_BYTES)
        else:
            longest = min(longest, max(MIN_RANGE_BYTES, int(rate * RANGE_TIME_S)))
        return range_length(window_bytes, longest, target, goes_on=goes_on)

    def window_bytes(self, n_together: int = 1) -> int:
        """Return how far ahead a sequential reader may go now, its fair share of the whole.

        *n_together* readers want the same bytes: they use the sum of their shares.
        """
        whole = max(4, 3 * self.controller.target) * self._range_bytes
        n_wanting = max(1, n_together, self.n_wanting)
        return min(whole, self._cache.window_limit_bytes()) * n_together // n_wanting

    def start_early(self) -> None:
        """Start a process at the next `expect_reads`, and not only when one is needed."""
        self._starts_early = self._bulk is not None

    def expect_reads(self) -> None:
        """Note that a program looks up a file, and may read it. Never waits."""
        if self._starts_early and self._bulk is not None:
            self._starts_early = False
            self._nursery.start_soon(self._bulk.start)

    def expect_bulk(self, source: ObjectSource) -> None:
        """Get processes and connections ready: much of one object will be read soon."""
        bulk, target, now_s = self._bulk, self.controller.target, trio.current_time()
        if bulk is None or (target <= self._n_ready and now_s < self._ready_until_s):
            return
        self._n_ready, self._ready_until_s = target, now_s + STAYS_READY_S

        async def prepare() -> None:
            try:
                await bulk.prepare(await source.links.get(), target)
            except (SatfsError, WorkerDied):
                self._n_ready = 0  # the next request will fail for the same reason

        self._nursery.start_soon(prepare)

    def open_second(self, link: Link) -> None:
        """Have a process open a connection to the host of *link*, ahead of need; never waits.

        Two connections may be open to a host that has not responded yet, and six when both have
        (`net.host_limit`). With the loop's connection alone these six come as much later as a
        connection takes to open and to respond.
        """
        if self._bulk is not None:
            self._nursery.start_soon(self._prepare, self._bulk, link, 1)

    async def _prepare(self, bulk: BulkMover, link: Link, n_connections: int) -> None:
        with suppress(SatfsError, WorkerDied):
            await bulk.prepare(link, n_connections)

    def expect_connection(self, origin: str, is_free: trio.Event) -> None:
        """Note that a connection of the loop to *origin* is free when *is_free* is set."""
        self._connections.permits.expect_idle(origin, self._connections.loop_holder)
        self._nursery.start_soon(self._connections.permits.expected_idle, origin, is_free)

    def submit(self, range_requests: list[RangeRequest]) -> None:
        """Queue requests, and start those for which there is a connection."""
        self._queue.update(dict.fromkeys(range_requests))
        self.pump()

    def set_urgent(self, range_request: RangeRequest, is_urgent: bool) -> None:
        """Have a request start before others, or not: a read waits for a byte of it."""
        range_request.is_urgent = is_urgent
        if is_urgent and range_request in self._queue:
            self._urgent[range_request] = None
        else:
            self._urgent.pop(range_request, None)

    def withdraw(self, range_request: RangeRequest) -> None:
        """Cancel a request that no reader wants any more."""
        if range_request in self._queue:
            self._unqueue(range_request)
            range_request.is_cancelled = True
            range_request.end(None)
        else:
            range_request.cancel()

    def statistics(self) -> dict[str, float]:
        """Return the numbers of requests and connections, and the counters."""
        return {
            "active": len(self._active),
            "queued": len(self._queue),
            "target_connections": self.controller.target,
            **self.counters,
            **self._attempts.counters,
            **({} if self._bulk is None else self._bulk.statistics()),
        }

    def transfers(self) -> tuple[TransferStatus, ...]:
        """Return the downloads that have a connection now, or wait for their next try."""
        now_s = trio.current_time()
        return tuple(range_request.status(now_s) for range_request in self._active)

    def run_in_background(self, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a task without a caller that waits for it; it must not raise."""
        self._nursery.start_soon(work, *args)

    def pump(self) -> None:
        """Start what can be started."""
        while (range_request := self._next()) is not None:
            self._nursery.start_soon(self._run, range_request, tuple(range_request.readers))
        if self._active and not self._is_watching:
            self._is_watching = True
            self._nursery.start_soon(self._watch)

    def _next(self) -> RangeRequest | None:
        """Take the request whose turn it is from the queue; None where none can be started."""
        if not self._queue:
            return None
        room = self.controller.target
        if self._urgent:
            # An urgent request will be chosen. Many of them come from a program that has named
            # its ranges beforehand; each takes a round trip and few bytes.
            room = max(room + URGENT_EXTRA, self.controller.most)
        if len(self._active) - self._attempts.claiming.n_elsewhere >= room:
            return None
        range_request = choose(self._urgent or self._queue, self._n_by_reader.__getitem__)
        self._unqueue(range_request)
        range_request.is_active = True
        self._active[range_request] = None
        self._n_by_reader.update(range_request.readers)
        self._connections.expect(range_request)
        return range_request

    def _unqueue(self, range_request: RangeRequest) -> None:
        del self._queue[range_request]
        self._urgent.pop(range_request, None)

    def note_progress(self, range_request: RangeRequest, n_bytes: int) -> None:
        """Note that bytes came, for the number of connections; then report it to the requester."""
        self.counters["received_bytes"] += n_bytes
        before, now_s = self.controller.target, trio.current_time()
        attempt = range_request.attempt
        if attempt.lift_limit() and attempt.response_s is not None:
            self.controller.note_response(now_s, attempt.response_s)
        began_s, n_received = attempt.first_byte_at_s, range_request.held_until - attempt.start
        if began_s is not None:
            self.controller.note_part(now_s, n_received, now_s - began_s)
        n_active, is_wanting = len(self._active), bool(self._queue)
        if self.controller.note_progress(now_s, n_bytes, n_active, is_wanting=is_wanting) > before:
            self.pump()
            if now_s < self._ready_until_s:  # a reader is expected to want them all
                self.expect_bulk(range_request.source)
        range_request.requester.note_progress(range_request, n_bytes)

    # -- the life of a request -------------------------------------------------------------------

    async def _run(self, range_request: RangeRequest, readers: tuple[object, ...]) -> None:
        """Run *range_request*, and then others, while there are any.

        The next one is sent at once: after a wait, it would be sent when the responses to all
        others have been read, and its connection would be idle meanwhile.
        """
        await self._run_one(range_request, readers)
        while (following := self._next()) is not None:
            self.pump()
            await self._run_one(following, tuple(following.readers))
        self.pump()

    async def _run_one(self, range_request: RangeRequest, readers: tuple[object, ...]) -> None:
        failure: SatfsError | None = None
        try:
            failure = await self._attempts.download(range_request)
        except Exception as bug:  # raised in its readers; the mount goes on
            log.exception("transfer failed unexpectedly", label=range_request.source.label)
            failure = Misuse("reading failed because of a fault inside satfs")
            failure.__cause__ = bug
        finally:
            self._connections.expect_no_more(range_request)
            del self._active[range_request]
            for reader in readers:
                self._n_by_reader[reader] -= 1
                if not self._n_by_reader[reader]:
                    del self._n_by_reader[reader]
            range_request.is_active = False
        range_request.end(failure)

    # -- slow connections ------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Begin urgent requests that are much slower than others again, on other connections.

        Otherwise one slow connection of sixteen would determine the rate of a sequential reader.
        """
        try:
            while self._active:
                await trio.sleep(WATCH_INTERVAL_S)
                now = trio.current_time()
                rates = {
                    range_request: rate
                    for range_request in self._active
                    if (rate := range_request.bytes_per_s(now, SLOW_AFTER_S)) is not None
                }
                if len(rates) < 2:
                    continue
                usual = statistics.median(rates.values())
                for range_request, rate in rates.items():
                    if (
                        range_request.is_urgent
                        and rate < SLOW_SHARE * usual
                        and range_request.n_reissued < MAX_REISSUES
                    ):
                        log.debug("slow range begun again", label=range_request.source.label)
                        self.counters["reissued"] += 1
                        range_request.reissue()
        finally:
            self._is_watching = False
