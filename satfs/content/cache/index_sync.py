"""Updates the index for the open objects: fetched, used, lost and found blocks.

The index is used in threads, one call at a time. When it fails, the mount continues without it:
blocks fetched from then on are forgotten when the mount ends.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import structlog
import trio

from satfs.content.cache.blockmap import BLOCKS_PER_SEGMENT, Segment
from satfs.content.cache.index import Index
from satfs.content.cache.objects import CachedObject

log = structlog.get_logger(__name__)
T = TypeVar("T")


class IndexSync:
    """The index of a mount's cache; `index` is None where there is no disk."""

    def __init__(self, index: Index | None) -> None:
        self.index = index
        self._lock = trio.Lock()
        self._seen_changes: int | None = None
        self._changes: int | None = None
        self._changes_at_s = float("-inf")
        self._is_warned = False

    async def on_index(self, call: Callable[[], T]) -> T | None:
        """Run *call* on the index in a thread; return None when the index fails."""
        try:
            return await self.demand(call)
        except (OSError, sqlite3.Error) as problem:
            self.warn("cache index failed: new blocks may not survive this mount", problem)
            return None

    async def demand(self, call: Callable[[], T]) -> T:
        """Run *call* on the index in a thread.

        Raises:
            OSError, sqlite3.Error: it failed.
        """
        async with self._lock:
            return await trio.to_thread.run_sync(call)

    async def wait(self) -> None:
        """Wait until the calls that were begun before have ended."""
        async with self._lock:
            pass

    def warn(self, event: str, problem: BaseException | None = None) -> None:
        """Log that the disk fails: once, since later failures have the same reason."""
        if not self._is_warned:
            self._is_warned = True
            log.warning(event, **({} if problem is None else {"reason": reason_of(problem)}))

    async def enter(self, objects: Iterable[CachedObject]) -> tuple[list[CachedObject], int | None]:
        """Enter the fetched blocks and the uses of *objects*.

        Returns the objects with entries, and the bytes of all mounts in the index: None if it
        failed, or if there was nothing to enter.
        """
        index = self.index
        work: list[tuple[CachedObject, int, list[Segment], dict[int, float]]] = []
        for cached in objects:
            if cached.object_id is not None and (cached.dirty or cached.used):
                segments = [cached.layers[0].map.segment(number) for number in cached.dirty]
                used = {n: at for n, at in cached.used.items() if n not in cached.dirty}
                work.append((cached, cached.object_id, segments, used))
                cached.dirty, cached.used = set(), {}
        if index is None or not work:
            return [], None

        def write() -> int:
            for _, object_id, segments, used in work:
                if segments:
                    index.commit(object_id, segments)
                if used:
                    index.touch(object_id, used)
            return index.held_bytes()

        try:
            held = await self.on_index(write)
        except trio.Cancelled:
            # Before the call began: the next commit enters the same.
            for cached, _, segments, used in work:
                cached.dirty.update(segment.number for segment in segments)
                cached.used = used | cached.used
            raise
        if held is None:  # a disk that was full for a moment may take them the next time
            for cached, _, segments, _ in work:
                if cached.n_users:  # others are closed: nothing may stay open without an end
                    cached.dirty.update(segment.number for segment in segments)
        return [cached for cached, _, _, _ in work], held

    async def has_changes(self) -> bool:
        """Return whether another mount has written since the last time."""
        if self.index is None:
            return False
        changes = await self.on_index(self.index.changes)
        is_new = changes is not None and changes != self._seen_changes
        self._seen_changes = changes
        return is_new

    async def changes(self, max_age_s: float = 0.0) -> int | None:
        """Return a number that differs whenever another mount has written since.

        It may be as old as *max_age_s*.
        """
        if self.index is None:
            return None
        if trio.current_time() - self._changes_at_s > max_age_s:
            at_s = trio.current_time()
            self._changes = await self.on_index(self.index.changes)
            self._changes_at_s = at_s
        return self._changes

    async def load_changes(self, cached: CachedObject, numbers: range | None = None) -> None:
        """Load blocks of *cached* that other mounts have fetched, in *numbers* or all segments."""
        index, object_id = self.index, cached.object_id
        if index is None or object_id is None:
            return
        for segment in await self.on_index(lambda: index.segments(object_id, numbers)) or ():
            cached.layers[0].map.load(segment)

    async def forget_blocks(self, cached: CachedObject, blocks: Sequence[int]) -> None:
        """Remove the entries of *blocks* from the index."""
        index, object_id = self.index, cached.object_id
        if index is None or object_id is None:
            return
        keep = defaultdict[int, int](lambda: (1 << BLOCKS_PER_SEGMENT) - 1)
        for block in blocks:
            number, bit = divmod(block, BLOCKS_PER_SEGMENT)
            keep[number] &= ~(1 << bit)

        def forget() -> None:
            for number, mask in keep.items():
                index.forget_blocks(object_id, number, mask)

        await self.on_index(forget)


def reason_of(problem: BaseException) -> str:
    """Return the reason of a failure of the disk, without a path in its message."""
    if isinstance(problem, OSError):
        return f"{type(problem).__name__}: {problem.strerror}"
    return type(problem).__name__
