"""Resources that all archives of one mount share: threads for unpacking, memory and disk space.

Limits for any number of open members: 64 MiB of unpacked bytes and positions, 64 MiB of checkpoints
of members that are not open, 96 MiB of directories beyond the one in use, and what
`DecoderMemory` gives to decoders of members that are unpacked as a whole. An open deflated
member adds its checkpoints, 1.6 % of its size and hardly ever more than 8 MiB. Bytes on disk are in
`content.cache.derived`, which is the cache of fetched blocks: its bounds hold for both together.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import trio
from cachetools import LRUCache

from satfs.archive.checkpoints import MIN_DISTANCE_BYTES, Checkpoints
from satfs.archive.decoders import MAX_DECODER_BYTES
from satfs.archive.members import Members
from satfs.content.cache.derived import Derived

if TYPE_CHECKING:
    from satfs.archive.cursor import Cursor
    from satfs.archive.spooled import SpooledMember

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Threads that unpack at once. More than the machine has cores would only make each slower, and
#: the mount needs one for itself.
N_THREADS: Final = max(1, min(4, (os.cpu_count() or 2) - 1))

#: Positions in deflated members held at once, over all members.
MAX_CURSORS: Final = 64
#: A position's share, in bytes. So much it keeps behind it, up to three times as much ahead; twice
#: as much may be in the making, and as much input be waiting: eight shares, and those of all
#: positions together under 64 MiB. The least is what a kernel with its default read-ahead requests
#: at once, the most what it requests where `read_ahead_kb` was raised to a megabyte.
_MIN_SHARE: Final = 128 * 1024
_MAX_SHARE: Final = 1024 * 1024
_ALL_SHARES: Final = 8 * 1024 * 1024

_CLOSED_CHECKPOINTS_BYTES: Final = 64 * 1024 * 1024
_DIRECTORIES_BYTES: Final = 96 * 1024 * 1024
#: Memory of all decoders together: one of the largest, or two with the dictionary of `xz -9`
#: (64 MiB), or a dozen of plain `xz` (8 MiB). With what a mount holds besides, its ceiling of
#: 200 MiB (docs/RELIABILITY.md) stays.
MAX_ALL_DECODERS_BYTES: Final = MAX_DECODER_BYTES

#: Time after which a waiting member looks again whether a busy one has become idle without a word,
#: because the network keeps it waiting.
_LOOK_AGAIN_S: Final = 0.5


class ArchiveResources:
    """Threads, memory and disk for unpacking. One per mount.

    *nursery* runs what is done ahead of readers and after them. *derived* keeps inflate checkpoints
    over remounts, and members that must be unpacked as a whole, each of at most *unpack_bytes*.
    """

    def __init__(self, nursery: trio.Nursery, derived: Derived, unpack_bytes: int) -> None:
        self.nursery = nursery
        self.derived = derived
        self.unpack_bytes = min(unpack_bytes, derived.max_bytes)
        self.directories: LRUCache[str, Members] = LRUCache(
            _DIRECTORIES_BYTES, getsizeof=lambda members: min(members.n_bytes, _DIRECTORIES_BYTES)
        )
        self.decoder_memory = DecoderMemory()
        self._limiter = trio.CapacityLimiter(N_THREADS)
        self._cursors: OrderedDict[Cursor, None] = OrderedDict()
        self._closed: LRUCache[bytes, Checkpoints] = LRUCache(
            _CLOSED_CHECKPOINTS_BYTES, getsizeof=lambda checkpoints: checkpoints.n_bytes
        )

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, run in a thread. Once begun it is not abandoned."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    # -- positions -------------------------------------------------------------------------------

    @property
    def share_bytes(self) -> int:
        """How many bytes a position may keep on either side, the more the fewer there are."""
        return max(_MIN_SHARE, min(_MAX_SHARE, _ALL_SHARES // max(1, len(self._cursors))))

    def admit(self, cursor: Cursor) -> None:
        """Count a new *cursor*; the one least recently used is closed if there are too many."""
        self._cursors[cursor] = None
        if len(self._cursors) > MAX_CURSORS:
            idle = next((other for other in self._cursors if not other.is_busy), None)
            if idle is not None and idle is not cursor:
                idle.close()

    def used(self, cursor: Cursor) -> None:
        """Note that *cursor* was useful just now."""
        if cursor in self._cursors:
            self._cursors.move_to_end(cursor)

    def forget(self, cursor: Cursor) -> None:
        """Stop counting *cursor*, which was closed."""
        self._cursors.pop(cursor, None)

    # -- checkpoints -----------------------------------------------------------------------------

    async def checkpoints(self, identity: bytes, size_bytes: int) -> Checkpoints:
        """Return what is known of the member *identity*, from memory or disk, or a beginning."""
        known = self._closed.pop(identity, None)
        if known is None and size_bytes > MIN_DISTANCE_BYTES:
            data = await self.derived.get(_key(identity))
            if data is not None:
                known = await self.in_thread(
                    lambda: Checkpoints.from_bytes(data, identity, size_bytes)
                )
        return known or Checkpoints(size_bytes)

    def put_away(self, identity: bytes, checkpoints: Checkpoints) -> None:
        """Remember *checkpoints* of a member that is not open any more, for a while."""
        if 0 < checkpoints.n_bytes <= self._closed.maxsize:
            self._closed[identity] = checkpoints

    def save_soon(self, identity: bytes, checkpoints: Checkpoints, label: str) -> None:
        """Keep *checkpoints* over remounts. Does not wait."""
        try:
            self.nursery.start_soon(self._save, identity, checkpoints, label)
        except RuntimeError:  # the mount has ended: the nursery takes no task any more
            log.debug("checkpoints not saved", identity=identity.hex())

    async def _save(self, identity: bytes, checkpoints: Checkpoints, label: str) -> None:
        # Files are closed when a mount ends, just before its nursery is cancelled; a few
        # milliseconds for the disk are well spent then, too.
        with trio.CancelScope(shield=True):
            try:
                data = await self.in_thread(lambda: checkpoints.to_bytes(identity))
                await self.derived.put(_key(identity), data, f"{label} (checkpoints)")
            except Exception as failure:
                # A bug, or no memory: no reason to end the mount.
                log.error("checkpoints not saved", reason=type(failure).__name__)


def _key(identity: bytes) -> str:
    return f"checkpoints {identity.hex()}"


class DecoderMemory:
    """Reservations of memory for decoders. One per mount; used by the event loop alone.

    A decoder of xz or zstandard holds a dictionary of up to 128 MiB, and a program may have
    hundreds of such members open. So a member reserves memory for its decoder, and loses it to
    another member when it is idle; it makes a new decoder when it needs more output.
    """

    def __init__(self, max_bytes: int = MAX_ALL_DECODERS_BYTES) -> None:
        self._max_bytes = max_bytes
        # Those reserved first come first.
        self._reserved: dict[SpooledMember, int] = {}
        self._turn = trio.StrictFIFOLock()
        self._changed = trio.Event()

    @property
    def n_bytes(self) -> int:
        """Return how many bytes are reserved."""
        return sum(self._reserved.values())

    async def reserve(self, owner: SpooledMember, n_bytes: int) -> None:
        """Reserve *n_bytes*, at most the limit, for *owner*, which has none reserved.

        Takes them from idle owners, and waits while the others are busy. Members that wait are
        served in their order. Cancelled, nothing is reserved.
        """
        async with self._turn:
            while self.n_bytes + n_bytes > self._max_bytes:
                idle = next((other for other in self._reserved if not other.is_busy), None)
                if idle is not None:
                    idle.drop_decoder()
                    continue
                self._changed = trio.Event()
                with trio.move_on_after(_LOOK_AGAIN_S):
                    await self._changed.wait()
            self._reserved[owner] = n_bytes

    def release(self, owner: SpooledMember) -> None:
        """Give back what *owner* has reserved, if anything."""
        if self._reserved.pop(owner, None) is not None:
            self._changed.set()

    def became_idle(self) -> None:
        """Let a waiting member look for an idle owner now."""
        self._changed.set()
