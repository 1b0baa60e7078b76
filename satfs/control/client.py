"""The command's end of the control socket: send a request, receive its messages.

Never touches the mount itself, so that one that is stuck does not keep the command waiting: each
wait ends after `SILENCE_S`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final

from satfs.control.protocol import (
    MESSAGE_BYTES,
    SILENCE_S,
    Alive,
    ControlRequest,
    Done,
    Failed,
    LineSplitter,
    Message,
    Notice,
    error_of,
    message_of,
    request_line,
)
from satfs.control.socket_path import candidates, is_trusted
from satfs.errors import BadMountpoint, Garbled
from satfs.model import Json
from satfs.mountpoints import Mounted

_PIECE_BYTES: Final = 256 * 1024


def ask(mounted: Mounted, do: str, given: Mapping[str, Json]) -> Iterator[Notice | Done]:
    """Ask the mount to *do* something *given* this; yield what it tells, and in the end `Done`.

    Closing the iterator hangs up, which ends what was asked for.

    Raises:
        BadMountpoint: the mount does not listen, or does not answer; says what to do.
        SatfsError: whatever came of the request.
    """
    with closing(connect(mounted)) as connection:
        try:
            connection.sendall(request_line(ControlRequest(do, given)))
            for message in _messages(connection):
                match message:
                    case Failed():
                        raise error_of(message)
                    case Notice():
                        yield message
                    case Done():
                        yield message
                        return
                    case Alive():
                        pass
        except TimeoutError:
            raise BadMountpoint(
                f"the mount at {mounted.mountpoint} does not answer; `satfs umount -z"
                f" {mounted.mountpoint}` takes it away"
            ) from None
        except ConnectionError:
            pass
    raise BadMountpoint(f"the mount at {mounted.mountpoint} ended before it had answered")


def result_of(mounted: Mounted, do: str, given: Mapping[str, Json]) -> Mapping[str, Json]:
    """Ask the mount to *do* something, and return the result; raises what `ask` raises."""
    for message in ask(mounted, do, given):
        if isinstance(message, Done):
            return message.result
    raise Garbled("the mount ended its answer without a result")


def _messages(connection: socket.socket) -> Iterator[Message]:
    lines = LineSplitter(MESSAGE_BYTES)
    while data := connection.recv(_PIECE_BYTES):
        yield from map(message_of, lines.feed(data))


def connect(mounted: Mounted) -> socket.socket:
    """Return a connection to the mount's control socket.

    Raises:
        BadMountpoint: nobody listens there, or it is another user's.
    """
    users = tuple({os.geteuid(), mounted.user, 0} - {None})
    refused = False
    for path in candidates(mounted.mountpoint, tuple(user for user in users if user is not None)):
        if not is_trusted(path, tuple(user for user in users if user is not None)):
            continue
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(SILENCE_S)
        try:
            connection.connect(os.fspath(path))
        except PermissionError:
            refused = True
        except OSError:
            pass  # not there, or nobody behind it
        else:
            return connection
        connection.close()
    # A closed directory of another user (root's /run/satfs) says nothing about a mount of ours.
    if refused and mounted.user != os.geteuid():
        raise BadMountpoint(
            f"the mount at {mounted.mountpoint} is another user's: run the command as that user,"
            " or with sudo"
        )
    raise BadMountpoint(
        f"the mount at {mounted.mountpoint} does not listen to commands: its process has died, or"
        " was started where $XDG_RUNTIME_DIR is another; unmount it, and mount it anew"
    )
