"""The existing satfs mounts, and what killed ones left.

A mount is probed by a process of its own: a stuck one would keep this process, which could not even
be killed.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from satfs.control.protocol import dead_sockets, directories
from satfs.demo.scratch import abandoned
from satfs.doctor.findings import Area, Check, Finding
from satfs.doctor.machine import Machine
from satfs.errors import BadMountpoint
from satfs.kernel_tuning import READ_AHEAD_KB
from satfs.mountpoints import DEAD_ERRNOS, FS_TYPE, Mounted

#: Mounts probed at once: each stuck one takes the whole time limit of a program.
_AT_ONCE: Final = 8

READ_AHEAD = Check(Area.MOUNTS, "read-ahead")
MOUNT_HELPER = Check(Area.MOUNTS, "mount-helper")
MOUNTS = Check(Area.MOUNTS, "mounts", BadMountpoint)
LEFTOVERS = Check(Area.MOUNTS, "leftovers")


def satfs_mounts(machine: Machine) -> tuple[Mounted, ...]:
    """Return the satfs mounts of *machine*, the lowermost first."""
    return tuple(each for each in machine.mounts() if each.fs_type == FS_TYPE)


def mounts(machine: Machine) -> Iterator[Finding]:
    """Report whether each mount responds, and how the kernel reads from it."""
    found = satfs_mounts(machine)
    if not found:
        yield MOUNTS.fine("Nothing is mounted by satfs.")
    visible = {each.mountpoint: each for each in found}  # of two at one place the upper one
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        responses = list(threads.map(machine.errno_of, visible))
    for each, response in zip(visible.values(), responses, strict=True):
        yield from _one_mount(machine, each, response)


def _one_mount(machine: Machine, mounted: Mounted, response: int | None) -> Iterator[Finding]:
    place, name = mounted.mountpoint, shlex.quote(os.fspath(mounted.mountpoint))
    match response:
        case None:
            connection = f"/sys/fs/fuse/connections/{mounted.device[1]}/abort"
            yield MOUNTS.failure(
                f"{place} does not answer.",
                "Its process hangs, and so does every program that uses the mount.",
                "Detach it; if that does not help, cut its connection to the kernel:",
                f"satfs umount -z {name}",
                f"echo 1 | sudo tee {connection}",
            )
            return
        case _ if response in DEAD_ERRNOS:
            yield MOUNTS.failure(
                f"{place} is a dead mount: its process has ended.",
                "Programs get “Transport endpoint is not connected” there.",
                "Unmount it, or mount again, which unmounts it first:",
                f"satfs umount {name}",
            )
            return
        case errno.EACCES:
            owner = "?" if mounted.user is None else mounted.user
            yield MOUNTS.note(
                f"{place} belongs to the user with the id {owner}, and lets no other user in.",
                "That is so for every FUSE mount without -o allow_other, and for root, too.",
                "To let other users in, its owner mounts it with:",
                f"satfs mount -o allow_other {name}",
            )
        case 0:
            yield MOUNTS.fine(f"{place} answers ({mounted.source}).")
        case _:
            yield MOUNTS.failure(
                f"{place} answers with an error: {os.strerror(response)}.",
                "Programs get that error, too.",
                "See its log, or mount again:",
                "journalctl -t satfs",
                f"satfs umount {name}",
            )
            return
    yield from _read_ahead(machine, mounted)


def _read_ahead(machine: Machine, mounted: Mounted) -> Iterator[Finding]:
    major, minor = mounted.device
    setting = f"/sys/class/bdi/{major}:{minor}/read_ahead_kb"
    text = (machine.text(setting) or "").strip()
    if not text.isdecimal() or int(text) >= READ_AHEAD_KB:
        return
    yield READ_AHEAD.note(
        f"The kernel reads ahead {text} KiB at {mounted.mountpoint}.",
        f"Copies are faster with {READ_AHEAD_KB}, which only root may set, after each mount.",
        "If speed matters:",
        f"echo {READ_AHEAD_KB} | sudo tee {setting}",
    )


def mount_helper(machine: Machine) -> Iterator[Finding]:
    """Look whether mount(8) finds what it needs for the lines of fstab that are ours.

    Those of the type `fuse.satfs` it can do without us.
    """
    lines = [line.split() for line in (machine.text("/etc/fstab") or "").splitlines()]
    ours = [words for words in lines if words[2:3] == ["satfs"] and words[0][0] != "#"]
    if not ours:
        return
    if any(machine.at(f"{place}/mount.satfs").exists() for place in ("/sbin", "/usr/sbin")):
        yield MOUNT_HELPER.fine("mount(8) knows satfs (/sbin/mount.satfs), as /etc/fstab wants it.")
        return
    yield MOUNT_HELPER.warning(
        f"/etc/fstab mounts {ours[0][1]} with satfs, which mount(8) does not know.",
        "It reports “unknown filesystem type”, at each start of the machine as well.",
        "Let it know, once:",
        "sudo satfs service install-helper",
    )


def leftovers(machine: Machine) -> Iterator[Finding]:
    """Report files that no process uses any more."""
    temporary = machine.at(machine.environment.get("TMPDIR") or "/tmp")  # noqa: S108 - only read
    sockets, demos = _stale_sockets(machine), abandoned(temporary, machine.uid)
    if sockets:
        yield _leftover(
            f"No process listens any more at {_listed(sockets)}.", f"rm {_quoted(sockets)}"
        )
    if demos:
        yield _leftover(
            f"Demos that were killed have left {_listed(demos)}.", f"rm -r {_quoted(demos)}"
        )
    if not sockets and not demos:
        yield LEFTOVERS.fine("Nothing is left of mounts or demos that were killed.")


def _listed(paths: Sequence[Path]) -> str:
    return str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _quoted(paths: Sequence[Path]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def _leftover(statement: str, command: str) -> Finding:
    return LEFTOVERS.note(
        statement, "It is harmless, and takes up space.", "To remove it:", command
    )


def _stale_sockets(machine: Machine) -> list[Path]:
    found: list[Path] = []
    for directory in directories(machine.uid, machine.environment):
        with suppress(OSError):
            found += dead_sockets(machine.at(str(directory)))
    return found
