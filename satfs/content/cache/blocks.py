"""The block cache: objects whose blocks are on disk, or in memory where no disk is available.

One `BlockCache` per mount. It keeps the limits of disk and memory, enters blocks in the index in
batches, and evicts. docs/CONCURRENCY.md describes the owner of each value, and the state that a
crash leaves at each step.

Reads of held blocks are views of the mapping. A view is good until the next checkpoint: eviction
first marks blocks absent on the event loop, and only then gives their space back.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import structlog
import trio

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import (
    BLOCK_BYTES,
    SEGMENT_BYTES,
    BlockMap,
)
from satfs.content.cache.capacity import DiskRoom, MemoryRoom, Reservation
from satfs.content.cache.claims import Claims
from satfs.content.cache.directory import open_index
from satfs.content.cache.eviction import Eviction
from satfs.content.cache.index import Index
from satfs.content.cache.index_sync import IndexSync, reason_of
from satfs.content.cache.objects import CachedObject, Layer, Spilled, check_blocks
from satfs.content.cache.open_objects import OpenObjects
from satfs.errors import Damaged
from satfs.model import ByteRange
from satfs.node_locks import NodeLocks

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Longest time that a fetched block waits to be entered in the index: a crash can lose these
#: blocks.
COMMIT_INTERVAL_S: Final = 0.5
#: The same while other processes use the cache, which wait this long for a block.
SHARED_COMMIT_INTERVAL_S: Final = 0.05


class BlockCache:
    """All objects of one mount, in one directory shared with other mounts, or in memory."""

    def __init__(
        self,
        *,
        directory: Path | None,
        index: Index | None,
        limit_bytes: int,
        free_fraction: float,
        memory_bytes: int,
        locks: NodeLocks | None = None,
    ) -> None:
        self._index_sync = IndexSync(index)
        self._directory = directory
        self._room = DiskRoom(directory, limit_bytes, free_fraction)
        self._memory = MemoryRoom(memory_bytes)
        #: The objects that are open.
        self.objects = OpenObjects(directory, self._index_sync, self._memory)
        #: Which blocks this process fetches, for all processes that use the directory.
        self.claims = Claims(locks or NodeLocks())
        self.eviction = Eviction(directory, self._index_sync, self._room, self.objects, self.commit)
        self._committing = trio.Lock()

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        limit_bytes: int,
        free_fraction: float,
        memory_bytes: int,
        locks: NodeLocks | None = None,
    ) -> BlockCache:
        """Return the cache in *directory*, or one in memory when the disk cannot be used.

        With *locks*, which are opened here, this process and others that use the directory do not
        fetch the same blocks; the caller closes the locks.

        Raises:
            BadCache: the directory is a symbolic link or belongs to another user.
        """
        home: Path | None = None
        index: Index | None = None
        if limit_bytes > 0:
            try:
                index = await trio.to_thread.run_sync(open_index, directory)
                home = directory
            except (OSError, sqlite3.Error) as problem:
                log.warning("no disk cache: keeping content in memory", reason=reason_of(problem))
        cache = cls(
            directory=home,
            index=index,
            limit_bytes=limit_bytes,
            free_fraction=free_fraction,
            memory_bytes=memory_bytes,
            locks=locks,
        )
        if home is not None and locks is not None:
            await trio.to_thread.run_sync(locks.open, home)
        if index is not None:
            cache._room.held_bytes = await trio.to_thread.run_sync(index.held_bytes)
        return cache

    @property
    def index(self) -> Index | None:
        """Return the index, which outlives mounts; None where there is no disk."""
        return self._index_sync.index

    @property
    def is_persistent(self) -> bool:
        """Return whether blocks survive this mount."""
        return self.index is not None

    def statistics(self) -> dict[str, int]:
        """Return the held bytes and the limits."""
        return {
            "disk_bytes": self._room.used_bytes,
            "disk_limit_bytes": self._room.limit_bytes if self._directory is not None else 0,
            "memory_bytes": self._memory.used_bytes,
            "memory_limit_bytes": self._memory.limit_bytes,
            "open_objects": len(self.objects),
        }

    def window_limit_bytes(self) -> int:
        """Return how many bytes may be fetched ahead without evicting bytes not read yet."""
        return max(SEGMENT_BYTES, self.limit_bytes // 4)

    @property
    def limit_bytes(self) -> int:
        """Return how many bytes may be kept: on disk, or in memory where there is no disk."""
        return self._room.limit_bytes if self._directory is not None else self._memory.limit_bytes

    # -- objects ---------------------------------------------------------------------------------

    async def acquire(self, name: str, label: str, size_bytes: int) -> CachedObject:
        """Return the object called *name*, to be given back with `CachedObject.release`.

        *name* must be a legal file name, and identify one version of one object; *label* is for
        display. Waits for the disk when the object isn't open yet, and works without a disk.
        """
        return await self.objects.acquire(name, label, size_bytes)

    def begin_landing(self, cached: CachedObject, span: ByteRange) -> Reservation:
        """Return a reservation for bytes of *span* that a transfer will bring.

        It keeps *cached* open and the segments of *span* from eviction, until `Reservation.end`.
        """
        return Reservation(cached, self._room, span)

    # -- bytes in and out ------------------------------------------------------------------------

    async def read(self, cached: CachedObject, span: ByteRange) -> bytes | memoryview | None:
        """Return the held *span* of *cached*, which the caller has in use.

        Waits for the disk, in a thread, and only where the bytes are not in memory. None when the
        blocks were evicted meanwhile or could not be read; they are absent then. A memoryview is
        valid until the next checkpoint.
        """
        view = cached.view(span)
        if view is not None:
            return view
        n_losses = cached.n_losses
        try:
            data = await trio.to_thread.run_sync(cached.read_from_disk, span)
        except (OSError, Damaged) as problem:
            if cached.n_losses == n_losses:
                self.distrust(cached, span, problem)
            return None
        # After a loss, the thread may have read a hole.
        return data if cached.n_losses == n_losses else None

    async def check(self, cached: CachedObject, span: ByteRange) -> None:
        """Check the blocks of *span* that an earlier mount left; damaged ones are dropped."""
        damaged = await check_blocks(cached, span)
        if damaged:
            log.warning(
                "cached blocks were damaged: fetching them again",
                object=cached.name,
                n_blocks=len(damaged),
            )
            await self._index_sync.forget_blocks(cached, damaged)

    def put(self, cached: CachedObject, layer: Layer, start: int, data: bytes | memoryview) -> None:
        """Write bytes that were received for *cached*, into the layer that the transfer began in.

        Raises:
            Spilled: the disk won't take them, or did not a moment ago; begin again at the last
                whole block.
        """
        if layer is not cached.top:
            raise Spilled
        try:
            layer.file.write(start, data)
        except OSError as problem:
            self.spill(cached, problem)
            raise Spilled from None

    def hold(
        self,
        cached: CachedObject,
        layer: Layer,
        first: int,
        hashes: Sequence[int] | None,
        stop: int,
    ) -> None:
        """Mark the blocks from number *first* up to byte *stop* as held.

        Their bytes are in the file. *hashes* are their checksums, where they are known.

        Raises:
            Spilled: the object continues in another layer meanwhile.
        """
        if layer is not cached.top:
            raise Spilled
        span = ByteRange(first * BLOCK_BYTES, stop)
        if hashes is None:
            hashes = layer.file.hash_held(span)
        before = layer.map.n_present
        layer.map.hold(first, hashes)
        grown = (layer.map.n_present - before) * BLOCK_BYTES
        if layer.file.in_memory:
            self._memory.count(cached, layer, span)
            self._memory.make_room(0)
        else:
            self._room.new_bytes += grown
            cached.dirty.update(layer.map.segments_of(span))

    def distrust(self, cached: CachedObject, span: ByteRange, problem: BaseException) -> None:
        """Drop the blocks of *span*, which were held and could not be read."""
        self._index_sync.warn("cache file could not be read: fetching again", problem)
        for layer in cached.layers:
            layer.map.drop(span)
        cached.n_losses += 1
        if cached.top.file.in_memory:
            self._memory.recount(cached, span)
        else:
            cached.dirty.update(cached.top.map.segments_of(span))
            self.spill(cached, problem)

    def spill(self, cached: CachedObject, problem: BaseException | None) -> None:
        """Continue *cached* in memory; its bytes on disk stay readable.

        *problem* is the failure of the disk; None: there is no room within the cache's limits.
        """
        if cached.top.file.in_memory:
            return
        if problem is None:
            self._index_sync.warn("no room left in the disk cache: keeping new content in memory")
        else:
            self._index_sync.warn("disk cache failed: keeping new content in memory", problem)
        file = BlockFile.anonymous(cached.size_bytes)
        cached.layers.append(Layer(file, BlockMap(cached.size_bytes)))

    def touch(self, cached: CachedObject, span: ByteRange) -> None:
        """Note that *span* was read, for the order of eviction."""
        cached.touch(span, time.time())
        if cached.top.file.in_memory:
            self._memory.touch(cached, span)

    async def reserve(self, cached: CachedObject, span: ByteRange) -> None:
        """Make room for *span*, which is landing, before it is written; evicts if need be.

        If there is no room, the object continues in memory.
        """
        # Space that is being freed is not written to before it is free. Reserved blocks are not
        # evicted, so free space is ours.
        while not cached.leaving.isdisjoint(cached.layers[0].map.segments_of(span)):
            async with self.eviction.lock:
                pass
        if not cached.top.file.in_memory and await self._room.missing_bytes(len(span)) > 0:
            async with self.eviction.lock:
                # An eviction before this one may have freed enough; what landed in the time that
                # eviction takes may be more than it freed.
                freed = 1
                while (missing := await self._room.missing_bytes(len(span))) > 0 and freed:
                    freed = await self.eviction.evict(missing)
            if missing > 0:
                self.spill(cached, None)
        if cached.top.file.in_memory:
            self._memory.make_room(len(span))

    # -- the index -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Enter fetched blocks in the index, twice a second; until cancelled, then once more.

        More often while other processes use the cache, which wait for what is fetched here.
        """
        looked_at_s = trio.current_time()
        try:
            while True:
                is_shared = self.claims.is_shared(trio.current_time())
                await trio.sleep(SHARED_COMMIT_INTERVAL_S if is_shared else COMMIT_INTERVAL_S)
                is_due = trio.current_time() - looked_at_s >= COMMIT_INTERVAL_S
                if is_due or not is_shared or any(cached.dirty for cached in self.objects):
                    await self.commit()
                if is_due or not is_shared:
                    looked_at_s = trio.current_time()
                    await self.look_around()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await self.commit()

    async def close(self) -> None:
        """Enter the remaining blocks, and close all files: no task may use the cache any more."""
        await self.commit()
        self.objects.close()
        if self.index is not None:
            await self.on_index(self.index.close)

    async def commit(self) -> None:
        """Enter fetched blocks and uses in the index."""
        # One at a time: a claim is released when its blocks have been entered.
        async with self._committing:
            await self._commit()

    async def _commit(self) -> None:
        counted = self._room.new_bytes
        marks = self.claims.marks()
        entered, held = await self._index_sync.enter(list(self.objects))
        self.claims.entered(marks)
        if held is not None:
            self._room.held_bytes = held
            self._room.new_bytes -= counted
        if self.index is None:
            entered = list(self.objects)  # there is no index to enter them in
            for cached in entered:
                cached.dirty.clear()
        for cached in entered:
            self.objects.close_unused(cached)

    async def look_around(self) -> None:
        """Load the blocks that other mounts have fetched of the objects that are open here."""
        is_alone = self.claims.is_alone_now(trio.current_time())
        if await self._index_sync.has_changes():
            # Not while eviction is between dropping blocks here and in the index.
            async with self.eviction.lock:
                for cached in list(self.objects):
                    if cached.n_users:
                        await self._index_sync.load_changes(cached)
        if is_alone:
            self.claims.others_blocks_loaded()

    async def changes(self, max_age_s: float = 0.0) -> int | None:
        """Return a number that differs when another process has entered blocks since.

        It may be as old as *max_age_s*.
        """
        return await self._index_sync.changes(max_age_s)

    async def load_changes(self, cached: CachedObject, span: ByteRange) -> None:
        """Load the blocks of *span* of an open object that other processes have entered."""
        async with self.eviction.lock:  # as in `look_around`
            await self._index_sync.load_changes(cached, cached.top.map.segments_of(span))

    async def on_index(self, call: Callable[[], T]) -> T | None:
        """Run *call* on the index in a thread; return None when the index fails."""
        return await self._index_sync.on_index(call)
