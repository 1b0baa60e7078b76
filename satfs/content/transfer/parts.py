"""The range in a response of several parts (multipart/byteranges, RFC 9110 §14.6).

A server must not send one for a single range, and some do for every range. The first part is taken
for the response: it has a `Content-Range` of its own, which is compared like any other.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

from satfs.content.transfer.store_responses import part_bytes
from satfs.net.headers import plain_headers
from satfs.net.responses import StreamedResponse

#: Limit of what comes before the bytes of the first part.
MAX_HEAD_BYTES: Final = 16 * 1024
#: The boundary between parts, as the content type states it (RFC 2046 §5.1.1).
_BOUNDARY: Final = re.compile(r'multipart/byteranges\s*;.*?boundary="?([^";,\s]{1,70})', re.I)


async def take_part(response: StreamedResponse) -> None:
    """Make of a response of several parts its first part; leave any other as it is.

    One that has no part stays, too, without its body: its content type shows what it is.

    Raises:
        Unreachable: the connection broke.
        DeadlineReached: no byte came in time.
    """
    found = _BOUNDARY.match(response.headers.get("content-type", ""))
    if response.status != 206 or found is None:
        return
    head = re.compile(
        rb"(?:\A|\n)--" + re.escape(found[1].encode("latin-1", "replace")) + rb"[ \t]*\r?\n"
        rb"((?:[^\r\n]+\r?\n)*)\r?\n"
    )
    chunks, came = response.chunks(), bytearray()
    while (begin := head.search(came)) is None:
        if len(came) > MAX_HEAD_BYTES:
            return
        try:
            came += await anext(chunks)
        except StopAsyncIteration:
            return
    lines = (line.partition(":") for line in begin[1].decode("latin-1").splitlines())
    stated = plain_headers((name.strip(), value.strip()) for name, _, value in lines)
    whole = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-type", "content-range", "transfer-encoding")
    }
    n_bytes = part_bytes(206, stated)
    if n_bytes is None or n_bytes <= 0:
        return
    headers = {**whole, **stated, "content-length": str(n_bytes)}
    response.become(headers, _PartChunks(bytes(came[begin.end() :]), chunks, n_bytes))


class _PartChunks:
    """The bytes of the part; what follows it is read, and left out."""

    def __init__(self, begin: bytes, chunks: AsyncIterator[bytes], n_bytes: int) -> None:
        self._begin = begin
        self._chunks = chunks
        self._n_left = n_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            chunk, self._begin = self._begin or await anext(self._chunks), b""
            if self._n_left:
                chunk = chunk[: self._n_left]
                self._n_left -= len(chunk)
                return chunk
