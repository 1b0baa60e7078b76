"""The cache directory: its owner, what its filesystem can do, and its free space."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from satfs.content.cache.directory import default_bytes
from satfs.content.cache.kernelcalls import punch_hole
from satfs.doctor.findings import Area, Check, Finding
from satfs.doctor.machine import Machine
from satfs.errors import BadCache
from satfs.humanize import format_bytes
from satfs.settings import Settings

#: Filesystems over a network, where the index cannot be shared between processes: SQLite's
#: write-ahead log needs memory that all of them see (sqlite.org/wal.html). `fuse.` ones likewise.
_DISTANT: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs"}
)
#: Files looked at to see how much is held; a cache of 20 GB has some hundred.
_MAX_FILES: Final = 20_000
_OTHER_PLACE: Final = 'export SATFS_CACHE_DIR="/var/tmp/satfs-$USER"'

CACHE_SPACE = Check(Area.CACHE, "cache-space")
CACHE_DIRECTORY = Check(Area.CACHE, "cache-directory", BadCache)
CACHE_FILESYSTEM = Check(Area.CACHE, "cache-filesystem")


def directory(machine: Machine, settings: Settings) -> Iterator[Finding]:
    """Look whether the cache directory can be used, and whether its filesystem fits."""
    path = settings.cache_dir
    if settings.cache_bytes == 0:
        yield CACHE_DIRECTORY.fine("Nothing is kept on disk: cache_bytes is 0.")
        return
    # Before anything else touches it: a process that waits for a stuck filesystem cannot even end.
    if machine.errno_of(path) is None:
        yield CACHE_DIRECTORY.failure(
            f"The disk of {path} does not answer.",
            "A mount would wait for it as well.",
            "Choose a directory on another disk:",
            _OTHER_PLACE,
        )
        return
    yield from _ownership(machine, path)
    yield from _filesystem(machine, path)


def _ownership(machine: Machine, path: Path) -> Iterator[Finding]:
    name = shlex.quote(os.fspath(path))
    try:
        status = path.lstat()
    except FileNotFoundError:
        above = _existing(path)
        if os.access(above, os.W_OK | os.X_OK):
            yield CACHE_DIRECTORY.fine(f"{path} does not exist yet; the first mount makes it.")
        else:
            yield _memory_only(f"{path} cannot be made in {above}.", (_OTHER_PLACE,))
        return
    except OSError as failure:
        yield _memory_only(
            f"{path} cannot be looked at: {os.strerror(failure.errno or 0)}.",
            (f"ls -ld {shlex.quote(os.fspath(path.parent))}", _OTHER_PLACE),
        )
        return
    refused = (
        "satfs refuses to mount with it: other users could change the bytes that programs read."
    )
    if stat.S_ISLNK(status.st_mode):
        yield CACHE_DIRECTORY.failure(
            f"{path} is a symbolic link.",
            refused,
            "Name the directory itself:",
            f'export SATFS_CACHE_DIR="$(readlink -f {name})"',
        )
    elif not stat.S_ISDIR(status.st_mode):
        yield _memory_only(f"{path} is not a directory.", (f"rm {name}",))
    elif status.st_uid != machine.uid:
        yield CACHE_DIRECTORY.failure(
            f"{path} belongs to the user with the id {status.st_uid}, and you have {machine.uid}.",
            f"{refused} It was made under sudo, perhaps.",
            "Take it over, or use another one:",
            f'sudo chown -R "$USER" {name}',
            _OTHER_PLACE,
        )
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield _memory_only(f"{path} cannot be written to.", (f"chmod 700 {name}",))
    elif stat.S_IMODE(status.st_mode) & 0o077:
        yield CACHE_DIRECTORY.note(
            f"{path} lets other users in ({stat.S_IMODE(status.st_mode):o}).",
            "The next mount removes this permission; until then they see the bytes that you read.",
            "To do so now:",
            f"chmod 700 {name}",
        )
    else:
        yield CACHE_DIRECTORY.fine(f"{path} is yours alone.")


def _filesystem(machine: Machine, path: Path) -> Iterator[Finding]:
    there = _existing(path)
    under = machine.mount_of(there)
    kind = under.fs_type if under is not None else ""
    if kind in _DISTANT or kind.startswith("fuse."):
        yield CACHE_FILESYSTEM.warning(
            f"{path} lies on a network filesystem ({kind}).",
            "A cache there is hardly faster than the store, and mounts cannot share its index.",
            "Choose a directory on a local disk:",
            _OTHER_PLACE,
        )
    elif _has_holes(there) is False:
        yield CACHE_FILESYSTEM.warning(
            f"The filesystem of {path} ({kind or 'unknown'}) has no holes.",
            "Each file takes up its whole length, even if little of it was read, and evicted bytes "
            "free no space before the whole file is removed.",
            "Choose a directory on ext4, XFS, Btrfs, ZFS or tmpfs:",
            _OTHER_PLACE,
        )
    else:
        yield CACHE_FILESYSTEM.fine(f"Its filesystem ({kind or 'unknown'}) fits.")


def _has_holes(there: Path) -> bool | None:
    """Return whether files at *there* can have holes, by a file without a name; None: not known."""
    try:
        fd = os.open(there, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # not writable, or the filesystem has no files without a name
        return None
    try:
        os.ftruncate(fd, 1 << 20)
        punch_hole(fd, 0, 1 << 20)
        return True
    except OSError as failure:
        return False if failure.errno in (errno.EOPNOTSUPP, errno.ENOSYS) else None
    finally:
        os.close(fd)


def space(machine: Machine, settings: Settings) -> Iterator[Finding]:
    """Look whether there is room for what the cache may hold."""
    path = settings.cache_dir
    if settings.cache_bytes == 0:
        return
    if machine.errno_of(path) not in (0, errno.ENOENT):
        return  # the check of the directory reports it
    there = _existing(path)
    disk = shutil.disk_usage(there)
    limit = settings.cache_bytes
    if limit is None:
        limit = default_bytes(path)
    yield space_finding(
        path,
        limit_bytes=limit,
        held_bytes=_held_bytes(path),
        free_bytes=disk.free,
        reserve_bytes=int(disk.total * settings.cache_free_fraction),
    )


def space_finding(
    path: Path, *, limit_bytes: int, held_bytes: int, free_bytes: int, reserve_bytes: int
) -> Finding:
    """Return the finding for a cache with *held_bytes* of *limit_bytes* and *free_bytes* free.

    *reserve_bytes* is what is always left free (`cache_free_fraction`).
    """
    name = shlex.quote(os.fspath(path))
    spare = free_bytes - reserve_bytes
    if spare <= 0:
        return CACHE_SPACE.warning(
            f"The disk of {path} is full: {format_bytes(free_bytes)} are free, of which "
            f"{format_bytes(reserve_bytes)} stay free.",
            "No more bytes are cached on disk: bytes that are read twice are fetched twice.",
            "Make room, or leave less free (SATFS_CACHE_FREE_FRACTION):",
            f"df -h {name}",
            "satfs cache clear",
        )
    room = held_bytes + spare
    if room < limit_bytes:
        return CACHE_SPACE.note(
            f"The cache may grow to {format_bytes(limit_bytes)},"
            f" and there is room for {format_bytes(room)}.",
            "The cache stops growing before the disk is full, and never reaches its limit.",
            "To keep more, make room:",
            f"df -h {name}",
        )
    return CACHE_SPACE.fine(
        f"{format_bytes(held_bytes)} of {format_bytes(limit_bytes)} are used; "
        f"{format_bytes(free_bytes)} are free on the disk."
    )


def _held_bytes(path: Path) -> int:
    total = n_files = 0
    for above, _, files in os.walk(path / "objects"):
        for file in files:
            n_files += 1
            if n_files > _MAX_FILES:
                return total
            try:
                total += os.lstat(os.path.join(above, file)).st_blocks * 512
            except OSError:  # evicted since it was listed
                continue
    return total


def _existing(path: Path) -> Path:
    """Return *path*, or the nearest directory above it that is there."""
    while path != path.parent:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
        except OSError:
            return path
        else:
            return path
    return path


def _memory_only(statement: str, commands: tuple[str, ...]) -> Finding:
    return CACHE_DIRECTORY.warning(
        statement,
        "Content is cached in memory only: few bytes, and only until the mount ends.",
        "Repair it, or use another directory:",
        *commands,
    )
