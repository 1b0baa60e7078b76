"""An attachment's version while it is being learnt, and the tail that comes with it.

The headers of one request have the version; the last bytes of the object follow, and a reader that
needs them waits for that request instead of making another.
"""

from __future__ import annotations

import trio
from msgspec import Struct, field

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.index import KnownVersion
from satfs.content.cache.objects import Spilled
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.fetcher import Fetcher
from satfs.content.fetch.range_request import RangeRequest
from satfs.errors import Misuse
from satfs.model import ByteRange


class Learning(Struct, eq=False):
    """A version that is being learnt; settled with `known`, or with `failure`."""

    is_settled: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    known: KnownVersion | None = None
    failure: Exception | None = None

    def result(self) -> KnownVersion:
        """Return what was learnt, once it is settled; raises what went wrong before."""
        if self.known is not None:
            return self.known  # also where the tail failed
        raise self.failure or Misuse("a version that is not settled")


class PartDelivery:
    """A part of an object that comes with its version: bytes fetched once are not fetched again.

    The end, which the request for the version brings; and the beginning, where one is expected.
    """

    def __init__(self, cache: BlockCache, egress: EgressLimit) -> None:
        self._cache = cache
        self._egress = egress
        self._request: RangeRequest | None = None
        #: Set when it is known whether the bytes are wanted: where no other request brings them.
        self.is_decided = trio.Event()
        #: Set when all has come, or no more will: its connection is free.
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
