"""Which URLs may be requested, how they are compared, and how they are displayed.

The rule for links to objects, which arrive in responses of the API and in redirects of the store:

- `https` always; `http` only when the API itself is requested over `http` (settings allow that for
  a loopback address only: the demo origin, a test).
- No user name or password in the address.
- Link-local, multicast, unspecified and reserved addresses never: cloud machines keep their
  credentials at such addresses (169.254.169.254).
- Private and loopback addresses only when the API's own host is one, or when the operator allows
  private stores (`allow_private_store`).

Addresses are judged as written, in every notation that a resolver takes for one (`127.1`, an IPv4
address inside an IPv6 one), by `LinkRule.check`. The addresses of a *name* are judged by
`LinkRule.check_peer` after it was resolved and before a connection is opened: an attacker who
controls a name's DNS could otherwise have satfs connect to any port of this machine or its network.
Where a proxy resolves names, it alone decides.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from msgspec import Struct

from satfs.errors import Garbled, NotAllowed

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Addresses of which the parts are remembered: all ranges of an object have one link, and each
#: needs its origin several times.
MAX_PARSED = 64
DEFAULT_PORTS = {"http": 80, "https": 443}

#: Characters that parsers of addresses strip, split or map in different ways: all except the
#: visible ones of ASCII, and the backslash. (As a set of its own, with a range up to the last code
#: point, it takes 3 ms to compile.)
_AMBIGUOUS = re.compile(r"[^\x21-\x5b\x5d-\x7e]")
#: Host and port with an IPv6 address (RFC 3986 §3.2.2). Versions of Python differ in what else with
#: brackets they split: some take `[::1]]` for `::1`.
_IN_BRACKETS = re.compile(r"\[[^][@:]*:[^][@]*\](:[0-9]*)?")
#: Scheme and host of an address.
_HOST = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Longest label and longest name (RFC 1035 §2.3.4); no resolver takes more.
_MAX_LABEL_CHARACTERS = 63
_MAX_NAME_CHARACTERS = 253
#: Addresses of the metadata services of clouds outside the link-local range, and ranges that not
#: every version of Python classes as private or reserved: Oracle's metadata lies in the IETF's
#: protocol assignments (RFC 6890), then Azure's, Alibaba's, and AWS's over IPv6; site-local IPv6
#: (RFC 3879).
_SERVES_NO_OBJECTS = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "fd00:ec2::254/128",
        "fec0::/10",
    )
)


@lru_cache(MAX_PARSED)
def origin_of(url: str) -> str:
    """Return scheme, host and port of *url* as one comparable text, `https://host:443`.

    Raises:
        Garbled: *url* is no http or https address.
    """
    parts = _split(url)
    return f"{parts.scheme}://{_bracketed(parts)}:{parts.port or DEFAULT_PORTS[parts.scheme]}"


@lru_cache(MAX_PARSED)
def shown(url: str) -> str:
    """Return *url* as it may appear in messages: without user, query or fragment."""
    try:
        parts = _split(url)
    except Garbled:
        return "an invalid address"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{_bracketed(parts)}{port}{parts.path}"


def resolved(base_url: str, reference: str) -> str:
    """Return the address that *reference* names in a response from *base_url* (RFC 3986 §5).

    Characters in it that should have been escaped are escaped, as by `escaped`. Its target is not
    checked.

    Raises:
        Garbled: it is no address.
    """
    try:
        return urljoin(base_url, escaped(reference))
    except ValueError:  # a bracket that does not close
        raise Garbled("the address in a response is not valid") from None


def escaped(reference: str) -> str:
    """Return *reference* with spaces and characters beyond ASCII percent-escaped, but in its host.

    Servers write file names into addresses as they are, and browsers escape them (WHATWG URL, as
    UTF-8). Control characters stay, bidirectional ones as well, and so do other letters in a host:
    an address with one is refused.
    """
    if reference.isascii() and " " not in reference:
        return reference
    begin = _HOST.match(reference)
    rest = 0 if begin is None else begin.end()
    return reference[:rest] + "".join(
        quote(each) if each == " " or (each > "~" and each.isprintable()) else each
        for each in reference[rest:]
    )


def is_same_resource(one: str, other: str) -> bool:
    """Return whether two addresses differ in their query, or in a slash at the end, alone."""
    try:
        here, there = urlsplit(one), urlsplit(other)
    except ValueError:
        return False
    is_same_host = (here.scheme, here.netloc) == (there.scheme, there.netloc)
    return is_same_host and here.path.rstrip("/") == there.path.rstrip("/")


def request_target(url: str) -> bytes | None:
    """Return path and query of *url* as they are written, without any normalisation.

    None where they have characters that a request cannot have (RFC 9112 §3.2, RFC 3986 §2), or
    *url* is no URL: then they have to be encoded, or refused.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_plain = target.startswith("/") and all("!" <= character <= "~" for character in target)
    return target.encode("ascii") if is_plain else None


def literal_address(host: str) -> IPAddress | None:
    """Return the address that *host* spells, in any notation resolvers accept; None for a name.

    An IPv4 address inside an IPv6 address is unwrapped.
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
    """Return whether *host*, as written, is this machine."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    address = literal_address(host)
    return address is not None and address.is_loopback


class LinkRule(Struct, frozen=True):
    """Where links to objects may lead, for an API at *api_url*. The rule is the module's text."""

    api_url: str
    allow_private: bool = False

    def check(self, url: str) -> None:
        """Return normally if requests to *url* are allowed; no credential is ever sent with them.

        Raises:
            NotAllowed: the rule refuses the address; the message has the reason, without the query.
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

    @property
    def allows_private(self) -> bool:
        """Return whether links may lead to private addresses."""
        return self.allow_private or _is_private(_split(self.api_url).hostname or "")

    def check_peer(self, host: str, address: str) -> None:
        """Return normally if *address*, to which *host* was resolved, may be connected to.

        Raises:
            NotAllowed: the rule refuses it; the message has the reason.
        """
        if not may_connect(address, allows_private=self.allows_private):
            raise NotAllowed(refusal_of_peer(host))

    def _check_host(self, host: str, api_host: str, where: str) -> None:
        address = literal_address(host)
        if address is not None and _serves_no_objects(address):
            raise NotAllowed(f"the link to {where} leads to an address that serves no objects")
        if self.allow_private or _is_private(api_host):
            return
        if _is_private(host):
            raise NotAllowed(
                f"the link to {where} leads to a private address, while the API is public; "
                "allow_private_store (SATFS_ALLOW_PRIVATE_STORE) allows it"
            )


def may_connect(address: str, *, allows_private: bool) -> bool:
    """Return whether an object store may be at *address*, as a resolver gave it."""
    literal = literal_address(address)
    if literal is None or _serves_no_objects(literal):
        return False
    return allows_private or literal.is_global


def refusal_of_peer(host: str) -> str:
    """Return the message that *host* was resolved to an address that must not be connected to."""
    return (
        f"the name {host} leads to an address that links may not lead to; for a private one, "
        "allow_private_store (SATFS_ALLOW_PRIVATE_STORE) allows it"
    )


def _serves_no_objects(address: IPAddress) -> bool:
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and not address.is_loopback)
        or any(address in network for network in _SERVES_NO_OBJECTS)
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
    if parts.scheme not in DEFAULT_PORTS or not _is_host(parts.hostname or ""):
        raise Garbled("not a web address")
    if re.search(r"[][]", parts.netloc) and not _IN_BRACKETS.fullmatch(
        parts.netloc.rpartition("@")[2]
    ):
        raise Garbled("not a web address")
    return parts


def _is_host(host: str) -> bool:
    """Return whether *host* is an address or a name that can be resolved."""
    if ":" in host:
        return literal_address(host) is not None
    labels = host.removesuffix(".").split(".")
    return len(host) <= _MAX_NAME_CHARACTERS + 1 and all(
        0 < len(label) <= _MAX_LABEL_CHARACTERS for label in labels
    )


def _bracketed(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
