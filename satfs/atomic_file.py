"""Files of the user, written completely or not at all, or locked; directories of the user alone."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path


def make_directory(path: Path) -> None:
    """Make the directory *path*, and each one above it that is missing, for their owner alone.

    One that is there stays as it is. (`Path.mkdir` gives its mode to the last one only, and makes
    those above by the umask.) Waits for the disk.

    Raises:
        OSError: it cannot be made, or something else is there.
    """
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        if not path.is_dir():
            raise


def make_own_directory(path: Path) -> None:
    """Make the directory *path* ours alone, or see that it is. Waits for the disk.

    Raises:
        OSError: it cannot be made, is a symbolic link, or belongs to another user.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is no directory")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)


def runtime_directories(user: int, environment: Mapping[str, str]) -> list[Path]:
    """Return where files of *user* may be that go when the machine is shut down, the best first.

    *environment* is that of this process, and counts for its own user only.
    """
    runtime_dir = environment.get("XDG_RUNTIME_DIR", "")
    is_named = user == os.geteuid() and os.path.isabs(runtime_dir)
    named = [Path(runtime_dir) / "satfs"] if is_named else []
    return [*named, Path(f"/run/user/{user}/satfs")]


def for_owner(path: str, flags: int) -> int:
    """Open *path* as `open` wants it of its *opener*; a file that is made has mode 0600."""
    return os.open(path, flags, 0o600)


def mode_for_all(path: Path) -> int:
    """Return the permissions of the file at *path*, or those that the umask gives to a new one."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask


def draft_of(path: Path) -> Path:
    """Return where a file is written that is to replace *path*: beside it, under a hidden name.

    Of a long name it has the beginning, since no name has more than 255 bytes.
    """
    beginning = os.fsdecode(os.fsencode(path.name)[:200])
    return path.with_name(f".{beginning}.{os.getpid()}")


def write_atomically(path: Path, text: str, *, mode: int | None = None) -> None:
    """Put a file with *text* in place of *path*, which is the old or the new one at any moment.

    Its permissions are *mode*, else those it had, else 0600; missing directories are made for their
    owner alone. A link at *path* is replaced, not followed. Waits for the disk.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    make_directory(path.parent)
    if mode is None:
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            mode = 0o600
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, mode)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def locked(path: Path) -> int | None:
    """Return a descriptor of the file *path*, locked; None when another process has the lock."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed before it was locked: the next process would lock another file.
            if path.exists() and os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
