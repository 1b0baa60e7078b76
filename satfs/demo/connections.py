"""Connections and requests of one service; `response_sender` sends the responses.

The response to a request is decided elsewhere (`api`, `store`, `effects`); this waits and counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from satfs.demo.api import Api
from satfs.demo.both_services import BothServices
from satfs.demo.effects import BodyPace, altered, delay_s, delivery, replacement
from satfs.demo.faults import Fault, FaultTable, named
from satfs.demo.request_log import Leak, LoggedRequest, RequestLog
from satfs.demo.response_sender import send, set_to_lose, set_to_reset
from satfs.demo.responses import Request, Response, http_date
from satfs.demo.store import Store
from satfs.errors import Unsupported

try:
    from aiohttp import web
except ImportError as missing:
    raise Unsupported(f"the demo origin needs {missing.name}: install satfs[demo]") from missing

#: How often a connection looks whether another one has closed, and a response that is held whether
#: the fault is off, in seconds.
_LOOK_S: Final = 0.002
#: How long a connection that was closed on this side may still send, in seconds.
_CLOSING_S: Final = 0.2

# A client may end a response early at any time; the request log has it.
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


#: The body of a load balancer's own responses.
_BEYOND: Final = Response(
    503,
    {"Content-Type": "text/html"},
    b"<html><body><h1>503 Service Unavailable</h1></body></html>",
)


@dataclass
class Line:
    """The line between client and service: delay before each response, and speed per connection."""

    latency_s: float = 0.0
    bytes_per_s: float | None = None


@dataclass
class ServicePort:
    """One service, or both, on one loopback port, which can stop listening and start again."""

    service: Api | Store | BothServices
    faults: FaultTable
    journal: RequestLog
    now_s: Callable[[], float]
    line: Line = field(default_factory=Line)
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    keepalive_s: float = 75.0

    def __post_init__(self) -> None:
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None
        self._listener: socket.socket | None = None
        #: Connections that wait to be served, or are at their handshake.
        self._joining: set[asyncio.Task[None]] = set()
        self._n_shaking = 0  # handshakes in flight
        #: Peers of connections beyond a limit, each of whose requests gets a 503.
        self._beyond: set[object] = set()
        self._seen_connections: dict[int, int] = {}
        self._n_requests: Counter[int] = Counter()  # by the connection's number

    async def start(self) -> None:
        """Bind and serve; the port chosen stays the same for good."""
        if self._runner is None:
            self._server = web.Server(
                self._handle,
                handler_cancellation=True,
                access_log=None,
                keepalive_timeout=self.keepalive_s,
                max_line_size=64 * 1024,
                max_field_size=64 * 1024,
            )
            self._runner = web.ServerRunner(self._server)
            await self._runner.setup()
        if self._listener is None:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.create_server((self.host, self.port), family=family, backlog=512)
            listener.setblocking(False)
            self._listener = listener
            self.port = listener.getsockname()[1]
            # Not `sock_accept`: a connection that comes while it is cancelled would stay open.
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def stop_listening(self) -> None:
        """Refuse new connections and drop those there are, as a machine that went down."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self.drop_connections()

    async def drop_connections(self) -> None:
        """Break every connection, idle or not."""
        for joining in list(self._joining):
            joining.cancel()
        for connection in self._server.connections if self._server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    async def lose_connections(self) -> None:
        """Lose all that comes on the present connections, in silence, as a box that forgot them."""
        for connection in self._server.connections if self._server else ():
            if connection.transport is not None:
                set_to_lose(connection.transport.get_extra_info("socket"))

    async def close(self) -> None:
        """Stop for good; requests in flight are dropped."""
        await self.stop_listening()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = self._server = None

    @property
    def n_open_connections(self) -> int:
        """Return the number of connections clients hold open now."""
        return len(self._server.connections) if self._server else 0

    # -- connections -----------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        """Accept a connection; called whenever one may wait."""
        try:
            sock, peer = listener.accept()
        except OSError:  # none waits, or it is broken already
            return
        sock.setblocking(False)
        joining = asyncio.get_running_loop().create_task(self._join(sock, peer))
        self._joining.add(joining)

        def ended(task: asyncio.Task[None]) -> None:
            self._joining.discard(task)
            if task.cancelled():  # before it began: `_join` itself lets no cancellation out
                sock.close()

        joining.add_done_callback(ended)

    async def _join(self, sock: socket.socket, peer: object) -> None:
        """Serve a connection, unless it is beyond a limit."""
        if self._server is None:
            sock.close()
            return
        self._beyond.discard(peer)
        limit = self.faults.connection_limit(self.service.side)
        if limit is not None and self._n_joined() >= limit["connections"]:
            limit.hits += 1
            match limit["how"]:
                case "reset":
                    set_to_reset(sock)
                    sock.close()
                    return
                case "close":
                    with contextlib.suppress(OSError, asyncio.CancelledError):
                        sock.shutdown(socket.SHUT_WR)
                        await asyncio.sleep(_CLOSING_S)  # a close with bytes to read is a reset
                    sock.close()
                    return
                case "503":
                    self._beyond.add(peer)
        try:
            while limit is not None and limit["how"] == "queue" and limit in self.faults:
                if self._n_joined() < limit["connections"]:
                    break
                await asyncio.sleep(_LOOK_S)
            self._n_shaking += 1
            try:
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._server, sock, ssl=self.tls
                )
            finally:
                self._n_shaking -= 1
        except OSError:  # TLS that fails, a peer that went away
            sock.close()
        except asyncio.CancelledError:
            sock.close()

    def _n_joined(self) -> int:
        """Return how many connections are served within the limit."""
        transports = [each.transport for each in self._server.connections] if self._server else []
        peers = [each.get_extra_info("peername") for each in transports if each is not None]
        return sum(peer not in self._beyond for peer in peers) + self._n_shaking

    # -- one request -----------------------------------------------------------------------------

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        request = await _request_of(incoming, "https" if self.tls else "http")
        endpoint = self.service.endpoint(request)
        requested_range = request.headers.get("range")
        entry = self.journal.open(
            LoggedRequest(
                endpoint, request.method, request.path, requested_range, self._connection(incoming)
            )
        )
        try:
            return await self._respond(incoming, request, entry)
        finally:
            entry.ended_s = time.time()

    async def _respond(
        self, incoming: web.BaseRequest, request: Request, entry: LoggedRequest
    ) -> web.StreamResponse:
        peer = incoming.transport.get_extra_info("peername") if incoming.transport else None
        if peer in self._beyond:
            entry.status = 503
            entry.faults = ("connection-limit",)
            return await send(incoming, _BEYOND, BodyPace(), entry)
        place = self.service.leak(request)
        if place is not None:
            leak = Leak(self.service.side, entry.endpoint, place, entry.path)
            self.journal.leaks.append(leak)
        faults = self.faults.drawn(entry.endpoint, entry.path, ranged=entry.range is not None)
        entry.faults = tuple(fault.name for fault in faults)
        await asyncio.sleep(self.line.latency_s + delay_s(faults))
        held = named(faults, "held")
        while held is not None and held in self.faults:  # noqa: ASYNC110 - another thread switches it off
            await asyncio.sleep(_LOOK_S)
        few = named(faults, "few-responses")
        self._n_requests[entry.connection] += 1
        if few is not None and self._n_requests[entry.connection] > few["responses"]:
            await asyncio.Event().wait()
        if named(faults, "hang"):
            await asyncio.Event().wait()
        response = self._decided(request, entry.endpoint, faults, leaked=place is not None)
        entry.status = response.status
        # By the origin's own clock, which a test may set: the library would send the machine's.
        response = response.with_headers(date=http_date(self.now_s()))
        return await send(incoming, response, delivery(faults, self.line.bytes_per_s), entry)

    def _decided(
        self, request: Request, endpoint: str, faults: Sequence[Fault], *, leaked: bool
    ) -> Response:
        now_s = self.now_s()
        if not leaked:  # a leak has its own response, also while a fault is on
            agent = request.headers.get("user-agent", "")
            for fault in faults:
                if fault.name == "refused-agent" and fault["agent"] not in agent:
                    continue
                instead = replacement(fault, endpoint, now_s)
                if instead is not None:
                    return instead
        response = self.service.respond(request, now_s, faults)
        for fault in faults:
            response = altered(response, fault)
        return response

    def _connection(self, incoming: web.BaseRequest) -> int:
        """Return the connection's number, counting it when it is new."""
        peer = incoming.transport.get_extra_info("peername") if incoming.transport else None
        key = hash((id(incoming.protocol), peer))
        if key not in self._seen_connections:
            self._seen_connections[key] = len(self._seen_connections)
            self.journal.n_connections[self.service.side] += 1
        return self._seen_connections[key]


async def _request_of(incoming: web.BaseRequest, scheme: str) -> Request:
    raw_path, _, raw_query = incoming.raw_path.partition("?")
    headers = {name.lower(): value for name, value in incoming.headers.items()}
    body = await incoming.read() if incoming.body_exists else b""
    return Request(incoming.method, raw_path, raw_query, headers, body, scheme)
