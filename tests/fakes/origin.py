"""An HTTP/1.1 server on loopback, over plain TCP or TLS, that misbehaves by path.

/ramp/N         N bytes, (k mod 251) at k, with Content-Length
/chunked/N      the same in chunks
/unframed/N     the same until the connection ends
/cut/N/M        announces N bytes, sends M and closes
/reset/N/M      announces N bytes, sends M and resets
/stall/N/M      announces N bytes, sends M and nothing more
/silent         accepts the request and says nothing
/goodbye        responds that the connection stays, and closes it
/close          responds with Connection: close
/echo           the request's head as the body
/garbage        something that is no HTTP
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

_CHUNK = 1024 * 1024


def ramp(start: int, stop: int) -> bytes:
    """Return bytes [start, stop) of the endless ramp: a wrong slice has wrong values."""
    period = bytes(range(251))
    first = start % 251
    n_periods = (stop - start + first) // 251 + 1
    return (period * n_periods)[first : first + stop - start]


@dataclass
class Origin:
    """A running server: where it is, and what it has seen."""

    scheme: str
    port: int
    n_connections: int = 0
    n_open: int = 0
    #: Connections beyond so many are accepted and closed; None lets all through.
    n_let_through: int | None = None
    n_refused: int = 0
    #: Responses that a connection gets; it is kept open and silent from then on.
    n_responses: float = float("inf")
    heads: list[bytes] = field(default_factory=list)
    #: On which connection each request came, counted from 1.
    used: list[int] = field(default_factory=list)
    streams: set[trio.abc.Stream] = field(default_factory=set)
    accepting: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def close_all(self) -> None:
        """Close every connection, and return when both ends have noticed."""
        for stream in list(self.streams):
            await trio.aclose_forcefully(stream)
        with trio.fail_after(10):
            while self.n_open:  # noqa: ASYNC110 - real sockets, real time
                await trio.sleep(0.001)

    async def stop_listening(self) -> None:
        """Refuse connections from now on."""
        self.accepting.cancel()
        await trio.testing.wait_all_tasks_blocked()

    def url(self, path: str) -> str:
        """Return the address of *path*."""
        return f"{self.scheme}://localhost:{self.port}{path}"


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    """Run a server for as long as the block lasts."""
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = plain[0].socket.getsockname()[1]
    if tls is None:
        listeners.extend(plain)
    else:
        listeners.extend(
            trio.SSLListener(listener, tls, https_compatible=True) for listener in plain
        )
    origin = Origin("http" if tls is None else "https", port)

    async def handle(stream: trio.abc.Stream) -> None:
        await _serve(origin, stream)

    async def accept(*, task_status: trio.TaskStatus[Any]) -> None:
        with origin.accepting:
            await trio.serve_listeners(
                handle, listeners, handler_nursery=nursery, task_status=task_status
            )

    async with trio.open_nursery() as nursery:
        await nursery.start(accept)
        yield origin
        nursery.cancel_scope.cancel()


async def _serve(origin: Origin, stream: trio.abc.Stream) -> None:
    if origin.n_let_through is not None and origin.n_open >= origin.n_let_through:
        origin.n_refused += 1
        await trio.aclose_forcefully(stream)
        return
    origin.n_connections += 1
    number = origin.n_connections
    origin.n_open += 1
    origin.streams.add(stream)
    received = b""
    try:
        while True:
            while b"\r\n\r\n" not in received:
                data = await stream.receive_some()
                if not data:
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            origin.heads.append(head)
            origin.used.append(number)
            if origin.used.count(number) > origin.n_responses:
                await _wait_for_the_end(stream)
                return
            if not await _answer(stream, head):
                return
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
    finally:
        origin.n_open -= 1
        origin.streams.discard(stream)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await trio.aclose_forcefully(stream)


async def _answer(stream: trio.abc.Stream, head: bytes) -> bool:
    """Answer one request; return whether the connection goes on."""
    target = head.split(b" ")[1].decode().partition("?")[0]
    path = target.partition("://")[2].partition("/")[2] if "://" in target else target[1:]
    match path.split("/"):
        case ["ramp", n]:
            await _send_head(stream, f"Content-Length: {n}")
            await _send_ramp(stream, int(n))
        case ["chunked", n]:
            await _send_head(stream, "Transfer-Encoding: chunked")
            for start in range(0, int(n), 10_000):
                piece = ramp(start, min(start + 10_000, int(n)))
                await stream.send_all(b"%x\r\n%s\r\n" % (len(piece), piece))
            await stream.send_all(b"0\r\n\r\n")
        case ["unframed", n]:
            await _send_head(stream, "Connection: close")
            await _send_ramp(stream, int(n))
            return False
        case ["cut", n, m]:
            await _send_head(stream, f"Content-Length: {n}")
            await _send_ramp(stream, int(m))
            return False
        case ["reset", n, m]:
            await _send_head(stream, f"Content-Length: {n}")
            await _send_ramp(stream, int(m))
            await trio.sleep(0.05)
            _reset(stream)
            return False
        case ["stall", n, m]:
            await _send_head(stream, f"Content-Length: {n}")
            await _send_ramp(stream, int(m))
            return await _wait_for_the_end(stream)
        case ["silent"]:
            return await _wait_for_the_end(stream)
        case ["goodbye"]:
            await _send_head(stream, "Content-Length: 0")
            return False
        case ["close"]:
            await _send_head(stream, "Content-Length: 0\r\nConnection: close")
            return False
        case ["echo"]:
            await _send_head(stream, f"Content-Length: {len(head)}")
            await stream.send_all(head)
        case ["garbage"]:
            await stream.send_all(b"what do you want?\r\n\r\n")
            return False
        case _:
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    return True


async def _wait_for_the_end(stream: trio.abc.Stream) -> bool:
    """Say nothing until the other side leaves."""
    while await stream.receive_some():
        pass
    return False


async def _send_head(stream: trio.abc.Stream, headers: str) -> None:
    await stream.send_all(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())


async def _send_ramp(stream: trio.abc.Stream, n_bytes: int) -> None:
    for start in range(0, n_bytes, _CHUNK):
        await stream.send_all(ramp(start, min(start + _CHUNK, n_bytes)))


def _reset(stream: trio.abc.Stream) -> None:
    """Make the close that follows a reset."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
