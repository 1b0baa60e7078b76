"""The mount's end of the control socket: one request a connection.

Only requests of the user who serves the mount, and of root, are accepted: the socket is in a
directory that is closed to others, has mode 0600, and the kernel names the user of the other
process (SO_PEERCRED, unix(7)). A client that closes its connection cancels its request.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import trio

from satfs.atomic_file import make_own_directory
from satfs.control.protocol import (
    ALIVE_S,
    REQUEST_BYTES,
    Alive,
    ControlRequest,
    Done,
    LineSplitter,
    Message,
    Notice,
    dead_sockets,
    failed,
    message_line,
    peer_credentials,
    request_of,
)
from satfs.errors import Garbled, Misuse, NotAllowed, SatfsError, Throttled
from satfs.model import Json

log = structlog.get_logger(__name__)

#: The parameters of a request, and the result of a command.
Given: TypeAlias = Mapping[str, Json]
Result: TypeAlias = dict[str, Json]
#: Sends a notice of progress to the client; waits until it is sent.
SendNotice: TypeAlias = Callable[[Mapping[str, Json]], Awaitable[None]]
#: Carries out a request with its parameters.
Command: TypeAlias = Callable[[Given, SendNotice], Awaitable[Mapping[str, Json]]]

#: Longest wait for a request after the connection is made, in seconds: programs send it at once.
_REQUEST_S: Final = 10.0
#: Longest wait for a client to take a message, in seconds. One that was stopped (Ctrl-Z) for longer
#: sends its request again; what was fetched for it is held.
_SENDING_S: Final = 60.0
#: Connections at once. Each is a command that a person has started.
_MAX_CONNECTIONS: Final = 32
_BACKLOG: Final = 16
#: How often is looked whether the socket is still there, in seconds.
_LOOK_S: Final = 15.0


async def serve_control(
    path: Path,
    commands: Mapping[str, Command],
    *,
    task_status: trio.TaskStatus[Path | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *commands* at *path* until cancelled.

    Started with the path, or None when there can be no socket now: a mount works without one, and
    the log has the reason. A file at *path* counts as a dead mount's, and is removed. A socket that
    is removed is made again as soon as that is possible: the runtime directory of a user is removed
    at the end of the session and made at the next one, while mounts stay.
    """
    handler = _RequestHandler(commands)
    is_reported = False
    async with trio.open_nursery() as conversations:
        while True:
            try:
                sock, inode = await trio.to_thread.run_sync(_listen, path)
            except OSError as failure:
                if not is_reported:
                    reason = failure.strerror or str(failure)
                    log.warning("no control socket", path=str(path), reason=reason)
                    task_status.started(None)
            else:
                if not is_reported:
                    task_status.started(path)
                try:
                    await _serve_while_there(path, inode, sock, handler, conversations)
                except* OSError as group:  # no more memory, or another error of accept(2)
                    log.warning("control socket broken", path=str(path), reason=str(group))
            is_reported = True
            await trio.sleep(_LOOK_S)
            while _inode(path) is not None:  # noqa: ASYNC110 - the disk has no events for us
                await trio.sleep(_LOOK_S)  # a mount that came after us has its own there


async def _serve_while_there(
    path: Path,
    inode: int,
    sock: socket.socket,
    handler: _RequestHandler,
    conversations: trio.Nursery,
) -> None:
    """Serve at *path* for as long as the socket is there."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    trio.serve_listeners,
                    handler.converse,
                    [listener],
                    handler_nursery=conversations,
                )
            )
            while _inode(path) == inode:  # noqa: ASYNC110 - as above
                await trio.sleep(_LOOK_S)
            nursery.cancel_scope.cancel()
    finally:
        _remove(path, inode)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _listen(path: Path) -> tuple[socket.socket, int]:
    """Return a socket that listens at *path*, and the inode it has there. Waits for the disk."""
    make_own_directory(path.parent)
    for dead in dead_sockets(path.parent):
        with contextlib.suppress(OSError):
            dead.unlink()
    # Under the name that is looked for only once this process listens: it is never a dead one.
    draft = path.with_name(f"{path.stem[:8]}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(draft))
        draft.chmod(0o600)
        sock.listen(_BACKLOG)
        inode = draft.lstat().st_ino
        draft.replace(path)
        return sock, inode
    except BaseException:
        sock.close()
        draft.unlink(missing_ok=True)
        raise


def _remove(path: Path, inode: int) -> None:
    """Remove the socket at *path*, unless it is that of a mount that came after us."""
    if _inode(path) == inode:
        with contextlib.suppress(OSError):
            path.unlink()


class _RequestHandler:
    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._n_connections = 0

    async def converse(self, stream: trio.SocketStream) -> None:
        """Serve the one request of a connection. Raises nothing: other connections go on."""
        self._n_connections += 1
        try:
            async with stream:
                await self._respond(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            log.debug("control connection ended early")
        except Exception:
            log.exception("control connection broken by a bug in satfs")
        finally:
            self._n_connections -= 1

    async def _respond(self, stream: trio.SocketStream) -> None:
        line = _Line(stream)
        try:
            # Read in any case: unread bytes at the close would discard our response (unix(7)).
            request = await _read_request(stream)
            if request is None:
                return
            _, user, _ = peer_credentials(stream.socket)
            if user not in (0, os.geteuid()):
                raise NotAllowed("this mount is another user's")
            if self._n_connections > _MAX_CONNECTIONS:
                raise Throttled("too many commands at once; try again when some have ended")
            command = self._commands.get(request.do)
            if command is None:
                raise Garbled(
                    f"this mount has no command {request.do!r}: its satfs is another version"
                )
        except SatfsError as refusal:
            await line.send(failed(refusal))
            return
        await _carry_out(stream, line, request, command)


async def _carry_out(
    stream: trio.SocketStream, line: _Line, request: ControlRequest, command: Command
) -> None:
    log.info("control request", do=request.do)

    async def send(what: Mapping[str, Json]) -> None:
        await line.send(Notice(what))

    outcome: Message | None = None
    with trio.CancelScope() as scope:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_alive, line)
                nursery.start_soon(_cancel_on_close, stream, scope)
                outcome = Done(await command(request.given, send))
                nursery.cancel_scope.cancel()
        except* SatfsError as group:
            outcome = failed(_first(group))
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            outcome = None
        except* Exception as group:
            # No failure of a command may end the mount.
            log.exception("control request failed by a bug in satfs", do=request.do)
            outcome = failed(Misuse(str(group)))
    if outcome is not None:
        await line.send(outcome)


def _first(group: BaseExceptionGroup[SatfsError]) -> SatfsError:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, SatfsError)  # noqa: S101 - what `except*` has sorted out
    return first


class _Line:
    """Sends one message after the other, each within its time limit."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()

    async def send(self, message: Message) -> None:
        async with self._lock:
            with trio.fail_after(_SENDING_S):
                await self._stream.send_all(message_line(message))


async def _send_alive(line: _Line) -> None:
    while True:
        await line.send(Alive())
        await trio.sleep(ALIVE_S)


async def _cancel_on_close(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    # A client sends nothing more: what comes is the end of the connection, or nonsense.
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.receive_some(1)
    scope.cancel()


async def _read_request(stream: trio.SocketStream) -> ControlRequest | None:
    """Return the request; None when the client sent none and closed the connection."""
    lines = LineSplitter(REQUEST_BYTES)
    with trio.move_on_after(_REQUEST_S):
        while data := await stream.receive_some():
            for line in lines.feed(bytes(data)):
                return request_of(line)
        return None
    raise Garbled("no request came over the control socket in time")
