"""Which proxy, if any, a request to a host goes through.

The rules are those of `urllib` and curl: `http_proxy`, `https_proxy` and `all_proxy` name a proxy
by the scheme of what is asked for, `no_proxy` lists hosts that are asked directly. Loopback
addresses never go through a proxy, which would look for them on its own machine.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from satfs.net.addresses import is_loopback


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy addresses by scheme (`http`, `https`, `all`); `no` is the list of exceptions."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_host(self, scheme: str, host: str, port: int) -> str | None:
        """Return the address of the proxy for *host*, or None to connect directly."""
        proxy = self.by_scheme.get(scheme) or self.by_scheme.get("all")
        if not proxy or is_loopback(host):
            return None
        exceptions = {"no": self.by_scheme.get("no", "")}
        if urllib.request.proxy_bypass_environment(f"{host}:{port}", exceptions):  # type: ignore[attr-defined]
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


def proxies_of_environment() -> Proxies:
    """Return what the environment says now.

    The one place besides `satfs.settings` that looks there: these variables are the system's, not
    ours, and every program reads them alike.
    """
    return Proxies(dict(urllib.request.getproxies()))
