"""One range of an object, from its request by a reader until its last byte may be served."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from msgspec import Struct

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.objects import CachedObject
from satfs.content.fetch.links import LinkCache
from satfs.content.transfer.interface import Download
from satfs.errors import SatfsError
from satfs.model import ByteRange, Version
from satfs.read_trace import ReadTrace

_order: Final = itertools.count()

#: A range of a sequential read is no shorter, so that it is worth its round trip.
MIN_RANGE_BYTES: Final = 1024 * 1024
#: Shortest range at the end of a file: of 27 connections that carry 500 MB/s together, one brings
#: it in four round trips of 30 ms.
SHORTEST_LAST_BYTES: Final = 2 * 1024 * 1024

#: Further tries for a range whose response was of another version. Most such objects have been
#: replaced, and the read waits for these tries: 0.3 s for two.
MAX_OTHER_VERSION_TRIES: Final = 2
#: The same, where the store is known to alternate between versions: of two replicas that respond at
#: random, the wrong one responds nine times in a row to one range of 500.
MAX_ALTERNATING_TRIES: Final = 8
#: First wait, doubled for each further try, and longest wait, in seconds.
OTHER_VERSION_WAIT_S: Final = 0.1
OTHER_VERSION_MAX_WAIT_S: Final = 0.5


class ReplacementCheck:
    """Whether a response of another version means that the object was replaced.

    Replicas of a store may give one object different ETags. So a response of another version is
    followed by a few spaced tries for the one that was opened: more of them once that one was seen
    again after another, which a replaced object never shows. Bytes of the other one are never
    taken.

    Some servers show an ETag that they do not accept in a condition: one that was altered on its
    way, for example. So a condition that was refused is omitted from then on, and the ETag of each
    response is compared.
    """

    def __init__(self) -> None:
        self.is_alternating = False
        #: Requests are to be conditional.
        self.is_conditional = True
        self._has_differed = False
        self._has_matched = False

    def may_be_refused_for_condition(self) -> bool:
        """Return whether refusals may be about the condition, which is left out from then on.

        No response to a conditional request has been of any use so far.
        """
        may_be = self.is_conditional and not self._has_matched
        self.is_conditional &= not may_be
        return may_be

    def matched(self) -> None:
        """Note a response of the version that was opened."""
        self._has_matched = True
        self.is_alternating = self.is_alternating or self._has_differed

    def differed(self, n_in_a_row: int) -> float | None:
        """Note that a range got another version for the *n_in_a_row*-th time.

        Return the seconds to wait before another try; None is for good.
        """
        self._has_differed = True
        limit = MAX_ALTERNATING_TRIES if self.is_alternating else MAX_OTHER_VERSION_TRIES
        if n_in_a_row > limit:
            return None
        return min(OTHER_VERSION_WAIT_S * 2.0 ** (n_in_a_row - 1), OTHER_VERSION_MAX_WAIT_S)


class ObjectSource:
    """The source of one object's bytes, their version, and the trace of requests for them."""

    def __init__(self, label: str, links: LinkCache, version: Version, trace: ReadTrace) -> None:
        self.label = label
        self.links = links
        self.version = version
        self.trace = trace
        self.replacement = ReplacementCheck()


class TransferStatus(Struct, frozen=True):
    """One range in flight, for display: its object, its progress and its rate."""

    label: str
    span: ByteRange
    held_until: int
    is_urgent: bool
    bytes_per_s: float | None


class RangeRequester(Protocol):
    """The object that a range request fetches bytes of: its `Fetcher`."""

    def note_progress(self, range_request: RangeRequest, n_bytes: int) -> None:
        """Note that *n_bytes* more may be served."""

    def note_brought_elsewhere(self) -> None:
        """Note that another process has fetched bytes, whose blocks are unchecked here."""

    def fit(self, range_request: RangeRequest, n_connections: int, *, may_cut: bool) -> None:
        """Fit the length of *range_request*, which has one of *n_connections*, to their number.

        It is made longer, and with *may_cut* shorter.
        """

    def note_end(self, range_request: RangeRequest, failure: SatfsError | None) -> None:
        """Note that *range_request* has ended, with *failure* unless it is done or cancelled."""


class BlockSharing(Struct, eq=False):
    """How a range request shares its blocks with other processes of this node.

    Attributes:
        level: of its next claim; it rises with each process that is stopped. seen_changes: of the
        index, when it was last read for this request.
    """

    level: int = 0
    seen_changes: int | None = None


class RangeRequest(Download):
    """A download that waits for a connection, or has one.

    Each attribute has one writer. `ObjectRequests`: `readers`, the handles that want it.
    `Dispatcher`: `is_active` and `is_urgent` (a read waits for a byte of it). `RangeRetry`:
    `attempt` and `is_bulk`. `Claiming`: `sharing`. Without readers and without a read that waits,
    it may be dropped.

    Progress is reported in one direction: to the dispatcher (*on_progress*), and from there to
    *requester*.
    """

    def __init__(
        self,
        cache: BlockCache,
        cached: CachedObject,
        span: ByteRange,
        source: ObjectSource,
        *,
        is_bulk: bool,
        requester: RangeRequester,
        on_progress: Callable[[RangeRequest, int], None],
    ) -> None:
        super().__init__(cache, cached, span)
        self.requested = span  # as it was begun, without later cuts
        self.source = source
        self.requester = requester
        self.is_bulk = is_bulk
        self.is_urgent = False
        self.readers: set[object] = set()
        self.order = next(_order)
        self.is_active = False
        self.is_cancelled = False
        self.n_reissued = 0
        self.sharing = BlockSharing()
        self._on_progress = on_progress

    def progressed(self, n_bytes: int) -> None:
        """See `Download.progressed`."""
        self.attempt.progressed(self.held_until, self.stop)
        self._on_progress(self, n_bytes)

    def end(self, failure: SatfsError | None) -> None:
        """Report to the requester that no more bytes will come. To be called once."""
        self.requester.note_end(self, failure)

    def status(self, now_s: float) -> TransferStatus:
        """Return its progress, and its rate since the first byte of the present attempt."""
        span = ByteRange(self.start, max(self.start, self.stop))
        speed = self.bytes_per_s(now_s)
        return TransferStatus(self.source.label, span, self.held_until, self.is_urgent, speed)

    def bytes_per_s(self, now_s: float, min_age_s: float = 0.0) -> float | None:
        """Return the rate since the first byte of the present attempt.

        None before the first byte, and until *min_age_s* after it.
        """
        began_at_s = self.attempt.first_byte_at_s
        if began_at_s is None or now_s - began_at_s <= min_age_s:
            return None
        return (self.held_until - self.attempt.start) / (now_s - began_at_s)

    @property
    def is_arriving(self) -> bool:
        """Return whether bytes of the present attempt have come."""
        return self.is_active and self.attempt.first_byte_at_s is not None

    @property
    def has_begun(self) -> bool:
        """Return whether it has a connection, or has received something."""
        return self.attempt.permit is not None or self.held_until > self.start

    def is_wanted(self) -> bool:
        """Return whether bytes are left to fetch."""
        return not (self.is_done or self.is_cancelled)

    def cancel(self) -> None:
        """Cancel the request; what has arrived stays."""
        self.is_cancelled = True
        self.attempt.scope.cancel()

    def reissue(self) -> None:
        """Begin the rest again on another connection: this one is too slow."""
        self.n_reissued += 1
        self.attempt.scope.cancel()

    def extend(self, stop: int) -> None:
        """Deliver up to *stop*, a block boundary or the object's end. Only before an attempt."""
        self.stop = max(self.stop, stop)
        self.requested = ByteRange(self.requested.start, max(self.requested.stop, stop))

    def cut(self, stop: int) -> None:
        """Fetch only up to *stop*, a block boundary; another request fetches the rest."""
        self.stop = max(self.held_until, min(self.stop, stop))
        if self.attempt.claim is not None:
            self.attempt.claim.cut(self.stop)

    @property
    def absent(self) -> ByteRange:
        """Return the blocks that are not held yet, the one in the middle of its bytes as well."""
        return ByteRange(min(self.held_until, self.stop), self.stop)

    def brought_elsewhere(self, gap: ByteRange | None) -> None:
        """Remove blocks that another process has fetched: all but *gap*, the first missing part.

        Blocks beyond *gap* are fetched by another request, if a reader still needs them.
        """
        position = self.stop if gap is None else gap.start
        if self.held_until == self.start:
            self.start = position
        self.front = self.held_until = max(self.held_until, position)
        if gap is not None:
            self.cut(gap.stop)
        self.requester.note_brought_elsewhere()


def choose(queue: Iterable[RangeRequest], n_active_of: Callable[[object], int]) -> RangeRequest:
    """Return the request of *queue* to start next: urgent ones first, then the reader with fewest.

    Among one reader's, the one that was wanted first: sequential readers want them in order.
    """

    def rank(range_request: RangeRequest) -> tuple[bool, int, int]:
        fewest = min((n_active_of(reader) for reader in range_request.readers), default=1 << 30)
        return (not range_request.is_urgent, fewest, range_request.order)

    return min(queue, key=rank)


def fitted_stop(span: ByteRange, following: Iterable[ByteRange], longest: int) -> int:
    """Return where a range that starts as *span* does should stop, to have about *longest* bytes.

    *following* wait behind it, each where the one before stops. The result is a stop of these, or
    *longest* bytes behind the start: then more than an eighth of that is left of what it cuts,
    since a shorter rest would not be worth a request of its own.
    """
    slack = longest // 8
    best_stop, stop = span.start + longest, span.stop
    if stop > best_stop + slack:
        return best_stop
    for each in following:
        if each.stop > best_stop + slack:
            return best_stop if best_stop > each.start + slack else stop
        stop = each.stop
    return stop


def range_length(
    window_bytes: int, longest_bytes: int, n_connections: int, *, goes_on: bool
) -> int:
    """Return how long the ranges of a window should be, *longest_bytes* at most.

    Where the window *goes_on*, the next ranges are there when these end, and long ones cost fewer
    round trips. Else each connection gets as many: one range more than fits would take a turn of
    its own.
    """
    if goes_on and window_bytes >= longest_bytes * n_connections:
        return longest_bytes
    n_turns = -(-window_bytes // max(1, longest_bytes * n_connections))
    share = window_bytes // max(1, n_turns * n_connections)
    return max(min(longest_bytes, MIN_RANGE_BYTES), min(longest_bytes, share))


def split(gap: ByteRange, range_bytes: int, n_connections: int | None = None) -> list[ByteRange]:
    """Cut *gap*, which starts with a block, into ranges of whole blocks and about *range_bytes*.

    A short rest goes to the last one. Two requests must never share a block: the one that ends
    first would declare it whole.

    Nothing follows on *gap* where *n_connections* is given. Then a range is no longer than a
    connection's share of what is left, as far as `SHORTEST_LAST_BYTES` allow: with long ones, the
    last connections would bring bytes while others have nothing to do, and a reader, which needs
    them in order, would have that much left to read when all has come.
    """
    range_bytes = max(BLOCK_BYTES, range_bytes // BLOCK_BYTES * BLOCK_BYTES)
    pieces: list[ByteRange] = []
    start = gap.start
    while start < gap.stop:
        length = range_bytes
        if n_connections is not None:
            share = (gap.stop - start) // n_connections // BLOCK_BYTES * BLOCK_BYTES
            length = min(range_bytes, max(SHORTEST_LAST_BYTES, share))
        stop = min(start + length, gap.stop)
        if gap.stop - stop < length // 4:
            stop = gap.stop
        pieces.append(ByteRange(start, stop))
        start = stop
    return pieces
