"""One open object: the reads that wait for its bytes, and what is requested for them.

All handles on one version of one object share it, handles on the zip and on its members; so a byte
that two of them want is requested once (`ObjectRequests`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import Final

import trio
from msgspec import Struct, field

from satfs.content.cache.blockmap import align
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.objects import CachedObject
from satfs.content.fetch.check_ahead import CheckAhead
from satfs.content.fetch.connection_choice import BULK_BYTES
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.object_requests import ObjectRequests, overlaps
from satfs.content.fetch.range_request import ObjectSource, RangeRequest
from satfs.content.fetch.raster_files import RasterFiles
from satfs.content.fetch.readahead import Pattern, Plan
from satfs.content.fetch.span_index import SpanIndex
from satfs.errors import Changed, SatfsError
from satfs.model import ByteRange

#: A sequential reader with at least this much left to read gets worker processes.
WORTH_BYTES: Final = 16 * 1024 * 1024
#: Once the store has served another version, reads of this one fail without a request for this
#: time; then one range is tried again, without read-ahead, until the store serves one.
OUTDATED_S: Final = 1.0
#: A range of which no more than this is missing is fetched to its end, although no reader wants it
#: any more: the bytes and the connection are kept. A new connection would cost two round trips and
#: begin slowly, for the time of some megabytes.
NEARLY_DONE_BYTES: Final = 256 * 1024
#: The same of a range that is not part of a bulk read: there are few of them at once, and another
#: one follows soon. Two tiles of a raster, a quarter of the megabytes that a line of 30 ms and 50
#: MB/s carries while a new connection gets up to speed.
NEARLY_DONE_ALONE_BYTES: Final = 2 * 1024 * 1024


class _Waiter(Struct, eq=False):
    span: ByteRange
    event: trio.Event = field(default_factory=trio.Event)
    failure: SatfsError | None = None


class Fetcher:
    """Gets bytes of one object into its cache file, each once.

    Invariants:
        A read that waits for a span is woken when all of it is held, or when a request that was to
        fetch part of it has failed; then it tests the blocks again.
    """

    def __init__(
        self,
        cache: BlockCache,
        cached: CachedObject,
        dispatcher: Dispatcher,
        source: ObjectSource,
        on_outdated: Callable[[], None],
        egress: EgressLimit,
    ) -> None:
        self.cache = cache
        self.cached = cached
        self.source = source
        self.rasters = RasterFiles()
        #: The reason for which the last response had another version.
        self._outdated: Changed | None = None
        self._outdated_until_s = 0.0
        self._on_outdated = on_outdated
        self._dispatcher = dispatcher
        self._egress = egress
        self._requests = ObjectRequests(cache, cached, source, dispatcher, self)
        self._waiters: SpanIndex[_Waiter] = SpanIndex()
        self._readers: set[object] = set()
        self._check_ahead = CheckAhead(cache, cached, dispatcher.run_in_background)
        #: For each sequential reader, the end of the window that has been launched, and its start.
        self._launched: dict[object, ByteRange] = {}

    @property
    def is_outdated(self) -> bool:
        """Return whether the store was last seen to serve another version."""
        return self._outdated is not None

    @property
    def is_far(self) -> bool:
        """Return whether the line is known to be far."""
        return self._dispatcher.controller.is_far

    def window_bytes(self, reader: object) -> int:
        """Return how far ahead *reader* may go now, if it reads sequentially."""
        # Several readers at one place want the same requests; the oldest reader wants all of them.
        oldest = self._requests.oldest_of(reader)
        return self._dispatcher.window_bytes(1 if oldest is None else max(1, len(oldest.readers)))

    async def wait_for(self, span: ByteRange, reader: object) -> None:
        """Wait until *span* is held, or was for a moment; requests its missing bytes.

        Raises:
            SatfsError: a part of it cannot be fetched.
        """
        await self._check_ahead.wait_for(span)
        await self.cache.check(self.cached, span)
        if self.cached.holds(span):
            return
        # No checkpoint from here to the wait: exactly the bytes that are missing now get requests.
        if not self._is_expected(span):
            self._egress.check(self.source.label)
            if self._outdated is not None and trio.current_time() < self._outdated_until_s:
                raise copy(self._outdated) from self._outdated
        self._requests.launch(
            align(span, self.cached.size_bytes), reader, range_bytes=None, is_bulk=False
        )
        waiter = _Waiter(span)
        self._waiters.add(waiter, span)
        awaited = self._requests.bringing(span)
        for range_request in awaited:
            self._dispatcher.set_urgent(range_request, True)
        self._dispatcher.pump()
        try:
            await waiter.event.wait()
        finally:
            self._waiters.remove(waiter)
            # Those that were awaited, and those that were split off them.
            for range_request in dict.fromkeys([*awaited, *self._requests.bringing(span)]):
                if range_request in self._requests:
                    is_awaited = self._is_awaited(range_request)
                    self._dispatcher.set_urgent(range_request, is_awaited)
                    self._withdraw_if_unwanted(range_request)  # its handle was closed meanwhile
        if waiter.failure is not None:
            # A copy for each task: a traceback grows in every task that raises it.
            raise copy(waiter.failure) from waiter.failure

    def want(self, plan: Plan, reader: object) -> None:
        """Request the ranges of *plan*, and cancel requests that *reader* no longer needs."""
        if self.is_outdated:
            return  # a read that waits for more gets the failure, or tries one range
        size = self.cached.size_bytes
        left_bytes = self._egress.left_bytes()
        if left_bytes == 0:
            return  # a read that waits for more gets the failure
        is_short = left_bytes is not None and left_bytes < sum(map(len, (plan.now, *plan.ahead)))
        if plan.pattern is Pattern.STRAY or is_short:
            self._requests.launch(align(plan.now, size), reader, range_bytes=None, is_bulk=False)
            return
        if plan.pattern is not Pattern.SEQUENTIAL:
            self._launched.pop(reader, None)
            self._leave_all_but(reader, plan)
            for piece in (plan.now, *plan.ahead):
                self._requests.launch(align(piece, size), reader, range_bytes=None, is_bulk=False)
            return
        self._check_ahead.begin(plan.now)
        ahead = plan.ahead[0] if plan.ahead else ByteRange(plan.now.stop, plan.now.stop)
        range_bytes = self._dispatcher.range_bytes(len(ahead), goes_on=ahead.stop < size)
        launched = self._launched.get(reader)
        if launched is not None and launched.start <= plan.now.start < launched.stop:
            # Looking through a whole window at each of its thousand reads would cost more than
            # reading. Blocks that failed or were evicted are fetched when a read waits for them.
            left = max(0, ahead.stop - launched.stop)
            if left < min(range_bytes, max(1, len(ahead) // 2)):
                return
        if len(ahead) >= BULK_BYTES and self.cached.size_bytes - plan.now.stop >= WORTH_BYTES:
            self._dispatcher.expect_bulk(self.source)
        window = ByteRange(plan.now.start, max(plan.now.stop, ahead.stop))
        self._requests.launch(
            align(window, size), reader, range_bytes=range_bytes, is_bulk=True, now=plan.now
        )
        self._launched[reader] = ByteRange(plan.now.start, max(plan.now.stop, ahead.stop))

    def adopt(self, span: ByteRange, bringer: object) -> RangeRequest | None:
        """Return a request for *span* whose bytes *bringer* receives, without the dispatcher.

        Reads of these bytes wait for it meanwhile. It is to be ended with `RangeRequest.end`. None
        where the bytes are held or requested already.
        """
        if self.cached.top.map.is_present(span) or self._is_expected(span):
            return None
        range_request = self._requests.add(span, None, is_bulk=False)
        range_request.readers.add(bringer)
        range_request.is_active = True
        return range_request

    @property
    def is_fetching(self) -> bool:
        """Return whether any range is requested."""
        return bool(self._requests)

    def enter(self, reader: object) -> None:
        """Add a reader, before its first read."""
        self._readers.add(reader)

    def leave(self, reader: object) -> None:
        """Forget a reader, and cancel the requests that only it wanted."""
        self._readers.discard(reader)
        self._launched.pop(reader, None)
        for range_request in self._requests.of(reader):
            self._requests.leave(range_request, reader)
            self._withdraw_if_unwanted(range_request)

    # -- giving up -------------------------------------------------------------------------------

    def _leave_all_but(self, reader: object, plan: Plan) -> None:
        wanted = [plan.now, *plan.ahead]
        for range_request in self._requests.of(reader):
            # Of several readers of one file side by side, each gets only a part of the kernel's
            # requests, and may look lost for a moment. Another one will read what is in flight.
            if range_request.is_active and len(self._readers) > 1:
                continue
            if not any(overlaps(range_request, each) for each in wanted):
                self._requests.leave(range_request, reader)
                self._withdraw_if_unwanted(range_request)

    def _withdraw_if_unwanted(self, range_request: RangeRequest) -> None:
        if range_request.readers or self._is_awaited(range_request):
            return
        limit = NEARLY_DONE_BYTES if range_request.is_bulk else NEARLY_DONE_ALONE_BYTES
        if range_request.is_arriving and len(range_request.missing) <= limit:
            return
        self._dispatcher.withdraw(range_request)

    def _is_awaited(self, range_request: RangeRequest) -> bool:
        span = ByteRange(range_request.start, max(range_request.start, range_request.stop))
        return bool(self._waiters.overlapping(span))

    # -- progress (`RangeRequester`) -------------------------------------------------------------

    def fit(self, range_request: RangeRequest, n_connections: int, *, may_cut: bool) -> None:
        """See `ObjectRequests.fit`."""
        self._requests.fit(range_request, n_connections, may_cut=may_cut)

    def note_progress(self, range_request: RangeRequest, n_bytes: int) -> None:
        """Wake the reads whose bytes are all held now."""
        self._egress.note(n_bytes)
        held_until = range_request.held_until
        for waiter in self._waiting_for(ByteRange(max(0, held_until - n_bytes), held_until)):
            if self.cached.holds(waiter.span):
                waiter.event.set()

    def _waiting_for(self, span: ByteRange) -> Iterable[_Waiter]:
        """Return the waiters for bytes of *span* that have not been woken yet."""
        return [each for each in self._waiters.overlapping(span) if not each.event.is_set()]

    def note_brought_elsewhere(self) -> None:
        """Wake the reads whose blocks another process has fetched: these blocks are unchecked."""
        for waiter in self._waiters:
            if not waiter.event.is_set() and next(self.cached.gaps(waiter.span), None) is None:
                waiter.event.set()

    def note_end(self, range_request: RangeRequest, failure: SatfsError | None) -> None:
        """Raise *failure* in the reads of missing bytes; others test their blocks again."""
        self._requests.remove(range_request)
        if isinstance(failure, Changed):
            self._note_outdated(failure)
        elif range_request.held_until > range_request.start:
            self._outdated = None
        left = ByteRange(min(range_request.held_until, range_request.stop), range_request.stop)
        for waiter in self._waiting_for(range_request.requested):
            # After a cut, a cancellation or an eviction a waiting read tests the blocks again.
            if left and left.overlaps(waiter.span):
                waiter.failure = failure
                waiter.event.set()
            elif self.cached.holds(waiter.span) or not self._is_expected(waiter.span):
                waiter.event.set()

    def _note_outdated(self, failure: Changed) -> None:
        """Note that the store serves another version, and cancel queued requests."""
        is_first = self._outdated is None
        self._outdated = failure
        self._outdated_until_s = trio.current_time() + OUTDATED_S
        if is_first:
            self._on_outdated()
        for range_request in list(self._requests):
            if not range_request.is_active:
                self._dispatcher.withdraw(range_request)

    def _is_expected(self, span: ByteRange) -> bool:
        return bool(self._requests.bringing(span))
