"""The bytes of an object that come with its version: its end, and perhaps its beginning.

The request that shows the version brings the end. The beginning is requested beside it, where a
program is expected to read that. Over connections that are new, or were idle for a moment, a server
sends ten segments, some 14 KB, before it waits for an acknowledgement (RFC 5681 §4.1, RFC 6928). A
block of 16 KiB is more than that, and one record of TLS, of which nothing can be decrypted before
its last byte: it takes two round trips. Its two halves come in one, over two connections. Their
headers show the version in the same round trip; those of the tail, which begin a record of 16 KiB,
come in two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from satfs import read_trace
from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.objects import Spilled
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.fetcher import Fetcher
from satfs.content.fetch.first_reads import BEGINNING_BYTES
from satfs.content.fetch.probe import Probe
from satfs.content.fetch.range_request import RangeRequest
from satfs.model import ByteRange, Link, Version
from satfs.read_trace import ReadTrace

log = structlog.get_logger(__name__)

#: Longest time in seconds for which a read waits for the beginning that was requested beside the
#: version; then it sends a request of its own.
BEGINNING_S: Final = 2.0
#: Connections that are opened where none is idle, one for each half: only to a host that is known
#: to accept this number.
N_NEW: Final = 2
#: For how long the tail waits until one of these is idle, in seconds. Over new ones the halves show
#: the version a round trip before the tail would.
TAIL_WAITS_S: Final = 0.5
#: Bytes that a connection brings in its first round trip, headers and TLS included.
_HALF_BYTES: Final = BLOCK_BYTES // 2


class PartDelivery:
    """A part of an object that comes with its version: bytes fetched once are not fetched again.

    This is the end, which the response with the version brings, and the beginning, where a read of
    it is expected.
    """

    def __init__(self, cache: BlockCache, egress: EgressLimit) -> None:
        self._cache = cache
        self._egress = egress
        self._request: RangeRequest | None = None
        #: Set when it is known whether the bytes are wanted, which is so if no other request brings
        #: them.
        self.is_decided = trio.Event()
        #: Set when all bytes have come, or no more will come: the connection is free.
        self.has_ended = trio.Event()
        self._n_skipped = 0  # the beginning of a block whose other bytes do not come
        self.n_bytes = 0

    @property
    def is_wanted(self) -> bool:
        """Return whether bytes are to be given to `receive`."""
        return self._request is not None and not self.has_ended.is_set()

    async def begin(self, fetcher: Fetcher, span: ByteRange) -> None:
        """Note that the bytes of *span* will come; keep whole blocks of them.

        *span* ends with a block or with the object.
        """
        first = -(-span.start // BLOCK_BYTES) * BLOCK_BYTES
        if first >= span.stop or self.has_ended.is_set():
            return
        if (request := fetcher.adopt(ByteRange(first, span.stop), self)) is not None:
            self._request, self._n_skipped = request, first - span.start
            # Other processes of the node wait for these blocks. Where one of them has a claim, the
            # same bytes come from both: this request has been made.
            request.attempt.claim = self._cache.claims.take(fetcher.cached, request.absent)
            await self._cache.reserve(fetcher.cached, request.missing)
            request.begin()

    def receive(self, data: bytes) -> None:
        """Take the next bytes."""
        self.n_bytes += len(data)
        skipped = min(self._n_skipped, len(data))
        self._n_skipped -= skipped
        request = self._request
        if request is None or not request.is_wanted():
            self._egress.note(len(data))
            return
        self._egress.note(skipped)
        try:
            request.receive(memoryview(data)[skipped:])
        except Spilled:
            request.cancel()  # fetched again when a program reads it

    def end(self) -> None:
        """Wake the tasks that wait for bytes that did not come, or for the connection.

        May be called twice.
        """
        if self.has_ended.is_set():
            return
        self.is_decided.set()
        self.has_ended.set()
        if (request := self._request) is not None:
            claim, request.attempt.claim = request.attempt.claim, None
            if claim is not None:
                self._cache.claims.end(claim)
            request.end(None)


def parts_of_beginning(n_idle: int, *, may_open: bool) -> tuple[ByteRange, ...]:
    """Return the parts of the beginning to request beside the version, with *n_idle* connections.

    One of them is for the tail; a new one beside it would be open too late. If none is idle, two
    are opened where *may_open*, else one. The tail comes over the first of these that is idle: the
    beginning shows the version as well, and is read first.
    """
    if n_idle >= 3 or (n_idle == 0 and may_open):
        return (ByteRange(0, _HALF_BYTES), ByteRange(_HALF_BYTES, BLOCK_BYTES))
    return (ByteRange(0, BEGINNING_BYTES),) if n_idle in (0, 2) else ()


async def bring_beginning(
    probe: Probe,
    link: Link,
    parts: tuple[ByteRange, ...],
    delivery: PartDelivery,
    trace: ReadTrace,
    version: Callable[[], Awaitable[Version | None]],
    learn: Callable[[Version], Awaitable[None]],
    is_free: trio.Event,
) -> None:
    """Request *parts* of an object at the same time, and give *delivery* their bytes in order.

    *version* waits until it is known, and returns None where no bytes are wanted. *learn* gets the
    version that the first response shows. *is_free* is set when the first of the parts has ended,
    whose connection is idle then. Raises nothing, and ends *delivery*.
    """
    ended = [trio.Event() for _ in parts]

    async def bring(number: int, part: ByteRange) -> None:
        async def version_in_turn() -> Version | None:
            known = await version()
            if number:
                await ended[number - 1].wait()
            return known if delivery.n_bytes == part.start else None

        try:
            with trace.request(read_trace.BYTES, part) as request:
                await probe.beginning(
                    link, part, version_in_turn, delivery.receive, None if number else learn
                )
                request.received_bytes = max(0, min(delivery.n_bytes, part.stop) - part.start)
        finally:
            ended[number].set()
            is_free.set()

    try:
        with trio.move_on_after(BEGINNING_S):
            async with trio.open_nursery() as nursery:
                for number, part in enumerate(parts):
                    nursery.start_soon(bring, number, part)
    except Exception:  # no task waits for this one; the mount goes on
        log.exception("the beginning of an object was lost", label=trace.label)
    finally:
        delivery.end()
