"""The state of mounts, asked by a process that can be abandoned if a mount hangs.

A program that asks a stuck mount gets stuck with it, and not even SIGKILL ends it before the mount
does. So another process asks each, all at once, and whoever has not answered in time is given up:
its asker is told to end, and not waited for.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from satfs.errors import BadMountpoint
from satfs.mountpoints import Mounted, locate, satfs_mounts

#: Longest wait for a mount, in seconds. It answers from memory, within milliseconds.
PATIENCE_S: Final = 3.0
#: Longest status record that is read, in bytes: those of satfs have some ten thousand. Any user may
#: mount a filesystem that claims to be satfs, and put there whatever they like.
MAX_STATUS_BYTES: Final = 1024 * 1024
#: Longest other file of `.satfs` that is read, in bytes: the log keeps its last lines only.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
#: Lists and objects in each other in a status record: ours has five.
_MAX_DEPTH: Final = 20
#: Mounts asked at once: each takes a process.
_MAX_ASKERS: Final = 32
_PIECE_BYTES: Final = 256 * 1024
#: How long an asker that was ended is waited for, in seconds.
_ENDING_S: Final = 0.05
#: What an asker exits with when there is no number of an error.
_FAILED: Final = 255
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
class MountReport:
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
    (answer,) = _answers([_ask(mounted.mountpoint, name)], patience_s, MAX_FILE_BYTES)
    said, state = b"", State.SILENT
    if answer is not None:
        code, said = answer
        state = State.WORKS if code == 0 else _STATES.get(code, State.MUTE)
    if state is not State.WORKS:
        remedy = REMEDIES[state].format(place=mounted.mountpoint)
        raise BadMountpoint(f"{mounted.mountpoint}: {state}. {remedy}")
    return said.decode("utf-8", "replace")


def query_mounts(mounts: Sequence[Mounted], patience_s: float = PATIENCE_S) -> list[MountReport]:
    """Ask *mounts*, some at once; each has *patience_s* seconds of its own, counted from its turn.

    One that does not answer takes no time away from the others. With up to `_MAX_ASKERS` mounts
    this waits *patience_s* seconds at the most.
    """
    heard = []
    for start in range(0, len(mounts), _MAX_ASKERS):
        turn = mounts[start : start + _MAX_ASKERS]
        askers = [_ask(each.mountpoint) for each in turn]
        for mounted, answer in zip(
            turn, _answers(askers, patience_s, MAX_STATUS_BYTES), strict=True
        ):
            heard.append(
                MountReport(mounted, State.SILENT)
                if answer is None
                else report_of(mounted, *answer)
            )
    return heard


def _answers(
    askers: Sequence[subprocess.Popen[bytes]], patience_s: float, max_bytes: int
) -> list[tuple[int, bytes] | None]:
    """Return exit code and output of each asker, None for one that did not end in time.

    All are read at once. One that prints more than *max_bytes* is ended, and counts as one that
    failed: no mount of ours has that much to tell.
    """
    deadline_s = time.monotonic() + patience_s
    said = [bytearray() for _ in askers]
    is_too_long = [False for _ in askers]
    with selectors.DefaultSelector() as selector:
        for number, asker in enumerate(askers):
            assert asker.stdout is not None  # noqa: S101 - it was made with a pipe
            selector.register(asker.stdout, selectors.EVENT_READ, number)
        while selector.get_map() and (left_s := deadline_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                piece = os.read(key.fd, _PIECE_BYTES)
                said[key.data] += piece
                is_too_long[key.data] = len(said[key.data]) > max_bytes
                if not piece or is_too_long[key.data]:
                    selector.unregister(key.fileobj)
        silent = {key.data for key in selector.get_map().values()}
    answers: list[tuple[int, bytes] | None] = []
    for number, asker in enumerate(askers):
        if number in silent or is_too_long[number]:
            asker.kill()
            with suppress(subprocess.TimeoutExpired):
                asker.wait(_ENDING_S)  # one that is stuck in a mount ends when the mount does
            answers.append(None if number in silent else (_FAILED, b""))
        else:
            answers.append((asker.wait(), bytes(said[number])))
        assert asker.stdout is not None  # noqa: S101 - as above
        asker.stdout.close()
    return answers


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


def report_of(mounted: Mounted, code: int, said: bytes) -> MountReport:
    """Return what it means that the asker ended with *code*, having heard *said*. Pure."""
    if code != 0:
        return MountReport(mounted, _STATES.get(code, State.MUTE))
    try:
        status = json.loads(said)
    except (ValueError, RecursionError):
        return MountReport(mounted, State.MUTE)
    if not isinstance(status, dict) or not _is_shallow(status):
        return MountReport(mounted, State.MUTE)
    return MountReport(mounted, _state_of(status), status)


def _is_shallow(value: object) -> bool:
    """Tell whether *value* is nested no deeper than a status record may be."""
    layer = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for each in layer:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        layer = inner
    return not layer


def _state_of(status: Mapping[str, Any]) -> State:
    credential = status.get("credential")
    if isinstance(credential, dict) and credential.get("refused"):
        return State.REFUSED
    return State.OFFLINE if status.get("is_online") is False else State.WORKS
