"""Which web addresses may be asked, how they are compared, and how they are shown.

The rule for links to objects, which arrive in answers of the API and in redirects of the store:

- `https` always; `http` only when the API itself is asked over `http` (settings allow that for a
  loopback address only: the demo origin, a test).
- No user name or password in the address.
- Link-local, multicast, unspecified and reserved addresses never: cloud machines keep their
  credentials at such addresses (169.254.169.254).
- Private and loopback addresses only when the API's own host is one, or when the operator allows
  private stores (`allow_private_store`).

Addresses are judged as written, in every notation that a resolver takes for one (`127.1`, an IPv4
address inside an IPv6 one). What a *name* resolves to cannot be judged here: whoever controls the
name's DNS decides that, and TLS then demands a certificate for the name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from satfs.errors import Garbled, NotAllowed

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}

#: What parsers of addresses disagree about: they strip, split or map these differently.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url* as one comparable text, `https://host:443`.

    Raises:
        Garbled: *url* is no http or https address.
    """
    parts = _split(url)
    return f"{parts.scheme}://{_bracketed(parts)}:{parts.port or DEFAULT_PORTS[parts.scheme]}"


def shown(url: str) -> str:
    """Return *url* as it may appear in messages: without user, query or fragment."""
    try:
        parts = _split(url)
    except Garbled:
        return "an address that is none"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{_bracketed(parts)}{port}{parts.path}"


def resolved(base_url: str, reference: str) -> str:
    """Return the address that *reference* names in an answer from *base_url* (RFC 3986 §5).

    Nothing is checked about where it leads.

    Raises:
        Garbled: it is no address.
    """
    try:
        return urljoin(base_url, reference)
    except ValueError:  # a bracket that does not close
        raise Garbled("the address in an answer is none") from None


def literal_address(host: str) -> IPAddress | None:
    """Return the address that *host* spells, in any notation resolvers accept; None for a name.

    An IPv4 address that travels inside an IPv6 one is unwrapped.
    """
    host = host.rstrip(".")
    try:
        address: IPAddress = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        if not re.fullmatch(r"[0-9a-fA-FxX.]+", host):
            return None
        try:
            # Resolvers still take the notations of old (`127.1`, `0x7f000001`, `2130706433`).
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def is_loopback(host: str) -> bool:
    """Tell whether *host*, as written, is this machine."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    address = literal_address(host)
    return address is not None and address.is_loopback


@dataclass(frozen=True, slots=True)
class LinkRule:
    """Where links to objects may lead, for an API at *api_url*. The rule is the module's text."""

    api_url: str
    allow_private: bool = False

    def check(self, url: str) -> None:
        """Return if *url* may be asked; no credential is ever sent with it.

        Raises:
            NotAllowed: the rule refuses the address; the message says why, without the query.
            Garbled: it is not an address at all.
        """
        if not isinstance(url, str) or _AMBIGUOUS.search(url):
            raise Garbled("the link is not an address")
        try:
            scheme = urlsplit(url).scheme
        except ValueError:
            raise Garbled("the link is not an address") from None
        if scheme not in DEFAULT_PORTS:
            raise NotAllowed(f"links of type {scheme[:20]!r} are not followed")
        parts = _split(url)
        api = _split(self.api_url)
        where = shown(url)
        if parts.username is not None or parts.password is not None:
            raise NotAllowed(f"the link to {where} carries a user name")
        if parts.scheme == "http" and api.scheme != "http":
            raise NotAllowed(f"the link to {where} is not encrypted, while the API is")
        self._check_host(parts.hostname or "", api.hostname or "", where)

    def _check_host(self, host: str, api_host: str, where: str) -> None:
        address = literal_address(host)
        if address is not None and (
            address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or (address.is_reserved and not address.is_loopback)
        ):
            raise NotAllowed(f"the link to {where} leads to an address that serves no objects")
        if self.allow_private or _is_private(api_host):
            return
        if _is_private(host):
            raise NotAllowed(
                f"the link to {where} leads to a private address, while the API is public; "
                "allow_private_store (SATFS_ALLOW_PRIVATE_STORE) allows it"
            )


def _is_private(host: str) -> bool:
    if is_loopback(host):
        return True
    address = literal_address(host)
    return address is not None and not address.is_global


def _split(url: str) -> SplitResult:
    """Return the parts of an http(s) address with a host and a legal port."""
    if _AMBIGUOUS.search(url):
        raise Garbled("not a web address")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError when it cannot be one
    except ValueError:
        raise Garbled("not a web address") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise Garbled("not a web address")
    return parts


def _bracketed(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
