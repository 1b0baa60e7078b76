"""The way to a host, step by step: name, connection, TLS, response; and proxies in between.

The same proxies, certificate authorities and connections are used as in a mount.
"""

from __future__ import annotations

import errno
import shlex
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import trio

from satfs.doctor.findings import Area, Finding, Severity, fine
from satfs.errors import (
    BadSettings,
    DeadlineReached,
    Garbled,
    NotAllowed,
    ProxyRefused,
    SatfsError,
    Unreachable,
)
from satfs.net.addresses import DEFAULT_PORTS, origin_of
from satfs.net.http import Http
from satfs.net.proxies import SCHEMES, Proxies, Proxy
from satfs.net.trust import is_strictness

#: Time for a name to be resolved, in seconds. A resolver sends a second query after five; one that
#: has not answered once in four makes every program on the machine slow.
NAME_LIMIT_S: Final = 4.0
#: Time for a connection, TLS and a response together, in seconds.
RESPONSE_LIMIT_S: Final = 6.0

#: Reasons to refuse a certificate (OpenSSL, X509_V_ERR_*).
_EXPIRED: Final = frozenset({9, 10})  # not yet valid, has expired
_WRONG_NAME: Final = frozenset({62, 64})  # host name or address mismatch


@dataclass(frozen=True, slots=True)
class Host:
    """A host to reach: *check* is its name for scripts, *name* for people; *url* is requested."""

    check: str
    name: str
    url: str
    area: Area = Area.NETWORK
    #: The setting that led here, where there is one.
    variable: str = ""


@dataclass(frozen=True, slots=True)
class HostReply:
    """A response, of any status, and when it was requested and received, by our wall clock."""

    status: int
    headers: Mapping[str, str]
    sent_at_s: float
    received_at_s: float


@dataclass(slots=True)
class Way:
    """The findings about one host; *reply* is None when the host did not respond."""

    findings: list[Finding]
    reply: HostReply | None = None


def on_the_way(hosts: tuple[Host, ...], proxies: Proxies) -> Iterator[Finding]:
    """Look through which proxies the hosts are reached, and whether satfs can use those."""
    by_proxy: dict[str, list[str]] = {}
    for host in hosts:
        parts = urlsplit(host.url)
        proxy = _proxy_for(host.url, proxies)
        if proxy is None:
            continue
        kind = proxy.address.partition("://")[0]
        where = _shown_proxy(proxy.address)
        if (problem := _problem_with(proxy)) is not None and kind in SCHEMES:
            yield Finding(
                Area.NETWORK,
                "proxy",
                Severity.FAILURE,
                f"{_first_up(str(problem))}.",
                "No request can go through it.",
                "Correct it, or do without a proxy:",
                (f"unset {proxy.variable} {proxy.variable.upper()}",),
                BadSettings,
            )
        elif kind not in SCHEMES:
            yield Finding(
                Area.NETWORK,
                "proxy",
                Severity.FAILURE,
                f"{_first_up(host.name)} would be reached through {where}, "
                f"and satfs speaks no {kind}.",
                "It speaks to HTTP proxies only.",
                "Name an HTTP proxy, or reach this host without one:",
                (
                    "unset all_proxy ALL_PROXY",
                    f"export no_proxy={shlex.quote(str(parts.hostname))}",
                ),
                BadSettings,
            )
        elif kind == "https" and parts.scheme == "https":
            yield Finding(
                Area.NETWORK,
                "proxy",
                Severity.FAILURE,
                f"{_first_up(host.name)} would be reached through {where}, "
                "which is TLS inside of TLS.",
                "satfs cannot do that. The tunnel itself is encrypted in any case.",
                "Name the proxy with http:, which most are meant to be:",
                (f"export https_proxy=http://{where.partition('://')[2]}",),
                Unreachable,
            )
        else:
            by_proxy.setdefault(where, []).append(host.name)
    for where, names in by_proxy.items():
        yield fine(
            Area.NETWORK, "proxy", f"{_first_up(' and '.join(names))}: reached through {where}."
        )
    if not by_proxy and not any(_proxy_for(host.url, proxies) for host in hosts):
        yield fine(Area.NETWORK, "proxy", "No proxy is used.")


async def reach(http: Http, host: Host, proxies: Proxies, headers: Mapping[str, str]) -> Way:
    """Resolve, connect, request and receive; stop at the first failure. No body is read.

    Waits for the network, at most `NAME_LIMIT_S` and `RESPONSE_LIMIT_S`. Only the host and never
    the path of *host.url* is shown: that may lead to an object by a signed link.
    """
    proxy = _proxy_for(host.url, proxies)
    requested = host.url if proxy is None else proxy.address
    name = urlsplit(requested).hostname or ""
    peer = f"the proxy to {host.name}" if proxy else host.name
    resolved = await _resolve(host, name, _port_of(requested), peer)
    if resolved.severity is Severity.FAILURE:
        return Way([resolved])
    way = Way([resolved])
    sent_at_s = time.time()
    began = trio.current_time()
    try:
        with trio.fail_after(RESPONSE_LIMIT_S):
            async with http.stream(host.url, headers=headers) as response:
                status, received_at_s = response.status, time.time()
                received = dict(response.headers)
    except (SatfsError, trio.TooSlowError) as failure:
        took_s = trio.current_time() - began
        way.findings.append(_no_response(host, failure, took_s, is_proxied=proxy is not None))
        return way
    took_ms = (trio.current_time() - began) * 1000
    way.reply = HostReply(status, received, sent_at_s, received_at_s)
    secured = ", its certificate trusted" if host.url.startswith("https:") else ""
    check = f"{host.check}-connection"
    elsewhere = _led_elsewhere(host.url, way.reply)
    if elsewhere:
        way.findings.append(
            Finding(
                host.area,
                check,
                Severity.WARNING,
                f"{_first_up(host.name)} ({origin_of(host.url)}) sends us on to {elsewhere}.",
                "The login page of a network (a hotel's, an airport's) does so, or an address that "
                "has moved.",
                "Open any web page in a browser, and log in to the network; then try again.",
            )
        )
    elif status >= 500 and host.area is not Area.STORE:
        way.findings.append(
            Finding(
                host.area,
                check,
                Severity.WARNING,
                f"{_first_up(host.name)} answers with an error of its own ({status}).",
                "It is in trouble, or what is in front of it.",
                "Wait; satfs tries again by itself.",
            )
        )
    else:
        way.findings.append(
            fine(host.area, check, f"{_first_up(host.name)} answers in {took_ms:.0f} ms{secured}.")
        )
    return way


async def _resolve(host: Host, name: str, port: int, peer: str) -> Finding:
    check = f"{host.check}-dns"
    try:
        with trio.fail_after(NAME_LIMIT_S):
            found = await trio.socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except trio.TooSlowError:
        return _nameless(
            host,
            check,
            f"Nobody resolves {name} within {NAME_LIMIT_S:.0f} s.",
            "The DNS servers of this machine do not answer; the network is gone, perhaps.",
            name,
        )
    except (OSError, UnicodeError) as failure:
        is_silent = isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_AGAIN
        return _nameless(
            host,
            check,
            f"The name of {peer}, {name}, leads nowhere.",
            "No DNS server answers; the network is gone, perhaps."
            if is_silent
            else "DNS does not know the name"
            + (f"; {host.variable} has it." if host.variable else "."),
            name,
        )
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    is_number = addresses[0] == name
    return fine(
        host.area,
        check,
        f"{_first_up(peer)} is {name}" + ("." if is_number else f", at {addresses[0]}{more}."),
    )


def _nameless(host: Host, check: str, statement: str, explanation: str, name: str) -> Finding:
    return Finding(
        host.area,
        check,
        Severity.FAILURE,
        statement,
        explanation,
        "See what the system knows of it, and of its network:",
        (f"getent ahosts {shlex.quote(name)}", "resolvectl status"),
        Unreachable,
    )


def _no_response(host: Host, failure: BaseException, took_s: float, *, is_proxied: bool) -> Finding:
    """Return the finding for a request that failed with *failure* after *took_s* seconds."""
    origin, port = origin_of(host.url), _port_of(host.url)
    name = urlsplit(host.url).hostname or ""
    causes = list(_causes(failure))
    check = f"{host.check}-connection"
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(host, check, cause)

    def failed(statement: str, explanation: str, remedy: str = "", *commands: str) -> Finding:
        return Finding(
            host.area,
            check,
            Severity.FAILURE,
            statement,
            explanation,
            remedy,
            commands,
            Unreachable,
        )

    if isinstance(failure, ProxyRefused):
        return Finding(
            host.area,
            check,
            Severity.FAILURE,
            f"{_first_up(str(failure))}.",
            "Nothing gets through it until then. satfs tries a refused password once, so that no "
            "account is locked.",
            "Ask the owner of the proxy.",
            cause=ProxyRefused,
        )
    if isinstance(failure, NotAllowed):  # by our own rule: nothing was connected to
        return Finding(
            host.area,
            check,
            Severity.FAILURE,
            f"{_first_up(str(failure))}.",
            "satfs connects to no such address for a public API: a link could lead into this "
            "network.",
            "If the object store is in your own network, allow it:",
            ("export SATFS_ALLOW_PRIVATE_STORE=true",),
            NotAllowed,
        )
    through = " through the proxy" if is_proxied else ""
    if isinstance(failure, trio.TooSlowError | DeadlineReached):
        return failed(
            f"{origin} did not answer{through} in {took_s:.0f} s.",
            "A firewall swallows the packets, the network is gone, or a proxy is needed.",
            "See how far one gets:",
            f"curl -sv --max-time 10 -o /dev/null {origin}",
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return failed(
            f"{origin} speaks no TLS that we understand.",
            "Something else listens at this port, or a box on the way breaks TLS.",
            "See its response:",
            f"openssl s_client -connect {name}:{port} -servername {name} </dev/null",
        )
    if any(isinstance(each, OSError) and each.errno == errno.ECONNREFUSED for each in causes):
        return failed(
            f"{origin} refuses connections{through}.",
            "The machine is there, and no program listens at this port.",
            f"Check {host.variable}." if host.variable else "Try again later.",
        )
    if isinstance(failure, Garbled):
        return failed(f"{origin} cannot be reached.", "Its setting is not an address.")
    return failed(
        f"{origin} cannot be reached{through}: {_reason(causes)}.",
        "Nothing can be listed or fetched that is not in the cache.",
        "See how far one gets:",
        f"curl -sv --max-time 10 -o /dev/null {origin}",
    )


def _untrusted(host: Host, check: str, cause: ssl.SSLCertVerificationError) -> Finding:
    origin, port = origin_of(host.url), _port_of(host.url)
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
        explanation = "It was made for another host, which responds here."
        remedy = f"Check {host.variable}, and the network:" if host.variable else "See whose it is:"
        commands = (examine,)
    elif is_strictness(cause):
        explanation = (
            "It departs from RFC 5280, as certificates of boxes that inspect TLS often do. curl "
            "and browsers accept it; satfs does not, and neither does Python from 3.13 on."
        )
        remedy = "Its administrator can mend it. Until then, check as curl and browsers do:"
        commands = ("export SATFS_TLS_STRICT=false", examine)
    else:
        explanation = (
            "Programs report “CERTIFICATE_VERIFY_FAILED”. A company's proxy that looks into TLS "
            "has an authority of its own, which this machine, or Python, does not know."
        )
        remedy = "Get that authority's PEM file from the owner of the network, and name it:"
        commands = ("export SATFS_CA_FILE=/path/to/authority.pem", examine)
    return Finding(
        host.area, check, Severity.FAILURE, statement, explanation, remedy, commands, Unreachable
    )


def _led_elsewhere(url: str, reply: HostReply) -> str | None:
    """Return the host that a response redirects to, when it is another host."""
    location = reply.headers.get("location", "")
    if not 300 <= reply.status < 400 or not location:
        return None
    try:
        host = urlsplit(location).hostname
    except ValueError:
        return None
    return host if host and host != urlsplit(url).hostname else None


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


def _proxy_for(url: str, proxies: Proxies) -> Proxy | None:
    parts = urlsplit(url)
    return proxies.chosen(parts.scheme, parts.hostname or "", _port_of(url))


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 443)


def _shown_proxy(proxy: str) -> str:
    """Return the address of a proxy without user and password."""
    kind, _, rest = proxy.partition("://")
    return f"{kind}://{rest.partition('/')[0].rpartition('@')[2]}"


def _problem_with(proxy: Proxy) -> BadSettings | None:
    try:
        proxy.parts()
    except BadSettings as problem:
        return problem
    return None


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
