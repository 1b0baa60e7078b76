"""One open object: its blocks, its range requests, and the readers that wait for its bytes.

Shared by all handles on one version of one object, whether they look at the zip or at a member in
it; so a byte that two of them want is requested once.

Longer than 400 lines, since what is requested, joined, cut and awaited of one object has one owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import Final

import trio
from msgspec import Struct, field

from satfs.content.cache.blockmap import BLOCK_BYTES, align
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.capacity import Reservation
from satfs.content.cache.objects import CachedObject
from satfs.content.fetch.check_ahead import CheckAhead
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.range_request import ObjectSource, RangeRequest, fitted_stop, split
from satfs.content.fetch.range_retry import BULK_BYTES
from satfs.content.fetch.raster_files import RasterFiles
from satfs.content.fetch.readahead import Pattern, Plan
from satfs.content.fetch.span_index import SpanIndex
from satfs.errors import Changed, SatfsError
from satfs.model import ByteRange

#: A wanted byte that lies further than this behind the last byte that a request has received is
#: fetched by a request of its own, and the first one is cut: waiting would take longer than a round
#: trip. More than the two or three pieces of up to 1 MiB that the kernel reads ahead at once.
LEAP_BYTES: Final = 5 * 512 * 1024
#: The same in time, for fast lines.
LEAP_S: Final = 0.2
#: From this much still to read on, a sequential reader is worth processes of its own.
WORTH_BYTES: Final = 16 * 1024 * 1024
#: Once the store has served another version, reads of this one fail without a request for this
#: time; then one range is tried again, without read-ahead, until the store serves one.
OUTDATED_S: Final = 1.0


#: A range of which no more than this is missing is fetched to its end, though no reader wants it
#: any more: the bytes are kept, and so is the connection. A new connection would cost two round
#: trips and begin slowly, for the time of some megabytes.
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
        The spans of `_requests` don't overlap; of their bytes only those that they received are
        held. `_requests_of` holds, for each reader that has any, its requests.
        A read that waits for a span is woken when all of it is held, or when a request that was to
        fetch part of it has failed; then it looks again.
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
        #: Why the version is not served any more, as of the last response.
        self._outdated: Changed | None = None
        self._outdated_until_s = 0.0
        self._on_outdated = on_outdated
        self._dispatcher = dispatcher
        self._egress = egress
        #: By what they were begun for: what was cut from one since is looked at as well.
        self._requests: SpanIndex[RangeRequest] = SpanIndex()
        self._requests_of: dict[object, dict[RangeRequest, None]] = {}
        self._landing: dict[RangeRequest, Reservation] = {}
        self._waiters: SpanIndex[_Waiter] = SpanIndex()
        self._readers: set[object] = set()
        self._check_ahead = CheckAhead(cache, cached, dispatcher.run_in_background)
        #: Up to where each sequential reader's window has been launched, and from where on.
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
        # Readers side by side want the same requests, the oldest one all of them.
        oldest = next(iter(self._requests_of.get(reader, ())), None)
        return self._dispatcher.window_bytes(1 if oldest is None else max(1, len(oldest.readers)))

    async def wait_for(self, span: ByteRange, reader: object) -> None:
        """Wait until *span* is held, or was for a moment; requests what is not requested yet.

        Raises:
            SatfsError: a part of it cannot be fetched.
        """
        await self._check_ahead.wait_for(span)
        await self.cache.check(self.cached, span)
        if self.cached.holds(span):
            return
        # No checkpoint from here to the wait: what is missing now is what gets launched or joined.
        if not self._is_expected(span):
            self._egress.check(self.source.label)
            if self._outdated is not None and trio.current_time() < self._outdated_until_s:
                raise copy(self._outdated) from self._outdated
        self._launch(align(span, self.cached.size_bytes), reader, range_bytes=None, is_bulk=False)
        waiter = _Waiter(span)
        self._waiters.add(waiter, span)
        awaited = self._bringing(span)
        for range_request in awaited:
            self._dispatcher.set_urgent(range_request, True)
        self._dispatcher.pump()
        try:
            await waiter.event.wait()
        finally:
            self._waiters.remove(waiter)
            # Those that were awaited, and those that were split off them.
            for range_request in dict.fromkeys([*awaited, *self._bringing(span)]):
                if range_request in self._requests:
                    is_awaited = self._is_awaited(range_request)
                    self._dispatcher.set_urgent(range_request, is_awaited)
                    self._withdraw_if_unwanted(range_request)  # its handle was closed meanwhile
        if waiter.failure is not None:
            # A copy for each task: a traceback grows in every task that raises it.
            raise copy(waiter.failure) from waiter.failure

    def want(self, plan: Plan, reader: object) -> None:
        """Request what *plan* names, and cancel what *reader* no longer needs."""
        if self.is_outdated:
            return  # a read that waits for more gets the failure, or tries one range
        size = self.cached.size_bytes
        left_bytes = self._egress.left_bytes()
        if left_bytes == 0:
            return  # a read that waits for more gets the failure
        is_short = left_bytes is not None and left_bytes < sum(map(len, (plan.now, *plan.ahead)))
        if plan.pattern is Pattern.STRAY or is_short:
            self._launch(align(plan.now, size), reader, range_bytes=None, is_bulk=False)
            return
        if plan.pattern is not Pattern.SEQUENTIAL:
            self._launched.pop(reader, None)
            self._leave_all_but(reader, plan)
            for piece in (plan.now, *plan.ahead):
                self._launch(align(piece, size), reader, range_bytes=None, is_bulk=False)
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
        self._launch(
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
        range_request = self._new_request(span, None, is_bulk=False)
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
        """Forget a reader, and cancel what only it wanted."""
        self._readers.discard(reader)
        self._launched.pop(reader, None)
        for range_request in list(self._requests_of.get(reader, ())):
            self._leave(range_request, reader)
            self._withdraw_if_unwanted(range_request)

    # -- launching -------------------------------------------------------------------------------

    def _launch(
        self,
        span: ByteRange,
        reader: object,
        *,
        range_bytes: int | None,
        is_bulk: bool,
        now: ByteRange | None = None,
    ) -> None:
        """Request the bytes of *span* that are neither held nor requested.

        With *now* and *range_bytes*, a short gap beyond *now* waits until it is worth a request.
        """
        range_requests: list[RangeRequest] = []
        for absent in self.cached.gaps(span):
            for gap in self._not_requested(absent, reader, is_urgent=range_bytes is None):
                is_needed = now is None or gap.start < now.stop
                is_last = gap.stop == self.cached.size_bytes or gap.stop < span.stop
                if range_bytes is None:
                    pieces = [gap]
                elif is_needed or is_last or len(gap) >= range_bytes // 2:
                    is_end = gap.stop == self.cached.size_bytes
                    n_connections = self._dispatcher.controller.target if is_end else None
                    pieces = split(gap, range_bytes, n_connections)
                else:
                    continue
                range_requests.extend(
                    self._new_request(piece, reader, is_bulk=is_bulk) for piece in pieces
                )
        if range_requests:
            self._dispatcher.submit(range_requests)

    def _new_request(
        self, span: ByteRange, reader: object | None, *, is_bulk: bool
    ) -> RangeRequest:
        range_request = RangeRequest(
            self.cache,
            self.cached,
            span,
            self.source,
            is_bulk=is_bulk,
            owner=self,
            on_progress=self._dispatcher.note_progress,
        )
        self._requests.add(range_request, span)
        if reader is not None:
            self._join(range_request, reader)
        self._landing[range_request] = self.cache.begin_landing(self.cached, span)
        return range_request

    def _join(self, range_request: RangeRequest, reader: object) -> None:
        range_request.readers.add(reader)
        if (requests := self._requests_of.get(reader)) is None:
            requests = self._requests_of[reader] = {}
            self._dispatcher.n_wanting += 1
        requests[range_request] = None

    def _leave(self, range_request: RangeRequest, reader: object) -> None:
        range_request.readers.discard(reader)
        if (requests := self._requests_of.get(reader)) is not None:
            requests.pop(range_request, None)
            if not requests:
                del self._requests_of[reader]
                self._dispatcher.n_wanting -= 1

    def _not_requested(self, gap: ByteRange, reader: object, *, is_urgent: bool) -> list[ByteRange]:
        """Return the parts of *gap* that no request fetches soon; join the requests that do."""
        missing: list[ByteRange] = []
        start = gap.start
        for range_request in sorted(self._bringing(gap), key=lambda each: each.start):
            if range_request.is_cancelled or not _overlaps(
                range_request, ByteRange(start, gap.stop)
            ):
                continue
            if is_urgent and self._is_far_behind(range_request, start):
                self._split(range_request, start, gap.stop)
                continue
            self._join(range_request, reader)
            # Bytes that the request has received, and that are absent, were lost since.
            brought_until = min(max(range_request.start, range_request.held_until), gap.stop)
            if start < brought_until:
                missing.append(ByteRange(start, brought_until))
            start = max(start, min(range_request.stop, gap.stop))
        if start < gap.stop:
            missing.append(ByteRange(start, gap.stop))
        return missing

    def _is_far_behind(self, range_request: RangeRequest, start: int) -> bool:
        rate = self._dispatcher.controller.rate_bytes_per_s or 0.0
        leap = max(LEAP_BYTES, int(rate * LEAP_S))
        return start - range_request.front > leap

    def _split(self, range_request: RangeRequest, start: int, stop: int) -> None:
        """Cut *range_request* before *start*; its bytes beyond *stop* get their own request."""
        rest = ByteRange(min(stop, range_request.stop), range_request.stop)
        range_request.cut(start)
        if rest:
            other = self._new_request(rest, None, is_bulk=range_request.is_bulk)
            other.order = range_request.order  # in its turn, as before
            for reader in range_request.readers:
                self._join(other, reader)
            self._dispatcher.submit([other])

    # -- fitting (`RangeOwner`) ------------------------------------------------------------------

    def fit(self, range_request: RangeRequest, n_connections: int, *, may_cut: bool) -> None:
        """Make *range_request*, which has one of *n_connections*, worth its round trip.

        Ranges are cut before it is known how many connections a host lets through. While they wait
        for one, those that follow on each other become one range, so long that all connections
        end at about the same time. One that is longer is cut where that is known (*may_cut*): the
        short rest of a cut would cost a round trip of its own.
        """
        if range_request.held_until > range_request.start or not range_request.is_bulk:
            return
        n_bytes = sum(len(each.missing) for each in self._requests)
        longest = self._dispatcher.range_bytes(n_bytes, n_connections) // BLOCK_BYTES * BLOCK_BYTES
        followers = self._followers(range_request)
        span = ByteRange(range_request.start, range_request.stop)
        following = [ByteRange(each.start, each.stop) for each in followers]
        stop = fitted_stop(span, following, longest)
        for follower in followers:
            if follower.start >= stop:
                break
            if follower.stop > stop:
                if not may_cut:
                    stop = follower.start
                    break
                self._split(follower, stop, stop)
            for reader in list(follower.readers):
                self._join(range_request, reader)
            is_urgent = range_request.is_urgent or follower.is_urgent
            self._dispatcher.set_urgent(range_request, is_urgent)
            follower.cut(follower.start)
            self._dispatcher.withdraw(follower)
        if stop > range_request.stop:
            self._extend(range_request, stop)
        elif stop < range_request.stop and may_cut:
            self._split(range_request, stop, stop)

    def _followers(self, range_request: RangeRequest) -> list[RangeRequest]:
        """Return the requests behind *range_request*, in order, that may become part of it."""
        waiting = [each for each in self._requests if not (each.has_begun or each.is_cancelled)]
        by_start = {each.start: each for each in waiting if each.is_bulk}
        followers: list[RangeRequest] = []
        stop = range_request.stop
        while (follower := by_start.get(stop)) is not None:
            if follower.is_urgent and follower.start - range_request.start > LEAP_BYTES:
                break  # a read waits for it, and would wait for all before it
            followers.append(follower)
            stop = follower.stop
        return followers

    def _extend(self, range_request: RangeRequest, stop: int) -> None:
        """Have *range_request* fetch bytes up to *stop* as well, which no other one fetches."""
        range_request.extend(stop)
        self._requests.remove(range_request)
        self._requests.add(range_request, range_request.requested)
        before = self._landing[range_request]
        self._landing[range_request] = self.cache.begin_landing(
            self.cached, ByteRange(range_request.start, stop)
        )
        before.end()

    # -- giving up -------------------------------------------------------------------------------

    def _leave_all_but(self, reader: object, plan: Plan) -> None:
        wanted = [plan.now, *plan.ahead]
        for range_request in list(self._requests_of.get(reader, ())):
            # Of several readers of one file side by side, each gets only a part of the kernel's
            # requests, and may look lost for a moment. Another one will read what is in flight.
            if range_request.is_active and len(self._readers) > 1:
                continue
            if not any(_overlaps(range_request, each) for each in wanted):
                self._leave(range_request, reader)
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

    # -- progress (`RangeOwner`) -----------------------------------------------------------------

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

    def _bringing(self, span: ByteRange) -> list[RangeRequest]:
        """Return the requests that fetch a byte of *span*, or have fetched one."""
        return [each for each in self._requests.overlapping(span) if _overlaps(each, span)]

    def note_brought_elsewhere(self) -> None:
        """Wake the reads whose blocks another process has brought: they are unchecked."""
        for waiter in self._waiters:
            if not waiter.event.is_set() and next(self.cached.gaps(waiter.span), None) is None:
                waiter.event.set()

    def note_end(self, range_request: RangeRequest, failure: SatfsError | None) -> None:
        """Give *failure* to the reads that waited for what is missing; the others look again."""
        self._requests.remove(range_request)
        for reader in list(range_request.readers):
            if range_request in self._requests_of.get(reader, ()):
                self._leave(range_request, reader)
        self._landing.pop(range_request).end()
        if isinstance(failure, Changed):
            self._note_outdated(failure)
        elif range_request.held_until > range_request.start:
            self._outdated = None
        left = ByteRange(min(range_request.held_until, range_request.stop), range_request.stop)
        for waiter in self._waiting_for(range_request.requested):
            # After a cut, a cancellation or an eviction a waiting read looks again.
            if left and left.overlaps(waiter.span):
                waiter.failure = failure
                waiter.event.set()
            elif self.cached.holds(waiter.span) or not self._is_expected(waiter.span):
                waiter.event.set()

    def _note_outdated(self, failure: Changed) -> None:
        """Note that the store serves another version, and cancel what is queued."""
        is_first = self._outdated is None
        self._outdated = failure
        self._outdated_until_s = trio.current_time() + OUTDATED_S
        if is_first:
            self._on_outdated()
        for range_request in list(self._requests):
            if not range_request.is_active:
                self._dispatcher.withdraw(range_request)

    def _is_expected(self, span: ByteRange) -> bool:
        return bool(self._bringing(span))


def _overlaps(range_request: RangeRequest, span: ByteRange) -> bool:
    return max(range_request.start, span.start) < min(range_request.stop, span.stop)
