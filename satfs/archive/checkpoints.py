"""Inflate checkpoints of one deflated member, in memory and as bytes to keep.

Memory: 32 KiB for each checkpoint. A reader that goes through a member leaves at most
`MAX_CHECKPOINTS` of them, 8 MiB for a member of any size; several readers of its parts leave at
most twice as many. Up to 512 MiB they are `MIN_DISTANCE_BYTES` apart, beyond that farther.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import Final

from msgspec import Struct
from xxhash import xxh3_128_digest

#: Distance of checkpoints in the output, in bytes: the most that a random read inflates in vain.
#: Two MiB take some 10 ms, and their windows add 1.6 % to what is kept.
MIN_DISTANCE_BYTES: Final = 2 * 1024 * 1024
#: Limit of checkpoints of one member that is read through.
MAX_CHECKPOINTS: Final = 256

_MAGIC: Final = b"satfs deflate 1\n"
#: Identity, size of the member, whether its CRC was right, number of checkpoints.
_HEAD: Final = struct.Struct("<16s32sQ?I")
#: Output before the checkpoint in bytes, input before it in bits, length of its window.
_POINT: Final = struct.Struct("<QQI")
_DIGEST_BYTES: Final = 16


class Checkpoint(Struct, frozen=True):
    """A block boundary: the lengths of output and input before it, and the last of the output."""

    out_position: int
    in_bits: int
    window: bytes


#: The beginning of every stream.
BEGINNING: Final = Checkpoint(0, 0, b"")


class Checkpoints:
    """The checkpoints of one member of *size_bytes*, sorted; the beginning is always one.

    `is_checked`: all of the member was inflated once, and its CRC was right.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.distance_bytes = max(MIN_DISTANCE_BYTES, -(-size_bytes // MAX_CHECKPOINTS))
        self.is_checked = False
        self._points = [BEGINNING]
        self._positions = [0]

    def __len__(self) -> int:
        return len(self._points)

    @property
    def n_bytes(self) -> int:
        """Return the memory held, in bytes, to within a tenth."""
        return sum(len(point.window) + 200 for point in self._points)

    def before(self, position: int) -> Checkpoint:
        """Return the nearest checkpoint at or before *position* of the output."""
        return self._points[bisect_right(self._positions, position) - 1]

    def next_due(self, position: int) -> int:
        """Return from which output position on, at or after *position*, one more is wanted.

        Each is `distance_bytes` from the one before, but not so close to the next one that it would
        save little. Beyond the member's size: none is wanted any more.
        """
        index = bisect_right(self._positions, position) - 1
        while True:
            due = max(position, self._positions[index] + self.distance_bytes)
            index += 1
            if index == len(self._positions):
                return due if due < self.size_bytes else self.size_bytes
            if due + self.distance_bytes // 2 <= self._positions[index]:
                return due
            position = self._positions[index]

    def add(self, point: Checkpoint) -> bool:
        """Keep *point*, unless there is one near; return whether it was kept."""
        position = point.out_position
        if position >= self.size_bytes or self.next_due(position) != position:
            return False
        index = bisect_right(self._positions, point.out_position)
        self._points.insert(index, point)
        self._positions.insert(index, point.out_position)
        return True

    def to_bytes(self, identity: bytes) -> bytes:
        """Return all of it as bytes that `from_bytes` accepts for the same *identity* only."""
        points = self._points[1:]
        parts = [_HEAD.pack(_MAGIC, identity, self.size_bytes, self.is_checked, len(points))]
        for point in points:
            parts.append(_POINT.pack(point.out_position, point.in_bits, len(point.window)))
            parts.append(point.window)
        data = b"".join(parts)
        return data + xxh3_128_digest(data)

    @classmethod
    def from_bytes(cls, data: bytes, identity: bytes, size_bytes: int) -> Checkpoints | None:
        """Return what `to_bytes` wrote; None when it is another's, or not all of it is right."""
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if len(body) < _HEAD.size or xxh3_128_digest(body) != digest:
            return None
        magic, named, size, is_checked, n_points = _HEAD.unpack_from(body)
        if (magic, named, size) != (_MAGIC, identity, size_bytes):
            return None
        found = cls(size_bytes)
        found.is_checked = is_checked
        position = _HEAD.size
        for _ in range(n_points):
            out_position, in_bits, length = _POINT.unpack_from(body, position)
            position += _POINT.size
            found._points.append(
                Checkpoint(out_position, in_bits, body[position : position + length])
            )
            found._positions.append(out_position)
            position += length
        return found
