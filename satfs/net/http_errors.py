"""Failures of httpx and of TLS as errors of satfs, with messages for users."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

import httpx

from satfs.errors import DeadlineReached, Misuse, SatfsError, Unreachable
from satfs.net.trust import untrusted

#: The message for each failure below; the first match counts. `{why}` is the message of the cause.
_FAILURES: tuple[tuple[type[Exception], type[SatfsError], str], ...] = (
    (httpx.ConnectTimeout, DeadlineReached, "{where}: no connection in time"),
    (httpx.TimeoutException, DeadlineReached, "{where} sent nothing in time"),
    (httpx.ConnectError, Unreachable, "{where}: no connection: {why}"),
    (httpx.ProxyError, Unreachable, "{where}: the proxy refused: {why}"),
    (httpx.UnsupportedProtocol, Unreachable, "{where}: {why}"),
    (httpx.RemoteProtocolError, Unreachable, "{where} broke off, or broke HTTP's rules"),
    (httpx.LocalProtocolError, Misuse, "{where}: the request cannot be sent"),
    (httpx.HTTPError, Unreachable, "{where}: the connection broke: {why}"),
    (ssl.SSLError, Unreachable, "{where}: no connection: {why}"),
    (OSError, Unreachable, "{where}: the connection broke: {why}"),
)
#: Failures that the same request will meet again.
_PERMANENT = (httpx.UnsupportedProtocol, ssl.SSLCertVerificationError)


@contextlib.contextmanager
def translating(where: str) -> Iterator[None]:
    """Raise failures of the body as errors of satfs; *where* is the address in their messages."""
    try:
        yield
    except Exception as failure:
        for theirs, ours, sentence in _FAILURES:
            if isinstance(failure, theirs):
                raise _translated(failure, ours, sentence, where) from failure
        raise


def _translated(
    failure: Exception, ours: type[SatfsError], sentence: str, where: str
) -> SatfsError:
    causes = list(causes_of(failure))
    message = sentence.format(where=where, why=_why(causes))
    if not issubclass(ours, Unreachable):
        return ours(message)
    is_permanent = any(isinstance(cause, _PERMANENT) for cause in causes)
    if issubclass(ours, DeadlineReached):
        is_silence = not isinstance(failure, httpx.ConnectTimeout)
        return ours(message, is_silence=is_silence, is_permanent=is_permanent)
    return ours(message, is_permanent=is_permanent)


def is_refusal(failure: BaseException) -> bool:
    """Return whether the host prevented the opening of a connection; *failure* is httpx's.

    A name that cannot be resolved now shows nothing about the host, and silence may come from a
    slow line.
    """
    is_unresolved = any(isinstance(each, socket.gaierror) for each in causes_of(failure))
    refusals = httpx.ConnectError | httpx.ReadError | httpx.RemoteProtocolError
    return isinstance(failure, refusals) and not is_unresolved


def causes_of(failure: BaseException) -> Iterator[BaseException]:
    """Yield *failure* and what caused it, one member of each group included."""
    seen: BaseException | None = failure
    while seen is not None:
        yield seen
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        else:
            seen = seen.__cause__ or seen.__context__


def _why(causes: list[BaseException]) -> str:
    """Return the message of the deepest cause that has a message, which is the clearest."""
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(cause)
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({getattr(cause, 'reason', None) or 'for no reason given'})"
        if isinstance(cause, OSError) and cause.strerror:
            # trio writes the address as Python has it before the system's words. A resolver's
            # failures have negative numbers and words of their own.
            number = cause.errno or 0
            return os.strerror(number) if number > 0 else cause.strerror
    return next((str(cause) for cause in causes if str(cause)), "no reason given")
