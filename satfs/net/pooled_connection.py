"""One HTTP/1.1 connection of the pool: how it is made, its history, and how long it may be used.

The protocol is in `net/http11.py`, and through a proxy httpcore's. The sockets are a `Dialer`'s,
and `net/pool.py` decides who uses it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpcore
import httpx
import trio
from cachetools import LRUCache
from msgspec import Struct, field

from satfs.net.addresses import DEFAULT_PORTS
from satfs.net.backend import Dialer
from satfs.net.connecting import CheckPeer
from satfs.net.happy_eyeballs import SlowAddresses
from satfs.net.http11 import Http11Connection
from satfs.net.proxies import Proxies, Proxy
from satfs.net.proxy_login import ProxyLogin
from satfs.net.streams import NotResumed
from satfs.net.tls_sessions import TlsSessions

#: Least retransmission timeout of Linux (TCP_RTO_MIN, include/net/tcp.h), in seconds.
HALVED_AFTER_S: Final = 0.2
#: Hosts of which the address is remembered.
MAX_PEERS: Final = 64


class PooledConnection(Struct, eq=False):
    """An HTTP/1.1 connection and the sockets under it.

    Attributes:
        name: of the origin, as `addresses.origin_of` writes it.
        login: to the proxy that it goes through; None without one.
        is_spent: its last response was an error that may be the connection's.
        is_ahead: it was opened before there was a request for it.
        on_kept: called with the origin's name where it is kept open after the last request on it.
        idle_since: when its last response ended, on trio's clock.
        idle_until: when it has been idle for too long, on trio's clock.
        idle_until_wall: the same on the wall clock, which goes on while the machine sleeps.
    """

    http: httpcore.AsyncConnectionInterface
    dialer: Dialer
    origin: httpcore.Origin
    name: str
    login: ProxyLogin | None
    begun_s: float = field(default_factory=trio.current_time)
    n_requests: int = 0
    has_responded: bool = False
    is_spent: bool = False
    is_ahead: bool = False
    on_kept: Callable[[str], None] = lambda origin: None
    idle_since: float = 0.0
    idle_until: float = 0.0
    idle_until_wall: float = 0.0
    #: The bytes it had received when the congestion window of its other side was that of a new one.
    _n_cold_bytes: int = 0

    def window_bytes(self, now_s: float) -> int:
        """Return about how many bytes the other side of an idle connection sends at once.

        A sender begins with ten packets, and may send on as many bytes as have been acknowledged
        (RFC 5681, slow start). For each retransmission timeout without a packet it halves that
        (RFC 2861, which Linux does). Zero for one that has not responded.
        """
        if not self.has_responded:
            return 0
        n_halvings = min(int((now_s - self.idle_since) / HALVED_AFTER_S), 64)
        return max(0, self.dialer.n_received_bytes - self._n_cold_bytes) >> n_halvings

    def take(self, now_s: float) -> None:
        """Note that an idle connection is given a request."""
        self._n_cold_bytes = self.dialer.n_received_bytes - self.window_bytes(now_s)

    async def connect_ahead(self, ssl_context: ssl.SSLContext, timeout_s: float) -> None:
        """Connect now, before there is a request, with TLS where the origin has it.

        Raises httpcore's exceptions, and `NotAllowed` for an address that must not be connected to.
        """
        host, port = self.origin.host.decode("ascii"), self.origin.port
        context = ssl_context if self.origin.scheme == b"https" else None
        try:
            await self.dialer.connect_ahead(host, port, context, timeout_s)
        except NotResumed:
            self.dialer.abort()
            await self.dialer.connect_ahead(host, port, context, timeout_s)
        self.is_ahead = True

    def has_expired(self, now_s: float, wall_s: float) -> bool:
        """Return whether an idle one was idle for too long on either clock, or was closed."""
        if now_s >= self.idle_until or wall_s >= self.idle_until_wall:
            return True
        if not self.n_requests:  # httpcore knows nothing of it so far
            return self.dialer.has_ended()
        # Also true when bytes, or an end, came without a request.
        return self.http.has_expired()


class ConnectionMaker:
    """Makes connections, and holds what they share.

    These are the proxies and whether they have accepted a login, the slow addresses, and the TLS
    sessions that can be resumed.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext,
        proxies: Proxies | None = None,
    ) -> None:
        self.ssl_context = ssl_context
        self._proxies = proxies or Proxies()
        self._slow = SlowAddresses()
        self._sessions = TlsSessions()
        #: Where each host was found last, itself or its proxy: address and port.
        self.peers: LRUCache[str, str] = LRUCache(MAX_PEERS)
        self._logins: dict[Proxy, ProxyLogin] = {}

    def slow_addresses(self) -> tuple[str, ...]:
        """Return the addresses that are tried last now (`net/happy_eyeballs.py`)."""
        return self._slow.at(trio.current_time())

    def proxy_to(self, origin: httpcore.Origin) -> Proxy | None:
        """Return the proxy through which *origin* is reached, or None.

        Raises:
            BadSettings: the environment names a proxy that cannot be used.
        """
        return self._proxies.chosen(
            origin.scheme.decode("ascii"), origin.host.decode("ascii"), origin.port
        )

    def make(
        self, origin: httpcore.Origin, check_peer: CheckPeer | None = None
    ) -> PooledConnection:
        """Return a connection to *origin*; it connects when the first request is sent.

        *check_peer* is as for `Dialer`, and not called where there is a proxy.

        Raises:
            BadSettings: as `proxy_to`.
        """
        proxy = self.proxy_to(origin)
        login = self._logins.setdefault(proxy, ProxyLogin(proxy)) if proxy is not None else None
        # A proxy is the operator's choice, and resolves the name itself.
        note_peer = partial(self.peers.__setitem__, name_of(origin))
        dialer = Dialer(None if proxy else check_peer, self._slow, self._sessions, note_peer)
        http: httpcore.AsyncConnectionInterface
        if proxy is None:
            http = Http11Connection(origin, dialer, self.ssl_context)
        else:
            http = _factory(proxy, dialer, self.ssl_context).create_connection(origin)
        return PooledConnection(http, dialer, origin, name_of(origin), login)


def name_of(origin: httpcore.Origin) -> str:
    """Return *origin* as `addresses.origin_of` writes it."""
    host = origin.host.decode("ascii")
    port = origin.port or DEFAULT_PORTS[origin.scheme.decode("ascii")]
    return f"{origin.scheme.decode('ascii')}://{f'[{host}]' if ':' in host else host}:{port}"


def _factory(
    proxy: Proxy, dialer: Dialer, ssl_context: ssl.SSLContext
) -> httpcore.AsyncConnectionPool:
    """Return the object that makes one connection. It is a pool by name only, and always empty."""
    url = httpx.URL(proxy.address)
    arguments: dict[str, Any] = {}
    if url.scheme == "https":
        arguments["proxy_ssl_context"] = ssl_context
    if url.username or url.password:
        arguments["proxy_auth"] = (url.username, url.password)
    return httpcore.AsyncHTTPProxy(
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        ssl_context=ssl_context,
        network_backend=dialer,
        **arguments,
    )
