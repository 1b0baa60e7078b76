"""One request: its permit, its connection, and its response, whatever becomes of it.

`net/http.py` hands requests out to callers. Here each waits for its turn and its permit, and is
sent; at the end of its response everything is given back, in every case.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Final

import httpx
import trio
from msgspec import Struct

from satfs.errors import DeadlineReached, Garbled, Unreachable
from satfs.net.addresses import origin_of, request_target, shown
from satfs.net.host_connections import Crowded, Holder, Permit
from satfs.net.http_errors import causes_of, translating
from satfs.net.login_refusals import LoginForgotten
from satfs.net.permits import Permits
from satfs.net.reachability import Reachability
from satfs.net.responses import BodyChunks, StreamedResponse, may_refuse_connection

#: Time for giving up a response, behind a shield against cancellation.
CLOSE_LIMIT_S: Final = 2.0
#: Addresses that are remembered as httpx reads them: the ranges of an object share one.
MAX_PARSED: Final = 32

#: Methods of requests that may be sent twice (RFC 9110 §9.2.1).
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class Timeouts(Struct, frozen=True):
    """How long opening a connection, silence of one in use, and silence in a body may last."""

    connect_s: float
    progress_s: float
    body_s: float


class Sender:
    """Sends the requests of one client over *transport*, at most as many at once as *slots* has.

    *holder* has the connections; see `net/permits.py`. Each request has the *extensions*, which
    *transport* knows.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        timeouts: Timeouts,
        slots: trio.Semaphore,
        *,
        user_agent: str,
        permits: Permits,
        holder: Holder,
        reachability: Reachability,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        self.timeouts = timeouts
        self.slots = slots
        self.reachability = reachability
        self._transport = transport
        self._user_agent = user_agent
        self._permits = permits
        self._holder = holder
        limits = {
            "connect": timeouts.connect_s,
            "read": timeouts.progress_s,
            "write": timeouts.progress_s,
            "pool": None,
        }
        self._extensions = {**(extensions or {}), "timeout": limits}

    def request(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Request:
        """Return a request to be sent.

        Raises:
            Garbled: *url* is no address.
        """
        sent = {
            "User-Agent": self._user_agent,
            # Firewalls and frameworks refuse requests without one (406, 403).
            "Accept": "*/*",
            # A compressed response to a ranged request is no range of the object (RFC 9110 §14.2).
            "Accept-Encoding": "identity",
            **headers,
        }
        extensions = dict(self._extensions)
        try:
            parsed, target = _parsed(url)
            if target is not None:
                extensions["target"] = target
            return httpx.Request(
                method, parsed, headers=sent, content=content, extensions=extensions
            )
        except httpx.InvalidURL:
            raise Garbled(f"{shown(url)} is not an address that can be requested") from None

    async def send_when_permitted(
        self, origin: str, request: httpx.Request, where: str
    ) -> tuple[httpx.Response, Permit]:
        """Return the response's head, and the permit that it came with, which is to be ended.

        *where* is the address in messages of failures.
        """
        was_silent = False
        while True:
            permit = await self._permits.take(origin, [self._holder])
            permit.is_last_try = was_silent
            try:
                if request.method not in _SAFE_METHODS:
                    # The server may carry it out before it responds, so nothing ends the wait.
                    return await self.send(permit, request, where), permit
                with permit.scope:
                    return await self.send(permit, request, where), permit
                permit.raise_if_silent()
                raise DeadlineReached(f"{where}: no connection that responds")
            except Crowded as crowded:
                was_silent |= permit.wait_s is not None
                permit.end()
                await trio.sleep(crowded.wait_s)
            except BaseException:
                permit.end()
                raise

    async def send(self, permit: Permit, request: httpx.Request, where: str) -> httpx.Response:
        """Return the response's head.

        Raises:
            Crowded: the host lets no further connection through.
        """
        # A request that may have been carried out must not be sent again.
        is_safe = request.method in _SAFE_METHODS
        permit.check_connection()
        permit.begin()
        request.extensions["on_connection"] = permit.note_connection
        request.extensions["on_body"] = permit.responded
        try:
            response = await self._respond(request, where)
        except (DeadlineReached, LoginForgotten):
            raise
        except Unreachable as failure:
            # A name that cannot be resolved now shows nothing about the host.
            is_unresolved = any(isinstance(each, socket.gaierror) for each in causes_of(failure))
            if is_safe and not (failure.is_permanent or is_unresolved):
                permit.refused()
            raise
        if not may_refuse_connection(response):
            permit.responded()
        return response

    async def _respond(self, request: httpx.Request, where: str) -> httpx.Response:
        """Return the response's head. The limit also bounds transports that know no timeouts."""
        limit_s = self.timeouts.connect_s + self.timeouts.progress_s
        with trio.CancelScope(deadline=trio.current_time() + limit_s), translating(where):
            return await self._transport.handle_async_request(request)
        raise DeadlineReached(f"{where} did not respond within {limit_s:g} s")


class Exchange:
    """A request and its response, as a context: it is sent at the beginning, and over at the end.

    *given* is a permit for a connection of this client. It is used if it is for the origin of
    *url*; otherwise the exchange takes a permit of its own.

    This is a class, since a generator (`contextlib`) takes a tenth of the time of a short range.
    """

    def __init__(
        self,
        sender: Sender,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
        given: Permit | None = None,
    ) -> None:
        self._sender = sender
        self._origin, self._where = origin_of(url), shown(url)
        self._request = sender.request(method, url, headers, content)
        self._given = given
        self._own_permit: Permit | None = None
        self._chunks: BodyChunks

    async def __aenter__(self) -> StreamedResponse:
        slots = self._sender.slots
        try:
            slots.acquire_nowait()
        except trio.WouldBlock:
            await slots.acquire()
        try:
            return await self._sent()
        except BaseException:
            self._give_back()
            raise

    async def _sent(self) -> StreamedResponse:
        sender, given = self._sender, self._given
        if given is not None and given.origin == self._origin:
            permit = given
            response = await sender.send(permit, self._request, self._where)
        else:
            response, permit = await sender.send_when_permitted(
                self._origin, self._request, self._where
            )
            self._own_permit = permit
        sender.reachability.responded(self._origin, trio.current_time())
        self._chunks = BodyChunks(response, sender.timeouts.body_s, self._where, permit)
        return StreamedResponse(response, self._chunks, permit)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not self._chunks.is_over:
                give_up_at = trio.current_time() + CLOSE_LIMIT_S
                with trio.CancelScope(shield=True, deadline=give_up_at):
                    await self._chunks.give_up()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._own_permit is not None:
            self._own_permit.end()
        self._sender.slots.release()


@lru_cache(MAX_PARSED)
def _parsed(url: str) -> tuple[httpx.URL, bytes | None]:
    """Return *url* as httpx reads it, and its target as it is written, where that can be sent.

    httpx removes `.` and `..` from a path; a signature holds for what was signed.
    """
    return httpx.URL(url), request_target(url)
