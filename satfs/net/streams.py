"""Streams below httpcore, plain and over TLS; each receive takes all bytes that have arrived.

httpcore reads 64 KiB at a time, and trio's TLS stream hands out one record (at most 16 KiB) per
call; over TLS that costs a whole core for 0.45 GB/s, most of it Python between the records. These
streams implement httpcore's public `AsyncNetworkStream` with receives of up to 1 MiB, and with
TLS over `ssl.MemoryBIO`: one large receive, then all the records that it held, in one chunk
(measured: 1.9 times on plain connections, 1.8 times on TLS; docs/decisions/0001).

httpcore requests at most 64 KiB; more is returned, since its parser takes any length.
"""

from __future__ import annotations

import math
import os
import select
import ssl
from collections.abc import Callable
from typing import Any

import httpcore
import trio

from satfs.net.tls_sessions import LONG_RECORD_BYTES, Place, TlsSessions

#: Most bytes taken from a plain connection at once. More gained nothing where it was measured.
RECEIVE_BYTES = 1024 * 1024
#: First receive of a connection: most responses of an API fit, and a buffer of 1 MiB costs a page
#: fault for each 4 KiB. A receive that fills its buffer doubles the next one.
FIRST_RECEIVE_BYTES = 64 * 1024
#: Bytes taken at once until the head of a response is complete. Of informational responses (103 and
#: the like) 1 MiB holds 50,000, and httpcore reads over all of them in one turn, at 50 us each.
HEAD_RECEIVE_BYTES = 16 * 1024
#: Most bytes before the end of a response's head, informational responses included. httpcore takes
#: a head of up to 100 KiB; servers send one or two informational responses, if any.
MAX_HEAD_BYTES = 256 * 1024
#: Bytes that are received before other tasks run, and what each receive counts at least. Most
#: responses to small ranges are received in one turn; on a fast line a body has no end.
AT_ONCE_BYTES = 128 * 1024
AT_ONCE_PER_READ_BYTES = 4 * 1024
#: Most encrypted bytes taken from a TLS connection at once, 16 records of 16 KiB.
TLS_RECEIVE_BYTES = 256 * 1024


class NotResumed(httpcore.ConnectError):
    """A handshake failed that was to resume a session; the next one is in full."""


class TcpStream(httpcore.AsyncNetworkStream):
    """A plain connection. Raises httpcore's exceptions only."""

    def __init__(
        self,
        stream: trio.SocketStream,
        *,
        port: int,
        sessions: TlsSessions,
        connect_by: float = math.inf,
    ) -> None:
        self._stream = stream
        self._port = port
        self._sessions = sessions
        self._receive_bytes = FIRST_RECEIVE_BYTES
        # The time on trio's clock by which the connection must be usable, TLS included. It does not
        # count after a first read, which is a proxy's response: the proxy has used part of it.
        self._connect_by = connect_by
        self._n_at_once = 0  # bytes since other tasks could run
        # Bytes that the head of a response may still take; None in its body.
        self._head_left: int | None = None
        self.n_received_bytes = 0
        #: Called when the beginning of a body has come, perhaps before the head can be decrypted.
        self.report_body: Callable[[], None] = ignore

    def expect_head(self) -> None:
        """Receive at most one head at a time from now on, until `expect_body`."""
        self._head_left = MAX_HEAD_BYTES

    def expect_body(self) -> None:
        """Receive as many bytes at a time as there are from now on."""
        self._head_left = None
        self._n_at_once = 0
        self._n_at_once = 0

    def read_now(self) -> bytes | None:
        """Return the bytes that have come, up to 1 MiB; empty at the end.

        None where none have come, or where other tasks should run first.
        """
        if self._n_at_once >= AT_ONCE_BYTES:
            return None
        data = self._received()
        if data is not None:
            self._n_at_once += max(len(data), AT_ONCE_PER_READ_BYTES)
        return data

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes, up to 1 MiB for any *max_bytes*; empty at the end."""
        if (data := self.read_now()) is not None:
            return data
        with limited(timeout):
            if self._n_at_once >= AT_ONCE_BYTES:
                self._n_at_once = 0
                await trio.lowlevel.checkpoint()
            while (data := self._received()) is None:
                try:
                    await trio.lowlevel.wait_readable(self._stream.socket)
                except (trio.ClosedResourceError, OSError) as failure:
                    raise httpcore.ReadError(str(failure)) from failure
                self._n_at_once = 0
            return data
        raise httpcore.ReadTimeout()

    def _received(self) -> bytes | None:
        """Return what has come; None where nothing has."""
        size = self._receive_bytes
        if self._head_left is not None:
            if self._head_left <= 0:
                raise httpcore.RemoteProtocolError("the head of the response has no end")
            size = min(size, HEAD_RECEIVE_BYTES)
        self._connect_by = math.inf
        if (number := self._stream.socket.fileno()) < 0:
            raise httpcore.ReadError("the connection was closed")
        try:
            # Not by trio's socket, which lets all other tasks run before it returns.
            data = os.read(number, size)
        except BlockingIOError:
            return None
        except OSError as failure:
            raise httpcore.ReadError(str(failure)) from failure
        self.n_received_bytes += len(data)
        if self._head_left is not None:
            self._head_left -= len(data)
            self._n_at_once = AT_ONCE_BYTES  # what comes may be a flood of heads
        elif len(data) == size:
            self._receive_bytes = min(2 * size, RECEIVE_BYTES)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*."""
        if not buffer:
            return
        if (number := self._stream.socket.fileno()) < 0:
            raise httpcore.WriteError("the connection was closed")
        try:
            n_sent = os.write(number, buffer)
        except BlockingIOError:
            n_sent = 0
        except OSError as failure:
            raise httpcore.WriteError(str(failure)) from failure
        if n_sent == len(buffer):
            return
        with limited(timeout):
            try:
                await self._stream.send_all(memoryview(buffer)[n_sent:])
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as failure:
                raise httpcore.WriteError(str(failure)) from failure
            return
        raise httpcore.WriteTimeout()

    async def aclose(self) -> None:
        """Close the socket; it is closed even if the caller is cancelled."""
        await self._stream.aclose()

    def abort(self) -> None:
        """Close the socket now, without waiting. May be called twice."""
        self._stream.socket.close()

    def has_ended(self) -> bool:
        """Return whether the other side has sent its end, or the connection broke.

        Waiting bytes are no end: servers send TLS tickets before the first request.
        """
        if (number := self._stream.socket.fileno()) < 0:
            return True
        poll = select.poll()
        poll.register(number, select.POLLRDHUP)  # POLLHUP and POLLERR always (poll(2))
        return bool(poll.poll(0))

    def has_bytes(self) -> bool:
        """Return whether bytes of the other side wait to be received."""
        if (number := self._stream.socket.fileno()) < 0:
            return False
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return the TLS stream over this one; on any failure the socket is closed."""
        place = (server_hostname or "", self._port)
        stream = TlsStream(self, ssl_context, place, self._sessions)
        left_s = self._connect_by - trio.current_time()
        try:
            with limited(left_s if timeout is None else min(timeout, left_s)):
                await stream.handshake()
                return stream
            raise httpcore.ConnectTimeout()
        except BaseException:
            self.abort()
            raise

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore needs to know of a connection; None for what is unknown."""
        sock = self._stream.socket
        if info == "socket":
            return sock
        if info == "is_readable":
            # A closed socket counts as readable: a read does not wait.
            return sock.fileno() < 0 or sock.is_readable()
        if info == "client_addr":
            return sock.getsockname()
        if info == "server_addr":
            return sock.getpeername()
        return None


class TlsStream(httpcore.AsyncNetworkStream):
    """TLS over a `TcpStream`: one large receive, then every record it held."""

    def __init__(
        self, lower: TcpStream, ssl_context: ssl.SSLContext, place: Place, sessions: TlsSessions
    ) -> None:
        self._lower = lower
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._n_encrypted_bytes = 0  # since the last request
        self._place, self._sessions = place, sessions
        self._resumed = sessions.to_resume(place)
        self._tls = ssl_context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_hostname=place[0] or None,
            session=self._resumed,
        )
        self._has_received = False

    async def handshake(self) -> None:
        """Agree with the other side; raises httpcore's `ConnectError` when that fails."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._receive()
            except ssl.SSLError as failure:
                has_responded = self._n_encrypted_bytes > 0
                if self._resumed is not None and self._sessions.failed(
                    self._place, has_responded=has_responded
                ):
                    raise NotResumed(str(failure)) from failure
                raise httpcore.ConnectError(str(failure)) from failure
            else:
                await self._flush()
                self._sessions.keep(self._place, self._tls)
                return

    def read_now(self) -> bytes | None:
        """Return the bytes that have come, up to what one receive held; empty at the end.

        None where none have come, or where other tasks should run first.
        """
        data = self._decrypted()
        if data is None and not self._outgoing.pending:
            encrypted = self._lower.read_now()
            if encrypted is not None:
                self._take(encrypted)
                data = self._decrypted()
        return data

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes, up to what one receive held; empty at the end."""
        if (data := self.read_now()) is not None:
            return data
        with limited(timeout):
            while (data := self._decrypted()) is None:
                await self._receive()
            return data
        raise httpcore.ReadTimeout()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*."""
        with limited(timeout):
            try:
                self._tls.write(buffer)
            except ssl.SSLError as failure:
                raise httpcore.WriteError(str(failure)) from failure
            self._n_encrypted_bytes = 0
            await self._flush()
            return
        raise httpcore.WriteTimeout()

    async def aclose(self) -> None:
        """Close the connection without TLS's close_notify, which HTTP framing makes unnecessary."""
        await self._lower.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: TLS inside TLS (an https proxy to an https host) is not supported."""
        raise httpcore.UnsupportedProtocol("TLS inside TLS is not supported: use an http proxy")

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore needs to know of a connection; None for what is unknown."""
        return self._tls if info == "ssl_object" else self._lower.get_extra_info(info)

    def _decrypted(self) -> bytes | None:
        """Return all bytes that are already here; None without any, and empty at the end."""
        data, is_over = self._drain()
        if not (data or is_over):
            return None
        if not self._has_received:
            self._has_received = True
            self._sessions.keep(self._place, self._tls)
        return data

    def _drain(self) -> tuple[bytes, bool]:
        """Return all bytes that are already here, and whether the other side has ended."""
        chunks: list[bytes] = []
        try:
            while chunk := self._tls.read(TLS_RECEIVE_BYTES):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            return b"".join(chunks), False
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # Many servers close without close_notify. HTTP's own framing shows whether bytes are
            # missing.
            return b"".join(chunks), True
        except ssl.SSLError as failure:
            if chunks:  # return the valid bytes; the failure comes again at the next read
                return b"".join(chunks), False
            raise httpcore.ReadError(str(failure)) from failure
        return b"".join(chunks), True

    async def _receive(self) -> None:
        if self._outgoing.pending:  # our part of a handshake, perhaps in mid body (TLS 1.2)
            await self._flush()
        self._take(await self._lower.read(TLS_RECEIVE_BYTES))

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
            before = self._n_encrypted_bytes
            self._n_encrypted_bytes = before + len(data)
            if before < LONG_RECORD_BYTES <= self._n_encrypted_bytes:
                self._lower.report_body()
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        await self._lower.write(self._outgoing.read())


class TlsAhead(httpcore.AsyncNetworkStream):
    """A connection whose TLS handshake took place before httpcore requested it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return the TLS stream, which is ready."""
        return self._stream

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()


def ignore() -> None:
    """Do nothing."""


def limited(timeout: float | None) -> trio.CancelScope:
    """Return a scope that ends after *timeout* seconds; what follows it then runs."""
    if timeout is None:
        return trio.CancelScope()
    return trio.CancelScope(deadline=trio.current_time() + timeout)
