"""How many more bytes the disk and the memory may take, and how many are reserved."""

from __future__ import annotations

import shutil
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Final

import trio

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.objects import CachedObject, Layer
from satfs.model import ByteRange

#: How often the free space of the disk is read; in between we count.
LOOK_INTERVAL_S: Final = 0.5


class DiskRoom:
    """The room on disk: below the cache's limit, and above the minimum of free space.

    `held_bytes` are those of all mounts in the index, as last read; `new_bytes` came here since;
    `landing_bytes` are in flight, and count twice as soon as a part of them is there.
    """

    def __init__(self, directory: Path | None, limit_bytes: int, free_fraction: float) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.new_bytes = 0
        self.landing_bytes = 0
        self._directory = directory
        self._free_fraction = free_fraction
        self._spare_bytes = 0
        self._looked_at_s = float("-inf")
        self._looking = trio.Lock()

    @property
    def used_bytes(self) -> int:
        """Return the least size of the cache."""
        return self.held_bytes + self.new_bytes

    async def missing_bytes(self, n_bytes: int) -> int:
        """Return by how much *n_bytes* that are landing would pass a limit; else at most 0."""
        directory = self._directory
        if directory is None:
            return n_bytes
        excess = self.used_bytes + self.landing_bytes - self.limit_bytes
        now_s = trio.current_time()

        def is_missing() -> bool:
            # By the numbers before an eviction, no room is missing.
            return excess > 0 or n_bytes > self._spare_bytes

        def is_due() -> bool:
            return now_s - self._looked_at_s > LOOK_INTERVAL_S

        # One task looks for all that come meanwhile: those that know of enough room go on, others
        # wait, and go on in the order of their arrival.
        if is_missing() or (is_due() and not self._looking.locked()):
            async with self._looking:
                if is_missing() or is_due():
                    await self._look(directory)
        self._spare_bytes -= n_bytes
        return max(excess, -self._spare_bytes)

    async def _look(self, directory: Path) -> None:
        looked_at_s, before = trio.current_time(), self._spare_bytes
        try:
            found = await spare_bytes(directory, self._free_fraction)
        except OSError:
            found = 0
        self._spare_bytes = found - (before - self._spare_bytes)  # what others took meanwhile
        self._looked_at_s = looked_at_s


class Reservation:
    """Bytes of one span that a transfer will bring: until `end`, or the end of `with`.

    It keeps the object open, its segments from eviction, and its bytes counted in the room.
    """

    def __init__(self, cached: CachedObject, room: DiskRoom, span: ByteRange) -> None:
        self._cached = cached
        self._room = room
        self._segments = cached.layers[0].map.segments_of(span)
        self._n_bytes = len(span)
        cached.retain()
        cached.landing.update(self._segments)
        room.landing_bytes += self._n_bytes

    def end(self) -> None:
        """Note that no more of these bytes will come. To be called once."""
        self._cached.landing.subtract(self._segments)
        self._cached.landing += Counter()  # drops the bytes that were not completed
        self._room.landing_bytes -= self._n_bytes
        self._cached.release()

    def __enter__(self) -> None:
        """Continue the reservation, which began with its creation."""

    def __exit__(self, *_: object) -> None:
        """See `end`."""
        self.end()


class MemoryRoom:
    """Segments in memory, of all objects, the least recently used first. Never waits."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._segments: OrderedDict[tuple[CachedObject, int], int] = OrderedDict()

    def count(self, cached: CachedObject, layer: Layer, span: ByteRange) -> None:
        """Note that blocks of *span* have come to *layer*, which is in memory."""
        for number in layer.map.segments_of(span):
            key = (cached, number)
            n_bytes = layer.map.segment(number).n_blocks * BLOCK_BYTES
            self.used_bytes += n_bytes - self._segments.get(key, 0)
            self._segments[key] = n_bytes
            self._segments.move_to_end(key)

    def recount(self, cached: CachedObject, span: ByteRange) -> None:
        """Note that blocks of *span* were dropped elsewhere."""
        for number in cached.top.map.segments_of(span):
            if (key := (cached, number)) in self._segments:
                n_bytes = cached.top.map.segment(number).n_blocks * BLOCK_BYTES
                self.used_bytes += n_bytes - self._segments[key]
                self._segments[key] = n_bytes

    def touch(self, cached: CachedObject, span: ByteRange) -> None:
        """Note that *span* was read."""
        for number in cached.top.map.segments_of(span):
            if (cached, number) in self._segments:
                self._segments.move_to_end((cached, number))

    def make_room(self, n_bytes: int) -> None:
        """Drop the least recently used segments until *n_bytes* more fit, or none is left to drop.

        Views of dropped bytes ended with the last checkpoint, so they go at once. Segments to which
        bytes are in flight stay (see `CachedObject.landing`).
        """
        if self.used_bytes + n_bytes <= self.limit_bytes:
            return
        for cached, number in [each for each in self._segments if not each[0].landing[each[1]]]:
            if self.used_bytes + n_bytes <= self.limit_bytes:
                return
            self.used_bytes -= self._segments.pop((cached, number))
            cached.n_losses += 1
            span = cached.top.map.span_of(number)
            cached.top.map.drop(span)
            cached.top.file.punch(span)

    def closed(self, cached: CachedObject) -> None:
        """Forget an object whose memory was given back."""
        for key in [each for each in self._segments if each[0] is cached]:
            self.used_bytes -= self._segments.pop(key)


async def spare_bytes(directory: Path, free_fraction: float) -> int:
    """Return how many bytes the disk of *directory* takes until only *free_fraction* is free.

    Negative when less is free already. Waits for the disk, in a thread.

    Raises:
        OSError: the disk failed.
    """

    def look() -> int:
        disk = shutil.disk_usage(directory)
        return disk.free - int(disk.total * free_fraction)

    return await trio.to_thread.run_sync(look)
