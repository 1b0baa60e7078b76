"""The finding for a host that did not respond, by the failure of the request. Decides only."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from satfs.doctor.findings import Check, Finding
from satfs.errors import DeadlineReached, Garbled, NotAllowed, ProxyRefused, Unreachable
from satfs.humanize import first_up
from satfs.net.addresses import DEFAULT_PORTS, origin_of
from satfs.net.trust import is_strictness

if TYPE_CHECKING:
    from satfs.doctor.connection_steps import Host

#: Reasons to refuse a certificate (OpenSSL, X509_V_ERR_*).
_EXPIRED: Final = frozenset({9, 10})  # not yet valid, has expired
_WRONG_NAME: Final = frozenset({62, 64})  # host name or address mismatch


def no_response(host: Host, failure: BaseException, took_s: float, *, is_proxied: bool) -> Finding:
    """Return the finding for a request that failed with *failure* after *took_s* seconds."""
    origin, port = origin_of(host.url), port_of(host.url)
    name = urlsplit(host.url).hostname or ""
    causes = list(_causes(failure))
    check = Check(host.area, f"{host.check}-connection", Unreachable)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(host, check, cause)

    if isinstance(failure, ProxyRefused):
        return check.failure(
            f"{first_up(str(failure))}.",
            "No request goes through it. satfs sends a refused password once, so that it locks no "
            "account.",
            "Ask the owner of the proxy.",
            cause=ProxyRefused,
        )
    if isinstance(failure, NotAllowed):  # by our own rule: nothing was connected to
        return check.failure(
            f"{first_up(str(failure))}.",
            "satfs connects to no such address for a public API: a link could lead into this "
            "network.",
            "If the object store is in your own network, allow it:",
            "export SATFS_ALLOW_PRIVATE_STORE=true",
            cause=NotAllowed,
        )
    through = " through the proxy" if is_proxied else ""
    if isinstance(failure, trio.TooSlowError | DeadlineReached):
        return check.failure(
            f"{origin} did not answer{through} in {took_s:.0f} s.",
            "A firewall drops the packets, the network is gone, or a proxy is needed.",
            "See where a request fails:",
            f"curl -sv --max-time 10 -o /dev/null {origin}",
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return check.failure(
            f"{origin} does not respond with TLS that satfs understands.",
            "Another service listens at this port, or a proxy on the way breaks TLS.",
            "See its response:",
            f"openssl s_client -connect {name}:{port} -servername {name} </dev/null",
        )
    if any(isinstance(each, OSError) and each.errno == errno.ECONNREFUSED for each in causes):
        return check.failure(
            f"{origin} refuses connections{through}.",
            "The machine responds, but no program listens at this port.",
            f"Check {host.variable}." if host.variable else "Try again later.",
        )
    if isinstance(failure, Garbled):
        return check.failure(f"{origin} cannot be reached.", "Its setting is not an address.")
    return check.failure(
        f"{origin} cannot be reached{through}: {_reason(causes)}.",
        "Nothing can be listed or fetched that is not in the cache.",
        "See where a request fails:",
        f"curl -sv --max-time 10 -o /dev/null {origin}",
    )


def _untrusted(host: Host, check: Check, cause: ssl.SSLCertVerificationError) -> Finding:
    origin, port = origin_of(host.url), port_of(host.url)
    name = urlsplit(host.url).hostname or ""
    statement = f"The certificate of {origin} is not trusted: {cause.verify_message}."
    examine = f"openssl s_client -connect {name}:{port} -servername {name} </dev/null"
    if cause.verify_code in _EXPIRED:
        explanation, remedy = (
            "It is not valid now; or the clock of this machine is wrong.",
            "See both:",
        )
        commands: tuple[str, ...] = ("timedatectl status", examine)
    elif cause.verify_code in _WRONG_NAME:
        explanation = "The certificate is that of another host, which responds here."
        remedy = f"Check {host.variable}, and the network:" if host.variable else "See whose it is:"
        commands = (examine,)
    elif is_strictness(cause):
        explanation = (
            "It departs from RFC 5280, as certificates of boxes that inspect TLS often do. curl "
            "and browsers accept it; satfs does not, and neither does Python from 3.13 on."
        )
        remedy = "Its administrator can replace it. Until then, check as curl and browsers do:"
        commands = ("export SATFS_TLS_STRICT=false", examine)
    else:
        explanation = (
            "Programs report “CERTIFICATE_VERIFY_FAILED”. A company's proxy that looks into TLS "
            "has an authority of its own, which this machine, or Python, does not know."
        )
        remedy = "Get that authority's PEM file from the owner of the network, and name it:"
        commands = ("export SATFS_CA_FILE=/path/to/authority.pem", examine)
    return check.failure(statement, explanation, remedy, *commands)


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Yield *failure* and all that caused it, members of groups included."""
    waiting, seen = [failure], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        waiting.extend(filter(None, (each.__cause__, each.__context__)))


def _reason(causes: list[BaseException]) -> str:
    """Return the system's words for a failure. Not its own: they hold paths of links."""
    reasons = (each.strerror for each in causes if isinstance(each, OSError) and each.strerror)
    return next(reasons, "the connection broke")


def port_of(url: str) -> int:
    """Return the port of *url*, or the one of its scheme."""
    parts = urlsplit(url)
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 443)
