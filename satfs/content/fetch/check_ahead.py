"""Check the blocks that an earlier mount cached, before a sequential reader needs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.objects import CHECK_BYTES, CachedObject, ObjectUse
from satfs.model import ByteRange

#: Bytes that are checked ahead of a sequential reader.
CHECK_AHEAD_BYTES: Final = 16 * 1024 * 1024


class CheckAhead:
    """The checks of one object: one task at a time, piece by piece.

    *run_in_background* starts a task without a caller that waits for it.
    """

    def __init__(
        self,
        cache: BlockCache,
        cached: CachedObject,
        run_in_background: Callable[[Callable[[ObjectUse], Awaitable[object]], ObjectUse], None],
    ) -> None:
        self._cache = cache
        self._cached = cached
        self._run_in_background = run_in_background
        #: The position of the task, and where it stops checking; None: there is no task.
        self._left: ByteRange | None = None
        #: The starts of the reads that wait for the task.
        self._waiting: dict[trio.Event, int] = {}

    def begin(self, now: ByteRange) -> None:
        """Start to check the unchecked blocks from *now* on that a sequential reader will read."""
        span = ByteRange(now.start, now.stop + CHECK_AHEAD_BYTES).clip(self._cached.size_bytes)
        if self._left is not None:
            if self._left.start <= now.stop:
                self._left = ByteRange(self._left.start, max(self._left.stop, span.stop))
            return
        first = next(self._cached.layers[0].map.unchecked(span), None)
        if first is not None:
            self._left = ByteRange(first.start, span.stop)
            self._run_in_background(self._run, self._cached.in_use())

    async def wait_for(self, span: ByteRange) -> None:
        """Wait until the task has passed the start of *span*, if the task will reach it."""
        if self._left is None or not self._left.start <= span.start < self._left.stop:
            return
        event = trio.Event()
        self._waiting[event] = span.start
        try:
            await event.wait()
        finally:
            del self._waiting[event]

    async def _run(self, use: ObjectUse) -> None:
        try:
            with use:
                while (left := self._left) is not None and left:
                    stop = min(left.start + CHECK_BYTES, left.stop)
                    await self._cache.check(self._cached, ByteRange(left.start, stop))
                    # The reader may have moved the end on meanwhile.
                    self._left = ByteRange(stop, max(stop, (self._left or left).stop))
                    self._passed(stop)
        finally:
            self._left = None
            self._passed(self._cached.size_bytes)

    def _passed(self, stop: int) -> None:
        """Wake the reads that start before *stop*: it is held now, or must be fetched again."""
        for event, start in self._waiting.items():
            if start < stop:
                event.set()
