"""Error documents in place of objects, told by how they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from satfs.content.transfer.error_pages import begins_like_document, refused_page
from satfs.net.responses import StreamedResponse

ZIP = "/bucket/l1d/S1.zip"
JSON = {"content-type": "application/json", "etag": '"1b"', "last-modified": "x"}


@pytest.mark.parametrize(
    "begin",
    [
        b'{"message": "Internal error"}',
        b'\xef\xbb\xbf \r\n{\n  "error": 1}',
        b"{}",
        b'[{"error": 1}]',
        b'["no"]',
        b"[]",
        b"<!DOCTYPE html><html>",
        b"<html lang='en'>",
        b"<?xml version='1.0'?><Error>",
        b"<Error><Code>",
        b"<!-- maintenance -->",
        b"<h1>503</h1>",
    ],
)
def test_documents_are_known_by_their_beginning(begin: bytes) -> None:
    assert begins_like_document(begin)


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"PK\x03\x04\x14\x00",
        b"PK\x05\x06",
        b"II*\x00\x08\x00",
        b"MM\x00*",
        b"II+\x00\x08\x00",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"\x00\x00\x00\x0cjP  ",
        b"{not so}",
        b"<3 <4",
        *(bytes((first + n) % 251 for n in range(64)) for first in range(251)),
    ],
)
def test_objects_begin_otherwise(begin: bytes) -> None:
    assert not begins_like_document(begin)


def response(
    body: list[bytes], headers: Mapping[str, str], status: int = 200
) -> tuple[StreamedResponse, list[bytes]]:
    """Return a response, and the list of the chunks that are still to come of it."""
    left = list(body)

    async def chunks() -> AsyncIterator[bytes]:
        while left:
            yield left.pop(0)

    return StreamedResponse(httpx.Response(status, headers=dict(headers)), chunks()), left


@pytest.mark.parametrize(
    ("path", "headers", "is_page"),
    [
        (ZIP, JSON, True),
        (ZIP.upper(), {**JSON, "content-length": "27"}, True),
        (ZIP, {**JSON, "content-length": "900000"}, True),
        (ZIP, {"content-length": "27"}, True),
        # Longer than error documents are, and not labelled as one: not looked at.
        (ZIP, {"content-type": "application/zip", "content-length": "900000"}, False),
        ("/bucket/S1/metadata.json", JSON, False),
        ("/bucket/S1/object", JSON, False),
        (ZIP, {**JSON, "content-range": "bytes 0-26/27"}, False),
    ],
)
async def test_a_document_is_no_zip(path: str, headers: dict[str, str], *, is_page: bool) -> None:
    """Whatever its headers; where the object may be a document, nothing is known."""
    sent, _ = response([b'{"err', b'or": "x", "and": "so on"}'], headers)
    assert (await refused_page(sent, path) is not None) is is_page


@pytest.mark.parametrize("body", [[], [b"P", b"K", b"\3\4" + bytes(99), bytes(5)], [b"PK"]])
async def test_the_bytes_that_were_looked_at_are_not_lost(body: list[bytes]) -> None:
    """And no more are received than were needed."""
    sent, left = response(body, JSON)
    assert await refused_page(sent, ZIP) is None
    assert len(left) == max(0, len(body) - 3)
    assert b"".join([chunk async for chunk in sent.chunks()]) == b"".join(body)
