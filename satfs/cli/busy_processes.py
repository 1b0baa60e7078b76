"""The processes that keep a mount busy, and the files that they use.

Looks only at names that the kernel keeps in /proc, and never at the files behind them: those may
be on the mount, and a mount that is stuck would stick us too. Of other people's processes one sees
nothing, unless one is root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True, order=True)
class BusyProcess:
    """A process that keeps a mount busy: its program's name, and what it does there."""

    pid: int
    program: str
    does: str

    def __str__(self) -> str:
        return f"{self.program} ({self.pid}) {self.does}"


_LINKS: Final = {"cwd": "is in it", "root": "has it as its root", "exe": "is run from it"}


def busy_processes(
    mountpoint: Path, *, server: int = 0, proc: Path = Path("/proc")
) -> tuple[BusyProcess, ...]:
    """Return the processes that keep *mountpoint* busy, as far as we may see, by process id.

    This one is left out, and so is *server*, the process id of the one that serves the mount: it
    holds the directory below. Never waits.
    """
    found = []
    for entry in proc.iterdir():
        if entry.name.isdecimal() and int(entry.name) not in (os.getpid(), server):
            does = next(_deeds(entry, str(mountpoint)), None)
            if does:
                found.append(BusyProcess(int(entry.name), _program(entry), does))
    return tuple(sorted(found))


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
