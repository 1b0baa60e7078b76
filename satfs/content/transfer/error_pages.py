"""Error documents that come with status 200 in place of an object.

Balancers, gateways and servers of files respond so: a page for maintenance, a JSON of a framework,
with the date and the ETag of any file. Its length would be taken for the object's, and its bytes
for the object's bytes. The name of the object tells: no zip and no raster begins like a document.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

from satfs.content.transfer.store_responses import ResponseClass, ResponseKind, is_document
from satfs.net.responses import StreamedResponse

#: Names of objects that never begin like a document: each format has a mark of its own, and a zip
#: with something before it has a program there.
_BINARY: Final = (
    ".zip", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".webp", ".gz", ".tgz", ".zst",
    ".7z", ".tar", ".pdf", ".nc", ".h5",
)  # fmt: skip
#: How JSON, HTML and XML begin, a byte order mark and white space before it.
_DOCUMENT: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*"
    rb"(?:\{\s*[\"}]|\[\s*[\[{\"\]]|<(?:!doctype|!--|\?xml|[a-z][a-z0-9]*[\s/>:]))",
    re.IGNORECASE,
)
#: As many bytes show it.
_BEGINNING_BYTES: Final = 64
#: A longer body is looked at only where it is labelled as a document: most error pages are shorter.
_SHORT_BYTES: Final = 32 * 1024


async def refused_page(response: StreamedResponse, path: str) -> ResponseClass | None:
    """Return the meaning of a response that is an error document, whatever its headers; else None.

    *path* is that of the link to the object. The bytes that are looked at stay in *response*.

    Raises:
        Unreachable: the connection broke.
        DeadlineReached: no byte came in time.
    """
    if not _may_be_page(response.status, response.headers, path):
        return None
    chunks = response.chunks()
    begin = b""
    async for chunk in chunks:
        begin += chunk
        if len(begin) >= _BEGINNING_BYTES:
            break
    response.become(response.headers, _Again(begin, chunks))
    if not begins_like_document(begin):
        return None
    return ResponseClass(ResponseKind.GARBLED, "an error page")


def begins_like_document(begin: bytes) -> bool:
    """Return whether these first bytes are those of JSON, HTML or XML."""
    return _DOCUMENT.match(begin) is not None


def _may_be_page(status: int, headers: Mapping[str, str], path: str) -> bool:
    if status != 200 or "content-range" in headers or not path.lower().endswith(_BINARY):
        return False
    length = headers.get("content-length", "")
    return is_document(headers) or not length.isdigit() or int(length[:18]) <= _SHORT_BYTES


class _Again:
    """The chunks of a body, of which the first has been looked at."""

    def __init__(self, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._first = first
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        return first or await anext(self._chunks)
