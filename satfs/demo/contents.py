"""Contents of attachments: bytes in memory, a file on disk, or bytes computed on the fly."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

#: Size of the parts of a multipart upload, in bytes: what common upload tools use. An object larger
#: than one part has an ETag with the number of parts behind a dash, and is no MD5 of anything.
PART_BYTES: Final = 8 * 1024 * 1024

#: Period of a ramp in bytes: prime, so that no block size divides it and a wrong slice shows.
RAMP_PERIOD: Final = 251
_RAMP: Final = bytes(range(RAMP_PERIOD)) * 4179  # 1 MiB and a little more


class Content(Protocol):
    """The bytes of one object, and the headers that the store sends with them."""

    @property
    def size_bytes(self) -> int:
        """Return the length."""

    @property
    def etag(self) -> str:
        """Return the entity tag, quotes included."""

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return bytes [start, stop) of the object; may block on a disk, never for long."""


def upload_etag(digest: str, size_bytes: int) -> str:
    """Return the entity tag of an upload with that MD5: of a large one, that of its parts."""
    n_parts = -(-size_bytes // PART_BYTES)
    return f'"{digest}-{n_parts}"' if n_parts > 1 else f'"{digest}"'


@dataclass(frozen=True)
class BytesContent:
    """Bytes in memory."""

    data: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Return the length."""
        return len(self.data)

    @cached_property
    def etag(self) -> str:
        """Return the MD5 as a plain upload would show it, or a multipart tag."""
        digest = hashlib.md5(self.data, usedforsecurity=False).hexdigest()
        return upload_etag(digest, len(self.data))

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes [start, stop)."""
        return memoryview(self.data)[start:stop]


@dataclass(frozen=True)
class Tagged:
    """The bytes of *content* under another ETag, as another replica of a store may call them."""

    content: Content
    etag: str

    @property
    def size_bytes(self) -> int:
        """Return the length."""
        return self.content.size_bytes

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return bytes [start, stop)."""
        return self.content.read(start, stop)


@dataclass(frozen=True)
class FileContent:
    """A file, which must not change while it is served.

    The ETag is made of the *tag* given, or of path, size and time: no gigabytes are read for it.
    """

    path: Path
    tag: str = ""

    @cached_property
    def size_bytes(self) -> int:
        """Return the length; computed at the first use."""
        return self.path.stat().st_size

    @cached_property
    def etag(self) -> str:
        """Return a multipart-like tag."""
        tag = self.tag or f"{self.path}:{self.path.stat().st_mtime_ns}"
        digest = hashlib.md5(f"{tag}:{self.size_bytes}".encode(), usedforsecurity=False).hexdigest()
        return upload_etag(digest, self.size_bytes)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop)."""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), stop - start, start)


@dataclass(frozen=True)
class RampContent:
    """Byte k is (seed + k) mod 251: any size, stored nowhere; a wrong slice has wrong values."""

    size_bytes: int
    seed: int = 0

    @cached_property
    def etag(self) -> str:
        """Return a tag that depends on size and seed."""
        text = f"ramp:{self.seed}:{self.size_bytes}"
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        return upload_etag(digest, self.size_bytes)

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return bytes [start, stop)."""
        first = (self.seed + start) % RAMP_PERIOD
        n_bytes = stop - start
        if first + n_bytes <= len(_RAMP):
            return memoryview(_RAMP)[first : first + n_bytes]
        n_periods = (first + n_bytes) // RAMP_PERIOD + 1
        return (_RAMP[:RAMP_PERIOD] * n_periods)[first : first + n_bytes]
