"""Which objects are open, each once; how an object is opened, and when it is closed."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import BlockMap, Segment
from satfs.content.cache.capacity import MemoryRoom
from satfs.content.cache.directory import path_of
from satfs.content.cache.index_sync import IndexSync
from satfs.content.cache.objects import CachedObject, Layer
from satfs.process_limits import has_room, require_room

K = TypeVar("K")


class OpenObjects:
    """The objects in use, in *directory*, or in memory without one.

    Invariants:
        An open object has users, or changes that the index does not have yet.
    """

    def __init__(self, directory: Path | None, index_sync: IndexSync, memory: MemoryRoom) -> None:
        self._directory = directory
        self._index_sync = index_sync
        self._memory = memory
        self._open: dict[str, CachedObject] = {}
        self._opening: dict[str, trio.Lock] = {}
        #: Called with each file that is being closed; set where it is open elsewhere as well.
        self.file_closed: Callable[[BlockFile], None] = lambda file: None
        #: Called before an object is refused since no descriptor is left; closes objects that may
        #: be closed.
        self.make_room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[CachedObject]:
        return iter(self._open.values())

    def get(self, name: str) -> CachedObject | None:
        """Return the object called *name* if it is open."""
        return self._open.get(name)

    async def acquire(self, name: str, label: str, size_bytes: int) -> CachedObject:
        """See `BlockCache.acquire`."""
        async with self.alone_with(name):
            cached = self._open.get(name)
            if cached is None:
                cached = await self._open_object(name, label, size_bytes)
                self._open[name] = cached
            cached.retain()
        return cached

    def alone_with(self, name: str) -> AbstractAsyncContextManager[None]:
        """Keep all other tasks from opening or evicting the object called *name*."""
        return alone_with(self._opening, name)

    def close_unused(self, cached: CachedObject) -> None:
        """Close *cached* if it has no user, and no entries for the index are left."""
        if not cached.n_users and cached.is_settled:
            self._close(cached)

    def close(self) -> None:
        """Close all, used or not."""
        for cached in list(self._open.values()):
            self._close(cached)

    def _close(self, cached: CachedObject) -> None:
        if self._open.get(cached.name) is not cached:
            return
        del self._open[cached.name]
        if cached.top.file.in_memory:
            self._memory.closed(cached)
        for layer in cached.layers:
            self.file_closed(layer.file)
            layer.file.close()

    async def _open_object(self, name: str, label: str, size_bytes: int) -> CachedObject:
        if not has_room():
            await self.make_room()
            require_room()
        blocks = BlockMap(size_bytes)
        directory, index = self._directory, self._index_sync.index
        if directory is not None and index is not None:

            def on_disk() -> tuple[BlockFile, bool]:
                path = path_of(directory, name)
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                return BlockFile.on_disk(path, size_bytes)

            def enter(file: BlockFile, is_new: bool) -> tuple[int, list[Segment]]:
                object_id = index.open_object(name, label, size_bytes, is_new=is_new)
                if is_new:
                    file.share()
                return object_id, index.segments(object_id)

            try:
                # Not as a call of the index, which would delay others: another process may have
                # locked the file.
                file, is_new = await trio.to_thread.run_sync(on_disk)
                try:
                    object_id, segments = await self._index_sync.demand(
                        partial(enter, file, is_new)
                    )
                except BaseException:
                    file.close()
                    raise
            except (OSError, sqlite3.Error) as problem:
                self._index_sync.warn(
                    "cache file not usable: keeping this object in memory", problem
                )
            else:
                for segment in segments:
                    blocks.load(segment)
                return self._new(name, Layer(file, blocks), object_id)
        return self._new(name, Layer(BlockFile.anonymous(size_bytes), blocks), None)

    def _new(self, name: str, layer: Layer, object_id: int | None) -> CachedObject:
        return CachedObject(
            name, layer.map.size_bytes, [layer], object_id, on_unused=self.close_unused
        )


@asynccontextmanager
async def alone_with(locks: dict[K, trio.Lock], key: K) -> AsyncIterator[None]:
    """Let one task at a time in for *key*. A lock lives as long as a task holds or awaits it."""
    lock = locks.setdefault(key, trio.Lock())
    try:
        async with lock:
            yield
    finally:
        if not lock.locked():  # otherwise the next task in line holds it now
            locks.pop(key, None)
