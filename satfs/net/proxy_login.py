"""A proxy that refuses user and password (407): one request is sent, then none for a while.

Every request with a wrong password counts at the proxy, and directory services lock an account
after a few. So the first request through a proxy goes alone, and after a 407 nothing is sent for
a time that doubles with each one. The environment of a process never changes: only a change at the
proxy can make the same password right.
"""

from __future__ import annotations

from typing import Any, Final

import httpcore
import trio

from satfs.errors import ProxyRefused, SatfsError, Unreachable
from satfs.net.proxies import Proxy

#: Time without a request after a 407, in seconds; doubled with each 407 in a row. Accounts are
#: commonly locked at five to ten failures within half an hour.
REFUSED_S: Final = 600.0
#: The same for a proxy that accepted the login before: its directory service may have been out of
#: reach for a moment. So its first refusals are a failure like others, which callers try again
#: within their deadlines: after 5 s, 15 s and 35 s.
PROVEN_REFUSED_S: Final = 5.0
MAX_FORGIVEN: Final = 3
#: Limit of that time, in seconds.
MAX_REFUSED_S: Final = 3600.0
#: httpcore's event (its "trace" extension) that has the status of a response.
_STATUS_EVENT: Final = "http11.receive_response_headers.complete"


class LoginForgotten(Unreachable):
    """A proxy refuses a login that it has accepted before; nothing was sent to the host."""


class ProxyLogin:
    """User and password at one proxy, as accepted or refused so far.

    Raises `BadSettings` for a proxy that cannot be used.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._shown = proxy.shown()
        self._has_login = proxy.has_login
        self._is_accepted = False
        self._n_refused = 0
        self._refused_until_s = 0.0
        self._first = trio.Lock()

    async def send(
        self, connection: httpcore.AsyncConnectionInterface, request: httpcore.Request
    ) -> httpcore.Response:
        """Send *request* over *connection*, which goes through the proxy; return the response.

        Waits while the first request through this proxy is under way.

        Raises:
            ProxyRefused: 407, now or a while ago.
            LoginForgotten: the same, the first times after it was accepted.
            httpcore's errors.
        """
        if self._has_login and not self._is_accepted:
            async with self._first:
                if not self._is_accepted:
                    return await self._send(connection, request)
        return await self._send(connection, request)

    async def _send(
        self, connection: httpcore.AsyncConnectionInterface, request: httpcore.Request
    ) -> httpcore.Response:
        if trio.current_time() < self._refused_until_s:
            raise self._failure()
        status = 0

        async def note(event: str, details: dict[str, Any]) -> None:
            nonlocal status
            if event == _STATUS_EVENT:
                status = details["return_value"][1]

        request.extensions = {**request.extensions, "trace": note}
        try:
            response = await connection.handle_async_request(request)
        except httpcore.ProxyError:
            if status == 407:
                raise self._refused() from None
            raise
        # In a tunnel a 407 is not the proxy's: the host at its end has sent it.
        if response.status == 407 and request.url.scheme == b"http":
            await response.aclose()
            raise self._refused()
        self._is_accepted, self._n_refused = True, 0
        return response

    def _refused(self) -> SatfsError:
        first_s = PROVEN_REFUSED_S if self._is_accepted else REFUSED_S
        wait_s = min(MAX_REFUSED_S, first_s * 2.0 ** min(self._n_refused, 20))
        self._n_refused += 1
        self._refused_until_s = trio.current_time() + wait_s
        return self._failure()

    def _failure(self) -> SatfsError:
        is_forgiven = self._is_accepted and self._n_refused <= MAX_FORGIVEN
        return (LoginForgotten if is_forgiven else ProxyRefused)(self._sentence())

    def _sentence(self) -> str:
        variable, shown = self._proxy.variable, self._shown
        if self._has_login:
            return f"the proxy {shown} refuses the user and password in {variable} (407)"
        return (
            f"the proxy {shown} wants a user and a password (407): "
            f"export {variable}=http://USER:PASSWORD@{shown}"
        )
