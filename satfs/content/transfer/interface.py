"""The interface of both ways of moving bytes: a range, its destination, attempts and failures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import trio
from msgspec import Struct, field

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.claims import Claim
from satfs.content.cache.objects import CachedObject, Layer
from satfs.content.transfer.store_responses import MAX_SKIPPED_BYTES, ResponseClass
from satfs.errors import Misuse
from satfs.model import ByteRange, Link, Version
from satfs.net.host_connections import Holder, Permit


class UnusableResponse(Exception):
    """The store responded, but not with the requested bytes.

    `retry_after_s`: the seconds that it requires to wait, if any. Never leaves the content package.
    """

    def __init__(self, response_class: ResponseClass, retry_after_s: float | None = None) -> None:
        super().__init__(response_class.kind)
        self.response_class = response_class
        self.retry_after_s = retry_after_s


class WorkerDied(Exception):
    """The process that moved the bytes has ended; blocks that it reported are in the cache.

    *is_of_file*: the process runs, but cannot write to the cache file.
    """

    def __init__(self, *, is_of_file: bool = False) -> None:
        super().__init__()
        self.is_of_file = is_of_file


class Attempt(Struct, eq=False):
    """One attempt to fetch the missing bytes of a download, over one connection.

    `RangeRetry` begins and ends it and gives it its permit and its claim; the mover notes the times
    of the response. All others read it.

    Attributes:
        start: the first byte that it requests.
        is_conditional: the store is to refuse any other version.
        max_skipped_bytes: limit of what may come before the requested bytes.
        scope: cancelled, it ends the attempt; the bytes that have arrived stay.
        silence: limits the time until the first block; None where nothing limits it.
        permit: permission to use a connection, while the attempt has one.
        claim: on the blocks that it brings, while the attempt has one.
        response_s: how long the store took to respond, once that is known.
        first_byte_at_s: when the first byte arrived, on trio's clock.
        half_way: when half of its bytes or more had arrived, and up to where.
    """

    start: int
    is_conditional: bool = True
    max_skipped_bytes: int = MAX_SKIPPED_BYTES
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    silence: trio.CancelScope | None = None
    permit: Permit | None = None
    claim: Claim | None = None
    response_s: float | None = None
    first_byte_at_s: float | None = None
    half_way: tuple[float, int] | None = None

    def later_rate(self, now_s: float, held_until: int) -> float | None:
        """Return the bytes per second since half of them had arrived; None if none came since.

        A connection begins slowly (RFC 5681 §3.1): the rate of its first half is below its later
        rate.
        """
        if self.half_way is None:
            return None
        at_s, half = self.half_way
        return (held_until - half) / (now_s - at_s) if held_until > half and now_s > at_s else None

    def arriving_since(self, at_s: float) -> None:
        """Note when the first byte arrived; later calls change nothing."""
        if self.first_byte_at_s is None:
            self.first_byte_at_s = at_s
            if self.permit is not None:
                self.permit.responded()

    def progressed(self, held_until: int, stop: int) -> None:
        """Note that the blocks up to *held_until* may be served, of those up to *stop*."""
        now_s = trio.current_time()
        self.arriving_since(now_s)
        if self.half_way is None and 2 * held_until >= self.start + stop:
            self.half_way = (now_s, held_until)
        if self.permit is not None:
            self.permit.carried()
        if self.claim is not None:
            self.claim.held_until = held_until

    def lift_limit(self) -> bool:
        """Stop limiting the attempt in time: bytes arrive. Return whether it was limited."""
        if self.silence is None or self.silence.deadline == math.inf:
            return False
        self.silence.deadline = math.inf
        return True


class Download:
    """The bytes [start, stop) of one object on their way into its cache file.

    Invariants:
        Bytes [start, front) are in the file; blocks up to `held_until` may be served.
        `_begun` are the first bytes of the block at `_begun_at`, as far as they have come.
        `held_until` is a block boundary or `stop`; `front` runs ahead of it by less than a block.
        `stop` is a block boundary or the object's end, and only ever shrinks during an attempt.
    """

    def __init__(self, cache: BlockCache, cached: CachedObject, span: ByteRange) -> None:
        if span.start % BLOCK_BYTES:
            raise Misuse("a delivery that starts in the middle of a block")
        self._cache = cache
        self.cached = cached
        self.layer: Layer = cached.top
        self.start = span.start
        self.stop = span.stop
        self.front = span.start
        self.held_until = span.start
        self._begun = bytearray()
        self._begun_at = span.start
        #: The present attempt; after it, and until the next one begins, the last one.
        self.attempt = Attempt(span.start)

    @property
    def is_done(self) -> bool:
        """Return whether all bytes are there."""
        return self.held_until >= self.stop

    @property
    def missing(self) -> ByteRange:
        """Return what has not arrived."""
        return ByteRange(min(self.front, self.stop), self.stop)

    def begin(self) -> None:
        """Start an attempt after the last whole block, in the layer that takes new blocks now.

        A part of a block from an earlier attempt may have been evicted since.
        """
        self.layer = self.cached.top
        self.front = self.held_until
        self.attempt.response_s = None

    def resume(self) -> None:
        """Go on, in an attempt that has just begun, in the block that an earlier one began.

        For stores of which no response brings a whole block, or the last byte of one.

        Raises:
            Spilled: the disk won't take them; `begin` again.
        """
        begun, self._begun = self._begun, bytearray()
        if begun and self._begun_at == self.held_until < self.stop:
            self.receive(memoryview(begun))

    @property
    def received_until(self) -> int:
        """Return where the bytes end that have come without a gap, in whole blocks or in part."""
        is_begun = self._begun_at == self.held_until
        return self.held_until + (len(self._begun) if is_begun else 0)

    def receive(self, data: bytes | memoryview) -> None:
        """Write the next bytes to the file; bytes beyond `stop` are ignored.

        Raises:
            Spilled: the disk won't take them; `begin` again.
        """
        view = memoryview(data)[: max(0, self.stop - self.front)]
        if not view:
            return
        self._cache.put(self.cached, self.layer, self.front, view)
        if self.front == self.held_until:
            self._begun.clear()
        self.front += len(view)
        whole = self.stop if self.front == self.stop else self.front // BLOCK_BYTES * BLOCK_BYTES
        if whole > self.held_until:
            self._cache.hold(self.cached, self.layer, self.held_until // BLOCK_BYTES, None, whole)
            self._advance(whole)
            self._begun.clear()
        self._begun += view[len(view) - min(len(view), self.front - whole) :]
        self._begun_at = self.held_until

    def report(self, front: int, hashes: list[int]) -> None:
        """Note that a worker has written whole blocks to the file, up to *front*.

        Raises:
            Spilled: the object continues in another layer.
        """
        if front <= self.held_until:
            return
        first = self.held_until // BLOCK_BYTES
        self._cache.hold(self.cached, self.layer, first, hashes, front)
        self.front = max(self.front, front)
        self._advance(front)

    def _advance(self, held_until: int) -> None:
        n_bytes = held_until - self.held_until
        self.held_until = held_until
        self.progressed(n_bytes)

    def progressed(self, n_bytes: int) -> None:
        """Note that *n_bytes* more may be served."""


class Mover(Protocol):
    """A way of moving bytes."""

    async def move(self, link: Link, delivery: Download, version: Version) -> None:
        """Fetch `delivery.missing` of the object behind *link*; returns when all is there.

        It may be cancelled: received bytes stay.

        Raises:
            UnusableResponse: the store sent something else.
            Unreachable: the network failed, or was silent for too long.
            Spilled: the disk failed.
            WorkerDied: try again.
            Crowded: the host lets no further connection through; the attempt's permit is spent.
        """


class BulkMover(Mover, Holder, Protocol):
    """A way of moving bytes over connections of its own, which are better opened ahead.

    `on_ready` is called when it can move a download that it could not move before.
    """

    on_ready: Callable[[], None]

    @property
    def is_ready(self) -> bool:
        """Return whether it can move a download at once."""

    def is_at_hand(self, link: Link, delivery: Download) -> bool:
        """Return whether it can move *delivery* from the host of *link* now; never waits."""

    def statistics(self) -> dict[str, int]:
        """Return how many worker processes there are, and how many downloads they move."""

    async def start(self) -> None:
        """Get ready for the first move; fails silently."""

    async def prepare(self, link: Link, n_connections: int) -> None:
        """Get ready to move from the host of *link* over *n_connections*; fails silently."""
