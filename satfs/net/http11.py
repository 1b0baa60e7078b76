"""One HTTP/1.1 connection to a host without a proxy; simple responses are read without a parser.

httpcore's connection reads every response with h11, which takes about a third of a millisecond for
a short range: more than the kernel takes to deliver its bytes. Here a GET whose head is simple
(`http11_heads.py`) is written as it is; if the response is simple as well, its body is passed on
as it is received. Any other request, and any other response, is httpcore's from its first byte to
its last.

The connection has one request at a time: `net/pool.py` sees to that.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, cast

import httpcore
import trio

from satfs.net.backend import Dialer
from satfs.net.http11_heads import SimpleHead, request_head, simple_head
from satfs.net.streams import TcpStream, TlsStream

#: Bytes requested from a stream at once; it returns more where more have come.
_READ_BYTES = 64 * 1024


class Http11Connection(httpcore.AsyncConnectionInterface):
    """A connection to *origin* that *dialer* opens at the first request. Raises httpcore's errors.

    Invariants:
        `_core` is None, or does all that is left to do of the last request.
    """

    def __init__(
        self, origin: httpcore.Origin, dialer: Dialer, ssl_context: ssl.SSLContext
    ) -> None:
        self._origin = origin
        self._dialer = dialer
        self._ssl_context = ssl_context
        self._stream: TcpStream | TlsStream | None = None
        self._core: httpcore.AsyncHTTP11Connection | None = None
        self._is_idle = False

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send *request*, and return its response as soon as its head is there."""
        timeouts = request.extensions.get("timeout", {})
        if self._stream is None:
            self._stream = await self._connected(timeouts.get("connect"))
        self._is_idle = False
        # A parser for each request: what came behind a response would be its next one.
        self._core = None
        if request.method == b"GET":
            head = request_head(request.url.target, request.headers)
            if head is not None:
                return await self._exchanged(self._stream, request, head, timeouts)
        self._core = httpcore.AsyncHTTP11Connection(self._origin, self._stream)
        return await self._core.handle_async_request(request)

    async def _exchanged(
        self,
        stream: TcpStream | TlsStream,
        request: httpcore.Request,
        head: bytes,
        timeouts: dict[str, Any],
    ) -> httpcore.Response:
        # A server may respond and close before it has read the request.
        with contextlib.suppress(httpcore.WriteError):
            await stream.write(head, timeouts.get("write"))
        data = await stream.read(_READ_BYTES, timeouts.get("read"))
        found = simple_head(data)
        if found is None:
            self._core = httpcore.AsyncHTTP11Connection(self._origin, _Begun(stream, data))
            return await self._core.handle_async_request(request)
        body = SizedBody(self, stream, found, timeouts.get("read"))
        return httpcore.Response(
            found.status,
            headers=found.headers,
            content=body,
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def _connected(self, timeout_s: float | None) -> TcpStream | TlsStream:
        host = self._origin.host.decode("ascii")
        stream = await self._dialer.connect_tcp(host, self._origin.port, timeout_s)
        if self._origin.scheme == b"https":
            self._ssl_context.set_alpn_protocols(["http/1.1"])
            stream = await stream.start_tls(self._ssl_context, host, timeout_s)
        return cast(TcpStream | TlsStream, stream)

    def note_complete(self, *, is_kept: bool) -> None:
        """Note that a body has come to its end. *is_kept*: another request may follow."""
        self._is_idle = is_kept

    def is_idle(self) -> bool:
        """Return whether another request may be sent."""
        return self._is_idle if self._core is None else self._core.is_idle()

    def has_expired(self) -> bool:
        """Return whether the other side has sent something, or its end, without a request."""
        if self._core is not None:
            return self._core.has_expired()
        if self._stream is None or not self._is_idle:
            return False
        return bool(self._stream.get_extra_info("is_readable"))


class SizedBody:
    """A body of which the length is known."""

    def __init__(
        self,
        connection: Http11Connection,
        stream: TcpStream | TlsStream,
        head: SimpleHead,
        timeout_s: float | None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._timeout_s = timeout_s
        self._is_kept = head.is_kept
        self._rest = head.rest
        self._n_left = head.length_bytes
        #: All of it has been returned, and the connection knows.
        self.is_complete = False
        if not self._n_left:
            self._complete(self._rest)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.is_complete:
            raise StopAsyncIteration
        if (data := self.read_now()) is not None:
            return data
        return self._taken(await self._stream.read(_READ_BYTES, self._timeout_s))

    def read_now(self) -> bytes | None:
        """Return what has come of the body; None where nothing has, and at its end."""
        if self.is_complete:
            return None
        data, self._rest = self._rest, b""
        if data:
            # What came behind it meanwhile is taken with it: each piece costs as much as its bytes.
            if len(data) < self._n_left:
                with contextlib.suppress(httpcore.NetworkError):  # the next read meets it, too
                    data += self._stream.read_now() or b""
            return self._taken(data)
        received = self._stream.read_now()
        return None if received is None else self._taken(received)

    def _taken(self, data: bytes) -> bytes:
        if not data:
            raise httpcore.RemoteProtocolError(f"closed {self._n_left} bytes before the end")
        excess = b""
        if len(data) > self._n_left:
            data, excess = data[: self._n_left], data[self._n_left :]
        self._n_left -= len(data)
        if not self._n_left:
            self._complete(excess)
        return data

    def _complete(self, excess: bytes) -> None:
        self.is_complete = True
        # Bytes behind the response belong to no request: they are not the next response.
        self._connection.note_complete(is_kept=self._is_kept and not excess)


class _Begun(httpcore.AsyncNetworkStream):
    """A stream for httpcore on which its request has been sent, and *received* has come."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, received: bytes) -> None:
        self._stream = stream
        self._received: bytes | None = received

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, then what comes."""
        if (received := self._received) is not None:
            self._received = None
            await trio.lowlevel.checkpoint()
            return received
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send *buffer*, unless it is the request that has been sent."""
        if self._received is None:
            await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """Return what the stream below knows."""
        return self._stream.get_extra_info(info)
