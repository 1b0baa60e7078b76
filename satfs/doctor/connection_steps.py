"""The way to a host, step by step: name, connection, TLS, response, clock; proxies in between.

The same proxies, certificate authorities and connections are used as in a mount.

A signed link states when it expires, by the vendor's clock. satfs compares that with its own clock,
and requests another link a minute before (`satfs.content.fetch.links.MARGIN_S`). So a difference of
up to a minute has no effect. With a larger one, a clock that is:

- behind: links are used after they expired. The store refuses them, each refusal costs a request,
  and a program that sends no second request (curl with a link from elsewhere) fails.
- ahead: links count as expired too early, and those that live shorter than the difference at once;
  satfs uses each for some seconds and then requests another.

With a difference of days certificates are not valid yet, or not any more, and every connection
fails; that is reported as a failure of TLS.
"""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import trio

from satfs.content.fetch.links import MARGIN_S
from satfs.doctor.findings import Area, Check, Finding, Severity
from satfs.doctor.unreachable import no_response, port_of
from satfs.errors import BadSettings, SatfsError, Unreachable
from satfs.humanize import first_up
from satfs.net.addresses import origin_of
from satfs.net.http import Http
from satfs.net.proxies import SCHEMES, Proxies, Proxy

#: Time for a name to be resolved, in seconds. A resolver sends a second query after five; one that
#: has not responded in four makes every program on the machine slow.
NAME_LIMIT_S: Final = 4.0
#: Time for a connection, TLS and a response together, in seconds.
RESPONSE_LIMIT_S: Final = 6.0

#: A difference from this on gets a note: NTP keeps clocks within milliseconds, so NTP does not run.
#: Smaller ones may come from a `Date` in whole seconds and a slow response.
NOTE_FROM_S: Final = 5.0
#: A difference from this on makes satfs use links after they expired, or replace them too early.
WARN_FROM_S: Final = MARGIN_S

_SET_CLOCK: Final = ("timedatectl status", "sudo timedatectl set-ntp true")

_PROXY = Check(Area.NETWORK, "proxy")
_CLOCK = Check(Area.NETWORK, "clock")


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

    @property
    def clock_ahead_s(self) -> float | None:
        """By how many seconds our clock is ahead of the host's; None where it sends no date."""
        return skew_s(
            self.headers.get("date", ""),
            sent_at_s=self.sent_at_s,
            received_at_s=self.received_at_s,
            age=self.headers.get("age", ""),
        )


@dataclass(slots=True)
class HostFindings:
    """The findings about one host; *reply* is None when the host did not respond."""

    findings: list[Finding]
    reply: HostReply | None = None


def on_the_way(hosts: tuple[Host, ...], proxies: Proxies) -> Iterator[Finding]:
    """Look through which proxies the hosts are reached, and whether satfs can use those."""
    by_proxy: dict[str, list[str]] = {}
    for host in hosts:
        parts = urlsplit(host.url)
        proxy = proxies.for_url(host.url)
        if proxy is None:
            continue
        kind = proxy.address.partition("://")[0]
        where = _shown_proxy(proxy.address)
        if (problem := _problem_with(proxy)) is not None and kind in SCHEMES:
            yield _PROXY.failure(
                f"{first_up(str(problem))}.",
                "No request can go through it.",
                "Correct it, or do without a proxy:",
                f"unset {proxy.variable} {proxy.variable.upper()}",
                cause=BadSettings,
            )
        elif kind not in SCHEMES:
            yield _PROXY.failure(
                f"{first_up(host.name)} would be reached through {where}, "
                f"and satfs does not support {kind}.",
                "It uses HTTP proxies only.",
                "Name an HTTP proxy, or reach this host without one:",
                "unset all_proxy ALL_PROXY",
                f"export no_proxy={shlex.quote(str(parts.hostname))}",
                cause=BadSettings,
            )
        elif kind == "https" and parts.scheme == "https":
            yield _PROXY.failure(
                f"{first_up(host.name)} would be reached through {where}, "
                "which is TLS inside of TLS.",
                "satfs does not support this. The tunnel itself is encrypted in any case.",
                "Name the proxy with http:, as most proxies require:",
                f"export https_proxy=http://{where.partition('://')[2]}",
                cause=Unreachable,
            )
        else:
            by_proxy.setdefault(where, []).append(host.name)
    for where, names in by_proxy.items():
        yield _PROXY.fine(f"{first_up(' and '.join(names))}: reached through {where}.")
    if not by_proxy and not any(proxies.for_url(host.url) for host in hosts):
        yield _PROXY.fine("No proxy is used.")


async def reach(
    http: Http, host: Host, proxies: Proxies, headers: Mapping[str, str]
) -> HostFindings:
    """Resolve, connect, request and receive; stop at the first failure. No body is read.

    Waits for the network, at most `NAME_LIMIT_S` and `RESPONSE_LIMIT_S`. Only the host and never
    the path of *host.url* is shown: that may lead to an object by a signed link.
    """
    proxy = proxies.for_url(host.url)
    requested = host.url if proxy is None else proxy.address
    name = urlsplit(requested).hostname or ""
    peer = f"the proxy to {host.name}" if proxy else host.name
    resolved = await _resolve(host, name, port_of(requested), peer)
    if resolved.severity is Severity.FAILURE:
        return HostFindings([resolved])
    way = HostFindings([resolved])
    sent_at_s = time.time()
    began = trio.current_time()
    try:
        with trio.fail_after(RESPONSE_LIMIT_S):
            async with http.stream(host.url, headers=headers) as response:
                status, received_at_s = response.status, time.time()
                received = dict(response.headers)
    except (SatfsError, trio.TooSlowError) as failure:
        took_s = trio.current_time() - began
        way.findings.append(no_response(host, failure, took_s, is_proxied=proxy is not None))
        return way
    took_ms = (trio.current_time() - began) * 1000
    way.reply = HostReply(status, received, sent_at_s, received_at_s)
    secured = ", its certificate trusted" if host.url.startswith("https:") else ""
    check = Check(host.area, f"{host.check}-connection")
    elsewhere = _led_elsewhere(host.url, way.reply)
    if elsewhere:
        way.findings.append(
            check.warning(
                f"{first_up(host.name)} ({origin_of(host.url)}) redirects to {elsewhere}.",
                "The login page of a network (a hotel's, an airport's) does so, or an address that "
                "has moved.",
                "Open any web page in a browser, and log in to the network; then try again.",
            )
        )
    elif status >= 500 and host.area is not Area.STORE:
        way.findings.append(
            check.warning(
                f"{first_up(host.name)} responds with a server error ({status}).",
                "It has a failure, or a proxy in front of it has.",
                "Wait; satfs tries again by itself.",
            )
        )
    else:
        way.findings.append(
            check.fine(f"{first_up(host.name)} responds in {took_ms:.0f} ms{secured}.")
        )
    return way


async def _resolve(host: Host, name: str, port: int, peer: str) -> Finding:
    check = Check(host.area, f"{host.check}-dns", Unreachable)
    try:
        with trio.fail_after(NAME_LIMIT_S):
            found = await trio.socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except trio.TooSlowError:
        return _nameless(
            check,
            f"No DNS server resolves {name} within {NAME_LIMIT_S:.0f} s.",
            "The DNS servers of this machine do not respond; the network is gone, perhaps.",
            name,
        )
    except (OSError, UnicodeError) as failure:
        is_silent = isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_AGAIN
        return _nameless(
            check,
            f"The name of {peer}, {name}, has no address.",
            "No DNS server responds; the network is gone, perhaps."
            if is_silent
            else "DNS does not know the name"
            + (f"; {host.variable} has it." if host.variable else "."),
            name,
        )
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    is_number = addresses[0] == name
    return check.fine(
        f"{first_up(peer)} is {name}" + ("." if is_number else f", at {addresses[0]}{more}.")
    )


def _nameless(check: Check, statement: str, explanation: str, name: str) -> Finding:
    return check.failure(
        statement,
        explanation,
        "See what the system knows of it, and of its network:",
        f"getent ahosts {shlex.quote(name)}",
        "resolvectl status",
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


def skew_s(date: str, *, sent_at_s: float, received_at_s: float, age: str = "") -> float | None:
    """Return by how many seconds our clock is ahead of the writer of *date* (negative: behind).

    *date* is a `Date` header (RFC 9110 §6.6.1), *age* the `Age` of a response from a cache.
    *sent_at_s* and *received_at_s* are by our wall clock. Of all differences that fit the header
    and the duration of the request, the one nearest to 0 is returned: a clock that may be right
    counts as right. None when *date* is not a date.
    """
    try:
        moment = parsedate_to_datetime(date)
        stated_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    if age.strip().isdecimal() and len(age) < 10:
        stated_s += int(age)
    # The store read its clock at any moment between request and response, and cut it to seconds.
    earliest_s, latest_s = sent_at_s - (stated_s + 1), received_at_s - stated_s
    return 0.0 if earliest_s <= 0 <= latest_s else min(earliest_s, latest_s, key=abs)


def clock_finding(ahead_s: float | None) -> Finding:
    """Return the finding for a clock that is *ahead_s* seconds ahead; None: not known."""
    if ahead_s is None:
        return _CLOCK.note(
            "The API sends no date.",
            "So satfs cannot check the clock of this machine, on which signed links depend.",
            "See whether it is synchronised:",
            *_SET_CLOCK[:1],
        )
    amount_s = abs(ahead_s)
    if amount_s < NOTE_FROM_S:
        return _CLOCK.fine("The clock agrees with the API's.")
    way = "ahead of" if ahead_s > 0 else "behind"
    statement = f"The clock is {_duration(amount_s)} {way} the API's."
    if amount_s < WARN_FROM_S:
        return _CLOCK.note(
            statement,
            f"Nothing fails below {WARN_FROM_S:.0f} s; but an unsynchronised clock drifts.",
            "Have it synchronised:",
            *_SET_CLOCK,
        )
    explanation = (
        "Signed links count as expired too early, and are requested again and again."
        if ahead_s > 0
        else "Signed links are used after they expired: the store refuses them, and each refusal "
        "costs a request."
    )
    return _CLOCK.warning(
        statement,
        f"{explanation} satfs allows for {WARN_FROM_S:.0f} s. Days of difference break TLS.",
        "Have it synchronised:",
        *_SET_CLOCK,
    )


def _duration(seconds: float) -> str:
    for unit_s, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.95 * unit_s:  # below, a smaller unit is more exact
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
