"""What all archives of one mount share: threads to unpack in, memory and disk to do it with.

Ceilings, whatever is opened: 64 MiB of unpacked bytes and positions, 64 MiB of checkpoints of
members that are not open, 96 MiB of directories beyond the one in use. An open deflated member
adds its checkpoints, 1.6 % of its size and hardly ever more than 8 MiB. Members that are unpacked
to disk are limited by `spool_bytes`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog
import trio
from cachetools import LRUCache

from satfs.archive.checkpoints import Checkpoints
from satfs.archive.members import Members

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Threads that unpack at once. More than the machine has cores would only make each slower, and
#: the mount needs one for itself.
N_THREADS: Final = max(1, min(4, (os.cpu_count() or 2) - 1))

#: Positions in deflated members held at once, over all members.
MOST_CURSORS: Final = 64
#: A position's share, in bytes. So much it keeps behind it, up to three times as much ahead; twice
#: as much may be in the making, and as much input be waiting: eight shares, and those of all
#: positions together under 64 MiB. The least is what a kernel with its default read-ahead asks for
#: at once, the most what it asks for where `read_ahead_kb` was raised to a megabyte.
_LEAST_SHARE: Final = 128 * 1024
_MOST_SHARE: Final = 1024 * 1024
_ALL_SHARES: Final = 8 * 1024 * 1024

_CLOSED_CHECKPOINTS_BYTES: Final = 64 * 1024 * 1024
_DIRECTORIES_BYTES: Final = 96 * 1024 * 1024


class IndexStore(Protocol):
    """Keeps checkpoints over remounts. Called in threads; never raises for what a disk may do."""

    def get(self, key: str) -> bytes | None:
        """Return what was put under *key*; None when there is nothing (any more)."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keep *data* under *key*, if it can be."""
        ...


class Cursor(Protocol):
    """A position in a member that holds memory, and can be had again at a price."""

    @property
    def is_busy(self) -> bool:
        """Whether somebody is working with it right now."""
        ...

    def close(self) -> None:
        """Let go of the memory."""
        ...


class Spool(Protocol):
    """A member that fills room on disk."""

    def discard(self) -> None:
        """Give the room back. Nobody has it open."""
        ...


class Workshop:
    """Threads, memory and disk for unpacking. One per mount.

    *nursery* runs what is done ahead of readers and after them. *indexes* keeps checkpoints over
    remounts, or None. *spool_directory* takes members that must be unpacked as a whole, up to
    *spool_bytes* together; None refuses them.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        indexes: IndexStore | None = None,
        spool_directory: Path | None = None,
        spool_bytes: int = 0,
    ) -> None:
        self.nursery = nursery
        self.spool_directory = spool_directory
        self.directories: LRUCache[str, Members] = LRUCache(
            _DIRECTORIES_BYTES, getsizeof=lambda members: min(members.n_bytes, _DIRECTORIES_BYTES)
        )
        self._indexes = indexes
        self._limiter = trio.CapacityLimiter(N_THREADS)
        self._cursors: OrderedDict[Cursor, None] = OrderedDict()
        self._closed: LRUCache[bytes, Checkpoints] = LRUCache(
            _CLOSED_CHECKPOINTS_BYTES, getsizeof=lambda checkpoints: checkpoints.n_bytes
        )
        self._spool_bytes_left = spool_bytes
        self._parked: OrderedDict[bytes, Spool] = OrderedDict()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, run in a thread. Once begun it is not abandoned."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    # -- positions -------------------------------------------------------------------------------

    @property
    def share_bytes(self) -> int:
        """How many bytes a position may keep on either side, the more the fewer there are."""
        return max(_LEAST_SHARE, min(_MOST_SHARE, _ALL_SHARES // max(1, len(self._cursors))))

    def admit(self, cursor: Cursor) -> None:
        """Count a new *cursor*; the one least recently used is closed if there are too many."""
        self._cursors[cursor] = None
        if len(self._cursors) > MOST_CURSORS:
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
        if known is not None or self._indexes is None:
            return known or Checkpoints(size_bytes)
        indexes = self._indexes

        def load() -> Checkpoints | None:
            data = indexes.get(identity.hex())
            return None if data is None else Checkpoints.from_bytes(data, identity, size_bytes)

        return await self.in_thread(load) or Checkpoints(size_bytes)

    def put_away(self, identity: bytes, checkpoints: Checkpoints) -> None:
        """Remember *checkpoints* of a member that nobody has open any more, for a while."""
        if 0 < checkpoints.n_bytes <= self._closed.maxsize:
            self._closed[identity] = checkpoints

    def save_soon(self, identity: bytes, checkpoints: Checkpoints) -> None:
        """Keep *checkpoints* over remounts. Does not wait."""
        if self._indexes is None:
            return
        try:
            self.nursery.start_soon(self._save, self._indexes, identity, checkpoints)
        except RuntimeError:  # the mount has ended: the nursery takes nobody any more
            log.debug("checkpoints not saved", identity=identity.hex())

    async def _save(self, indexes: IndexStore, identity: bytes, checkpoints: Checkpoints) -> None:
        # Files are closed when a mount ends, just before its nursery is cancelled; a few
        # milliseconds for the disk are well spent then, too.
        with trio.CancelScope(shield=True):
            try:
                await self.in_thread(
                    lambda: indexes.put(identity.hex(), checkpoints.to_bytes(identity))
                )
            except Exception as failure:
                # A bug, or no memory: no reason to end the mount.
                log.error("checkpoints not saved", error=type(failure).__name__)

    # -- disk ------------------------------------------------------------------------------------

    def reserve_spool(self, n_bytes: int) -> bool:
        """Take *n_bytes* of the disk that members may fill; False, and none taken, if too many.

        Parked members are discarded for it, the one parked first before the others.
        """
        while n_bytes > self._spool_bytes_left and self._parked:
            _, spool = self._parked.popitem(last=False)
            spool.discard()
        if n_bytes > self._spool_bytes_left:
            return False
        self._spool_bytes_left -= n_bytes
        return True

    def release_spool(self, n_bytes: int) -> None:
        """Give back *n_bytes* that were reserved."""
        self._spool_bytes_left += n_bytes

    def park(self, identity: bytes, spool: Spool) -> None:
        """Keep a member that was unpacked and that nobody has open, until its room is needed."""
        self._parked[identity] = spool

    def unpark(self, identity: bytes) -> Spool | None:
        """Return the parked member *identity*, which is its finder's from now on; None if none."""
        return self._parked.pop(identity, None)

    def close(self) -> None:
        """Discard what is parked. Nothing is open any more."""
        while self._parked:
            self._parked.popitem()[1].discard()
