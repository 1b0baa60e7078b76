"""Where the members of a zip lie in it, and which small ones are fetched together.

Decides, and never waits. A program that copies a directory reads its files in an order of its own:
cp(1) in that of the inode numbers (savedir in gnulib, SAVEDIR_SORT_FASTREAD), rsync in that of the
names. Small members mostly lie side by side in the zip, in whatever order they are read. So after
the first ones the neighbours of each are fetched with it, in one range.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NewType

from satfs.model import KIB, ByteRange

#: A row of `Members`: a directory or file in an archive.
Row = NewType("Row", int)

#: A local header without name and extra field, in bytes (APPNOTE 4.3.7).
LOCAL_HEADER_BYTES: Final = 30
#: Offsets sorted in one go, about 20 ms: a sort lets no other thread run.
_SORTED_AT_ONCE: Final = 1 << 15

#: Limit of a small member, its header included, in bytes: what a document beside the rasters has.
SMALL_BYTES: Final = 64 * KIB
#: Small members that a program opens one by one. A program that looks at a scene's metadata opens
#: one, and some open two.
N_ALONE: Final = 2
#: Limit of what is fetched with one of them, in bytes: a sixth of what a line of 30 ms and 50 MB/s
#: carries in a round trip.
AROUND_BYTES: Final = 256 * KIB


class MemberOffsets:
    """The offsets in a zip at which the local headers of its files begin, 12 bytes for each file.

    Invariants:
        The offsets are in order, and below `data_stop`.
    """

    def __init__(self, data_stop: int) -> None:
        #: Where the directory begins: no member's bytes reach beyond. Counts from the zip's start.
        self.data_stop = data_stop
        self._starts = array("Q")
        self._rows = array("I")

    def append(self, start: int, row: Row) -> None:
        """Add the file *row*, whose local header begins at *start*, behind all others."""
        self._starts.append(start)
        self._rows.append(row)

    def stop(self, start: int) -> int:
        """Return where the bytes of the file that begins at *start* end at the latest.

        There another file begins, or the directory.
        """
        return self._stop_of(self._index(start))

    def file_at(self, position: int) -> Row | None:
        """Return the file whose local header or bytes are at *position*, or None.

        The file may end before: behind its bytes there may be some that no member has.
        """
        index = self._index(position)
        return Row(self._rows[index]) if index >= 0 and position < self.data_stop else None

    def neighbours(self, start: int) -> ByteRange | None:
        """Return the part of the zip that a small file and small ones beside it take.

        None where the file that begins at *start* is no small one. Local headers are included. No
        more than `AROUND_BYTES`.
        """
        first = last = self._index(start)
        if first < 0 or self._stop_of(first) - self._starts[first] > SMALL_BYTES:
            return None

        def takes(index: int) -> bool:
            if not 0 <= index < len(self._starts):
                return False
            start, stop = self._starts[index], self._stop_of(index)
            length = max(stop, self._stop_of(last)) - min(start, self._starts[first])
            return stop - start <= SMALL_BYTES and length <= AROUND_BYTES

        while takes(last + 1):
            last += 1
        while takes(first - 1):
            first -= 1
        return ByteRange(self._starts[first], self._stop_of(last))

    def _index(self, position: int) -> int:
        return bisect_right(self._starts, position) - 1

    def _stop_of(self, index: int) -> int:
        return self._starts[index + 1] if index + 1 < len(self._starts) else self.data_stop


class SmallMembers:
    """The small members of one zip that were opened, the first few."""

    def __init__(self) -> None:
        self._opened: set[int] = set()

    def opened(self, offsets: MemberOffsets, start: int) -> ByteRange | None:
        """Note that a program opens the file at *start*; return the part of the zip worth having.

        It holds the member. None where the member is not small, or one of the first.
        """
        around = offsets.neighbours(start)
        if around is None:
            return None
        if len(self._opened) <= N_ALONE:
            self._opened.add(start)
        return around if len(self._opened) > N_ALONE else None


def in_order(starts: Sequence[int]) -> Iterator[int]:
    """Yield the indexes of *starts* in the order of their values, equal ones as they stand."""
    runs = [
        sorted(range(first, min(first + _SORTED_AT_ONCE, len(starts))), key=starts.__getitem__)
        for first in range(0, len(starts), _SORTED_AT_ONCE)
    ]
    return heapq.merge(*runs, key=starts.__getitem__)


def least_stop(header_offset: int, compressed_bytes: int) -> int:
    """Return where a member ends if its local header has neither name nor extra field.

    It states the lengths of both itself (APPNOTE 4.3.7); they may differ from the directory's.
    """
    return header_offset + LOCAL_HEADER_BYTES + compressed_bytes
