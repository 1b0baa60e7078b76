"""Mounts as the kernel lists them: their owners, whether a new one is possible, and unmounting.

Facts of a mount are read from /proc and /sys, never from the mount itself: a process that calls its
own mount waits for itself, and one that calls a stuck mount is stuck.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Final

from msgspec import Struct

from satfs.errors import BadCache, BadMountpoint, FuseMissing

#: The source of the mount of a demo, which may be replaced; one of a real account may not.
DEMO_SOURCE: Final = "satfs:demo"
#: The type of our mounts: `fuse.` and the subtype, as mount(8) and findmnt(8) show it.
FS_TYPE: Final = "fuse.satfs"
#: The program that mounts and unmounts FUSE filesystems for ordinary users.
FUSERMOUNT: Final = "fusermount3"
#: The errnos of a mount whose process has ended ("Transport endpoint is not connected").
DEAD_ERRNOS: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
#: Time for `fusermount3` to unmount, in seconds. It is a call into the kernel; more means a mount
#: that is stuck, which `-z` detaches.
_DETACH_TIMEOUT_S: Final = 10.0

#: Symbolic links followed in one path; the kernel follows 40 (path_resolution(7)).
_MAX_LINKS: Final = 40

#: `stat` may still be answered from what the kernel remembers; statvfs(2) never is.
_PROBE: Final = """
import os, sys
try:
    os.statvfs(sys.argv[1])
    print(0)
except OSError as failure:
    print(failure.errno)
"""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class Mounted(Struct, frozen=True):
    """One line of mountinfo. *device* is the major and minor number that `stat` shows.

    *options* are those of this mount, *super_options* those of the filesystem, where FUSE shows
    its owner and the users that it lets in (`user_id=1000`, `allow_other`).
    """

    mountpoint: Path
    fs_type: str
    source: str
    device: tuple[int, int]
    options: frozenset[str]
    super_options: frozenset[str] = frozenset()

    @property
    def user(self) -> int | None:
        """The id of the user who mounted it; None where the filesystem does not show it."""
        for option in self.super_options:
            name, _, value = option.partition("=")
            if name == "user_id" and value.isdecimal():
                return int(value)
        return None


def parse_mountinfo(text: str) -> tuple[Mounted, ...]:
    """Return the mounts in the *text* of a mountinfo file, the lowermost first (proc(5)).

    A line that cannot be understood is left out.
    """
    found = []
    for line in text.split("\n"):
        fields, dash, rest = line.partition(" - ")
        # id, parent, major:minor, root, mountpoint, options, optional fields… - type, source, …
        left, right = fields.split(" "), rest.split(" ")
        if not dash or len(left) < 6 or len(right) < 2:
            continue
        major, colon, minor = left[2].partition(":")
        if not (colon and major.isdecimal() and minor.isdecimal()):
            continue
        found.append(
            Mounted(
                Path(unescape(left[4])),
                right[0],
                unescape(right[1]),
                (int(major), int(minor)),
                frozenset(left[5].split(",")),
                frozenset(right[2].split(",")) if len(right) > 2 else frozenset(),
            )
        )
    return tuple(found)


def satfs_mounts() -> tuple[Mounted, ...]:
    """Return the satfs mounts that this process can see, the lowermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return tuple(each for each in parse_mountinfo(file.read()) if each.fs_type == FS_TYPE)


def mount_at(path: Path) -> Mounted | None:
    """Return the uppermost satfs mount at exactly *path*, if there is one, dead or alive."""
    return find_mount(absolute(path))


def find_mount(mountpoint: Path) -> Mounted | None:
    """Return what `mount_at` does for a path that is `absolute` already. Never looks at the path.

    The process that serves the mount may call this one only: its own lstat(2) waits for itself.
    """
    return next((each for each in reversed(satfs_mounts()) if each.mountpoint == mountpoint), None)


def locate(path: Path) -> tuple[Mounted, tuple[str, ...]] | None:
    """Return the satfs mount that *path* lies in, and the names that lead from its top to *path*.

    None when it lies in none. Follows symbolic links up to the mount and looks at nothing in it,
    since it may be stuck; inside, `..` leads to the directory before.
    """
    mounts = {each.mountpoint: each for each in satfs_mounts()}
    here = Path("/")
    left = deque((path if path.is_absolute() else Path.cwd() / path).parts[1:])
    n_links = 0
    while left:
        part = left.popleft()
        if part == "..":
            here = here.parent
            continue
        here = here / part
        if here in mounts:
            inner = _take_inner_names(left)
            if inner is not None:
                return mounts[here], inner
            here = here.parent
            continue
        if n_links < _MAX_LINKS and (target := _link_target(here)) is not None:
            n_links += 1
            left.extendleft(reversed(target.parts))
            here = Path("/") if target.is_absolute() else here.parent
            if target.is_absolute():
                left.popleft()
    return None


def _take_inner_names(left: deque[str]) -> tuple[str, ...] | None:
    """Take the names below a mountpoint from *left*; None when `..` leads out of it again."""
    names: list[str] = []
    while left:
        part = left.popleft()
        if part != "..":
            names.append(part)
        elif not names:
            return None
        else:
            names.pop()
    return tuple(names)


def _link_target(path: Path) -> Path | None:
    try:
        return Path(os.readlink(path))
    except OSError:  # no link, or nothing at all
        return None


def absolute(path: Path) -> Path:
    """Return *path* as the kernel names it: absolute, without symbolic links.

    Looks at the directories above it and never at *path* itself, which may be stuck, unless it is
    a symbolic link.
    """
    path = Path(os.path.abspath(path))
    try:
        if path.is_symlink():
            return Path(os.path.realpath(path))
    except OSError:  # a dead mount is no link
        pass
    # Not `Path.resolve`, which raises RuntimeError for links that lead in a circle.
    return Path(os.path.realpath(path.parent)) / path.name


def probe_command(path: Path) -> list[str]:
    """Return the command of a process that prints the errno of statvfs(2) on *path*; 0 is success.

    A process that calls a stuck mount is stuck, and not even SIGKILL ends it before the mount
    does: so the caller starts another one, and gives it up after its own time limit.
    """
    return [sys.executable, "-I", "-S", "-c", _PROBE, os.fspath(path)]


def is_dead_mount(path: Path) -> bool:
    """Return whether *path* is a mountpoint whose process has ended.

    That is what a killed FUSE process leaves: "Transport endpoint is not connected". A living mount
    answers from memory; one that is stuck keeps us waiting for its deadline.
    """
    try:
        os.statvfs(path)  # `stat` may still be answered from what the kernel remembers
    except OSError as failure:
        return failure.errno in DEAD_ERRNOS
    return False


def is_reachable(mounted: Mounted) -> bool:
    """Return whether the path of *mounted* leads to it, and its process answers.

    The kernel lists a mount that is hidden below another one as well; a container that has a
    directory of its own at /tmp shows such mounts of its host.
    """
    try:
        os.statvfs(mounted.mountpoint)  # as in `is_dead_mount`
        device = os.stat(mounted.mountpoint).st_dev
    except OSError:
        return False
    return (os.major(device), os.minor(device)) == mounted.device


def check(mountpoint: Path, cache_dir: Path) -> None:
    """Raise what has to be changed before anything can be mounted at *mountpoint* (`absolute`).

    Raises:
        BadMountpoint: no directory, or one with a dead mount on it.
        BadCache: *cache_dir* would lie inside of the mount.
    """
    if is_dead_mount(mountpoint):
        raise BadMountpoint(f"{mountpoint} holds a dead mount; unmount it first")
    if not mountpoint.is_dir():
        raise BadMountpoint(f"{mountpoint} is not a directory")
    cache_dir = absolute(cache_dir)
    if cache_dir == mountpoint or mountpoint in cache_dir.parents:
        raise BadCache(
            f"cache_dir {cache_dir} lies inside {mountpoint}: a mount that reads itself waits for"
            " ever; choose another directory"
        )


def may_mount_on(status: os.stat_result, user: int, *, is_writable: bool) -> bool:
    """Return whether *user* may mount on the directory with that *status* (fusermount3(1))."""
    is_theirs = not status.st_mode & stat.S_ISVTX or status.st_uid == user
    return user == 0 or (is_writable and is_theirs)


def detach(path: Path, *, is_lazy: bool = False) -> None:
    """Unmount the satfs mount at *path*; waits for the kernel to do so.

    A lazy one disappears at once, and is gone when its last user is.

    Raises:
        BadMountpoint: no mount is there, it is busy, or it is not ours; the message has the reason.
        FuseMissing: there is no program to unmount with.
    """
    mountpoint = absolute(path)
    program = shutil.which(FUSERMOUNT)
    if program is not None:
        command = [program, "-u", *(["-z"] if is_lazy else []), "--", str(mountpoint)]
    elif os.geteuid() == 0 and (umount := shutil.which("umount")) is not None:
        command = [umount, *(["-l"] if is_lazy else []), "--", str(mountpoint)]
    else:
        raise FuseMissing(f"{FUSERMOUNT} is not installed; on Debian it is in the package fuse3")
    try:
        done = subprocess.run(  # noqa: S603 - found in PATH, no shell
            command, capture_output=True, text=True, timeout=_DETACH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BadMountpoint(f"{mountpoint} was not unmounted in time; try it lazily") from None
    if done.returncode != 0:
        reason = done.stderr.strip() or f"{command[0]} failed with {done.returncode}"
        raise BadMountpoint(f"{mountpoint} was not unmounted: {reason}")


def unescape(text: str) -> str:
    r"""Return *text* with `\040` and its like as the characters they stand for."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)
