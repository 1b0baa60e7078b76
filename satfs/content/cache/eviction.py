"""Eviction: which blocks leave the cache, first from the block map, then from the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import segment_span
from satfs.content.cache.capacity import DiskRoom
from satfs.content.cache.directory import path_of
from satfs.content.cache.index import Index, Protected, Victim, choose_victims
from satfs.content.cache.index_sync import IndexSync
from satfs.content.cache.objects import CachedObject
from satfs.content.cache.open_objects import OpenObjects

#: Evict this much below the limit, so that eviction comes in batches.
EVICTION_SLACK: Final = 0.02


class Eviction:
    """Frees space on the disk of one cache directory, the least recently used blocks first.

    *commit* enters fetched blocks in the index, since eviction chooses by the index. One task
    evicts at a time: the one that holds `lock`. So a task that holds it sees no object between the
    drop of its blocks here and their drop in the index.
    """

    def __init__(
        self,
        directory: Path | None,
        index_sync: IndexSync,
        room: DiskRoom,
        objects: OpenObjects,
        commit: Callable[[], Awaitable[None]],
    ) -> None:
        self.lock = trio.Lock()
        self._directory = directory
        self._index_sync = index_sync
        self._room = room
        self._objects = objects
        self._commit = commit

    async def evict(self, needed_bytes: int) -> int:
        """Free at least *needed_bytes*, if possible, and return how many; `lock` is held."""
        index, directory = self._index_sync.index, self._directory
        if index is None or directory is None:
            return 0
        await self._commit()
        wanted = needed_bytes + int(self._room.limit_bytes * EVICTION_SLACK)
        freed = 0
        refused: set[int] = set()
        while freed < wanted:
            keep = Protected(frozenset(refused), self._landing())
            choose = partial(choose_victims, needed_bytes=wanted - freed, keep=keep)
            victims = await self._index_sync.on_index(partial(index.victims, choose))
            if not victims:
                break
            for name, group in _by_object(victims):
                n_bytes = await self._evict_from(index, directory, name, group)
                freed += n_bytes
                if not n_bytes:
                    refused.add(group[0].object_id)
        held = await self._index_sync.on_index(index.held_bytes)
        if held is not None:
            self._room.held_bytes = held
        return freed

    async def discard(self, name: str, size_bytes: int) -> None:
        """Remove an object, unless it is open: then it is evicted later."""
        index, directory = self._index_sync.index, self._directory
        if index is None or directory is None:
            return
        async with self._objects.alone_with(name):
            if self._objects.get(name) is None:
                await self._index_sync.wait()  # it is closed before it is entered
                try:
                    await trio.to_thread.run_sync(
                        _discard_closed, index, directory, name, size_bytes
                    )
                except (OSError, sqlite3.Error) as problem:
                    self._index_sync.warn("eviction failed", problem)

    def _landing(self) -> frozenset[tuple[int, int]]:
        return frozenset(
            (cached.object_id, number)
            for cached in self._objects
            if cached.object_id is not None
            for number in cached.landing
        )

    async def _evict_from(
        self, index: Index, directory: Path, name: str, group: Sequence[Victim]
    ) -> int:
        async with self._objects.alone_with(name):
            cached = self._objects.get(name)
            try:
                if cached is None:
                    await self._index_sync.wait()  # it is closed before it is entered
                    return await trio.to_thread.run_sync(_evict_closed, index, directory, group)
                with cached.in_use():  # its file must not be closed while a thread works on it
                    return await _evict_open(cached, index, self._index_sync, group)
            except (OSError, sqlite3.Error) as problem:
                self._index_sync.warn("eviction failed", problem)
                return 0


def _by_object(victims: Iterable[Victim]) -> Iterator[tuple[str, list[Victim]]]:
    """Yield the victims of each object together."""
    groups: dict[str, list[Victim]] = {}
    for victim in victims:
        groups.setdefault(victim.name, []).append(victim)
    yield from groups.items()


async def _evict_open(
    cached: CachedObject, index: Index, index_sync: IndexSync, group: Sequence[Victim]
) -> int:
    """Evict from an object that is open here, unless another mount has it open too.

    *group* are segments of this object. Returns the freed bytes; segments to which bytes are in
    flight stay.

    Raises:
        OSError, sqlite3.Error: the disk failed; nothing is promised of these segments any more.
    """
    layer = cached.layers[0]
    # No checkpoint between the test of `landing`, the map, and `leaving`; the latter stops tasks
    # that want to write here from now on. Views of these blocks end at the next checkpoint.
    going = [victim for victim in group if not cached.landing[victim.number]]
    if not going or layer.file.in_memory or not layer.file.try_alone():
        return 0  # views of another mount must stay valid
    numbers = [victim.number for victim in going]
    spans = [layer.map.span_of(number) for number in numbers]
    for span in spans:
        layer.map.drop(span)
    cached.n_losses += 1
    cached.dirty.difference_update(numbers)
    cached.leaving.update(numbers)

    def punch() -> None:
        index.forget(going[0].object_id, numbers)
        for span in spans:
            layer.file.punch(span)

    try:
        # After the entries of these segments that are being made.
        await index_sync.demand(punch)
    finally:
        cached.leaving.difference_update(numbers)
        layer.file.share()
    return sum(victim.n_bytes for victim in going)


def _evict_closed(index: Index, directory: Path, group: Sequence[Victim]) -> int:
    """Evict from an object that is not open in this mount, unless it is in another one.

    *group* are segments of this object. Returns the freed bytes. Waits for the disk.

    Raises:
        OSError, sqlite3.Error: the disk failed; nothing is promised of these segments any more.
    """
    one, numbers = group[0], [victim.number for victim in group]
    n_bytes = sum(victim.n_bytes for victim in group)
    path = path_of(directory, one.name)
    try:
        file, is_new = BlockFile.on_disk(path, one.size_bytes)
    except FileNotFoundError:  # its directory is gone
        index.remove_object(one.name)
        return n_bytes
    try:
        if not file.try_alone():
            return 0
        index.forget(one.object_id, numbers)
        if is_new or not index.segments(one.object_id):
            index.remove_object(one.name)
            path.unlink(missing_ok=True)
        else:
            for victim in group:
                file.punch(segment_span(victim.number, victim.size_bytes))
        return n_bytes
    finally:
        file.close()


def _discard_closed(index: Index, directory: Path, name: str, size_bytes: int) -> None:
    """Remove an object that is not open in this mount, unless it is in another one.

    Waits for the disk.

    Raises:
        OSError, sqlite3.Error: the disk failed; nothing is promised of the object any more.
    """
    path = path_of(directory, name)
    file, _ = BlockFile.on_disk(path, size_bytes)
    try:
        if file.try_alone():
            index.remove_object(name)
            path.unlink(missing_ok=True)
    finally:
        file.close()
