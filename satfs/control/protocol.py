"""The protocol of the control socket: one JSON object a line; one request, then messages.

    → {"satfs": 1, "do": "prefetch", "with": {…}}
    ← {"alive": true}             every few seconds while it runs: the command goes on waiting
    ← {"told": {…}}               progress, as the command defines it
    ← {"done": {…}}               the result, and the end
    ← {"failed": {"error": "NotThere", "message": "…"}}   or the error, and the end

Text is JSON in ASCII, so that names that are not Unicode (PEP 383) arrive unchanged.

The socket is derived from the mountpoint alone. It is in a directory of the user's own, closed to
all others, that goes when the machine is shut down: `$XDG_RUNTIME_DIR/satfs` (XDG Base Directory
Specification); without that variable `/run/satfs` for root and `/tmp/satfs-UID` for others. The
socket's name is a digest of the mountpoint, since the address of a socket is at most 107 bytes long
(unix(7)).
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from msgspec import Struct, field

from satfs import errors
from satfs.atomic_file import runtime_directories
from satfs.errors import Garbled, Misuse, SatfsError
from satfs.json_bytes import json_object, plain
from satfs.model import Json

#: Grows when older programs would misunderstand newer ones.
VERSION: Final = 1
#: Longest request, in bytes: a command line of Linux is 128 KiB by default (ARG_MAX is more).
REQUEST_BYTES: Final = 4 * 1024 * 1024
#: Longest message, in bytes: a listing of half a million records.
MESSAGE_BYTES: Final = 1024 * 1024 * 1024
#: How often a mount that works on a request sends a sign of life, in seconds.
ALIVE_S: Final = 2.0
#: Silence after which a mount is taken for stuck, in seconds.
SILENCE_S: Final = 10.0
#: sizeof(sun_path) - 1 (unix(7)).
ADDRESS_BYTES: Final = 107
#: `struct ucred`: pid, uid, gid (unix(7)).
_CREDENTIALS: Final = struct.Struct("3i")


class SupportsGetsockopt(Protocol):
    """A socket, of the standard library or of trio."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """See `socket.socket.getsockopt`."""
        ...


class ControlRequest(Struct, frozen=True):
    """A command and its parameters."""

    do: str
    given: Mapping[str, Json] = field(default_factory=dict)


class Alive(Struct, frozen=True):
    """A sign of life: the mount works on the request."""


class Notice(Struct, frozen=True):
    """Progress, as the command defines it."""

    what: Mapping[str, Json]


class Done(Struct, frozen=True):
    """The result."""

    result: Mapping[str, Json]


class Failed(Struct, frozen=True):
    """The error of a request: the name of its class (`satfs.errors`), and its message."""

    error: str
    message: str


Message: TypeAlias = Alive | Notice | Done | Failed


class LineSplitter:
    """Cuts what arrives into lines, none longer than *max_bytes*."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._n_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take in *data*; return the lines that it completes, without their ends.

        Raises:
            Garbled: a line is too long.
        """
        *ends, rest = data.split(b"\n")
        found = []
        for end in ends:
            self._take(end)
            found.append(b"".join(self._pieces))
            self._pieces, self._n_bytes = [], 0
        if rest:
            self._take(rest)
        return found

    def _take(self, piece: bytes) -> None:
        self._n_bytes += len(piece)
        if self._n_bytes > self._max_bytes:
            raise Garbled(f"a line of over {self._max_bytes} bytes came over the control socket")
        self._pieces.append(piece)


def request_line(request: ControlRequest) -> bytes:
    """Return *request* as bytes."""
    return _line({"satfs": VERSION, "do": request.do, "with": dict(request.given)})


def message_line(message: Message) -> bytes:
    """Return *message* as bytes."""
    match message:
        case Alive():
            return _line({"alive": True})
        case Notice(what):
            return _line({"told": dict(what)})
        case Done(result):
            return _line({"done": dict(result)})
        case Failed(error, text):
            return _line({"failed": {"error": error, "message": text}})


def request_of(line: bytes) -> ControlRequest:
    """Return the request in *line*.

    Raises:
        Garbled: it is not a request, or one of another version of satfs.
    """
    parsed = _object(line)
    if parsed.get("satfs") != VERSION:
        raise Garbled("the mount and this command are of different versions of satfs; mount again")
    do, given = parsed.get("do"), parsed.get("with")
    if not isinstance(do, str) or not isinstance(given, dict):
        raise Garbled("a request has a command and its parameters")
    return ControlRequest(do, given)


def message_of(line: bytes) -> Message:
    """Return the message in *line*.

    Raises:
        Garbled: it is not a message.
    """
    parsed = _object(line)
    match parsed:
        case {"done": dict(result)}:
            return Done(result)
        case {"told": dict(what)}:
            return Notice(what)
        case {"failed": {"error": str(error), "message": str(text)}}:
            return Failed(error, text)
        case {"alive": _}:
            return Alive()
    raise Garbled("the mount sent a message over its control socket that satfs does not know")


def failed(error: SatfsError) -> Failed:
    """Return *error* as a message. The message of a bug stays in the log of the mount."""
    if isinstance(error, Misuse):
        return Failed("Misuse", "a bug in satfs: the log of the mount has the traceback")
    return Failed(type(error).__name__, str(error) or type(error).__name__)


def error_of(failure: Failed) -> SatfsError:
    """Return the error of *failure*, of its own class where that is known here."""
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, SatfsError):
        return kind(failure.message)
    return Misuse(failure.message)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=plain).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any]:
    value = json_object(line)
    if value is None:
        raise Garbled("the control socket carried something else than a JSON object")
    return value


def peer_credentials(connection: SupportsGetsockopt) -> tuple[int, int, int]:
    """Return pid, uid and gid of the process at the other end (SO_PEERCRED, unix(7)). Never waits.

    The pid is 0 when that process is in another PID namespace.

    Raises:
        OSError: the connection is no Unix socket.
    """
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, group = _CREDENTIALS.unpack(packed)
    return pid, user, group


def socket_name(mountpoint: Path) -> str:
    """Return the file name of the socket of the mount at *mountpoint*, an absolute path."""
    return blake2b(os.fsencode(mountpoint), digest_size=10).hexdigest() + ".sock"


def directories(user: int, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where sockets of *user* may be, the best place first.

    *environment* is that of this process, and counts for its own user only.
    """
    last = Path("/run/satfs" if user == 0 else f"/tmp/satfs-{user}")  # noqa: S108
    return tuple(dict.fromkeys((*runtime_directories(user, environment), last)))


def socket_path(mountpoint: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Return where a mount at *mountpoint* that this process serves has its control socket.

    The same for the same environment; looks at directories, and makes none.
    """
    places = directories(os.geteuid(), os.environ if environment is None else environment)
    fitting = [place for place in places if _is_ours(place.parent) or place is places[-1]]
    path = fitting[0] / socket_name(mountpoint)
    return path if len(os.fsencode(path)) <= ADDRESS_BYTES else places[-1] / path.name


def candidates(mountpoint: Path, users: tuple[int, ...]) -> tuple[Path, ...]:
    """Return where the socket of a mount that one of *users* serves may be."""
    return tuple(
        directory / socket_name(mountpoint)
        for user in dict.fromkeys(users)
        for directory in directories(user, os.environ)
    )


def is_trusted(path: Path, users: tuple[int, ...]) -> bool:
    """Return whether only one of *users* can have put the socket at *path*."""
    try:
        found = path.parent.lstat()
    except OSError:
        return False
    is_closed = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o022
    return is_closed and found.st_uid in users


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid()


def dead_sockets(directory: Path) -> Iterator[Path]:
    """Yield the sockets in *directory* at which no process listens: killed mounts have left them.

    Raises:
        OSError: *directory* cannot be listed.
    """
    for path in sorted(directory.glob("*.sock")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                connection.connect(os.fspath(path))
            except ConnectionRefusedError:
                yield path
            except OSError:
                continue
