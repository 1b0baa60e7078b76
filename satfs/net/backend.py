"""Opens connections for httpcore, and closes them all at once.

A `Dialer` implements httpcore's public `AsyncNetworkBackend`. It remembers each socket that it
opened and closes them all at once without waiting (`abort`), so that no socket is left, at whatever
point a request was cancelled.
"""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import trio

from satfs.net.connecting import CheckPeer, first_connected, resolved_addresses
from satfs.net.happy_eyeballs import SlowAddresses
from satfs.net.socket_options import set_options
from satfs.net.streams import TcpStream, TlsAhead, ignore, limited
from satfs.net.tls_sessions import TlsSessions


def ignore_peer(peer: str) -> None:
    """Do nothing about a peer."""


class Dialer(httpcore.AsyncNetworkBackend):
    """Opens connections, and closes all that it ever opened at `abort`.

    *check_peer* is called with a host and each of its addresses before a connection to the address
    is opened, and raises for an address that must not be connected to. *slow* are addresses that
    are tried last, *sessions* the TLS sessions of the context; both are shared with other dialers.
    *on_peer* is called with the address and port that were connected to.
    """

    def __init__(
        self,
        check_peer: CheckPeer | None = None,
        slow: SlowAddresses | None = None,
        sessions: TlsSessions | None = None,
        on_peer: Callable[[str], None] = ignore_peer,
    ) -> None:
        self._on_peer = on_peer
        self._check_peer = check_peer
        self._slow = SlowAddresses() if slow is None else slow
        self._sessions = TlsSessions() if sessions is None else sessions
        self._opened: list[TcpStream] = []
        self._ahead: httpcore.AsyncNetworkStream | None = None
        self._report_body: Callable[[], None] = ignore
        self._attempted_s = -math.inf  # when an address was tried last

    def expect_head(self) -> None:
        """Note that a response's head comes next; see `HEAD_RECEIVE_BYTES`."""
        for stream in self._opened:
            stream.expect_head()

    def on_body(self, report: Callable[[], None]) -> None:
        """Call *report* when the beginning of the next response's body has come over TLS.

        That shows a round trip earlier than the head, which is encrypted together with it.
        """
        self._report_body = report
        for stream in self._opened:
            stream.report_body = report

    def expect_body(self) -> None:
        """Note that the head of a response is complete."""
        for stream in self._opened:
            stream.expect_body()

    def abort(self) -> None:
        """Close every socket that was opened here, without waiting."""
        while self._opened:
            self._opened.pop().abort()

    async def connect_ahead(
        self, host: str, port: int, ssl_context: ssl.SSLContext | None, timeout: float
    ) -> None:
        """Connect now, with TLS where a context is given; the next `connect_tcp` returns this.

        Raises httpcore's exceptions and `NotAllowed`, as `connect_tcp` does.
        """
        stream = await self.connect_tcp(host, port, timeout)
        if ssl_context is not None:
            ssl_context.set_alpn_protocols(["http/1.1"])  # as httpcore does for each connection
            stream = TlsAhead(await stream.start_tls(ssl_context, host, timeout))
        self._ahead = stream

    @property
    def n_received_bytes(self) -> int:
        """Return the bytes received on the connections made here, those of TLS included."""
        return sum(stream.n_received_bytes for stream in self._opened)

    def has_ended(self) -> bool:
        """Return whether the other side has closed a connection made here, or it broke."""
        return any(stream.has_ended() for stream in self._opened)

    def waited_s(self) -> float:
        """Return the longest time for which a connection has waited for the other side, in seconds.

        0.0 where bytes wait to be received on a connection made here. An address that was tried
        before the last one may be dead, which is no silence of the host.
        """
        if any(stream.has_bytes() for stream in self._opened):
            return 0.0
        return trio.current_time() - self._attempted_s

    def _note_attempt(self) -> None:
        self._attempted_s = trio.current_time()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to the first address of *host* that responds (RFC 8305).

        *timeout* covers a TLS handshake after it, too.
        """
        if (ahead := self._ahead) is not None:
            self._ahead = None
            return ahead
        self._note_attempt()
        began = self._attempted_s
        with limited(timeout):
            try:
                addresses = await resolved_addresses(host, port, self._check_peer)
                raw = await first_connected(addresses, port, self._slow, self._note_attempt)
            except (OSError, UnicodeError) as failure:
                raise httpcore.ConnectError(str(failure)) from failure
            with contextlib.suppress(OSError):  # it was reset at once
                self._on_peer(str(raw.socket.getpeername()[:2]))
            connect_by = began + (math.inf if timeout is None else timeout)
            set_options(raw)
            stream = TcpStream(raw, port=port, sessions=self._sessions, connect_by=connect_by)
            stream.expect_head()
            stream.report_body = self._report_body
            self._opened.append(stream)
            for option in socket_options or ():
                raw.setsockopt(*option)
            return stream
        raise httpcore.ConnectTimeout()

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: satfs talks to hosts."""
        raise httpcore.UnsupportedProtocol("unix sockets are not supported")

    async def sleep(self, seconds: float) -> None:
        """Wait (httpcore does between its own connection retries, which are off)."""
        await trio.sleep(seconds)
