"""Requests, bodies and failures between httpx and httpcore."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import cast

import httpcore
import httpx
import trio

from satfs.net.http11 import SizedBody

#: Time for httpcore to end its generators after the sockets are closed. Nothing waits there; the
#: limit guards the shield.
CLOSE_LIMIT_S = 1.0
#: Chunks of a body after which other tasks run: one receive may hold 175,000 chunks of one byte,
#: which take the parser 50 us each without a checkpoint.
CHUNKS_PER_TURN = 64

_HTTPX_BY_HTTPCORE: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}


def core_request(request: httpx.Request) -> httpcore.Request:
    """Return *request* as httpcore sends it, with its target as it is."""
    # Not left to httpcore: through a proxy it would put the target in place of the whole address.
    extensions = dict(request.extensions)
    extensions.pop("on_connection", None)
    target = extensions.pop("target", request.url.raw_path)
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=target,
        ),
        headers=request.headers.raw,
        content=_Once(request.content),
        extensions=extensions,
    )


def translated(failure: Exception) -> Exception:
    """Return httpx's name for a failure of httpcore; others as they are."""
    for theirs, ours in _HTTPX_BY_HTTPCORE.items():
        if isinstance(failure, theirs):
            return ours(str(failure))
    return failure


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Raise failures of httpcore under the names that httpx has for them; others as they are."""
    try:
        yield
    except tuple(_HTTPX_BY_HTTPCORE) as failure:
        raise translated(failure) from failure


def is_kept_open(response: httpcore.Response) -> bool:
    """Return whether the other side keeps the connection after *response* (RFC 9112 §9.3)."""
    options = [value for name, value in response.headers if name.lower() == b"connection"]
    is_persistent = response.extensions.get("http_version") == b"HTTP/1.1"
    return is_persistent and not any(b"close" in value.lower() for value in options)


class _Once:
    """A request's body as httpcore wants it; no generator, so that nothing is left unfinished."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, b""
        if not content:
            raise StopAsyncIteration
        return content


class Body(httpx.AsyncByteStream):
    """The body of one response.

    *give_back* is called when it was read to its end, *abandon* otherwise: one of them, once.
    """

    def __init__(
        self,
        response: httpcore.Response,
        *,
        give_back: Callable[[], None],
        abandon: Callable[[], None],
    ) -> None:
        self._response = response
        self._give_back = give_back
        self._abandon = abandon
        self._chunks = cast(AsyncIterable[bytes], response.stream).__aiter__()
        #: Nothing more comes: it was read to its end, has failed, or was given up.
        self.is_over = False
        self._n_chunks = 0
        self._failure: Exception | None = None  # to be raised by the next chunk

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def read_now(self) -> bytes | None:
        """Return what has come; None where nothing has, where it failed, and at the end.

        The next chunk that is awaited shows which.
        """
        if self.is_over or not isinstance(self._chunks, SizedBody):
            return None
        try:
            chunk = self._chunks.read_now()
        except (httpcore.ProtocolError, httpcore.NetworkError) as failure:
            self._failure = failure
            return None
        self._give_back_if_complete()
        return chunk

    async def __anext__(self) -> bytes:
        if self.is_over:
            raise StopAsyncIteration
        self._n_chunks += 1
        try:
            if self._failure is not None:
                raise self._failure
            if self._n_chunks % CHUNKS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            await self._end()
            raise
        except BaseException as failure:
            self.is_over = True
            self._abandon()
            if isinstance(failure, Exception):
                raise translated(failure) from failure
            raise
        self._give_back_if_complete()
        return chunk

    def _give_back_if_complete(self) -> None:
        """Hand the connection back with the last byte, if it is known to be the last."""
        if isinstance(self._chunks, SizedBody) and self._chunks.is_complete:
            self.is_over = True
            self._give_back()

    async def _end(self) -> None:
        """Let httpcore see that the response is over, and hand the connection back."""
        self.is_over = True
        try:
            await self._response.aclose()
        except BaseException:
            self._abandon()
            raise
        self._give_back()

    async def aclose(self) -> None:
        """Give the response up at any point; closes the connection unless all was read."""
        if self.is_over:
            return
        self.is_over = True
        self._abandon()
        # httpcore's generators are in the middle of the body. They end by themselves when they find
        # the socket closed; left alone, they would be collected as unfinished, with a warning.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_LIMIT_S):
            with contextlib.suppress(Exception):
                async for _ in self._chunks:
                    pass
            with contextlib.suppress(Exception):
                await self._response.aclose()
