"""The CRC of a member, from the CRCs of its parts in any order.

A member's checksum is over all of its bytes; they are read in pieces that the kernel chooses, some
twice, some out of order, by several readers. The CRCs of two neighbours give the CRC of both, so
the whole is checked as soon as everything has been seen once, however that came about.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from isal.isal_zlib import crc32_combine

from satfs.model import ByteRange

#: Pieces remembered; a random reader makes many. The shortest is forgotten first, so that a reader
#: that goes from the beginning to the end always succeeds.
_MAX_PIECES: Final = 256


class Checksum:
    """The pieces of a file of *size_bytes* whose CRCs are known. Neighbours become one piece."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._crcs: list[int] = []

    @property
    def whole(self) -> int | None:
        """Return the CRC of the whole file; None until every byte was seen."""
        if self.size_bytes == 0:
            return 0
        if self._starts[:1] == [0] and self._stops[0] == self.size_bytes:
            return self._crcs[0]
        return None

    def missing(self, span: ByteRange) -> list[ByteRange]:
        """Return the parts of *span* that were not seen yet, in order."""
        parts = []
        position = span.start
        index = max(0, bisect_right(self._starts, position) - 1)
        for start, stop in zip(self._starts[index:], self._stops[index:], strict=True):
            if start >= span.stop:
                break
            if position < start:
                parts.append(ByteRange(position, start))
            position = max(position, stop)
        if position < span.stop:
            parts.append(ByteRange(position, span.stop))
        return parts

    def add(self, span: ByteRange, crc: int) -> None:
        """Remember that the bytes of *span* have that *crc*; ignored when some were seen before."""
        if not span or self.missing(span) != [span]:
            return
        index = bisect_right(self._starts, span.start)
        self._starts.insert(index, span.start)
        self._stops.insert(index, span.stop)
        self._crcs.insert(index, crc)
        self._join(index)
        if index:
            self._join(index - 1)
        if len(self._starts) > _MAX_PIECES:
            lengths = [stop - start for start, stop in zip(self._starts, self._stops, strict=True)]
            self._forget(lengths.index(min(lengths)))

    def _join(self, index: int) -> None:
        """Make one piece of the one at *index* and the next, if they touch."""
        if index + 1 < len(self._starts) and self._stops[index] == self._starts[index + 1]:
            length = self._stops[index + 1] - self._starts[index + 1]
            self._crcs[index] = crc32_combine(self._crcs[index], self._crcs[index + 1], length)
            self._stops[index] = self._stops[index + 1]
            self._forget(index + 1)

    def _forget(self, index: int) -> None:
        del self._starts[index], self._stops[index], self._crcs[index]
