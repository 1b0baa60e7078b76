"""Responses of several parts, as servers send them for one range."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.transfer.parts import MAX_HEAD_BYTES, take_part
from satfs.net.responses import StreamedResponse

BYTES = bytes(range(256)) * 4


class Pieces:
    """A body that comes in pieces."""

    def __init__(self, body: bytes, n_bytes: int) -> None:
        self._pieces = [body[at : at + n_bytes] for at in range(0, len(body), n_bytes)]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)


def response_of(
    body: bytes, *, content_type: str = "multipart/byteranges; boundary=part", n_bytes: int = 7
) -> StreamedResponse:
    headers = {"ETag": '"abc"', "Content-Type": content_type, "Content-Length": str(len(body))}
    return StreamedResponse(httpx.Response(206, headers=headers), Pieces(body, n_bytes))


async def body_of(response: StreamedResponse) -> bytes:
    return b"".join([chunk async for chunk in response.chunks()])


@pytest.mark.parametrize("n_bytes", [1, 5, 100_000])
@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"a preamble\r\n"])
@pytest.mark.parametrize(
    "content_type", ["multipart/byteranges; boundary=part", 'Multipart/ByteRanges;Boundary="part"']
)
async def test_the_first_part_is_the_response(
    content_type: str, before: bytes, line: bytes, n_bytes: int
) -> None:
    """Its headers and its bytes; what comes after them is read, and left out."""
    head = b"--part" + line + b"content-range: bytes 5-1028/9999" + line + b"X: y" + line + line
    response = response_of(
        before + head + BYTES + b"\r\n--part--\r\n", content_type=content_type, n_bytes=n_bytes
    )
    await take_part(response)
    assert response.headers["content-range"] == "bytes 5-1028/9999"
    assert response.headers["content-length"] == "1024"
    assert response.headers["etag"] == '"abc"'
    assert "content-type" not in response.headers
    assert await body_of(response) == BYTES


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no part",
        b"--other\r\nContent-Range: bytes 0-3/9\r\n\r\nabcd",
        b"--part\r\nContent-Type: x\r\n\r\nabcd",
        b"--part\r\nContent-Range: bytes 5-1/9\r\n\r\nabcd",
        b"x" * (MAX_HEAD_BYTES + 8),
    ],
)
async def test_without_a_part_it_stays_what_it_is(body: bytes) -> None:
    """Its content type then shows that it is no range."""
    response = response_of(body)
    await take_part(response)
    assert response.headers["content-type"].startswith("multipart/byteranges")


async def test_other_responses_are_not_touched() -> None:
    response = response_of(BYTES, content_type="application/zip")
    await take_part(response)
    assert await body_of(response) == BYTES


@given(st.binary(max_size=300), st.integers(1, 40))
async def test_any_body_ends(body: bytes, n_bytes: int) -> None:
    response = response_of(b"--part\r\n" + body, n_bytes=n_bytes)
    await take_part(response)
    assert len(await body_of(response)) <= len(body)
