"""Requests over a pool of connections: timeouts, permits, and what is sent again.

httpx lends its request, response and transport interfaces. Its client is not used on purpose: it
would add what must never happen here, namely cookies kept between requests, passwords from
`~/.netrc`, and redirects that carry headers along.

Every failure of a library is translated here into an error of satfs. No message holds the query of
a URL, which may be a signature.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType

import httpx
import structlog
import trio

import satfs
from satfs.errors import Garbled, SatfsError
from satfs.net.addresses import shown
from satfs.net.connecting import CheckPeer
from satfs.net.host_connections import Holder, Permit
from satfs.net.idle_list import NothingIdle
from satfs.net.permits import Permits
from satfs.net.pool import ConnectionPool, PoolStatistics
from satfs.net.proxies import proxies_of_environment
from satfs.net.reachability import Reachability
from satfs.net.responses import (
    LARGE_RESPONSE_BYTES,
    MAX_INFLATION,
    Response,
    StreamedResponse,
    decompressed,
    is_compressed,
)
from satfs.net.reuse import KeptOrigins
from satfs.net.sending import CLOSE_LIMIT_S, Exchange, Sender, Timeouts
from satfs.net.trust import tls_context

log = structlog.get_logger(__name__)

#: Most bytes of a response that is read whole, unless the caller sets another limit. The vendor's
#: gateway caps responses at 10 MB (AWS API Gateway quotas).
MAX_RESPONSE_BYTES = 10 * 1024 * 1024
#: httpcore logs headers at debug level: locations with signatures among them.
logging.getLogger("httpcore").setLevel(logging.INFO)


class Http:
    """Requests over an own pool of connections. Use as an async context manager.

    *connect_timeout_s* bounds opening a connection, TLS included; *progress_timeout_s* the silence
    of one in use, and *body_timeout_s* that in a body (default: the same). At most
    *max_connections* requests run at once; others wait their turn, which no timeout counts.
    *ca_file* is a PEM file of authorities to trust besides the system's. *tls_strict*: certificates
    must conform to RFC 5280 strictly (`net/trust.py`). *tls* is a context that was made of both,
    for several clients, since loading the system's authorities takes time. *user_agent* is sent in
    place of the program's name and version. *check_peer* raises for
    an address of a host that must not be connected to (`net/backend.py`). *transport* replaces the
    network (tests). Every response is noted in *reachability*. Each request waits for a permit of
    *permits*, which all clients and workers that open connections to the same hosts share.

    *shares_pool_of* is a client that lives longer and trusts the same: both use its connections, so
    that they need one between them where a host serves no more, and its permits.

    Credentials are the caller's task: only the given headers are sent.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        progress_timeout_s: float,
        max_connections: int,
        body_timeout_s: float | None = None,
        ca_file: Path | None = None,
        tls_strict: bool = True,
        tls: ssl.SSLContext | None = None,
        user_agent: str | None = None,
        check_peer: CheckPeer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        reachability: Reachability | None = None,
        permits: Permits | None = None,
        shares_pool_of: Http | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        #: The name of the program that each request has.
        self.user_agent = user_agent or f"satfs/{satfs.__version__}"
        self._pool: ConnectionPool | None = None
        self._check_peer = check_peer
        self._kept = KeptOrigins()
        shared = None if shares_pool_of is None else shares_pool_of.permits
        self.permits: Permits = shared or permits or Permits()
        #: Whether the pool is this client's own.
        self.has_own_pool = shares_pool_of is None
        if shares_pool_of is not None:
            transport, self._pool = shares_pool_of._transport, shares_pool_of._pool
            if self._pool is not None:
                self._pool.keep_more_idle(max_connections)
        elif transport is None:
            transport = self._pool = ConnectionPool(
                ssl_context=tls or tls_context(ca_file, is_strict=tls_strict),
                max_idle=max_connections,
                proxies=proxies_of_environment(),
                on_closed=self.permits.note_closed,
                on_refused_ahead=self.permits.note_refused_ahead,
            )
            self.permits.servers.peer_of = self._pool.peer_of
        self._transport: httpx.AsyncBaseTransport = transport
        #: The holder that permits for this client's connections name.
        self.holder: Holder = self._pool or NothingIdle()
        if self.has_own_pool:
            self.permits.add_holder(self.holder)
        self.reachability = reachability or Reachability()
        body_s = progress_timeout_s if body_timeout_s is None else body_timeout_s
        self._sender = Sender(
            transport,
            Timeouts(connect_timeout_s, progress_timeout_s, body_s),
            trio.Semaphore(max_connections),
            user_agent=self.user_agent,
            permits=self.permits,
            holder=self.holder,
            reachability=self.reachability,
            extensions={"on_kept": self._kept.note, "check_peer": check_peer},
        )

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if not self.has_own_pool:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_LIMIT_S):
            await self._transport.aclose()

    def statistics(self) -> PoolStatistics | None:
        """Return the pool's figures; None with an injected transport."""
        return None if self._pool is None else self._pool.statistics()

    def slow_addresses(self) -> tuple[str, ...]:
        """Return the addresses that are tried after others of the same name. Never waits."""
        return () if self._pool is None else self._pool.slow_addresses()

    def responds_once(self, origin: str) -> bool:
        """Return whether *origin* responds to the first request on a connection alone."""
        return self._pool is not None and self._pool.responds_once(origin)

    def close_idle(self) -> None:
        """Close connections that are not in use, and try offline hosts again.

        For when the machine woke up or changed networks. Never waits.
        """
        if self._pool is not None:
            self._pool.close_idle()
        self.permits.forget()
        self.reachability.retry_now()

    def origins_in_use(self, within_s: float) -> Sequence[str]:
        """Return the origins that have kept a connection open within the last *within_s*."""
        return self._kept.within(within_s)

    def on_keeping(self, report: Callable[[str], None]) -> None:
        """Call *report* with each origin that keeps connections open, at its first response.

        It is not called again while the origin is in use.
        """
        self._kept.on_new = report

    async def keep_ready(self, origin: str, n_connections: int) -> bool:
        """Open connections to *origin*, up to *n_connections*; return False where one failed.

        Opens none where the host keeps none open, is known to let few through, or does not respond.
        """
        if self._pool is None or self.permits.limit(origin) is not None:
            return True
        if origin not in self._kept:
            return True
        if origin in self.reachability.offline_origins():
            return True
        n_missing = n_connections - self._pool.n_open(origin)
        failures: list[Exception] = []

        async def connect(pool: ConnectionPool) -> None:
            try:
                await pool.connect_ahead(origin, self._connect_timeout_s, self._check_peer)
            except (SatfsError, httpx.TransportError) as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for _ in range(min(n_missing, self.permits.room(origin))):
                nursery.start_soon(connect, self._pool)
        self.permits.note_ready(origin)
        for failure in failures:
            log.debug("no connection ahead of need", origin=origin, reason=type(failure).__name__)
        return not failures

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
        before_large: Callable[[], Awaitable[None]] | None = None,
    ) -> Response:
        """Return the whole response, of any status; redirects are not followed.

        *before_large* is awaited once before more than `LARGE_RESPONSE_BYTES` of the body,
        compressed or not, are held. A compressed body that may be large is unpacked in a thread.

        Raises:
            Unreachable: no connection, or it broke.
            DeadlineReached: a timeout.
            Garbled: *url* is no address, or the response is longer than *max_bytes*.
        """
        where = shown(url)
        async with (
            Exchange(self._sender, method, url, headers, content) as response,
            contextlib.AsyncExitStack() as at_end,
        ):
            body = bytearray()
            # The traceback of a failure or of a cancellation leads here, and may be kept.
            at_end.callback(body.clear)
            is_large = False
            plain = response.headers
            inflation = MAX_INFLATION if is_compressed(plain) else 1
            async for chunk in response.chunks():
                body += chunk
                if len(body) > max_bytes:
                    raise Garbled(f"{where} responded with more than {max_bytes} bytes")
                if not is_large and len(body) * inflation > LARGE_RESPONSE_BYTES:
                    is_large = True
                    if before_large is not None:
                        await before_large()
            sent = bytes(body)
            body.clear()
            if is_large and inflation > 1:
                decoded = await trio.to_thread.run_sync(
                    decompressed, sent, plain, max_bytes, where, abandon_on_cancel=True
                )
            else:
                decoded = decompressed(sent, plain, max_bytes, where)
            return Response(response.status, plain, decoded)

    def stream(
        self, url: str, *, headers: Mapping[str, str], permit: Permit | None = None
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """GET *url* and hand out the response as soon as its headers are there.

        With *permit*, a permit for a connection of this client, none is taken where it is for the
        origin of *url*; then `Crowded` is raised when the host lets no further connection through.

        Redirects are not followed. The body is passed on as sent: `Accept-Encoding: identity` is
        requested, and a `content-encoding` in the response's headers means that it was ignored.
        Leaving before the end of the body closes the connection.

        Raises what `request` raises, and from `chunks` likewise.
        """
        return Exchange(self._sender, "GET", url, headers, given=permit)
