"""Compression methods that are unpacked as a whole, through Python's libraries.

A decoder takes compressed bytes and gives at most so many unpacked ones at a time; memory is
bounded by what is said here, whatever a member's header asks for.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

from satfs.errors import Damaged, Unsupported

#: Largest dictionary of a decoder, in bytes: what the strongest presets of 7-Zip and xz need. A
#: header may ask for 4 GiB.
_MAX_DICTIONARY_BYTES: Final = 64 * 1024 * 1024

#: Compression methods by number (APPNOTE 4.4.5), for messages.
METHOD_NAMES: Final = {
    0: "stored",
    1: "shrink",
    6: "implode",
    8: "deflate",
    9: "deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "zstandard",
    95: "xz",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}


class Decoder(Protocol):
    """What `bz2.BZ2Decompressor` and its like have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream's own end was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether more can only come out of more."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return the next output, at most *max_length* bytes."""
        ...


class _ZipLzma:
    """LZMA as a zip holds it: version, length of the properties, properties (APPNOTE 5.8.8)."""

    _HEADER_BYTES: Final = 9

    def __init__(self) -> None:
        self._header = b""
        self._decoder: lzma.LZMADecompressor | None = None

    @property
    def eof(self) -> bool:
        return self._decoder is not None and self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return self._decoder is None or self._decoder.needs_input

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if self._decoder is None:
            self._header += data
            if len(self._header) < self._HEADER_BYTES:
                return b""
            header, data = self._header[: self._HEADER_BYTES], self._header[self._HEADER_BYTES :]
            self._decoder = self._from_properties(header[2:4], header[4], header[5:])
        return self._decoder.decompress(data, max_length)

    @staticmethod
    def _from_properties(length: bytes, packed: int, dictionary: bytes) -> lzma.LZMADecompressor:
        dictionary_bytes = int.from_bytes(dictionary, "little")
        if length != b"\x05\x00" or packed >= 9 * 5 * 5:
            raise Damaged("its LZMA properties are none")
        if dictionary_bytes > _MAX_DICTIONARY_BYTES:
            raise Unsupported(f"it asks for a dictionary of {dictionary_bytes} bytes")
        filters = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": dictionary_bytes,
            "lc": packed % 9,
            "lp": packed // 9 % 5,
            "pb": packed // 45,
        }
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])


def _xz() -> Decoder:
    # A decoder needs its dictionary and a little more.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY_BYTES + (1 << 20))


def _decoders() -> tuple[dict[int, Callable[[], Decoder]], tuple[type[Exception], ...]]:
    """Return what makes a decoder, by method, and what decoders raise for bytes they refuse."""
    found: dict[int, Callable[[], Decoder]] = {12: bz2.BZ2Decompressor, 14: _ZipLzma, 95: _xz}
    failures: tuple[type[Exception], ...] = (OSError, ValueError, EOFError, lzma.LZMAError)
    # The same module, as Python 3.14 has it and as a package for those before.
    has_own = sys.version_info >= (3, 14)
    zstd: Any = import_module("compression.zstd" if has_own else "backports.zstd")
    # Its window is bounded by itself: 128 MiB (ZSTD_WINDOWLOG_LIMIT_DEFAULT, zstd.h).
    return {**found, 93: zstd.ZstdDecompressor}, (*failures, zstd.ZstdError)


DECODERS, _FAILURES = _decoders()


def unpack(decoder: Decoder, data: bytes, max_bytes: int) -> bytes:
    """Return at most *max_bytes* bytes that come out of *decoder* for *data*, or for what it has.

    Raises:
        Damaged: the data is not what the method writes.
        Unsupported: it can only be unpacked with more memory than satfs gives.
    """
    try:
        return decoder.decompress(data, max_bytes)
    except _FAILURES as failure:  # bz2 raises OSError; there is no file here
        raise Damaged("its compressed bytes are not what its method writes") from failure
