"""The state of mounts, over their control sockets, or by a process that can be abandoned.

A mount whose socket this process cannot reach (another satfs, another user's, one whose process
has died) is looked at through the kernel. A process that calls a stuck mount is stuck, and not even
SIGKILL ends it before the mount does. So another process reads there, and is given up after a time
limit.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from satfs.api.json_document import is_nested_deeper
from satfs.cli.hints import hint, shell_path
from satfs.control.client import MountSilent, result_of
from satfs.doctor.machine import run_bounded
from satfs.errors import BadMountpoint, SatfsError
from satfs.json_bytes import json_object
from satfs.mountpoints import DEAD_ERRNOS, Mounted, locate, satfs_mounts

T = TypeVar("T")

#: Longest wait for a mount, in seconds. It responds from memory, within milliseconds.
PATIENCE_S: Final = 3.0
#: Longest status record that is read, in bytes: those of satfs have some ten thousand. Any user may
#: mount a filesystem that claims to be satfs, and serve any bytes.
MAX_STATUS_BYTES: Final = 1024 * 1024
#: Longest log that is read, in bytes: a mount has the last lines only.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
#: Lists and objects in each other in a status record: ours has five.
_MAX_DEPTH: Final = 20
#: Mounts queried at once: each takes a thread, and some a process.
_MAX_QUERIES: Final = 32
#: Prints a file, or exits with the number of the error. A file that is too long counts as an error.
_READER: Final = """
import os, sys
try:
    file = os.open(sys.argv[1], os.O_RDONLY)
    left = int(sys.argv[2])
    while left >= 0 and (piece := os.read(file, 1 << 20)):
        os.write(1, piece)
        left -= len(piece)
except OSError as failure:
    os._exit(failure.errno if 0 < failure.errno < 256 else 255)
os._exit(255 if left < 0 else 0)
"""


class State(StrEnum):
    """The state of a mount. The values are what people and scripts read."""

    WORKS = "works"
    OFFLINE = "offline"  #: it responds, but the API or the store does not
    REFUSED = "refused"  #: it responds, but the API does not accept its credential or contract
    SILENT = "does not answer"
    DEAD = "dead"  #: its process has ended
    CLOSED = "not for you"
    MUTE = "says nothing"  #: an older satfs, for example


#: The remedy for each state, for users; `remedy_of` fills in the commands.
REMEDIES: Final[Mapping[State, str]] = {
    State.SILENT: "It may be busy or stuck. Try again later, or unmount it: {umount} -z {place}",
    State.DEAD: "Its process was killed. Unmount it: {umount} {place}",
    State.CLOSED: "Another user mounted it, and lets no other user in.",
    State.MUTE: "It was mounted by a satfs that does not report its state.",
}


def remedy_of(state: State, mountpoint: Path | str) -> str:
    """Return what to do about a mount in that *state*; commands can be pasted into any shell."""
    return REMEDIES[state].format(umount=hint("satfs umount"), place=shell_path(mountpoint))


#: The state of a mount that a reader could not read, by the number of its error.
_STATES: Final[Mapping[int, State]] = {
    **dict.fromkeys(DEAD_ERRNOS, State.DEAD),
    errno.EACCES: State.CLOSED,
    errno.EPERM: State.CLOSED,
    errno.ETIMEDOUT: State.SILENT,
}


@dataclass(frozen=True, slots=True)
class MountReport:
    """The state of one mount, and its status record, None if it returned none."""

    mounted: Mounted
    state: State
    status: Mapping[str, Any] | None = None

    @property
    def place(self) -> str:
        """Return the mountpoint as text that any encoder takes."""
        return os.fsencode(self.mounted.mountpoint).decode("utf-8", "backslashreplace")


def mounts_of_user(*, with_others: bool = False) -> list[Mounted]:
    """Return the satfs mounts of this user, or of everybody; root's are everybody's."""
    us = os.getuid()
    seen = {each.mountpoint: each for each in satfs_mounts()}  # the uppermost of those on one place
    return [each for each in seen.values() if with_others or us == 0 or each.user in (us, None)]


def mount_of(path: str) -> Mounted:
    """Return the satfs mount that holds *path*. Sends no call to the mount.

    Raises:
        BadMountpoint: no satfs mount holds it.
    """
    found = locate(Path(os.path.expanduser(path)))
    if found is None:
        raise BadMountpoint(
            f"{path} is not in a satfs mount; `satfs status --short` lists the mounts"
        )
    return found[0]


def the_mount(path: str | None) -> Mounted:
    """Return the satfs mount that holds *path*, or without *path* the only mount of this user.

    Raises:
        BadMountpoint: there is no such mount, or without *path* there are several.
    """
    if path is not None:
        return mount_of(path)
    found = mounts_of_user()
    if not found:
        raise BadMountpoint("nothing is mounted")
    if len(found) > 1:
        places = ", ".join(str(each.mountpoint) for each in found)
        raise BadMountpoint(f"there are {len(found)} mounts: name one of them ({places})")
    return found[0]


def read_log(mounted: Mounted) -> str:
    """Return the last lines of a mount's log; waits `PATIENCE_S` seconds at most.

    Raises:
        BadMountpoint: the mount does not return them; the message has the remedy.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        text = result_of(mounted, "log", {}, time_limit_s=PATIENCE_S).get("text")
    except MountSilent:
        response = None
    except SatfsError:
        response = _read_through_mount(mounted, "log", deadline_s, MAX_FILE_BYTES)
    else:
        return str(text)
    state = _STATES.get(response[0], State.MUTE) if response else State.SILENT
    if response is None or response[0] != 0:
        remedy = remedy_of(state, mounted.mountpoint)
        raise BadMountpoint(f"{mounted.mountpoint}: {state}. {remedy}")
    return response[1]


def on_each(mounts: Sequence[Mounted], query: Callable[[Mounted], T]) -> list[T]:
    """Return what *query* returns for each of *mounts*.

    Up to `_MAX_QUERIES` are queried at once, each in a thread: a mount that does not respond takes
    no time away from the others.
    """
    with ThreadPoolExecutor(max(1, min(_MAX_QUERIES, len(mounts)))) as pool:
        return list(pool.map(query, mounts))


def query_mounts(mounts: Sequence[Mounted], patience_s: float = PATIENCE_S) -> list[MountReport]:
    """Return the report of each of *mounts*; waits *patience_s* seconds for each at most."""
    return on_each(mounts, lambda each: _query(each, patience_s))


def _query(mounted: Mounted, patience_s: float) -> MountReport:
    deadline_s = time.monotonic() + patience_s
    try:
        status = result_of(
            mounted, "status", {}, time_limit_s=patience_s, max_bytes=MAX_STATUS_BYTES
        )
    except MountSilent:
        return MountReport(mounted, State.SILENT)
    except SatfsError:
        response = _read_through_mount(mounted, "status.json", deadline_s, MAX_STATUS_BYTES)
        return (
            MountReport(mounted, State.SILENT)
            if response is None
            else report_of(mounted, *response)
        )
    return _report(mounted, status)


def _read_through_mount(
    mounted: Mounted, name: str, deadline_s: float, max_bytes: int
) -> tuple[int, str] | None:
    """Return the exit code and the output of a process that reads `.satfs/NAME` in a mount.

    None if it does not end before *deadline_s*. A file of more than *max_bytes* counts as an error:
    no mount of ours has one.
    """
    file = str(mounted.mountpoint / ".satfs" / name)
    command = [sys.executable, "-I", "-S", "-c", _READER, file, str(max_bytes)]
    ran = run_bounded(command, deadline_s - time.monotonic())
    return None if ran is None else (ran.code, ran.output)


def report_of(mounted: Mounted, code: int, output: str) -> MountReport:
    """Return what the exit code and the output of a reader of `status.json` mean. Pure."""
    if code != 0:
        return MountReport(mounted, _STATES.get(code, State.MUTE))
    return _report(mounted, json_object(output))


def _report(mounted: Mounted, status: Mapping[str, Any] | None) -> MountReport:
    if status is None or is_nested_deeper(status, _MAX_DEPTH):
        return MountReport(mounted, State.MUTE)
    return MountReport(mounted, _state_of(status), status)


def _state_of(status: Mapping[str, Any]) -> State:
    credential = status.get("credential")
    if isinstance(credential, dict) and credential.get("refused"):
        return State.REFUSED
    return State.OFFLINE if status.get("is_online") is False else State.WORKS
