"""Check that the user can mount on a directory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from satfs.cli.hints import hint, shell_path
from satfs.cli.mount_options import GivenOptions
from satfs.cli.output import print_remark, show, user_name
from satfs.doctor import fuse
from satfs.doctor.machine import Machine
from satfs.errors import BadMountpoint
from satfs.mountpoint_hold import MountpointHold
from satfs.mountpoints import DEAD_ERRNOS, detach, is_dead_mount, may_mount_on, mount_at


def prepare_mountpoint(hold: MountpointHold, path: Path, given: GivenOptions) -> Path:
    """Return *path* as the kernel names it, fit to be mounted on as *given*, and held by *hold*.

    A satfs mount whose process has died is removed first. Looks at the directory, and so may wait
    for what is mounted there.

    Raises:
        BadMountpoint: it cannot be mounted on; the message has the reason and the remedy.
        FuseMissing: the user cannot mount here.
    """
    mountpoint = hold.mountpoint
    while mount_at(mountpoint) is not None:
        if not is_dead_mount(mountpoint):
            raise BadMountpoint(
                f"satfs is mounted at {_name(path)} already; "
                f"unmount it first: {hint(f'satfs umount {shell_path(path)}')}"
            )
        detach(mountpoint, is_lazy=True)
        print_remark(f"A satfs mount that had died was removed from {_name(path)}.")
    _check(hold, path, given.nonempty)
    owner = foreign_owner_above(mountpoint, os.geteuid())
    if owner is not None:
        print_remark(
            f"{_name(path)} lies in a directory of {owner}, who can move or replace it; "
            f"as root, mount with mount(8) and -o setuid={owner} instead."
        )
    fuse.require(
        Machine(), for_others=given.allow_other or given.allow_root, auto_unmount=given.auto_unmount
    )
    return mountpoint


def foreign_owner_above(mountpoint: Path, user: int) -> str | None:
    """Return whose a directory above *mountpoint* is, if neither root's nor *user*'s.

    Only for root, who could be led elsewhere by another user; None for all others.
    """
    if user != 0:
        return None
    for directory in mountpoint.parents:
        if (owner := directory.lstat().st_uid) != 0:
            return user_name(owner)
    return None


def _check(hold: MountpointHold, path: Path, nonempty: bool) -> None:
    mountpoint = hold.mountpoint
    try:
        if not stat.S_ISDIR(mountpoint.lstat().st_mode):
            raise BadMountpoint(f"{_name(path)} is not a directory")
        # From here on by descriptor: what is checked is what will be mounted on.
        directory = hold.open_directory()
        mountpoint = Path(f"/proc/self/fd/{directory}")
        status = os.fstat(directory)
        is_empty = nonempty or next(os.scandir(mountpoint), None) is None
    except OSError as failure:
        raise BadMountpoint(_explain(failure, path)) from failure
    if not is_empty:
        raise BadMountpoint(
            f"{_name(path)} is not empty, and what is in it would be hidden; "
            "choose another directory, or give --nonempty"
        )
    if not may_mount_on(status, os.geteuid(), is_writable=os.access(mountpoint, os.W_OK)):
        raise BadMountpoint(
            f"{_name(path)} is not yours to mount on: FUSE lets people mount only on directories "
            "that they may write to, and that are their own where the sticky bit is set"
        )


def _explain(failure: OSError, path: Path) -> str:
    name, typed = _name(path), shell_path(path)
    if failure.errno == errno.ENOENT:
        return f"there is no directory {name}; make it first: mkdir -p {typed}"
    if failure.errno in DEAD_ERRNOS:
        return (
            f"at {name} is the dead mount of another program; "
            f"remove it first: fusermount3 -u {typed}"
        )
    return f"{name} cannot be mounted on: {os.strerror(failure.errno or 0)}"


def _name(path: Path) -> str:
    return show(str(path))
