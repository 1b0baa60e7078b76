"""The command's end of the control socket: send a request, receive its messages.

Never touches the mount itself, so that one that is stuck does not keep the command waiting: each
wait ends after `SILENCE_S`, or when the time limit of the caller is reached.
"""

from __future__ import annotations

import math
import os
import select
import shlex
import socket
import time
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
    candidates,
    error_of,
    is_trusted,
    message_of,
    peer_credentials,
    request_line,
)
from satfs.errors import BadMountpoint, Garbled
from satfs.model import Json
from satfs.mountpoints import Mounted

_PIECE_BYTES: Final = 256 * 1024


class MountSilent(BadMountpoint):
    """The process of a mount accepts a connection, and does not respond in time."""


def messages_of(
    mounted: Mounted,
    do: str,
    given: Mapping[str, Json],
    *,
    time_limit_s: float = math.inf,
    max_bytes: int = MESSAGE_BYTES,
) -> Iterator[Notice | Done]:
    """Send the request *do* with *given* to a mount; yield its notices, and in the end `Done`.

    Waits `SILENCE_S` for each message, and *time_limit_s* for all of them. A message may have
    *max_bytes*. Closing the iterator closes the connection, which cancels the request.

    Raises:
        MountSilent: the mount does not respond in time; the message has the remedy.
        BadMountpoint: no process listens for the mount, or it ended; the message has the remedy.
        SatfsError: the request failed in the mount.
    """
    deadline_s = time.monotonic() + time_limit_s
    with closing(connect(mounted)) as connection:
        try:
            connection.sendall(request_line(ControlRequest(do, given)))
            for message in _messages(connection, deadline_s, max_bytes):
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
            raise _silent(mounted) from None
        except ConnectionError:
            pass
    raise BadMountpoint(f"the mount at {mounted.mountpoint} ended before it responded")


def result_of(
    mounted: Mounted,
    do: str,
    given: Mapping[str, Json],
    *,
    time_limit_s: float = math.inf,
    max_bytes: int = MESSAGE_BYTES,
) -> Mapping[str, Json]:
    """Send a request to a mount, and return its result; raises as `messages_of` does."""
    for message in messages_of(mounted, do, given, time_limit_s=time_limit_s, max_bytes=max_bytes):
        if isinstance(message, Done):
            return message.result
    raise Garbled("the mount ended its response without a result")


def _silent(mounted: Mounted) -> MountSilent:
    return MountSilent(
        f"the mount at {mounted.mountpoint} does not answer; `satfs umount -z"
        f" {shlex.quote(str(mounted.mountpoint))}` takes it away"
    )


def _messages(connection: socket.socket, deadline_s: float, max_bytes: int) -> Iterator[Message]:
    lines = LineSplitter(max_bytes)
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(min(SILENCE_S, left_s))
        data = connection.recv(_PIECE_BYTES)
        if not data:
            return
        yield from map(message_of, lines.feed(data))


def connect(mounted: Mounted) -> socket.socket:
    """Return a connection to the mount's control socket.

    Raises:
        MountSilent: too many connections wait to be accepted (listen(2)).
        BadMountpoint: no process listens there, or the mount is another user's.
    """
    users = tuple(user for user in {os.geteuid(), mounted.user, 0} if user is not None)
    refused = False
    for path in candidates(mounted.mountpoint, users):
        if not is_trusted(path, users):
            continue
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(SILENCE_S)
        try:
            connection.connect(os.fspath(path))
        except PermissionError:
            refused = True
        except BlockingIOError:
            connection.close()
            raise _silent(mounted) from None
        except OSError:
            pass  # not there, or no process behind it
        else:
            return connection
        connection.close()
    # A closed directory of another user (root's /run/satfs) does not mean that our mount is another
    # user's.
    if refused and mounted.user != os.geteuid():
        raise BadMountpoint(
            f"the mount at {mounted.mountpoint} is another user's: run the command as that user,"
            " or with sudo"
        )
    raise BadMountpoint(
        f"the mount at {mounted.mountpoint} does not listen to commands: its process has ended, or"
        " was started with another $XDG_RUNTIME_DIR; unmount it, and mount it again"
    )


class ServingProcess:
    """The process that serves *mounted*, if it is known: look it up while it serves.

    When umount(2) has returned, the process still enters fetched blocks in its cache. A program
    that mounts again at once, removes the cache or ends a container waits for that.

    It is known by a descriptor (pidfd_open(2)), so that another process which is given its number
    is never taken for it.
    """

    def __init__(self, mounted: Mounted) -> None:
        self._descriptor: int | None = None
        #: Its process id; 0 where it is not known.
        self.pid = 0
        try:
            with connect(mounted) as connection:
                self.pid, _, _ = peer_credentials(connection)
            if self.pid > 0:  # else it is in another PID namespace
                self._descriptor = os.pidfd_open(self.pid)
        except (OSError, BadMountpoint):
            pass  # dead already, another user's, or older than the kernel's descriptors

    def wait(self, timeout_s: float) -> bool:
        """Wait at most *timeout_s*; return whether it has ended. An unknown one counts as ended."""
        if self._descriptor is None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
