"""Directories of a demo: of drawn imagery, which is kept by seed and size, and of what is not kept.

The latter are removed by the demo at its end, or by the next one after it was killed. A demo's
mount keeps its cache in one, and another holds imagery that is being drawn. The process of
a demo holds a lock on its directory (flock(2)), which the kernel drops when the process ends,
however that happens. A directory without a lock is abandoned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import platformdirs

#: The version of a directory's content: raised when the drawing or the packing changes.
GENERATION: Final = 5
#: Written last: a directory that holds it is complete.
MANIFEST: Final = "manifest.json"


def default_directory() -> Path:
    """Return the directory of the user's cache that holds all drawings."""
    return platformdirs.user_cache_path("satfs-demo")


def home_of(directory: Path, *, seed: int, large_mb: int) -> Path:
    """Return where below *directory* the drawings of one seed and size are, or will be."""
    return directory / f"g{GENERATION}-seed{seed}-{large_mb}mb"


def is_drawn(home: Path) -> bool:
    """Return whether the drawings in *home* are there, all of them."""
    return (home / MANIFEST).exists()


#: The beginning of a demo directory's name, below the directory for temporary files.
PREFIX: Final = "satfs-demo-"


@contextmanager
def scratch_directory(prefix: str = PREFIX, below: Path | None = None) -> Iterator[Path]:
    """Make a directory of mode 0700, yield it, and remove it, unless it was moved away.

    It is in *below*, or where temporary files are; its name begins with *prefix*.

    Raises:
        OSError: there is no place for it.
    """
    path, lock = _make(prefix, below)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold the lock of *directory*; waits while another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def abandoned(directory: Path, user: int, prefix: str = PREFIX) -> list[Path]:
    """Return the directories below *directory* that demos of *user* have left when killed."""
    try:
        paths = sorted(directory.glob(f"{prefix}*"))
    except OSError:
        return []
    return [path for path in paths if _is_abandoned(path, user)]


def remove_abandoned(prefix: str = PREFIX, below: Path | None = None) -> None:
    """Remove what killed demos of this user have left *below*, or where temporary files are."""
    for path in abandoned(below or Path(tempfile.gettempdir()), os.geteuid(), prefix):
        shutil.rmtree(path, ignore_errors=True)


def _make(prefix: str, below: Path | None) -> tuple[Path, int]:
    """Return a new directory and the descriptor that holds its lock.

    A demo that starts at the same moment may remove it as abandoned, before it is locked: then
    another one is made.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=below))
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            if _lock(lock) and path.is_dir():
                return path, lock
            os.close(lock)


def _is_abandoned(path: Path, user: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return os.fstat(descriptor).st_uid == user and _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock the file of *descriptor*; return False if another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
