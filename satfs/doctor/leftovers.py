"""Files that killed mounts and demos leave behind: sockets without a listener, directories."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from satfs.control.socket_path import directories
from satfs.demo.scratch import abandoned
from satfs.doctor.findings import Area, Check, Finding
from satfs.doctor.machine import Machine

#: Time for a socket to be accepted, in seconds; the kernel does it, however busy the mount is.
_CONNECT_S: Final = 1.0

LEFTOVERS = Check(Area.MOUNTS, "leftovers")


def leftovers(machine: Machine) -> Iterator[Finding]:
    """Report files that no process uses any more."""
    sockets, demos = list(_stale_sockets(machine)), list(_stale_demos(machine))
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


def _stale_sockets(machine: Machine) -> Iterator[Path]:
    for directory in directories(machine.uid, machine.environment):
        place = machine.at(str(directory))
        try:
            paths = sorted(place.glob("*.sock"))
        except OSError:
            continue
        for path in paths:
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
                connection.settimeout(_CONNECT_S)
                try:
                    connection.connect(os.fspath(path))
                except OSError as failure:
                    if failure.errno == errno.ECONNREFUSED:
                        yield path


def _stale_demos(machine: Machine) -> Iterator[Path]:
    temporary = machine.environment.get("TMPDIR") or "/tmp"  # noqa: S108 - looked at, not written
    yield from abandoned(machine.at(temporary), machine.uid)
