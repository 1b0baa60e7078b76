"""The range requests of one object: which bytes each fetches, and which readers want it.

Missing bytes are requested once: a reader joins requests that already fetch its bytes. Requests are
split, joined and extended here, as readers and connections come and go. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.capacity import Reservation
from satfs.content.cache.objects import CachedObject
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.range_request import (
    ObjectSource,
    RangeRequest,
    RangeRequester,
    fitted_stop,
    split,
)
from satfs.content.fetch.span_index import SpanIndex
from satfs.model import ByteRange

#: A wanted byte that lies further than this behind the last byte that a request has received is
#: fetched by a request of its own, and the first one is cut: waiting would take longer than a round
#: trip. More than the two or three pieces of up to 1 MiB that the kernel reads ahead at once.
LEAP_BYTES: Final = 5 * 512 * 1024
#: The same in time, for fast lines.
LEAP_S: Final = 0.2


class ObjectRequests:
    """All range requests of one object, from their begin to their end.

    Invariants:
        The spans of `_requests` don't overlap; of their bytes only those that they received are
        held. `_requests_of` holds, for each reader that has any, its requests.
    """

    def __init__(
        self,
        cache: BlockCache,
        cached: CachedObject,
        source: ObjectSource,
        dispatcher: Dispatcher,
        requester: RangeRequester,
    ) -> None:
        self._cache = cache
        self._cached = cached
        self._source = source
        self._dispatcher = dispatcher
        self._requester = requester
        #: By the span with which they were begun, without later cuts.
        self._requests: SpanIndex[RangeRequest] = SpanIndex()
        self._requests_of: dict[object, dict[RangeRequest, None]] = {}
        self._landing: dict[RangeRequest, Reservation] = {}

    def __bool__(self) -> bool:
        return bool(self._requests)

    def __iter__(self) -> Iterator[RangeRequest]:
        return iter(self._requests)

    def __contains__(self, range_request: RangeRequest) -> bool:
        return range_request in self._requests

    def of(self, reader: object) -> list[RangeRequest]:
        """Return the requests that *reader* wants, the oldest first."""
        return list(self._requests_of.get(reader, ()))

    def oldest_of(self, reader: object) -> RangeRequest | None:
        """Return the oldest request that *reader* wants."""
        return next(iter(self._requests_of.get(reader, ())), None)

    def bringing(self, span: ByteRange) -> list[RangeRequest]:
        """Return the requests that fetch a byte of *span*, or have fetched one."""
        return [each for each in self._requests.overlapping(span) if overlaps(each, span)]

    def launch(
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
        for absent in self._cached.gaps(span):
            for gap in self._not_requested(absent, reader, is_urgent=range_bytes is None):
                is_needed = now is None or gap.start < now.stop
                is_last = gap.stop == self._cached.size_bytes or gap.stop < span.stop
                if range_bytes is None:
                    pieces = [gap]
                elif is_needed or is_last or len(gap) >= range_bytes // 2:
                    is_end = gap.stop == self._cached.size_bytes
                    n_connections = self._dispatcher.controller.target if is_end else None
                    pieces = split(gap, range_bytes, n_connections)
                else:
                    continue
                range_requests.extend(self.add(piece, reader, is_bulk=is_bulk) for piece in pieces)
        if range_requests:
            self._dispatcher.submit(range_requests)

    def add(self, span: ByteRange, reader: object | None, *, is_bulk: bool) -> RangeRequest:
        """Return a new request for *span*, which the dispatcher does not know yet."""
        range_request = RangeRequest(
            self._cache,
            self._cached,
            span,
            self._source,
            is_bulk=is_bulk,
            requester=self._requester,
            on_progress=self._dispatcher.note_progress,
        )
        self._requests.add(range_request, span)
        if reader is not None:
            self._join(range_request, reader)
        self._landing[range_request] = self._cache.begin_landing(self._cached, span)
        return range_request

    def remove(self, range_request: RangeRequest) -> None:
        """Forget a request that has ended."""
        self._requests.remove(range_request)
        for reader in list(range_request.readers):
            if range_request in self._requests_of.get(reader, ()):
                self.leave(range_request, reader)
        self._landing.pop(range_request).end()

    def _join(self, range_request: RangeRequest, reader: object) -> None:
        range_request.readers.add(reader)
        if (requests := self._requests_of.get(reader)) is None:
            requests = self._requests_of[reader] = {}
            self._dispatcher.n_wanting += 1
        requests[range_request] = None

    def leave(self, range_request: RangeRequest, reader: object) -> None:
        """Note that *reader* does not want *range_request* any more."""
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
        for range_request in sorted(self.bringing(gap), key=lambda each: each.start):
            if range_request.is_cancelled or not overlaps(
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
            other = self.add(rest, None, is_bulk=range_request.is_bulk)
            other.order = range_request.order  # in its turn, as before
            for reader in range_request.readers:
                self._join(other, reader)
            self._dispatcher.submit([other])

    # -- fitting ---------------------------------------------------------------------------------

    def fit(self, range_request: RangeRequest, n_connections: int, *, may_cut: bool) -> None:
        """Fit the length of *range_request*, which has one of *n_connections*, to their number.

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
        """Extend *range_request* to *stop*; no other request fetches these bytes."""
        range_request.extend(stop)
        self._requests.remove(range_request)
        self._requests.add(range_request, range_request.requested)
        before = self._landing[range_request]
        self._landing[range_request] = self._cache.begin_landing(
            self._cached, ByteRange(range_request.start, stop)
        )
        before.end()


def overlaps(range_request: RangeRequest, span: ByteRange) -> bool:
    """Return whether *range_request* fetches, or has fetched, a byte of *span*."""
    return max(range_request.start, span.start) < min(range_request.stop, span.stop)
