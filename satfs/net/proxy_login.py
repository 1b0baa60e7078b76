"""Requests through a proxy that may refuse user and password (407).

A refused login is not sent again for a while; `net/login_refusals.py` decides for how long. Until a
proxy has accepted the login, and after each refusal, one request is sent alone. The other requests
wait for its result.
"""

from __future__ import annotations

from typing import Any, Final

import httpcore
import trio

from satfs.errors import ProxyRefused, SatfsError
from satfs.net.login_refusals import LoginForgotten, LoginRefusals
from satfs.net.proxies import Proxy

#: httpcore's event (its "trace" extension) that has the status of a response.
_STATUS_EVENT: Final = "http11.receive_response_headers.complete"


class ProxyLogin:
    """User and password at one proxy, as accepted or refused so far.

    Raises `BadSettings` for a proxy that cannot be used.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._shown = proxy.shown()
        self._has_login = proxy.has_login
        self._refusals = LoginRefusals()
        #: Set when it is known whether the proxy accepts the one request in flight.
        self._verdict: trio.Event | None = None

    async def send(
        self, connection: httpcore.AsyncConnectionInterface, request: httpcore.Request
    ) -> httpcore.Response:
        """Send *request* over *connection*, which goes through the proxy; return the response.

        Waits while another request finds out whether the proxy accepts the login.

        Raises:
            ProxyRefused: 407, now or a while ago.
            LoginForgotten: 407 from a proxy that had accepted the login, the first few times.
            httpcore's errors.
        """
        while self._verdict is not None:
            await self._verdict.wait()
        if self._refusals.wait_s(trio.current_time()) > 0:
            raise self._failure()
        if self._refusals.is_certain or not self._has_login:
            return await self._send(connection, request)
        self._verdict = verdict = trio.Event()
        try:
            return await self._send(connection, request)
        finally:
            self._end(verdict)

    def _end(self, verdict: trio.Event) -> None:
        """Wake the requests that wait for *verdict*."""
        verdict.set()
        if self._verdict is verdict:
            self._verdict = None

    async def _send(
        self, connection: httpcore.AsyncConnectionInterface, request: httpcore.Request
    ) -> httpcore.Response:
        sent_at_s, verdict = trio.current_time(), self._verdict
        is_tunnel = request.url.scheme == b"https"
        status = 0

        async def note(event: str, details: dict[str, Any]) -> None:
            nonlocal status
            if event != _STATUS_EVENT:
                return
            is_first, status = not status, details["return_value"][1]
            # In a tunnel the first status is the proxy's own. An error other than 407 is about the
            # host that the proxy cannot reach, and says nothing about the login.
            if is_first and (200 <= status < 300 if is_tunnel else status != 407):
                self._refusals.accepted()
                if verdict is not None:
                    self._end(verdict)

        request.extensions = {**request.extensions, "trace": note}
        try:
            response = await connection.handle_async_request(request)
        except httpcore.ProxyError:
            if status == 407:
                raise self._refused(sent_at_s) from None
            raise
        # In a tunnel a 407 is not the proxy's: the host at its end has sent it.
        if response.status == 407 and not is_tunnel:
            await response.aclose()
            raise self._refused(sent_at_s)
        return response

    def _refused(self, sent_at_s: float) -> SatfsError:
        self._refusals.refused(sent_at_s, trio.current_time())
        return self._failure()

    def _failure(self) -> SatfsError:
        if self._refusals.is_forgiven:
            wait_s = self._refusals.wait_s(trio.current_time())
            return LoginForgotten(self._sentence(), wait_s=wait_s)
        return ProxyRefused(self._sentence())

    def _sentence(self) -> str:
        variable, shown = self._proxy.variable, self._shown
        if self._has_login:
            return f"the proxy {shown} refuses the user and password in {variable} (407)"
        return (
            f"the proxy {shown} wants a user and a password (407): "
            f"export {variable}=http://USER:PASSWORD@{shown}"
        )
