"""The cache directory: its files, its size limit, its owner, and the files that may be deleted.

All functions here wait for the disk, and belong in a thread.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Final

from satfs.atomic_file import make_directory
from satfs.content.cache.index import Index
from satfs.errors import BadCache

_CACHEDIR_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by satfs.\n"
    "# For information about cache directory tags, see https://bford.info/cachedir/\n"
)


def default_bytes(directory: Path) -> int:
    """Return the smaller of 20 GB and a tenth of the disk that *directory* is on, in bytes."""
    probe = directory
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    return min(20 * 10**9, shutil.disk_usage(probe).total // 10)


def prepare_directory(path: Path) -> None:
    """Make *path* a directory of this user that no other user can access.

    Raises:
        BadCache: it is a symbolic link, or belongs to another user.
        OSError: it cannot be made.
    """
    make_directory(path)
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise BadCache(f"cache_dir: {path} is a symbolic link; name the directory itself")
    if found.st_uid != os.geteuid():
        raise BadCache(f"cache_dir: {path} belongs to another user; choose another directory")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)


def open_index(directory: Path) -> Index:
    """Return the index of the cache in *directory*, making both if need be.

    Raises:
        BadCache: the directory is a symbolic link, or belongs to another user. OSError,
        sqlite3.Error: it cannot be opened or made.
    """
    prepare_directory(directory)
    tag = directory / "CACHEDIR.TAG"
    if not tag.exists():
        tag.touch(mode=0o600)
        tag.write_text(_CACHEDIR_TAG, encoding="ascii")
    objects = directory / "objects"
    objects.mkdir(mode=0o700, exist_ok=True)
    path = directory / "index.sqlite"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        return _sound_index(path)
    except sqlite3.DatabaseError as problem:
        if isinstance(problem, sqlite3.OperationalError):
            raise
        # Not an index: the file there is useless. Data without an index is useless, too, and is
        # overwritten when objects are opened again.
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(objects, ignore_errors=True)
        objects.mkdir(mode=0o700, exist_ok=True)
        return Index(path)


def _sound_index(path: Path) -> Index:
    index = Index(path)
    try:
        index.held_bytes()  # reads every segment: a damaged file shows now rather than later
    except BaseException:
        index.close()
        raise
    return index


def path_of(directory: Path, name: str) -> Path:
    """Return where the object called *name* has its blocks."""
    return directory / "objects" / name[:2] / name


def object_name(*parts: str) -> str:
    """Return the file name of the object that *parts* identify; it shows none of them."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
