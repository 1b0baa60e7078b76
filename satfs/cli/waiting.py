"""How a command waits: in an event loop, with a notice after a second, less without a route."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, TypeVarTuple, Unpack
from urllib.parse import urlsplit

import trio
from msgspec.structs import replace

from satfs.api.token_sources import mode_of
from satfs.cli.output import print_sentence
from satfs.fuse.errnos import gravest_of
from satfs.net.proxies import proxies_of_environment
from satfs.settings import AuthMode, Settings

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

#: After this time without output a command prints what it waits for, in seconds.
NOTICE_S: Final = 1.0
#: Deadline of a request where this machine has no route to other networks, in seconds. Long enough
#: for a host of the same network, and for an interface that is just coming up.
NO_ROUTE_S: Final = 3.0
#: Addresses for documentation (RFC 5737, RFC 3849): nothing is sent there.
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_NO_ROUTE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)


def run_alone(function: Callable[[Unpack[Arguments]], Awaitable[T]], *given: *Arguments) -> T:
    """Run *function* in an event loop of its own; raise the one failure that matters.

    Nurseries wrap what their tasks raise (PEP 654), Ctrl-C included.
    """
    try:
        return trio.run(function, *given)
    except BaseExceptionGroup as group:
        raise gravest_of(group) from group


@contextmanager
def waiting_shown(settings: Settings, *, is_quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Print on standard error which hosts are waited for, when the body takes over `NOTICE_S`.

    Yields a function that ends the wait before the body does.
    """
    notice = threading.Timer(NOTICE_S, print_sentence, [f"Waiting for {_hosts(settings)}…"])
    notice.daemon = True
    if not is_quiet:
        notice.start()
    try:
        yield notice.cancel
    finally:
        notice.cancel()


def _hosts(settings: Settings) -> str:
    """Return the hosts of the API and, where one is used, of the token endpoint, in words.

    Which of the two does not respond is not known while a command waits.
    """
    addresses = [settings.api_url]
    if mode_of(settings) is AuthMode.OAUTH:
        addresses.append(settings.auth_url)
    return " or ".join(dict.fromkeys(str(urlsplit(address).hostname) for address in addresses))


def hurried(settings: Settings) -> Settings:
    """Return *settings* with a deadline of `NO_ROUTE_S` at most where nothing leads elsewhere.

    A proxy may be on this machine, and reach what we cannot: with one they stay as they are.
    """
    if proxies_of_environment().for_url(settings.api_url) is not None or has_route():
        return settings
    return replace(settings, metadata_deadline_s=min(settings.metadata_deadline_s, NO_ROUTE_S))


def has_route() -> bool:
    """Return whether the kernel has a route to other networks; sends nothing, and does not wait."""
    for family, address in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as unsent:
                unsent.connect((address, 9))
        except OSError as failure:
            if failure.errno not in _NO_ROUTE:
                return True  # not known: then the whole deadline
        else:
            return True
    return False
