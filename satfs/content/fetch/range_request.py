"""One range of an object, from being wanted until its last byte may be served."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import trio

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.claims import Claim
from satfs.content.cache.objects import CachedObject
from satfs.content.fetch.links import LinkCache
from satfs.content.transfer.interface import Download
from satfs.errors import SatfsError
from satfs.model import ByteRange, Version
from satfs.read_trace import ReadTrace

_order: Final = itertools.count()

#: Further tries for a range that was answered with another version. Most objects of which that is
#: seen have been replaced, and whoever reads waits for these tries: 0.3 s for two.
MAX_OTHER_VERSION_TRIES: Final = 2
#: The same, where the store is known to show versions in turn: of two replicas that answer at
#: random, the wrong one answers nine times in a row for one range of 500.
MAX_ALTERNATING_TRIES: Final = 8
#: First wait, doubled for each further try, and longest wait, in seconds.
OTHER_VERSION_WAIT_S: Final = 0.1
OTHER_VERSION_MAX_WAIT_S: Final = 0.5


class Doubt:
    """Whether an answer of another version means that the object was replaced.

    Replicas of a store may give one object different ETags. So an answer of another version is
    followed by a few spaced tries for the one that was opened: more of them once that one was seen
    again after another, which a replaced object never shows. Bytes of the other one are never
    taken.
    """

    def __init__(self) -> None:
        self.is_alternating = False
        self._has_differed = False

    def matched(self) -> None:
        """Take in an answer of the version that was opened."""
        self.is_alternating = self.is_alternating or self._has_differed

    def differed(self, n_in_a_row: int) -> float | None:
        """Take in that a range got another version for the *n_in_a_row*-th time.

        Return the seconds to wait before another try; None is for good.
        """
        self._has_differed = True
        limit = MAX_ALTERNATING_TRIES if self.is_alternating else MAX_OTHER_VERSION_TRIES
        if n_in_a_row > limit:
            return None
        return min(OTHER_VERSION_WAIT_S * 2.0 ** (n_in_a_row - 1), OTHER_VERSION_MAX_WAIT_S)


class ObjectSource:
    """Where one object's bytes come from, which version they must be, where that is noted."""

    def __init__(self, label: str, links: LinkCache, version: Version, trace: ReadTrace) -> None:
        self.label = label
        self.links = links
        self.version = version
        self.trace = trace
        self.doubt = Doubt()


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """One range in the air, for people to look at: of which object, how far, how fast."""

    label: str
    span: ByteRange
    held_until: int
    is_urgent: bool
    bytes_per_s: float | None


class RangeRequest(Download):
    """A delivery that waits for a connection, or has one.

    Invariants:
        `readers` are the handles that want it; an empty set with nobody waiting means that it may
        be dropped.
        `is_urgent` while somebody waits for a byte of it.
    """

    def __init__(
        self,
        cache: BlockCache,
        cached: CachedObject,
        span: ByteRange,
        source: ObjectSource,
        *,
        is_bulk: bool,
        on_progress: Callable[[RangeRequest, int], None],
        on_news: Callable[[], None] = lambda: None,
        on_end: Callable[[RangeRequest, SatfsError | None], None],
    ) -> None:
        super().__init__(cache, cached, span)
        self.requested = span  # as it was begun, whatever was cut from it since
        self.source = source
        self.is_bulk = is_bulk
        self.is_urgent = False
        self.readers: set[object] = set()
        self.order = next(_order)
        self.is_active = False
        self.is_cancelled = False
        self.began_at = span.start  # where the present attempt began
        self.began_at_s: float | None = None  # the first byte of the present attempt
        self.n_reissued = 0
        self.attempt: trio.CancelScope | None = None
        self.silence: trio.CancelScope | None = None  # limits the wait for the first block
        self.claim: Claim | None = None  # on the blocks of the present attempt
        self.claim_level = 0
        self.seen_changes: int | None = None  # of the index, when it was last looked at for this
        self.is_elsewhere = False  # waits for another process to fetch its blocks
        self._on_progress = on_progress
        self._on_news = on_news
        self.ended = on_end

    def arriving_since(self, at_s: float) -> None:
        """Remember when the first byte of this attempt came."""
        if self.began_at_s is None:
            self.began_at_s = at_s
            if self.permit is not None:
                self.permit.answered()

    def progressed(self, n_bytes: int) -> None:
        """Wake the tasks that wait."""
        self.arriving_since(trio.current_time())
        if self.permit is not None:
            self.permit.carried()
        if self.claim is not None:
            self.claim.held_until = self.held_until
        self._on_progress(self, n_bytes)

    def progress(self, now_s: float) -> TransferStatus:
        """Return how far it is, and how fast since its present attempt's first byte."""
        span = ByteRange(self.start, max(self.start, self.stop))
        speed: float | None = None
        if self.began_at_s is not None and now_s > self.began_at_s:
            speed = (self.held_until - self.began_at) / (now_s - self.began_at_s)
        return TransferStatus(self.source.label, span, self.held_until, self.is_urgent, speed)

    @property
    def is_arriving(self) -> bool:
        """Tell whether bytes of the present attempt have come."""
        return self.is_active and self.began_at_s is not None

    def is_wanted(self) -> bool:
        """Return whether there is something left to do."""
        return not (self.is_done or self.is_cancelled)

    def cancel(self) -> None:
        """Give the flight up; what has arrived stays."""
        self.is_cancelled = True
        if self.attempt is not None:
            self.attempt.cancel()

    def reissue(self) -> None:
        """Begin the rest again on another connection: this one is too slow."""
        self.n_reissued += 1
        if self.attempt is not None:
            self.attempt.cancel()

    def cut(self, stop: int) -> None:
        """Deliver only up to *stop*, a block boundary; somebody else fetches the rest."""
        self.stop = max(self.held_until, min(self.stop, stop))
        if self.claim is not None:
            self.claim.cut(self.stop)

    @property
    def absent(self) -> ByteRange:
        """Return the blocks that are not held yet, the one in the middle of its bytes as well."""
        return ByteRange(min(self.held_until, self.stop), self.stop)

    def brought_elsewhere(self, gap: ByteRange | None) -> None:
        """Leave out what another process has brought: all but *gap*, the first part still missing.

        What lies beyond *gap* is fetched by another request, if somebody still wants it.
        """
        position = self.stop if gap is None else gap.start
        if self.held_until == self.start:
            self.start = position
        self.front = self.held_until = max(self.held_until, position)
        if gap is not None:
            self.cut(gap.stop)
        self._on_news()


def choose(queue: Iterable[RangeRequest], n_active_of: Callable[[object], int]) -> RangeRequest:
    """Return the flight of *queue* to start next: urgent ones first, then the reader with fewest.

    Among one reader's, the one that was wanted first: sequential readers want them in order.
    """

    def rank(range_request: RangeRequest) -> tuple[bool, int, int]:
        fewest = min((n_active_of(reader) for reader in range_request.readers), default=1 << 30)
        return (not range_request.is_urgent, fewest, range_request.order)

    return min(queue, key=rank)


def split(gap: ByteRange, range_bytes: int) -> list[ByteRange]:
    """Cut *gap*, which starts with a block, into ranges of whole blocks and about *range_bytes*.

    A short rest goes to the last one. Two flights must never share a block: whichever ends first
    would declare it whole.
    """
    range_bytes = max(BLOCK_BYTES, range_bytes // BLOCK_BYTES * BLOCK_BYTES)
    pieces: list[ByteRange] = []
    start = gap.start
    while start < gap.stop:
        stop = min(start + range_bytes, gap.stop)
        if gap.stop - stop < range_bytes // 4:
            stop = gap.stop
        pieces.append(ByteRange(start, stop))
        start = stop
    return pieces
