"""Responses: whole, or streamed with the body as it comes."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx
import trio

from satfs.errors import DeadlineReached, Garbled, Misuse, Unreachable
from satfs.net.core_messages import Body
from satfs.net.headers import plain_headers
from satfs.net.host_connections import Crowded, Permit
from satfs.net.http_errors import translating

#: A response above this size is large: the caller may let few of them be read at once.
LARGE_RESPONSE_BYTES = 1024 * 1024
#: How many times as long as its compressed form a response may be, beyond `LARGE_RESPONSE_BYTES`.
#: JSON pages whose records repeat each other come to 60; DEFLATE itself reaches 1,032.
MAX_INFLATION = 100
#: Most bytes of an error's body that are read.
MAX_ERROR_BYTES = 64 * 1024
#: Longest wait for the end of a body that is complete, in seconds. The end comes with the last
#: bytes, or is known from the length.
END_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response. *headers* have lower-case names; *body* is decoded if it was compressed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class StreamedResponse:
    """A response whose body is still to come. Valid inside the `async with` that gave it."""

    def __init__(
        self, response: httpx.Response, chunks: AsyncIterator[bytes], permit: Permit | None = None
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = plain_headers(response.headers.multi_items())
        #: Whether it is the first response on its connection.
        self.is_new_connection: bool = response.extensions.get("is_new_connection", True)
        #: Whether a connection was opened for it, which takes longer than the response itself.
        self.has_connected: bool = response.extensions.get("has_connected", self.is_new_connection)
        #: Seconds from the permit until the head was there.
        self.took_s = 0.0 if permit is None else trio.current_time() - permit.began_s
        self._chunks = chunks
        self._permit = permit

    def become(self, headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> None:
        """Have other headers, and *chunks* of the same body."""
        self.headers, self._chunks = headers, chunks

    def refuses_connection(self) -> None:
        """Note that this response refuses the connection, if it is the first one on it.

        For a 503 that is not about too many requests.

        Raises:
            Crowded: the host lets no further connection through, and responds on others.
        """
        if self.is_new_connection and self._permit is not None:
            self._permit.refused()

    def chunks(self) -> AsyncIterator[bytes]:
        """Return an iterator over the body as it comes, in pieces of up to 1 MiB.

        May be left at any point; the unread rest is dropped at the end of the `async with`.

        Raises:
            Unreachable: the connection broke before the body's announced end.
            DeadlineReached: no byte came for the progress timeout.
        """
        return self._chunks

    async def end(self) -> None:
        """Wait for the end of a body of which all bytes have come: it gives the connection back.

        Not for longer than `END_S`: some servers announce no end and keep the connection open.
        Other bytes in place of the end, and a failure, close the connection, and are not raised.
        """
        if isinstance(self._chunks, BodyChunks) and self._chunks.is_over:
            return
        with trio.move_on_after(END_S), contextlib.suppress(Unreachable, Crowded):
            async for chunk in self._chunks:
                if chunk:
                    return

    async def read_error_body(self, max_bytes: int = MAX_ERROR_BYTES) -> bytes:
        """Return up to *max_bytes* of the body, or what came of it: it only explains an error."""
        body = bytearray()
        with contextlib.suppress(Unreachable):
            async for chunk in self._chunks:
                body += chunk
                if len(body) >= max_bytes:
                    break
        return bytes(body[:max_bytes])


class BodyChunks:
    """The chunks of one body, each awaited for a limited time."""

    def __init__(
        self, response: httpx.Response, timeout_s: float, where: str, permit: Permit
    ) -> None:
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise Misuse("a transport for threads was injected")
        self._stream = stream
        self._body = stream if isinstance(stream, Body) else None
        self._chunks = stream.__aiter__()
        self._timeout_s = timeout_s
        self._where = where
        #: Whether it shows that the connection is let through: the body of a refusal does not.
        self._is_response = not may_refuse_connection(response)
        self.permit = permit

    @property
    def is_over(self) -> bool:
        """Return whether nothing more can come."""
        return self._body is not None and self._body.is_over

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._body is not None:
            if (chunk := self._body.read_now()) is not None:
                if self._is_response:
                    self.permit.carried()
                return chunk
            if self._body.is_over:
                raise StopAsyncIteration
        limit = trio.CancelScope(deadline=trio.current_time() + self._timeout_s)
        with limit, translating(self._where):
            try:
                chunk = await self._chunks.__anext__()
            except (httpx.NetworkError, httpx.ProtocolError):
                self.permit.broke()
                raise
            if self._is_response:
                self.permit.carried()
            return chunk
        raise DeadlineReached(f"{self._where} sent nothing for {self._timeout_s:g} s")

    async def give_up(self) -> None:
        """End the rest of the response. A failure here is ignored."""
        with contextlib.suppress(httpx.HTTPError, OSError):
            await self._stream.aclose()
        # An injected transport's stream may be a generator, which must be closed.
        if isinstance(self._chunks, AsyncGenerator):
            with contextlib.suppress(httpx.HTTPError, OSError):
                await self._chunks.aclose()


def may_refuse_connection(response: httpx.Response) -> bool:
    """Return whether *response* may be all that its connection will ever get."""
    return response.status_code == 503 and response.extensions.get("is_new_connection", True)


def is_compressed(headers: Mapping[str, str]) -> bool:
    """Return whether the body is compressed, by its label."""
    return _encoding(headers) not in ("", "identity")


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("content-encoding", "identity").strip().lower()


def decompressed(body: bytes, headers: Mapping[str, str], max_bytes: int, where: str) -> bytes:
    """Return *body* as meant by a server that compressed it unasked."""
    encoding = _encoding(headers)
    if not is_compressed(headers) or not body:
        return body
    max_bytes = min(max_bytes, max(LARGE_RESPONSE_BYTES, MAX_INFLATION * len(body)))
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Garbled(f"{where} responded in an encoding that was not requested")
    # 32: recognise gzip and zlib by their headers.
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    if encoding == "deflate" and not _has_zlib_header(body):
        # Some servers leave out the zlib format (RFC 9110 §8.4.1.2 notes it).
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as failure:
        raise Garbled(f"{where} responded with a broken compressed body") from failure
    if len(plain) > max_bytes or not inflater.eof:
        raise Garbled(f"{where} responded with more than {max_bytes} bytes, or a cut body")
    return plain


def _has_zlib_header(body: bytes) -> bool:
    """Return whether *body* begins as RFC 1950 §2.2 has it, or with the magic of gzip."""
    is_zlib = body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return is_zlib or body.startswith(b"\x1f\x8b")
