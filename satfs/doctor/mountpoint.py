"""Whether a directory can be mounted on: one judgement, for `satfs doctor` and `satfs mount`.

The doctor reports the finding; a mount raises it unless it is fine. A mount looks at the directory
by the descriptor that it will mount on; the doctor starts a process that looks first, since the
filesystem of the directory may hang.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from satfs.doctor.findings import Area, Check, Finding, Severity
from satfs.doctor.machine import Machine
from satfs.errors import BadMountpoint
from satfs.mountpoint_hold import OPEN_FLAGS
from satfs.mountpoints import DEAD_ERRNOS, FS_TYPE, may_mount_on

MOUNTPOINT = Check(Area.MOUNTS, "mountpoint", BadMountpoint)


def mountpoint(machine: Machine, path: Path) -> Iterator[Finding]:
    """Report whether *path*, which is absolute, could be mounted on; nothing if satfs has done so.

    Waits for at most the time limit of a program.
    """
    if any(each.mountpoint == path and each.fs_type == FS_TYPE for each in machine.mounts()):
        return
    name, typed = str(path), shlex.quote(os.fspath(path))
    response = machine.errno_of(path)
    if response is None:
        yield MOUNTPOINT.failure(
            f"{name} does not answer.",
            "The filesystem of this directory hangs.",
            "See which one that is:",
            f"findmnt --target {typed}",
        )
    elif response:
        yield _unusable(response, name, typed)
    else:
        opened: list[int] = []

        def open_directory() -> int:
            opened.append(os.open(path, OPEN_FLAGS))
            return opened[-1]

        try:
            yield judge(open_directory, machine.uid, name, typed)
        finally:
            for fd in opened:
                os.close(fd)


def require_mountpoint(
    open_directory: Callable[[], int], name: str, typed: str, *, is_nonempty_fine: bool
) -> None:
    """Return if this user can mount on the directory. Looks at it, and so may wait for it.

    Parameters as of `judge`.

    Raises:
        BadMountpoint: it cannot be mounted on; the message has the reason and the remedy.
    """
    user = os.geteuid()
    finding = judge(open_directory, user, name, typed, is_nonempty_fine=is_nonempty_fine)
    if finding.severity is not Severity.OK:
        raise finding.error


def judge(
    open_directory: Callable[[], int],
    user: int,
    name: str,
    typed: str,
    *,
    is_nonempty_fine: bool = False,
) -> Finding:
    """Return whether *user* can mount on the directory that *open_directory* opens (`OPEN_FLAGS`).

    *name* is the directory in sentences, *typed* in commands. A directory that is not empty is a
    warning unless *is_nonempty_fine*: then nothing is read from it.
    """
    try:
        fd = open_directory()
        status, place = os.fstat(fd), f"/proc/self/fd/{fd}"
        is_empty = is_nonempty_fine or _is_empty(place)
    except OSError as failure:
        return _unusable(failure.errno or 0, name, typed)
    if not may_mount_on(status, user, is_writable=os.access(place, os.W_OK)):
        return MOUNTPOINT.failure(
            f"{name} is not yours to mount on.",
            "FUSE lets people mount on directories that they may write to, and that are their own "
            "where the sticky bit is set.",
            "Choose another directory, or become its owner:",
            f'sudo chown "$USER" {typed}',
        )
    if not is_empty:
        return MOUNTPOINT.warning(
            f"{name} is not empty, and what is in it would be hidden.",
            "`satfs mount` refuses it.",
            "Choose another directory, or give --nonempty.",
        )
    return MOUNTPOINT.fine(f"{name} can be mounted on.")


def _is_empty(place: str) -> bool:
    with os.scandir(place) as entries:
        return next(entries, None) is None


def _unusable(number: int, name: str, typed: str) -> Finding:
    """Return the finding for a directory that a system call refused with the errno *number*."""
    if number == errno.ENOENT:
        return MOUNTPOINT.failure(
            f"There is no directory {name}.",
            "Only a directory can be mounted on.",
            "Make it:",
            f"mkdir -p {typed}",
        )
    if number in (errno.ENOTDIR, errno.ELOOP):
        return MOUNTPOINT.failure(
            f"{name} is not a directory.",
            "Only a directory can be mounted on.",
            "Choose another place.",
        )
    if number in DEAD_ERRNOS:
        return MOUNTPOINT.failure(
            f"{name} is the dead mount of another program.",
            "Nothing can be mounted there before it is unmounted.",
            "Unmount it:",
            f"fusermount3 -u {typed}",
        )
    return MOUNTPOINT.failure(
        f"{name} cannot be looked at: {os.strerror(number)}.",
        "A directory that cannot be read is mounted on only with --nonempty.",
        "Choose another directory, or repair this one:",
        f"ls -ld {typed}",
    )
