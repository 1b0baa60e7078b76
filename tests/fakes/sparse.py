"""Objects of gigabytes that are stored nowhere, for zips without their rasters."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from satfs.demo.contents import upload_etag


@dataclass(frozen=True)
class SparseContent:
    """Zeros with *pieces* of bytes at some offsets: gigabytes of a zip without its rasters.

    Pieces do not overlap, and end within *size_bytes*.
    """

    size_bytes: int
    pieces: Mapping[int, bytes] = field(repr=False)

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self.pieces)

    @cached_property
    def etag(self) -> str:
        """Return a tag that depends on size and pieces."""
        digest = hashlib.md5(f"sparse:{self.size_bytes}".encode(), usedforsecurity=False)
        for start in self._starts:
            digest.update(f"{start}:".encode() + self.pieces[start])
        return upload_etag(digest.hexdigest(), self.size_bytes)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop)."""
        data = bytearray(stop - start)
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            at = self._starts[index]
            if at >= stop:
                break
            first, last = max(at, start), min(at + len(self.pieces[at]), stop)
            if first < last:
                data[first - start : last - start] = self.pieces[at][first - at : last - at]
        return bytes(data)
