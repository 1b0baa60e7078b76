"""Files made when they are looked up, and unchanged while they are read.

A file of this kind changes from one moment to the next, and programs must see one moment as a
whole: size and bytes that belong together, and for `cp`, which looks twice, the same inode both
times. So the content made for a look-up is kept for a second, and a moment longer while look-ups go
on; until then the name leads to the same file, with the same bytes, which the kernel may cache as
those of any other. After that it leads to another one. Nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cachetools import LRUCache
from msgspec import Struct

from satfs.errors import Changed
from satfs.model import Reader
from satfs.tree.nodes import BytesReader, ContentFile, Directory, digest_of

#: How long a content is the present one, in seconds: short for people, long for a program.
FRESH_S: Final = 1.0
#: Programs look at a name twice within a few milliseconds. If the second passes in between, the
#: content stays until no program has looked for this long…
GRACE_S: Final = 0.1
#: …but never longer than this, however often programs look.
MAX_S: Final = 2.0
#: Bytes of contents kept for programs that have looked and not yet opened.
MAX_BYTES: Final = 4 * 1024 * 1024


class _Snapshot(Struct):
    content: bytes
    digest: str
    made_s: float
    seen_s: float
    made_ns: int


class Snapshots:
    """The contents made last, of all files, as many as `MAX_BYTES` hold."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self._wall_clock_ns = wall_clock_ns
        self._latest: LRUCache[tuple[str, ...], _Snapshot] = LRUCache(MAX_BYTES, getsizeof=_weight)
        self._contents: LRUCache[str, bytes] = LRUCache(MAX_BYTES, getsizeof=_size)

    def file(self, parent: Directory, name: bytes, make: Callable[[], bytes]) -> SnapshotFile:
        """Return the file called *name* as it is at this moment; *make* makes its content."""
        now_s = self._clock()
        path = (*parent.path, name.decode())
        snapshot: _Snapshot | None = self._latest.get(path)
        if snapshot is None or not _is_present(snapshot, now_s):
            snapshot = self._made(make, now_s)
            if len(snapshot.content) <= MAX_BYTES // 2:
                self._latest[path] = snapshot
                self._contents[snapshot.digest] = snapshot.content
        snapshot.seen_s = now_s
        return SnapshotFile(self, parent, name, snapshot, make)

    def listed(self, parent: Directory, name: bytes, make: Callable[[], bytes]) -> SnapshotFile:
        """Return the file as `file` does, for a listing: nothing is kept, for few are opened."""
        now_s = self._clock()
        snapshot: _Snapshot | None = self._latest.get((*parent.path, name.decode()))
        if snapshot is None or not _is_present(snapshot, now_s):
            snapshot = self._made(make, now_s)
        return SnapshotFile(self, parent, name, snapshot, make)

    def _made(self, make: Callable[[], bytes], now_s: float) -> _Snapshot:
        content = make()
        return _Snapshot(content, digest_of(content), now_s, now_s, self._wall_clock_ns())

    def content(self, wanted: str) -> bytes | None:
        """Return the content with that digest, if it is still kept."""
        found: bytes | None = self._contents.get(wanted)
        return found


class SnapshotFile(ContentFile):
    """A file as it was at one moment."""

    __slots__ = ("_make", "_snapshots")
    is_in_memory = True
    is_name_cacheable = False

    def __init__(
        self,
        snapshots: Snapshots,
        parent: Directory,
        name: bytes,
        snapshot: _Snapshot,
        make: Callable[[], bytes],
    ) -> None:
        # Not the content itself, which is kept for as long as `Snapshots` has room.
        super().__init__(parent, name, snapshot.content, mtime_ns=snapshot.made_ns)
        self._snapshots = snapshots
        self._make = make

    async def open(self) -> Reader:
        """Return a reader of the bytes of that moment; waits for nothing.

        Raises:
            Changed: they are kept no more. The kernel looks the name up again, and opens that.
        """
        content = self._snapshots.content(self.digest)
        if content is None:
            content = self._make()
            if digest_of(content) != self.digest:
                raise Changed(f"/{'/'.join(self.path)} is another by now")
        return BytesReader(content)


def _is_present(snapshot: _Snapshot, now_s: float) -> bool:
    age_s, unseen_s = now_s - snapshot.made_s, now_s - snapshot.seen_s
    return age_s < FRESH_S or (unseen_s < GRACE_S and age_s < MAX_S)


def _weight(snapshot: _Snapshot) -> int:
    return 256 + len(snapshot.content)


def _size(content: bytes) -> int:
    return 64 + len(content)
