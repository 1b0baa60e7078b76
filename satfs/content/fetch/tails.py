"""The response to a request for the end of an object: its version, its length, its last bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from satfs.content.fetch.failures import error_for
from satfs.content.transfer.codings import encodings_of
from satfs.content.transfer.etags import version_of
from satfs.content.transfer.store_responses import (
    MAX_SKIPPED_AGAIN_BYTES,
    ResponseClass,
    ResponseKind,
    classify_error,
    classify_tail,
    is_of_nothing,
    is_whole_without_length,
    total_if_unsatisfied,
    unsized_part,
)
from satfs.errors import Unreachable
from satfs.model import Version
from satfs.net.host_connections import Crowded
from satfs.net.responses import StreamedResponse

#: A zip's directory ends the file, and for nearly every delivery fits in half of this (of the first
#: block only a part may come). As much as TCP sends in two round trips at the start (ten segments,
#: then twenty: RFC 6928); 64 KiB take three.
TAIL_BYTES: Final = 32 * 1024


class Tail(Struct, frozen=True):
    """The end of an object: `data` are the bytes from `start` on, perhaps none.

    `encodings` are the content codings that the response states.
    """

    version: Version
    start: int
    data: bytes
    encodings: tuple[str, ...] = ()


#: Called with the end of an object, without its bytes, as soon as the headers have come: returns
#: the function that takes the bytes, piece by piece. An exception of it ends the request.
TakeTail = Callable[[Tail], Awaitable[Callable[[bytes], None]]]


class NoLength(Exception):
    """A response without the length of the object.

    *part* is the part of the object in it, if any: its version has the length up to the end of the
    part, which may or may not be the end of the object.
    """

    def __init__(self, response_class: ResponseClass, part: Tail | None = None) -> None:
        super().__init__(response_class.code)
        self.response_class = response_class
        self.part = part


async def read_tail(
    response: StreamedResponse, label: str, n_requested: int | None, take: TakeTail | None = None
) -> Tail:
    """Return the tail in a 200, 204, 206 or 416; a whole body in place of it is not read.

    *n_requested*: the length of the requested range, if any. *take*: see `TakeTail`.

    Raises:
        NoLength: it does not show the length of the object.
        Garbled: it makes no sense.
        Unreachable: the body broke off.
    """
    if response.status == 416:
        # An empty object has no bytes, and only its 416 shows a length of 0. A 416 without a length
        # is no such object.
        body = await response.read_error_body()  # its end gives the connection back
        if total_if_unsatisfied(response.headers, body) == 0:
            return Tail(version_of(response.headers, 0), 0, b"")
        raise NoLength(classify_error(response.status, body))
    if response.status == 204:
        # An object without bytes (RFC 9110 §15.3.5), or a proxy that has dropped them for a moment:
        # it is believed for the whole object alone, when no range has shown a length.
        await response.read_error_body()
        if n_requested is None:
            return Tail(version_of(response.headers, 0), 0, b"")
        raise NoLength(classify_error(response.status, b""))
    if is_of_nothing(response.status, response.headers):
        async for chunk in response.chunks():
            if chunk:
                raise error_for(ResponseClass(ResponseKind.GARBLED, "Content-Range"), label)
        return Tail(version_of(response.headers, 0), 0, b"")
    unsized = unsized_part(response.status, response.headers)
    if unsized is not None and len(unsized) <= TAIL_BYTES:
        data = await _body(response, len(unsized), label)
        version = version_of(response.headers, unsized.stop)
        part = Tail(version, unsized.start, data, encodings_of(response.headers))
        raise NoLength(ResponseClass(ResponseKind.GARBLED, "Content-Range"), part)
    if is_whole_without_length(response.status, response.headers):
        return await _counted(response, label, n_requested)
    found = classify_tail(response.status, response.headers)
    if isinstance(found, ResponseClass):
        raise error_for(found, label)
    version, start, length = found
    if not _is_range(response) and length == n_requested:
        # A proxy may have made a 200 of a range. Another request shows which of them it is.
        raise NoLength(ResponseClass(ResponseKind.GARBLED, "200 for a range"))
    encodings = encodings_of(response.headers)
    if length > TAIL_BYTES:
        return Tail(version, version.size_bytes, b"", encodings)
    if take is not None and not encodings:
        await hand_over(response, length, await take(Tail(version, start, b"")))
        return Tail(version, version.size_bytes, b"")
    return Tail(version, start, await _body(response, length, label), encodings)


def _is_range(response: StreamedResponse) -> bool:
    return response.status == 206 or "content-range" in response.headers


async def hand_over(
    response: StreamedResponse, length: int, receive: Callable[[bytes], None]
) -> None:
    """Give *receive* the *length* bytes of a body as they come, or as many of them as do."""
    with contextlib.suppress(Unreachable, Crowded):
        async for chunk in response.chunks():
            receive(chunk[:length])
            length -= len(chunk)
            if length <= 0:
                break
        if length == 0:
            await response.end()


async def _counted(response: StreamedResponse, label: str, n_requested: int | None) -> Tail:
    """Return the tail in a whole body whose length only its end shows.

    Raises:
        NoLength: it may be the requested range, or is longer than what may be read for that.
        Garbled: it is an error page.
        Unreachable: the body broke off.
    """
    n_bytes, data = 0, bytearray()
    found = classify_tail(200, {**response.headers, "content-length": "1"})
    if isinstance(found, ResponseClass):
        raise error_for(found, label)
    async for chunk in response.chunks():
        n_bytes += len(chunk)
        data += chunk
        del data[:-TAIL_BYTES]
        if n_bytes > MAX_SKIPPED_AGAIN_BYTES:
            break
    if n_bytes > MAX_SKIPPED_AGAIN_BYTES or n_bytes == n_requested:
        raise NoLength(ResponseClass(ResponseKind.GARBLED, "Content-Length"))
    return Tail(version_of(response.headers, n_bytes), n_bytes - len(data), bytes(data))


async def _body(response: StreamedResponse, length: int, label: str) -> bytes:
    """Return the *length* bytes of a body.

    It is read to its end, so that the connection may be used again: for the first bytes, most
    likely, and a new one would cost three round trips.
    """
    data = bytearray()
    async for chunk in response.chunks():
        data += chunk
        if len(data) >= length:
            break
    if len(data) == length:
        await response.end()
    if len(data) < length:
        raise Unreachable(f"the object store broke off in the middle of {label}")
    return bytes(data[:length])
