"""`satfs umount`: unmount, or report which processes keep the mount busy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from satfs.cli.flags import complete_mountpoints, verbosity_flags
from satfs.cli.hints import hint, shell_path
from satfs.cli.output import print_remark, show
from satfs.control.client import ServingProcess
from satfs.errors import BadMountpoint
from satfs.mountpoints import absolute, detach, mount_at, satfs_mounts

#: Processes that keep a mount busy and are shown by name; of more, the number is shown.
_HOLDERS_SHOWN = 5
#: Links of a process in /proc, and what one into a mount means.
_LINKS: Final = {"cwd": "is in it", "root": "has it as its root", "exe": "is run from it"}
#: Seconds to wait before each further try when no process is seen that keeps the mount busy: one
#: that looks at all mounts, such as df(1) or a thumbnailer, holds it for a moment.
_PAUSES_S: Final = (0.1, 0.2, 0.4)
#: Longest wait for the mount's process, in seconds: it returns from the calls that wait, and waits
#: up to five seconds for the disk to take the fetched blocks.
_ENDING_S = 10.0


@click.command(
    epilog="""\b
Examples:
  satfs umount ~/aleph
  satfs umount -z ~/aleph                although a program is still reading
"""
)
@click.argument(
    "mountpoints",
    metavar="MOUNTPOINT...",
    nargs=-1,
    required=True,
    shell_complete=complete_mountpoints,
)
@click.option(
    "-z",
    "--lazy",
    is_flag=True,
    help="Detach now; it ends when the last program has closed its files.",
)
@verbosity_flags
def umount(mountpoints: tuple[str, ...], lazy: bool) -> None:
    """Unmount the satfs mount at MOUNTPOINT, and wait until its process has ended.

    A mount whose process has died is removed, too. Other filesystems are not touched.
    """
    for mountpoint in mountpoints:
        unmount(Path(mountpoint), is_lazy=lazy)


def unmount(path: Path, *, is_lazy: bool) -> None:
    """Unmount the satfs mount at *path*, and wait for its process to end.

    Raises:
        BadMountpoint: there is no mount, or processes keep it busy; the message names them.
        FuseMissing: there is no program to unmount with.
    """
    mounted = mount_at(path)
    if mounted is None:
        ours = ", ".join(show(str(each.mountpoint)) for each in satfs_mounts())
        elsewhere = f"; it is at {ours}" if ours else ""
        raise BadMountpoint(f"satfs is not mounted at {show(str(path))}{elsewhere}")
    with closing(ServingProcess(mounted)) as process:
        _detach(path, process, is_lazy=is_lazy)
        # Detached lazily, it goes on serving programs with open files.
        if not is_lazy and not process.wait(_ENDING_S):
            print_remark(
                f"{show(str(path))} is unmounted, but its process has not ended yet: what it has"
                " fetched is still being written to the cache."
            )


def _detach(path: Path, process: ServingProcess, *, is_lazy: bool) -> None:
    pauses_s = iter(_PAUSES_S)
    while True:
        try:
            detach(path, is_lazy=is_lazy)
        except BadMountpoint as refusal:
            if holders := busy_processes(absolute(path), server=process.pid):
                raise _is_busy(path, holders) from refusal
            if (pause_s := next(pauses_s, None)) is None:
                raise
            time.sleep(pause_s)
        else:
            return


def _is_busy(path: Path, holders: list[str]) -> BadMountpoint:
    more = len(holders) - _HOLDERS_SHOWN
    shown = ", ".join(holders[:_HOLDERS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return BadMountpoint(
        f"{show(str(path))} is busy: {shown}. Close these files, or detach it: "
        f"{hint('satfs umount -z')} {shell_path(path)}"
    )


def busy_processes(mountpoint: Path, *, server: int = 0, proc: Path = Path("/proc")) -> list[str]:
    """Return what the processes do that keep *mountpoint* busy, as far as we may see, by their ids.

    This one is left out, and so is *server*, the process id of the one that serves the mount: it
    holds the directory below.

    Looks only at names that the kernel keeps in /proc, and never at the files behind them: those
    may be on the mount, and a mount that is stuck would stick this process too.
    """
    entries = {int(entry.name): entry for entry in proc.iterdir() if entry.name.isdecimal()}
    others = sorted(entries.keys() - {os.getpid(), server})
    deeds = ((pid, next(_deeds(entries[pid], str(mountpoint)), None)) for pid in others)
    return [f"{_program(entries[pid])} ({pid}) {deed}" for pid, deed in deeds if deed]


def _deeds(process: Path, mountpoint: str) -> Iterator[str]:
    for name, does in _LINKS.items():
        if _is_within(_target(process / name), mountpoint):
            yield does
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # ended, or not ours to look at
        return
    for descriptor in descriptors:
        target = _target(descriptor)
        if _is_within(target, mountpoint):
            yield f"has {target} open"
    try:
        lines = (process / "maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:  # address, mode, offset, device, inode, path (proc(5))
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _is_within(fields[5], mountpoint):
            yield f"has {fields[5]} mapped"


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _is_within(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "a process"
