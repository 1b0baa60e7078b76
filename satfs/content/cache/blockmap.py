"""Which blocks of one object are held, and which of those have been checked.

Pure: numbers and checksums. A block is present when this map has it; holes in the cache file decide
nothing; the map's persistent half (`content/cache/index.py`) is written after the data.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

import xxhash
from msgspec import Struct

from satfs.model import ByteRange

#: Granularity of presence and of checksums. A random 64 KiB read at any offset costs 80 KiB on
#: average (1.25 times); at 64 KiB it would be 128 KiB. Hashing 64 pieces per MiB costs 0.16 ms.
BLOCK_BYTES: Final = 16 * 1024
#: Granularity of the persistent map and of eviction: 64 blocks fit one 64-bit mask.
BLOCKS_PER_SEGMENT: Final = 64
SEGMENT_BYTES: Final = BLOCK_BYTES * BLOCKS_PER_SEGMENT

_ABSENT: Final = 0
_UNCHECKED: Final = 1
_HELD: Final = 2
#: Windows are tens of thousands of blocks, so C code searches for runs.
_ABSENT_RUN: Final = re.compile(b"\0+")
_UNCHECKED_RUN: Final = re.compile(b"\1+")


def align(span: ByteRange, size_bytes: int) -> ByteRange:
    """Return *span* widened to whole blocks, within a file of *size_bytes*."""
    if not span:
        return span.clip(size_bytes)
    start = span.start // BLOCK_BYTES * BLOCK_BYTES
    stop = -(-span.stop // BLOCK_BYTES) * BLOCK_BYTES
    return ByteRange(min(start, size_bytes), min(stop, size_bytes))


def hash_blocks(data: bytes | memoryview) -> list[int]:
    """Return the checksum of each block of *data* (the last may be short)."""
    view = memoryview(data)
    return [
        xxhash.xxh3_64_intdigest(view[start : start + BLOCK_BYTES])
        for start in range(0, len(view), BLOCK_BYTES)
    ]


def start_of_blocks(stop: int, n_blocks: int) -> int:
    """Return where the *n_blocks* blocks begin that end at byte *stop*; the last may be short."""
    return stop - (n_blocks - 1) * BLOCK_BYTES - (stop % BLOCK_BYTES or BLOCK_BYTES)


def segment_span(number: int, size_bytes: int) -> ByteRange:
    """Return the part of segment *number* that exists in a file of *size_bytes*."""
    start = min(number * SEGMENT_BYTES, size_bytes)
    return ByteRange(start, min(start + SEGMENT_BYTES, size_bytes))


class Segment(Struct, frozen=True):
    """The persistent record of up to 64 blocks: bit i of `mask` is block `number * 64 + i`.

    `hashes` has a checksum for each of the 64 blocks; those of absent blocks mean nothing.
    """

    number: int
    mask: int
    hashes: bytes

    @property
    def n_blocks(self) -> int:
        """Count the blocks present."""
        return self.mask.bit_count()


class BlockMap:
    """Presence of the blocks of one object of `size_bytes`.

    Invariants:
        A block is absent, unchecked (written by an earlier mount and not hashed since), or
        held. Only held blocks may be served.
        `n_present` is the number of blocks not absent.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.n_blocks = -(-size_bytes // BLOCK_BYTES)
        self.n_present = 0
        self._state = bytearray(self.n_blocks)
        self._hashes = array("Q", bytes(8 * self.n_blocks))

    def _blocks(self, span: ByteRange) -> tuple[int, int]:
        clipped = span.clip(self.size_bytes)
        return clipped.start // BLOCK_BYTES, -(-clipped.stop // BLOCK_BYTES)

    def _bytes(self, first: int, last: int) -> ByteRange:
        return ByteRange(first * BLOCK_BYTES, min(last * BLOCK_BYTES, self.size_bytes))

    def holds(self, span: ByteRange) -> bool:
        """Return whether every existing byte of *span* may be served."""
        first, last = self._blocks(span)
        return self._state.count(_HELD, first, last) == max(0, last - first)

    def is_present(self, span: ByteRange) -> bool:
        """Return whether every existing byte of *span* is present, checked or not."""
        first, last = self._blocks(span)
        return self._state.find(_ABSENT, first, last) < 0

    def gaps(self, span: ByteRange) -> Iterator[ByteRange]:
        """Yield the absent parts of *span*, as whole blocks, in order."""
        return self._runs(_ABSENT, _ABSENT_RUN, span)

    def unchecked(self, span: ByteRange) -> Iterator[ByteRange]:
        """Yield the parts of *span* that are present but not checked, as whole blocks, in order."""
        return self._runs(_UNCHECKED, _UNCHECKED_RUN, span)

    def _runs(self, state: int, run: re.Pattern[bytes], span: ByteRange) -> Iterator[ByteRange]:
        first, last = self._blocks(span)
        # Every read calls it, nearly always without a result: a search for one byte is fast.
        first = self._state.find(state, first, last)
        if first < 0:
            return
        while first < last and (found := run.search(self._state, first, last)) is not None:
            start, first = found.span()
            del found  # a match holds the map's bytes, which could not be written to meanwhile
            yield self._bytes(start, first)

    def hold(self, first: int, hashes: Sequence[int]) -> None:
        """Mark the blocks from number *first* as held, with these checksums."""
        last = first + len(hashes)
        self.n_present += self._state.count(_ABSENT, first, last)
        self._state[first:last] = bytes((_HELD,)) * len(hashes)
        self._hashes[first:last] = array("Q", hashes)

    def confirm(self, first: int, hashes: Sequence[int]) -> bool:
        """Mark the blocks from number *first* as held if all are unchecked, with these checksums.

        Returns whether it did; otherwise nothing has changed.
        """
        last = first + len(hashes)
        if self._state.count(_UNCHECKED, first, last) != len(hashes):
            return False
        if self._hashes[first:last] != array("Q", hashes):
            return False
        self._state[first:last] = bytes((_HELD,)) * len(hashes)
        return True

    def hashes(self, first: int, last: int) -> Sequence[int]:
        """Return the checksums of the blocks [first, last)."""
        return self._hashes[first:last]

    def drop(self, span: ByteRange) -> int:
        """Forget the blocks that touch *span*; return how many bytes that frees (rounded up)."""
        first, last = self._blocks(span)
        dropped = (last - first) - self._state.count(_ABSENT, first, last)
        self._state[first:last] = bytes(max(0, last - first))
        self.n_present -= dropped
        return dropped * BLOCK_BYTES

    def load(self, segment: Segment) -> None:
        """Add the blocks of the index: those that are not known here become unchecked."""
        first = segment.number * BLOCKS_PER_SEGMENT
        known = array("Q")
        known.frombytes(segment.hashes)
        for bit in range(min(BLOCKS_PER_SEGMENT, self.n_blocks - first)):
            if segment.mask >> bit & 1 and self._state[first + bit] == _ABSENT:
                self._state[first + bit] = _UNCHECKED
                self._hashes[first + bit] = known[bit]
                self.n_present += 1

    def segment(self, number: int) -> Segment:
        """Return the record of one segment for the index: its held blocks."""
        first = number * BLOCKS_PER_SEGMENT
        last = min(first + BLOCKS_PER_SEGMENT, self.n_blocks)
        mask = 0
        for bit, state in enumerate(self._state[first:last]):
            if state == _HELD:
                mask |= 1 << bit
        hashes = self._hashes[first:last].tobytes().ljust(8 * BLOCKS_PER_SEGMENT, b"\0")
        return Segment(number, mask, hashes)

    def span_of(self, number: int) -> ByteRange:
        """Return the existing part of a segment."""
        return segment_span(number, self.size_bytes)

    def mask_of(self, number: int) -> int:
        """Return a segment's present blocks, checked or not, as a mask."""
        first = number * BLOCKS_PER_SEGMENT
        states = self._state[first : first + BLOCKS_PER_SEGMENT]
        return sum(1 << bit for bit, state in enumerate(states) if state != _ABSENT)

    def present_segments(self) -> Iterator[int]:
        """Yield the numbers of the segments in which any block is present."""
        for number in range(-(-self.n_blocks // BLOCKS_PER_SEGMENT)):
            first = number * BLOCKS_PER_SEGMENT
            last = min(first + BLOCKS_PER_SEGMENT, self.n_blocks)
            if self._state.count(_ABSENT, first, last) < last - first:
                yield number

    def segments_of(self, span: ByteRange) -> range:
        """Return the numbers of the segments that *span* touches."""
        first, last = self._blocks(span)
        if last <= first:
            return range(0)
        return range(first // BLOCKS_PER_SEGMENT, (last - 1) // BLOCKS_PER_SEGMENT + 1)
