"""Which proxy, if any, a request to a host goes through.

The rules are those of `urllib` and curl: `http_proxy`, `https_proxy` and `all_proxy` name a proxy
by the scheme of the request, `no_proxy` lists hosts that are reached directly. Requests to loopback
addresses never go through a proxy, which would connect to its own machine.

*Pure.* `net/proxy_login.py` sends requests to a proxy, and handles a refused password.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

from satfs.errors import BadSettings
from satfs.net.addresses import DEFAULT_PORTS, is_loopback

#: Schemes of proxies that satfs can use.
SCHEMES: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable that names it."""

    address: str = field(repr=False)
    variable: str

    def parts(self) -> SplitResult:
        """Return the address in its parts.

        Raises:
            BadSettings: it is not the address of an HTTP proxy; names the variable, no password.
        """
        try:
            parts = urlsplit(self.address)
            is_complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:  # a bracket that is not closed, a port that is no number
            is_complete = False
        if not is_complete:
            raise BadSettings(
                f"{self.variable} is not the address of a proxy, such as http://proxy.example:3128"
            )
        if parts.scheme not in SCHEMES:
            raise BadSettings(
                f"{self.variable} names a {parts.scheme}: proxy, and satfs can use HTTP proxies "
                f"only: set {self.variable} to one, or put the host in no_proxy"
            )
        return parts

    def shown(self) -> str:
        """Return host and port, without user and password. Raises as `parts`."""
        return self.parts().netloc.rpartition("@")[2]

    @property
    def has_login(self) -> bool:
        """Return whether the address names a user or a password. Raises as `parts`."""
        parts = self.parts()
        return bool(parts.username or parts.password)


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy addresses by scheme (`http`, `https`, `all`); `no` is the list of exceptions."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_url(self, url: str) -> Proxy | None:
        """Return the proxy for *url*, or None to connect directly."""
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 443)
        return self.chosen(parts.scheme, parts.hostname or "", port)

    def chosen(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for *host*, or None to connect directly.

        Its address is that of the environment, and may be invalid (`Proxy.parts`).
        """
        kind = scheme if self.by_scheme.get(scheme) else "all"
        address = self.by_scheme.get(kind)
        if not address or is_loopback(host):
            return None
        exceptions = {"no": self.by_scheme.get("no", "")}
        if urllib.request.proxy_bypass_environment(f"{host}:{port}", exceptions):  # type: ignore[attr-defined]
            return None
        return Proxy(address if "://" in address else f"http://{address}", f"{kind}_proxy")


def proxies_of_environment() -> Proxies:
    """Return the proxies of the environment as it is now.

    The one place besides `satfs.settings` that reads the environment: these variables belong to the
    system, and every program reads them in the same way.
    """
    return Proxies(dict(urllib.request.getproxies()))
