"""Locks between all processes of a node that share a cache directory: ranges of one file.

Each process opens the file once and holds locks on ranges of numbers in it. They are open file
description locks (fcntl(2)), which the kernel releases when the process dies, however it dies, so
that nothing is ever left behind. The file stays empty: only the numbers mean something.

Numbers are below 2^62. A shared lock on 2^62 shows that a process is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

import trio

#: The file's name in the cache directory.
FILE_NAME: Final = "claims"
#: Each process holds a shared lock on this number while it is there.
_PRESENCE: Final = 1 << 62
#: Named locks have numbers from here to `_PRESENCE`; those below belong to blocks of objects.
_NAMES: Final = 1 << 61
#: Pause between two tries for a lock that another process holds, in seconds. A try takes some
#: microseconds; the kernel does not report when a lock becomes free.
POLL_S: Final = 0.02
#: Longest wait for a named lock, in seconds: well above the time of a request that gets a response.
PATIENCE_S: Final = 3.0
#: How long the last look for other processes counts, in seconds.
_VALID_S: Final = 0.5

# struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for these locks).
_FLOCK: Final = "hhqqi4x"


def number_of(name: str) -> int:
    """Return the number of the lock that *name* names.

    Another name has the same one with a chance of one in 2^61.
    """
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return _NAMES + int.from_bytes(digest, "little") % _NAMES


class NodeLocks:
    """The locks of one process; until `open` there is no other process.

    Two `NodeLocks` on one directory exclude each other, in one process as well.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._is_shared = False
        self._looked_at_s = float("-inf")

    def open(self, directory: Path) -> None:
        """Take part in the locks of *directory*, where the disk has such; never fails."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(directory / FILE_NAME, flags, 0o600)
            self._call(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, _PRESENCE, 1)
        except OSError:
            self.close()  # a disk that cannot: this process fetches for itself

    def close(self) -> None:
        """Release every lock of this process."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def is_shared(self, now_s: float) -> bool:
        """Return whether another process has the directory open, as of half a second ago.

        *now_s* is a moment of any clock that never runs backwards.
        """
        if self._fd is not None and now_s - self._looked_at_s > _VALID_S:
            return self.is_shared_now(now_s)
        return self._fd is not None and self._is_shared

    def is_shared_now(self, now_s: float) -> bool:
        """Return whether another process has the directory open; the look takes microseconds."""
        self._looked_at_s = now_s
        self._is_shared = self.holder(_PRESENCE, _PRESENCE + 1) is not None
        return self._is_shared

    def try_lock(self, start: int, stop: int) -> bool:
        """Take the numbers [start, stop) for this process alone; False when another has one."""
        if self._fd is None:
            return True
        try:
            self._call(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, start, stop - start)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.EACCES):
                self._is_shared = True  # since the last look: a caller looks for the other process
                return False
            # The filesystem has no locks (ENOLCK, on a network): as if there were no other process.
        return True

    def unlock(self, start: int, stop: int) -> None:
        """Let others have the numbers [start, stop)."""
        if self._fd is not None and stop > start:
            self._call(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, start, stop - start)

    def holder(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the first range that another process holds in [start, stop), or None."""
        if self._fd is None:
            return None
        try:
            found = self._call(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, start, stop - start)
        except OSError:
            return None
        kind, _, first, length, _ = struct.unpack(_FLOCK, found)
        if kind == fcntl.F_UNLCK:
            return None
        return max(first, start), stop if not length else min(first + length, stop)

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[None]:
        """Let one process of the node at a time into the body that *name* names.

        For what several may do, but one is enough: a process that has waited for `PATIENCE_S` goes
        on although another one is in there, which may stand still. Within one process the caller
        sees to it. A name that has another's number waits for it, too: one chance in 2^61.
        """
        number = number_of(name)
        until_s = trio.current_time() + PATIENCE_S
        while not (is_mine := self.try_lock(number, number + 1)):
            if trio.current_time() >= until_s:
                break
            await trio.sleep(POLL_S)
        try:
            yield
        finally:
            if is_mine:
                self.unlock(number, number + 1)

    def _call(self, command: int, kind: int, start: int, length: int) -> bytes:
        assert self._fd is not None  # noqa: S101 - for the type checker
        request = struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
        return fcntl.fcntl(self._fd, command, request)
