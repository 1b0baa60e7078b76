"""Long texts that are made here and read in parts: held compressed, in chunks.

The footprints of 100,000 scenes are 80 MB of JSON, and 8 MB compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from satfs.model import ByteRange, MadeReader

#: Bytes of text in a chunk: a read of the kernel's usual size decompresses one or two, in half a
#: millisecond each.
_CHUNK_BYTES: Final = 256 * 1024
_LEVEL: Final = 1


class LargeContent:
    """The bytes that *pieces* are together; `len` is their number."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        digest = blake2b(digest_size=16)
        self._chunks: list[bytes] = []
        self._length = 0
        pending = bytearray()
        for piece in pieces:
            digest.update(piece)
            self._length += len(piece)
            pending += piece
            while len(pending) >= _CHUNK_BYTES:
                self._chunks.append(zlib.compress(pending[:_CHUNK_BYTES], _LEVEL))
                del pending[:_CHUNK_BYTES]
        if pending:
            self._chunks.append(zlib.compress(pending, _LEVEL))
        #: Identifies these bytes.
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self._length

    @property
    def held_bytes(self) -> int:
        """Bytes that are held in memory."""
        return sum(map(len, self._chunks))

    def chunk(self, number: int) -> bytes:
        """Return one chunk of `_CHUNK_BYTES`; the last one may be shorter."""
        return zlib.decompress(self._chunks[number])


class LargeContentReader(MadeReader):
    """Reads a `LargeContent`; the last chunk that was read stays decompressed."""

    def __init__(self, content: LargeContent) -> None:
        self.size_bytes = len(content)
        self._content = content
        self._last: tuple[int, bytes] = (-1, b"")

    async def read(self, span: ByteRange) -> bytes:
        """Return the part of *span* that exists."""
        span = span.clip(self.size_bytes)
        parts = []
        at = span.start
        while at < span.stop:
            number, skipped = divmod(at, _CHUNK_BYTES)
            if self._last[0] != number:
                self._last = (number, self._content.chunk(number))
            part = self._last[1][skipped : skipped + span.stop - at]
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Free the chunk that is decompressed."""
        self._last = (-1, b"")
