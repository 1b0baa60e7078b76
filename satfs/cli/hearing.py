"""What mounts say about themselves, heard by a process that may be left behind.

A program that asks a stuck mount gets stuck with it, and not even SIGKILL ends it before the mount
does. So another process asks each, all at once, and whoever has not answered in time is given up:
its asker is told to end, and not waited for.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from satfs.errors import BadMountpoint
from satfs.mountpoints import Mounted, locate, satfs_mounts

#: Longest wait for a mount, in seconds. It answers from memory, within milliseconds.
PATIENCE_S: Final = 3.0
#: Prints a file, or exits with the number of the error.
_ASKER: Final = """
import os, sys
try:
    file = os.open(sys.argv[1], os.O_RDONLY)
    while piece := os.read(file, 1 << 20):
        os.write(1, piece)
except OSError as failure:
    os._exit(failure.errno if 0 < failure.errno < 256 else 255)
os._exit(0)
"""


class State(StrEnum):
    """How a mount is found."""

    WORKS = "works"
    OFFLINE = "offline"  #: it answers, but somebody does not answer it
    REFUSED = "refused"  #: it answers, but the API does not accept its credential or contract
    SILENT = "does not answer"
    DEAD = "dead"  #: its process is gone
    CLOSED = "not for you"
    MUTE = "says nothing"  #: an older satfs, say


#: What to do about each state, for people.
REMEDIES: Final[Mapping[State, str]] = {
    State.SILENT: "It may be busy or stuck. Ask again; else take it away: satfs umount -z {place}",
    State.DEAD: "Its process was killed. Take it away: satfs umount {place}",
    State.CLOSED: "Another user mounted it, and lets nobody else in.",
    State.MUTE: "It was mounted by a satfs that does not tell.",
}

#: What it means that an asker ended with the number of an error.
_STATES: Final[Mapping[int, State]] = {
    errno.ENOTCONN: State.DEAD,
    errno.ECONNABORTED: State.DEAD,
    errno.EACCES: State.CLOSED,
    errno.EPERM: State.CLOSED,
    errno.ETIMEDOUT: State.SILENT,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """What one mount said: its status record, unless it did not say any."""

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


def mount_of(path: Path) -> Mounted:
    """Return the satfs mount that *path* lies in. Looks at nothing in it.

    Raises:
        BadMountpoint: it lies in none.
    """
    found = locate(path)
    if found is None:
        raise BadMountpoint(f"{path} is not in a satfs mount; `satfs list` shows those there are")
    return found[0]


def the_mount(path: str | None) -> Mounted:
    """Return the satfs mount that *path* lies in, or without one the only mount of this user.

    Raises:
        BadMountpoint: there is none, or without *path* there are several.
    """
    if path is not None:
        return mount_of(Path(path).expanduser())
    found = mounts_of_user()
    if not found:
        raise BadMountpoint("nothing is mounted")
    if len(found) > 1:
        places = ", ".join(str(each.mountpoint) for each in found)
        raise BadMountpoint(f"there are {len(found)} mounts: say which one ({places})")
    return found[0]


def read_own(mounted: Mounted, name: str, patience_s: float = PATIENCE_S) -> str:
    """Return the text of `.satfs/NAME` in a mount; waits *patience_s* seconds at the most.

    Raises:
        BadMountpoint: it cannot be had; says what to do.
    """
    asker = _ask(mounted.mountpoint, name)
    said, state = b"", State.SILENT
    try:
        said, _ = asker.communicate(timeout=patience_s)
        state = State.WORKS if asker.returncode == 0 else _STATES.get(asker.returncode, State.MUTE)
    except subprocess.TimeoutExpired:
        asker.kill()  # and no wait: it ends when the mount does
    if state is not State.WORKS:
        remedy = REMEDIES[state].format(place=mounted.mountpoint)
        raise BadMountpoint(f"{mounted.mountpoint}: {state}. {remedy}")
    return said.decode("utf-8", "replace")


def hear(mounts: Sequence[Mounted], patience_s: float = PATIENCE_S) -> list[Heard]:
    """Ask *mounts*, all at once; waits *patience_s* seconds at the most."""
    deadline_s = time.monotonic() + patience_s
    askers = [_ask(each.mountpoint) for each in mounts]
    return [
        _hear(mounted, asker, max(0.0, deadline_s - time.monotonic()))
        for mounted, asker in zip(mounts, askers, strict=True)
    ]


def _ask(mountpoint: Path, name: str = "status.json") -> subprocess.Popen[bytes]:
    file = str(mountpoint / ".satfs" / name)
    command = [sys.executable, "-I", "-S", "-c", _ASKER, file]
    return subprocess.Popen(  # noqa: S603 - our own words
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us
    )


def _hear(mounted: Mounted, asker: subprocess.Popen[bytes], timeout_s: float) -> Heard:
    try:
        said, _ = asker.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        asker.kill()  # and no wait: it ends when the mount does
        return Heard(mounted, State.SILENT)
    return heard_of(mounted, asker.returncode, said)


def heard_of(mounted: Mounted, code: int, said: bytes) -> Heard:
    """Return what it means that the asker ended with *code*, having heard *said*. Pure."""
    if code != 0:
        return Heard(mounted, _STATES.get(code, State.MUTE))
    try:
        status = json.loads(said)
    except ValueError:
        return Heard(mounted, State.MUTE)
    if not isinstance(status, dict):
        return Heard(mounted, State.MUTE)
    return Heard(mounted, _state_of(status), status)


def _state_of(status: Mapping[str, Any]) -> State:
    credential = status.get("credential")
    if isinstance(credential, dict) and credential.get("refused"):
        return State.REFUSED
    return State.OFFLINE if status.get("is_online") is False else State.WORKS
