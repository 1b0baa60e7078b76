"""The directory that satfs is about to be mounted on: kept from other mounts and replacement.

Between the check of a mountpoint and the mount lie seconds in which the API responds. Two things
are held for that time: a lock, so that a second satfs is refused and not mounted over the first
one; and the directory itself, by descriptor, so that it stays the one that was checked. That
matters to root in a directory of another user, who may replace it with a symbolic link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from satfs.atomic_file import locked, make_own_directory
from satfs.control.protocol import socket_path
from satfs.errors import BadMountpoint
from satfs.mountpoints import mount_at

#: How a mountpoint is opened: without a right to read it, and no symbolic link.
OPEN_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
#: Limit of the wait for another user who mounts on the same directory, in seconds: mounting takes
#: milliseconds.
ALONE_S: Final = 2.0
_LOOK_S: Final = 0.01


class MountpointHold:
    """A mountpoint, held until `close`; a context manager. Survives fork(2).

    Invariants:
        At most one process of this user holds a mountpoint, as long as the user has a directory for
        sockets (`control.socket_path`); without one, nothing is locked.
    """

    def __init__(self, mountpoint: Path) -> None:
        """Hold *mountpoint* (`mountpoints.absolute`); looks at nothing in it.

        Raises:
            BadMountpoint: another process is about to mount there.
        """
        self.mountpoint = mountpoint
        # Without the environment: a mount of cron has the same lock as one of a desktop.
        self._lock_path = socket_path(mountpoint, {}).with_suffix(".lock")
        self._lock_fd: int | None = None
        self._directory_fd: int | None = None
        with contextlib.suppress(OSError):  # no place for sockets: no lock either
            make_own_directory(self._lock_path.parent)
            self._lock_fd = locked(self._lock_path)
            if self._lock_fd is None:
                raise BadMountpoint(
                    f"another satfs is being mounted at {mountpoint} at this moment; "
                    "unmount that one first, or choose another directory"
                )

    def open_directory(self) -> int:
        """Return a descriptor of the directory (`O_PATH`), the same one at each call.

        Raises:
            OSError: it does not exist, or is a symbolic link.
        """
        if self._directory_fd is None:
            self._directory_fd = os.open(self.mountpoint, OPEN_FLAGS)
        return self._directory_fd

    def require_unchanged(self) -> int:
        """Return what `open_directory` does, if the mountpoint still is that directory.

        Raises:
            BadMountpoint: satfs is mounted there meanwhile, or something else is there now.
        """
        if mount_at(self.mountpoint) is not None:
            raise BadMountpoint(f"satfs is mounted at {self.mountpoint} already")
        try:
            held = self.open_directory()
            is_same = os.path.samestat(os.fstat(held), os.lstat(self.mountpoint))
        except OSError as failure:
            raise BadMountpoint(
                f"{self.mountpoint} cannot be mounted on: {failure.strerror}"
            ) from failure
        if not is_same:
            raise BadMountpoint(
                f"{self.mountpoint} was replaced while satfs was about to mount there"
            )
        return held

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other users from mounting there during the block, which is to look and to mount.

        The lock of `__init__` is one user's: root and the owner of a directory have different ones.
        This one is on the directory itself. It is waited for, up to `ALONE_S`, and then done
        without it: any user who may read the directory could hold it for ever.
        """
        fd: int | None = None
        with contextlib.suppress(OSError):  # a directory that cannot be read can be mounted on
            place = f"/proc/self/fd/{self.open_directory()}"
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock_soon(fd)
        try:
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def unlock(self) -> None:
        """Let other processes go on: the mount table shows them now that it is mounted on."""
        if self._lock_fd is not None:
            with contextlib.suppress(OSError):
                self._lock_path.unlink()
            # For all copies of the descriptor: the process in front may still have one.
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
            os.close(self._lock_fd)
            self._lock_fd = None

    def close(self) -> None:
        """Release both; the lock stays where a process that was forked has it, too."""
        for fd in (self._lock_fd, self._directory_fd):
            if fd is not None:
                os.close(fd)
        self._lock_fd = self._directory_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock_soon(fd: int) -> None:
    """Lock *fd*, trying for `ALONE_S`.

    Raises:
        OSError: it is locked by another process all the while.
    """
    until_s = time.monotonic() + ALONE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return
