"""Whether a program reads the small members of a zip one after another, and what it reads next.

Decides, and never waits. A program that copies a directory reads its files in an order of its own:
cp(1) in that of the inode numbers (savedir in gnulib, SAVEDIR_SORT_FASTREAD), rsync in that of the
names. Small members mostly lie side by side in the zip, in whatever order they are read. So after
the first ones the neighbours of each are fetched with it, in one range.
"""

from __future__ import annotations

from typing import Final

from satfs.archive.members import Members, Row
from satfs.model import KIB, ByteRange

#: Limit of a small member, its header included, in bytes: what a document beside the rasters has.
SMALL_BYTES: Final = 64 * KIB
#: Small members that a program opens one by one. A program that looks at a scene's metadata opens
#: one, and some open two.
N_ALONE: Final = 2
#: Limit of what is fetched with one of them, in bytes: a sixth of what a line of 30 ms and 50 MB/s
#: carries in a round trip.
AROUND_BYTES: Final = 256 * KIB


class SmallMembers:
    """The small members of one zip that were opened, the first few."""

    def __init__(self) -> None:
        self._opened: set[Row] = set()

    def opened(self, members: Members, row: Row) -> ByteRange | None:
        """Note that a program opens *row*; return the part of the zip that is worth having.

        It holds the member. None where the member is not small, or one of the first.
        """
        around = members.neighbours(row, SMALL_BYTES, AROUND_BYTES)
        if around is None:
            return None
        if len(self._opened) <= N_ALONE:
            self._opened.add(row)
        return around if len(self._opened) > N_ALONE else None
