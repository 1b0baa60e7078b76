"""The only importer of httpx: requests and responses, timeouts, error translation.

httpx lends its request, response and transport interfaces. Its client is not used on purpose: it
would add what must never happen here, namely cookies kept between requests, passwords from
`~/.netrc`, and redirects that carry headers along.

Every failure of a library that enters here leaves as one of ours. No message holds the query of a
URL, which may be a signature.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx
import structlog
import trio

import satfs
from satfs.errors import DeadlineReached, Garbled, Misuse, SatfsError, Unreachable
from satfs.net.addresses import origin_of, request_target, shown
from satfs.net.backend import CheckPeer
from satfs.net.permits import Crowded, Holder, Permit, Permits
from satfs.net.pool import ConnectionPool, PoolStatistics
from satfs.net.proxies import proxies_of_environment
from satfs.net.reachability import Reachability
from satfs.net.trust import tls_context, untrusted

log = structlog.get_logger(__name__)

#: Most bytes of an answer that is read whole, unless the caller says otherwise. The vendor's
#: gateway caps answers at 10 MB (AWS API Gateway quotas).
MAX_RESPONSE_BYTES = 10 * 1024 * 1024
#: An answer above this size is large: the caller may let few of them be read at once.
LARGE_ANSWER_BYTES = 1024 * 1024
#: How many times as long as its compressed form an answer may be, beyond `LARGE_ANSWER_BYTES`.
#: JSON pages whose records repeat each other come to 60; DEFLATE itself reaches 1,032.
MAX_INFLATION = 100
#: Most bytes of an error's body that are looked at.
MAX_ERROR_BYTES = 64 * 1024
#: Time for giving up an answer, behind a shield against cancellation.
CLOSE_LIMIT_S = 2.0

#: Methods of requests that may be sent twice (RFC 9110 §9.2.1).
_SAFE_METHODS = frozenset({"GET", "HEAD"})

#: httpcore logs headers at debug level: locations with signatures among them.
logging.getLogger("httpcore").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. *headers* have lower-case names; *body* is decoded if it was compressed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class StreamedResponse:
    """An answer whose body is still to come. Valid inside the `async with` that gave it."""

    def __init__(
        self, response: httpx.Response, chunks: AsyncIterator[bytes], permit: Permit | None = None
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = _plain(response.headers)
        #: Whether it is the first answer on its connection.
        self.is_new_connection: bool = response.extensions.get("is_new_connection", True)
        #: Whether a connection was opened for it, which takes longer than the answer itself.
        self.has_connected: bool = response.extensions.get("has_connected", self.is_new_connection)
        #: Seconds from leave to ask until the head was there.
        self.took_s = 0.0 if permit is None else trio.current_time() - permit.began_s
        self._chunks = chunks
        self._permit = permit

    def refuses_connection(self) -> None:
        """Note that this answer refuses the connection, if it is the first one on it.

        For a 503 that does not say that too much was asked for.

        Raises:
            Crowded: the host lets no further connection through, and answers on others.
        """
        if self.is_new_connection and self._permit is not None:
            self._permit.refused()

    def chunks(self) -> AsyncIterator[bytes]:
        """Return an iterator over the body as it comes, in pieces of up to 1 MiB.

        May be left at any point; whatever was not read is given up at the end of the `async with`.

        Raises:
            Unreachable: the connection broke before the body's announced end.
            DeadlineReached: no byte came for the progress timeout.
        """
        return self._chunks

    async def read_error_body(self, max_bytes: int = MAX_ERROR_BYTES) -> bytes:
        """Return up to *max_bytes* of the body, or what came of it: it only explains an error."""
        body = bytearray()
        with contextlib.suppress(Unreachable):
            async for chunk in self._chunks:
                body += chunk
                if len(body) >= max_bytes:
                    break
        return bytes(body[:max_bytes])


class Http:
    """Requests over an own pool of connections. Use as an async context manager.

    *connect_timeout_s* bounds opening a connection, TLS included; *progress_timeout_s* the silence
    of one in use. At most *max_connections* requests run at once; others wait their turn, which no
    timeout counts. *ca_file* is a PEM file of authorities to trust besides the system's, and
    *tls_strict* whether certificates must keep to the letter of RFC 5280 (`net/trust.py`); *tls* is
    a context that was made of both, for several clients: the system's authorities take a while.
    *check_peer* raises for an address of a host that must not be connected to (`net/backend.py`).
    *transport* replaces the network (tests). Every answer is noted in *reachability*. Each request
    waits for a permit of *permits*, which are to be shared by everything that opens connections to
    the same hosts.

    Credentials are the caller's business: nothing is sent but the headers given.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        progress_timeout_s: float,
        max_connections: int,
        ca_file: Path | None = None,
        tls_strict: bool = True,
        tls: ssl.SSLContext | None = None,
        check_peer: CheckPeer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        reachability: Reachability | None = None,
        permits: Permits | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._progress_timeout_s = progress_timeout_s
        self._slots = trio.Semaphore(max_connections)
        self._pool: ConnectionPool | None = None
        self.permits = permits or Permits()
        if transport is None:
            transport = self._pool = ConnectionPool(
                ssl_context=tls or tls_context(ca_file, is_strict=tls_strict),
                max_idle=max_connections,
                proxies=proxies_of_environment(),
                check_peer=check_peer,
                on_closed=self.permits.note_closed,
            )
        self._transport: httpx.AsyncBaseTransport = transport
        #: What permits for this client's connections name.
        self.holder: Holder = self._pool or _NoIdle()
        self.permits.add_holder(self.holder)
        self.reachability = reachability or Reachability()

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_LIMIT_S):
            await self._transport.aclose()

    def statistics(self) -> PoolStatistics | None:
        """Return the pool's figures; None with an injected transport."""
        return None if self._pool is None else self._pool.statistics()

    def slow_addresses(self) -> tuple[str, ...]:
        """Return the addresses that are tried after others of the same name. Never waits."""
        return () if self._pool is None else self._pool.slow_addresses()

    def close_idle(self) -> None:
        """Close connections that are not in use, and let offline hosts be tried: a fresh start.

        For when the machine woke up or changed networks. Never waits.
        """
        if self._pool is not None:
            self._pool.close_idle()
        self.permits.forget()
        self.reachability.retry_now()

    def origins_in_use(self, within_s: float) -> Sequence[str]:
        """Return the origins that have kept a connection open within the last *within_s*."""
        return () if self._pool is None else self._pool.keeping(within_s)

    async def keep_ready(self, origin: str, n_connections: int) -> bool:
        """Open connections to *origin*, up to so many in all; return False where one failed.

        Opens none where it is known that few are let through, and to a host that does not answer.
        """
        if self._pool is None or self.permits.limit(origin) is not None:
            return True
        if origin in self.reachability.offline_origins():
            return True
        n_missing = n_connections - self._pool.n_open(origin)
        failures: list[Exception] = []

        async def connect(pool: ConnectionPool) -> None:
            try:
                await pool.connect_ahead(origin, self._connect_timeout_s)
            except (SatfsError, httpx.TransportError) as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for _ in range(min(n_missing, self.permits.room(origin))):
                nursery.start_soon(connect, self._pool)
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
        """Return the whole answer, whatever its status; redirects are not followed.

        *before_large* is awaited once before more than `LARGE_ANSWER_BYTES` of the body, compressed
        or not, are held. A compressed body is decompressed in a thread if it may be large.

        Raises:
            Unreachable: no connection, or it broke.
            DeadlineReached: a timeout.
            Garbled: *url* is none, or the answer is longer than *max_bytes*, compressed or not.
        """
        where = shown(url)
        async with (
            self._answer(method, url, headers, content) as (response, chunks),
            contextlib.AsyncExitStack() as at_end,
        ):
            body = bytearray()
            # The traceback of a failure or of a cancellation leads here, and may be kept.
            at_end.callback(body.clear)
            is_large = False
            plain = _plain(response.headers)
            inflation = MAX_INFLATION if _is_compressed(plain) else 1
            async for chunk in chunks:
                body += chunk
                if len(body) > max_bytes:
                    raise Garbled(f"{where} answered with more than {max_bytes} bytes")
                if not is_large and len(body) * inflation > LARGE_ANSWER_BYTES:
                    is_large = True
                    if before_large is not None:
                        await before_large()
            sent = bytes(body)
            body.clear()
            if is_large and inflation > 1:
                decoded = await trio.to_thread.run_sync(
                    _decompressed, sent, plain, max_bytes, where, abandon_on_cancel=True
                )
            else:
                decoded = _decompressed(sent, plain, max_bytes, where)
            return Response(response.status_code, plain, decoded)

    @asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], permit: Permit | None = None
    ) -> AsyncIterator[StreamedResponse]:
        """GET *url* and hand out the answer as soon as its headers are there.

        With *permit*, a permit for a connection of this client, none is taken where it is for the
        origin of *url*; then `Crowded` is raised when the host lets no further connection through.

        Redirects are not followed. The body is passed on as sent: `Accept-Encoding: identity` is
        asked for, and a `content-encoding` in the answer's headers means that it was ignored.
        Leaving before the end of the body closes the connection.

        Raises what `request` raises, and from `chunks` likewise.
        """
        async with self._answer("GET", url, headers, None, permit) as (response, chunks):
            yield StreamedResponse(response, chunks, chunks.permit)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        given: Permit | None = None,
    ) -> AsyncIterator[tuple[httpx.Response, _Chunks]]:
        """Send a request; give its answer up at the end, whatever happens."""
        origin, where = origin_of(url), shown(url)
        request = self._request(method, url, headers, content, where)
        async with self._slots:
            if given is not None and given.origin == origin:
                permit = given
                response = await self._send_with(permit, request, where)
            else:
                response, permit = await self._send_when_permitted(origin, request, where)
            try:
                self.reachability.answered(origin, trio.current_time())
                chunks = _Chunks(response, self._progress_timeout_s, where, permit)
                try:
                    yield response, chunks
                finally:
                    give_up_at = trio.current_time() + CLOSE_LIMIT_S
                    with trio.CancelScope(shield=True, deadline=give_up_at):
                        await chunks.give_up()
            finally:
                if permit is not given:
                    permit.end()

    async def _send_when_permitted(
        self, origin: str, request: httpx.Request, where: str
    ) -> tuple[httpx.Response, Permit]:
        """Return the answer's head, and the permit that it came with."""
        while True:
            permit = await self.permits.take(origin, [self.holder])
            try:
                if request.method not in _SAFE_METHODS:
                    # It may be carried out while nothing is heard of it: it is waited for.
                    return await self._send_with(permit, request, where), permit
                with permit.scope:
                    return await self._send_with(permit, request, where), permit
                permit.raise_if_silent()
                raise DeadlineReached(f"{where}: no connection that answers")
            except Crowded as crowded:
                permit.end()
                await trio.sleep(crowded.wait_s)
            except BaseException:
                permit.end()
                raise

    async def _send_with(
        self, permit: Permit, request: httpx.Request, where: str
    ) -> httpx.Response:
        """Return the answer's head.

        Raises:
            Crowded: the host lets no further connection through.
        """
        # A request that may have been carried out must not be sent again.
        is_safe = request.method in _SAFE_METHODS
        permit.begin()
        request.extensions["on_connection"] = permit.note_connection
        try:
            response = await self._send(request, where)
        except DeadlineReached:
            raise
        except Unreachable as failure:
            # A name that cannot be resolved now says nothing about the host.
            is_unresolved = any(isinstance(each, socket.gaierror) for each in _causes(failure))
            if is_safe and not (failure.is_lasting or is_unresolved):
                permit.refused()
            raise
        if not _may_refuse_connection(response):
            permit.answered()
        return response

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, where: str
    ) -> httpx.Request:
        timeouts = {
            "connect": self._connect_timeout_s,
            "read": self._progress_timeout_s,
            "write": self._progress_timeout_s,
            "pool": None,
        }
        sent = {
            "User-Agent": f"satfs/{satfs.__version__}",
            # A compressed answer to a ranged request is no range of the object (RFC 9110 §14.2).
            "Accept-Encoding": "identity",
            **headers,
        }
        extensions: dict[str, object] = {"timeout": timeouts}
        if (target := request_target(url)) is not None:
            # httpx removes `.` and `..` from a path; a signature holds for what was signed.
            extensions["target"] = target
        try:
            return httpx.Request(method, url, headers=sent, content=content, extensions=extensions)
        except httpx.InvalidURL:
            raise Garbled(f"{where} is not an address that can be asked") from None

    async def _send(self, request: httpx.Request, where: str) -> httpx.Response:
        """Return the answer's head. The limit also bounds transports that know no timeouts."""
        limit_s = self._connect_timeout_s + self._progress_timeout_s
        with trio.CancelScope(deadline=trio.current_time() + limit_s), _translating(where):
            return await self._transport.handle_async_request(request)
        raise DeadlineReached(f"{where} did not answer within {limit_s:g} s")


class _NoIdle:
    """The connections of an injected transport: it tells nothing about them."""

    def n_idle(self, origin: str) -> tuple[int, int]:
        return 0, 0

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        pass


class _Chunks:
    """The chunks of one body, each awaited for a limited time."""

    def __init__(
        self, response: httpx.Response, timeout_s: float, where: str, permit: Permit
    ) -> None:
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise Misuse("a transport for threads was injected")
        self._stream = stream
        self._chunks = stream.__aiter__()
        self._timeout_s = timeout_s
        self._where = where
        #: Whether it shows that the connection is let through: the body of a refusal does not.
        self._is_answer = not _may_refuse_connection(response)
        self.permit = permit

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        limit = trio.CancelScope(deadline=trio.current_time() + self._timeout_s)
        with limit, _translating(self._where):
            try:
                chunk = await self._chunks.__anext__()
            except (httpx.NetworkError, httpx.ProtocolError):
                self.permit.broke()
                raise
            if self._is_answer:
                self.permit.carried()
            return chunk
        raise DeadlineReached(f"{self._where} sent nothing for {self._timeout_s:g} s")

    async def give_up(self) -> None:
        """End whatever is left of the answer. What fails here is of no interest any more."""
        with contextlib.suppress(httpx.HTTPError, OSError):
            await self._stream.aclose()
        # An injected transport's stream may be a generator, which wants to be told of its end.
        if isinstance(self._chunks, AsyncGenerator):
            with contextlib.suppress(httpx.HTTPError, OSError):
                await self._chunks.aclose()


# -- errors ----------------------------------------------------------------------------------------

#: How each failure below is told to people, the first match counting. `{why}` is the cause's words.
_FAILURES: tuple[tuple[type[Exception], type[SatfsError], str], ...] = (
    (httpx.ConnectTimeout, DeadlineReached, "{where}: no connection in time"),
    (httpx.TimeoutException, DeadlineReached, "{where} sent nothing in time"),
    (httpx.ConnectError, Unreachable, "{where}: no connection: {why}"),
    (httpx.ProxyError, Unreachable, "{where}: the proxy refused: {why}"),
    (httpx.UnsupportedProtocol, Unreachable, "{where}: {why}"),
    (httpx.RemoteProtocolError, Unreachable, "{where} broke off, or broke HTTP's rules"),
    (httpx.LocalProtocolError, Misuse, "{where}: the request cannot be sent"),
    (httpx.HTTPError, Unreachable, "{where}: the connection broke: {why}"),
    (ssl.SSLError, Unreachable, "{where}: no connection: {why}"),
    (OSError, Unreachable, "{where}: the connection broke: {why}"),
)
#: Failures that the same request will meet again.
_LASTING = (httpx.UnsupportedProtocol, ssl.SSLCertVerificationError)


@contextlib.contextmanager
def _translating(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as failure:
        for theirs, ours, words in _FAILURES:
            if isinstance(failure, theirs):
                raise _told(failure, ours, words, where) from failure
        raise


def _told(failure: Exception, ours: type[SatfsError], words: str, where: str) -> SatfsError:
    causes = list(_causes(failure))
    told = ours(words.format(where=where, why=_why(causes)))
    if isinstance(told, Unreachable):
        told.is_lasting = any(isinstance(cause, _LASTING) for cause in causes)
    if isinstance(told, DeadlineReached):
        told.is_silence = not isinstance(failure, httpx.ConnectTimeout)
    return told


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Yield *failure* and what caused it, one member of each group included."""
    seen: BaseException | None = failure
    while seen is not None:
        yield seen
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        else:
            seen = seen.__cause__ or seen.__context__


def _why(causes: list[BaseException]) -> str:
    """Return the words of the deepest cause that has words of its own, which are the plainest."""
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(cause)
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({getattr(cause, 'reason', None) or 'for no reason given'})"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return next((str(cause) for cause in causes if str(cause)), "no reason given")


# -- small parts -----------------------------------------------------------------------------------


def _may_refuse_connection(response: httpx.Response) -> bool:
    """Return whether *response* may be all that its connection will ever get."""
    return response.status_code == 503 and response.extensions.get("is_new_connection", True)


def _plain(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _is_compressed(headers: Mapping[str, str]) -> bool:
    return _encoding(headers) not in ("", "identity")


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("content-encoding", "identity").strip().lower()


def _decompressed(body: bytes, headers: Mapping[str, str], max_bytes: int, where: str) -> bytes:
    """Return *body* as meant by a server that compressed it unasked."""
    encoding = _encoding(headers)
    if not _is_compressed(headers) or not body:
        return body
    max_bytes = min(max_bytes, max(LARGE_ANSWER_BYTES, MAX_INFLATION * len(body)))
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Garbled(f"{where} answered in an encoding that was not asked for")
    # 32: recognise gzip and zlib by their headers.
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as failure:
        raise Garbled(f"{where} answered with a broken compressed body") from failure
    if len(plain) > max_bytes or not inflater.eof:
        raise Garbled(f"{where} answered with more than {max_bytes} bytes, or a cut body")
    return plain
