"""The budget for blocks kept in memory: counts them, and drops the least recently used."""

from __future__ import annotations

from collections import OrderedDict

from satfs.content.cache.blockmap import BLOCK_BYTES, SEGMENT_BYTES
from satfs.content.cache.objects import CachedObject, Layer
from satfs.model import ByteRange


class MemoryBudget:
    """Segments in memory, of all objects, the least recently used first. Never waits."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._segments: OrderedDict[tuple[CachedObject, int], int] = OrderedDict()

    def count(self, cached: CachedObject, layer: Layer, span: ByteRange) -> None:
        """Take in that blocks of *span* have come to *layer*, which is in memory."""
        for number in layer.map.segments_of(span):
            key = (cached, number)
            n_bytes = layer.map.segment(number).n_blocks * BLOCK_BYTES
            self.used_bytes += n_bytes - self._segments.get(key, 0)
            self._segments[key] = n_bytes
            self._segments.move_to_end(key)

    def recount(self, cached: CachedObject, span: ByteRange) -> None:
        """Take in that blocks of *span* were dropped by somebody else."""
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
        """Drop what was not used for longest until *n_bytes* more fit, or nothing is left to drop.

        Views of dropped bytes ended with the last checkpoint, so they go at once. Segments that
        more bytes are on their way to stay (see `CachedObject.landing`).
        """
        if self.used_bytes + n_bytes <= self.limit_bytes:
            return
        for cached, number in [each for each in self._segments if not each[0].landing[each[1]]]:
            if self.used_bytes + n_bytes <= self.limit_bytes:
                return
            self.used_bytes -= self._segments.pop((cached, number))
            cached.n_losses += 1
            start = number * SEGMENT_BYTES
            span = ByteRange(start, min(start + SEGMENT_BYTES, cached.size_bytes))
            cached.top.map.drop(span)
            cached.top.file.punch(span)

    def closed(self, cached: CachedObject) -> None:
        """Forget an object whose memory was given back."""
        for key in [each for each in self._segments if each[0] is cached]:
            self.used_bytes -= self._segments.pop(key)
