"""Connections to hosts, each used by one request at a time, reused while they are good.

A transport for httpx, beside its own, because httpcore's pool leaks: a request that is cancelled at
the wrong moment leaves a connection behind that is neither idle nor closed, and the pool fills up
until every request waits for ever (encode/httpcore issue 1093). satfs cancels all the time: each
deadline, each read that is no longer wanted. So httpcore lends its HTTP/1.1 connections, made by
the public `create_connection`, and this module alone decides who owns them:

- A connection is in exactly one place: in the hands of one request, or in the idle list.
- It goes back to the idle list only when its response was read to the end. Any other event (a
  failure, a cancellation, a response that was not read to its end) closes and forgets it.
- Closing means `Dialer.abort`, which closes the sockets without waiting. No cancellation can come
  between.

How many requests run at once is decided in the module above, `net/http.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial

import httpcore
import httpx
import trio
from msgspec import Struct

from satfs.net.connecting import CheckPeer
from satfs.net.core_messages import Body, core_request, is_kept_open, translating
from satfs.net.http_errors import causes_of, is_refusal
from satfs.net.idle_list import IdleList
from satfs.net.pending_connections import OpeningAhead
from satfs.net.pooled_connection import ConnectionMaker, PooledConnection, name_of
from satfs.net.proxies import Proxies
from satfs.net.reuse import SILENCE_S, ReuseWatch
from satfs.net.socket_options import is_unacknowledged
from satfs.net.streams import NotResumed, limited

#: A connection that was opened ahead of need and ended sooner than this, before its first request,
#: was refused: servers wait many seconds for a request. Seconds.
REFUSED_WITHIN_S = 2.0
#: Statuses that may be about the connection, where it had others before: what is behind a balancer
#: is gone, or has served enough. The next try goes over another one.
_SPENT_STATUSES = frozenset({500, 502, 503, 504})
#: The failure of a connection that the other side closed while it was idle.
_STALE_CONNECTION = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)


class PoolStatistics(Struct, frozen=True):
    """Connections now in use and idle; opened, reused and abandoned since the start."""

    n_in_use: int
    n_idle: int
    n_opened: int
    n_reused: int
    n_abandoned: int


class _Counts(Struct):
    opened: int = 0
    reused: int = 0
    abandoned: int = 0


class ConnectionPool(httpx.AsyncBaseTransport):
    """The pool. At most *max_idle* connections are kept idle, the oldest closed first.

    *on_closed* is called with the origin of each connection closed here that had responded,
    *on_refused_ahead* with that of each one refused that was opened ahead of need, unless a request
    waited for it: `handle_async_request` raises the refusal there.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext,
        max_idle: int,
        proxies: Proxies | None = None,
        on_closed: Callable[[str], None] = lambda origin: None,
        on_refused_ahead: Callable[[str], None] = lambda origin: None,
    ) -> None:
        self._on_refused_ahead = on_refused_ahead
        self._on_closed = on_closed
        self._maker = ConnectionMaker(ssl_context, proxies)
        self._idle = IdleList(max_idle, self._is_refused_ahead)
        self._in_use: set[PooledConnection] = set()
        self._opening_ahead = OpeningAhead()
        self._reuse = ReuseWatch()
        self._counts = _Counts()

    def statistics(self) -> PoolStatistics:
        """Return the pool's figures. Never waits."""
        counts = self._counts
        return PoolStatistics(
            n_in_use=len(self._in_use),
            n_idle=len(self._idle),
            n_opened=counts.opened,
            n_reused=counts.reused,
            n_abandoned=counts.abandoned,
        )

    def slow_addresses(self) -> tuple[str, ...]:
        """Return the addresses that are tried last now (`net/happy_eyeballs.py`)."""
        return self._maker.slow_addresses()

    def peer_of(self, origin: str) -> str | None:
        """Return the address and port at which *origin* was found last; None if not known."""
        return self._maker.peers.get(origin)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and return its response as soon as the headers are there.

        A GET that breaks on a reused connection is sent once more on a new one: the other side may
        have closed the connection in the moment in which it was taken (RFC 9110 §9.2.2 allows it).
        So is any request whose new connection could not resume a session.

        The request's extension `on_connection`, if there is one, is called for each connection that
        it gets, as `Permit.note_connection` is. `on_body` is called as soon as a body comes, which
        may be before its head can be decrypted. `on_kept` is called with the origin where it keeps
        the connection open. `check_peer` judges the addresses of a new connection
        (`net/backend.py`); one that is open may have been opened without.

        Raises httpx's transport errors, `NotAllowed` for an address that must not be connected to
        and for a proxy that refuses its login, and `BadSettings` for what is not a proxy. A
        connection that was opened ahead of need and refused is `httpx.ConnectError`: another one in
        its place may be refused as well.
        """
        await request.aread()
        wanted = core_request(request)
        note = request.extensions.get("on_connection", _ignore)
        on_body = request.extensions.get("on_body", _ignore_body)
        is_repeatable = request.method in ("GET", "HEAD")
        connection = await self._taken(wanted, may_be_refused=is_repeatable)
        connection.dialer.on_body(on_body)
        note(
            is_new=not connection.has_responded,
            is_ahead=connection.is_ahead,
            waited_s=connection.dialer.waited_s,
        )
        name, begun_s = connection.name, trio.current_time()
        patience_s = None
        if is_repeatable and connection.n_requests:
            timeout_s = request.extensions.get("timeout", {}).get("read")
            patience_s = self._reuse.patience_s(name, timeout_s)
        with translating():
            try:
                with limited(patience_s):
                    return await self._request(connection, wanted)
                return await self._moved(wanted, note, on_body, begun_s)
            except _STALE_CONNECTION as failure:
                if any(is_unacknowledged(each) for each in causes_of(failure)):
                    # All others that have been idle as long may be lost, too.
                    self.close_idle(connection.name)
                is_stale = connection.n_requests > 1 or (
                    connection.is_ahead and not self._is_refused_ahead(connection)
                )
                if not (is_stale and is_repeatable):
                    raise
            except NotResumed:
                pass  # nothing was sent
            return await self._requested_anew(wanted, note, on_body)

    async def _requested_anew(
        self, wanted: httpcore.Request, note: Callable[..., None], on_body: Callable[[], None]
    ) -> httpx.Response:
        """Send a request once more, on a new connection."""
        connection = self._open(wanted.url.origin, wanted.extensions.get("check_peer"))
        connection.dialer.on_body(on_body)
        note(is_new=True, waited_s=connection.dialer.waited_s)
        return await self._request(connection, wanted)

    async def _moved(
        self,
        wanted: httpcore.Request,
        note: Callable[..., None],
        on_body: Callable[[], None],
        begun_s: float,
    ) -> httpx.Response:
        """Send a request on a new connection, after silence on one that was used before."""
        name, moved_s = name_of(wanted.url.origin), trio.current_time()
        try:
            response = await self._requested_anew(wanted, note, on_body)
        except BaseException:
            if trio.current_time() - moved_s >= SILENCE_S:
                self._reuse.note_slow(name)
            raise
        if self._reuse.note_moved(name, begun_s, moved_s):
            self.close_idle(name)
        return response

    def responds_once(self, origin: str) -> bool:
        """Return whether *origin* responds to the first request on a connection alone."""
        return self._reuse.responds_once(origin)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        self.close_idle()
        for connection in self._in_use:
            connection.dialer.abort()
        self._in_use.clear()
        await trio.lowlevel.checkpoint()

    def n_idle(self, origin: str) -> tuple[int, int]:
        """See `permits.Holder`."""
        self._idle.expire()
        n_proven, n_unused = self._idle.counts_of(origin)
        return n_proven, self._opening_ahead.n_free(origin, n_unused)

    def n_unused_since(self, origin: str, at_s: float) -> int:
        """See `permits.Holder`."""
        return sum(each.begun_s <= at_s for each in self._idle.of(origin) if not each.has_responded)

    def n_open(self, origin: str) -> int:
        """Return how many connections to *origin* there are, in use, idle or being opened."""
        self._idle.expire()
        return len(self._idle.of(origin)) + sum(each.name == origin for each in self._in_use)

    def keep_more_idle(self, n_connections: int) -> None:
        """Keep that many more idle connections: another client uses the pool as well."""
        self._idle.max_idle += n_connections

    async def connect_ahead(
        self, origin: str, timeout_s: float, check_peer: CheckPeer | None = None
    ) -> None:
        """Open a connection to *origin*, which keeps connections open, for a request to come.

        Does nothing where it is behind a proxy: a proxy that serves only one connection at a time
        would wait for a request on this one.

        Raises httpx's transport errors, and what else `handle_async_request` raises.
        """
        target = httpcore.URL(origin).origin
        if self._maker.proxy_to(target) is not None:
            return
        connection = self._open(target, check_peer)
        try:
            with translating(), self._opening_ahead.opening(origin):
                await connection.connect_ahead(self._maker.ssl_context, timeout_s)
        except httpx.TransportError as failure:
            if is_refusal(failure) and not self._opening_ahead.note_refused(origin):
                self._on_refused_ahead(origin)
            raise
        finally:
            if not connection.is_ahead:
                self._abandon(connection)
                self._opening_ahead.note_ended()
        if connection in self._in_use:
            # Those that have responded before are taken before it.
            self._in_use.discard(connection)
            self._idle.add(connection, is_first=True)
        else:
            connection.dialer.abort()  # all were closed meanwhile
        self._opening_ahead.note_ended()

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        """Close idle connections to *origin*, up to that many.

        First those that were never used, then those that are being opened ahead of need, then the
        ones that were used least recently.
        """
        idle = self._idle.of(origin)
        unused = [each for each in idle if not each.has_responded][:n_connections]
        n_given_up = self._opening_ahead.give_up(origin, n_connections - len(unused))
        n_left = n_connections - len(unused) - n_given_up
        used = [each for each in idle if each.has_responded]
        self._idle.close([*unused, *used[:n_left]])

    def close_idle(self, origin: str | None = None) -> None:
        """Close connections that are not in use, to *origin* or all: the network has changed."""
        self._idle.close(list(self._idle) if origin is None else self._idle.of(origin))

    async def _request(
        self, connection: PooledConnection, request: httpcore.Request
    ) -> httpx.Response:
        connection.n_requests += 1
        connection.dialer.expect_head()
        try:
            # A tunnel that is open needs no login any more.
            is_open_tunnel = connection.n_requests > 1 and connection.origin.scheme == b"https"
            if connection.login is None or is_open_tunnel:
                response = await connection.http.handle_async_request(request)
            else:
                response = await connection.login.send(connection.http, request)
        except BaseException:
            self._abandon(connection)
            raise
        connection.dialer.expect_body()
        if connection.n_requests > 1:
            self._reuse.note_reused(connection.name)
            connection.is_spent = response.status in _SPENT_STATUSES
        # This connection may only ever get a 503: a proxy that counts connections refuses it in
        # this way.
        is_refusal = response.status == 503 and connection.n_requests == 1
        connection.has_responded = not is_refusal
        connection.on_kept = request.extensions.get("on_kept", _ignore_kept)
        if not is_refusal and is_kept_open(response):
            connection.on_kept(connection.name)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=Body(
                response,
                give_back=partial(self._give_back, connection),
                abandon=partial(self._abandon, connection),
            ),
            extensions={
                "http_version": response.extensions.get("http_version", b"HTTP/1.1"),
                "is_new_connection": connection.n_requests == 1,
                "has_connected": connection.n_requests == 1 and not connection.is_ahead,
            },
        )

    def _take(self, request: httpcore.Request, *, may_be_refused: bool) -> PooledConnection:
        """Return an idle connection for *request* that is still good, else a new one.

        Raises:
            httpx.ConnectError: with *may_be_refused*, the one that would be used was refused.
        """
        self._idle.expire()
        for connection, is_good in self._idle.taken(name_of(request.url.origin)):
            if is_good:
                self._in_use.add(connection)
                self._counts.reused += 1
                return connection
            if may_be_refused and self._is_refused_ahead(connection):
                raise httpx.ConnectError("closed before its first request")
        return self._open(request.url.origin, request.extensions.get("check_peer"))

    async def _taken(self, request: httpcore.Request, *, may_be_refused: bool) -> PooledConnection:
        """Return a connection for *request*: an idle one, else one that is being opened, or new.

        Raises: as `_take`.
        """
        name = name_of(request.url.origin)
        is_refused = await self._opening_ahead.wait(
            name, is_satisfied=lambda: bool(self._idle.of(name))
        )
        if is_refused and may_be_refused:
            raise httpx.ConnectError("refused before its first request")
        return self._take(request, may_be_refused=may_be_refused)

    def _open(self, origin: httpcore.Origin, check_peer: CheckPeer | None) -> PooledConnection:
        """Return a new connection that is in use. Raises as `ConnectionMaker.make`."""
        connection = self._maker.make(origin, check_peer)
        self._in_use.add(connection)
        self._counts.opened += 1
        return connection

    def _give_back(self, connection: PooledConnection) -> None:
        """Keep *connection* for the next request, if it can have one."""
        if connection not in self._in_use:
            return
        # Refused, or the other side sent "Connection: close".
        is_good = connection.has_responded and connection.http.is_idle() and not connection.is_spent
        if not is_good or self._reuse.responds_once(connection.name):
            self._in_use.discard(connection)
            connection.dialer.abort()
            return
        connection.on_kept(connection.name)
        self._in_use.discard(connection)
        self._idle.add(connection)

    def _abandon(self, connection: PooledConnection) -> None:
        """Close *connection* now and forget it."""
        connection.dialer.abort()
        if connection in self._in_use:
            self._in_use.discard(connection)
            self._counts.abandoned += 1
            if connection.has_responded:
                self._on_closed(connection.name)

    def _is_refused_ahead(self, connection: PooledConnection) -> bool:
        """Return whether a connection that has ended was opened ahead of need, and refused.

        Without another one that has responded, the host may have ended them all.
        """
        is_unused = connection.is_ahead and not connection.has_responded
        is_early = trio.current_time() - connection.begun_s < REFUSED_WITHIN_S
        others = (each for each in (*self._in_use, *self._idle) if each.name == connection.name)
        return is_unused and is_early and any(each.has_responded for each in others)


def _ignore(*, is_new: bool, waited_s: Callable[[], float], is_ahead: bool = False) -> None:
    """Do nothing about a connection."""


def _ignore_body() -> None:
    """Do nothing about a body."""


def _ignore_kept(origin: str) -> None:
    """Do nothing about an origin."""
