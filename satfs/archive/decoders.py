"""Compression methods that are unpacked as a whole, through Python's libraries.

A decoder takes compressed bytes and returns at most a given number of unpacked ones at a time. How
much memory it needs is read from the member's first bytes (`decoder_bytes`), before it is made.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

from satfs.errors import Damaged, Unsupported

#: Largest dictionary of a decoder, in bytes: what `zstd --long` and `zstd -22` write, and twice
#: what the strongest presets of 7-Zip and xz do. A header may require 4 GiB.
MAX_DICTIONARY_BYTES: Final = 128 * 1024 * 1024
#: Memory of a decoder beside its dictionary: tables and blocks of a zstandard decoder are the
#: largest, less than 1 MiB.
_TABLES_BYTES: Final = 1024 * 1024
#: Memory of a bzip2 decoder: four bytes for each of a block's 900,000 (bzip2's manual, 2.4).
_BZIP2_BYTES: Final = 4 * 1024 * 1024
#: Compressed bytes fed to a decoder, and unpacked bytes taken from it, in one step.
STEP_BYTES: Final = 1024 * 1024
#: Buffers of a decoder: a step of input, and as much output, twice while it is handed on.
_STEPS_BYTES: Final = 3 * STEP_BYTES
#: Limit of the memory of one decoder.
MAX_DECODER_BYTES: Final = MAX_DICTIONARY_BYTES + _TABLES_BYTES + _STEPS_BYTES

#: Bytes of a member that hold its header: an xz block's is the longest (xz file format 1.2, 3.1).
HEAD_BYTES: Final = 12 + 1024
_XZ_STREAM_HEADER_BYTES: Final = 12
#: Smallest limit that zstandard takes (ZSTD_WINDOWLOG_ABSOLUTEMIN, zstd.h).
_MIN_WINDOW_LOG: Final = 10

BZIP2: Final = 12
#: Compression methods by number (APPNOTE 4.4.5), for messages.
METHOD_NAMES: Final = {
    0: "stored",
    1: "shrink",
    6: "implode",
    8: "deflate",
    9: "deflate64",
    12: "bzip2",
    14: "LZMA",
    20: "zstandard",
    93: "zstandard",
    95: "xz",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}


class Decoder(Protocol):
    """The interface that `bz2.BZ2Decompressor` and other decompressors have in common."""

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

    HEADER_BYTES: Final = 9

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
            if len(self._header) < self.HEADER_BYTES:
                return b""
            header, data = self._header[: self.HEADER_BYTES], self._header[self.HEADER_BYTES :]
            self._decoder = self._from_properties(header[2:4], header[4], header[5:])
        return self._decoder.decompress(data, max_length)

    @staticmethod
    def _from_properties(length: bytes, packed: int, dictionary: bytes) -> lzma.LZMADecompressor:
        if length != b"\x05\x00" or packed >= 9 * 5 * 5:
            raise Damaged("its LZMA properties are not valid")
        filters = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": int.from_bytes(dictionary, "little"),
            "lc": packed % 9,
            "lp": packed // 9 % 5,
            "pb": packed // 45,
        }
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])


# The same module, as Python 3.14 has it and as a package for those before.
_zstd: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

#: Exceptions of decoders for bytes that their method does not write.
_FAILURES: Final[tuple[type[Exception], ...]] = (
    OSError,  # bz2 raises it; there is no file here
    ValueError,
    EOFError,
    lzma.LZMAError,
    _zstd.ZstdError,
)


def _xz(dictionary_bytes: int) -> Decoder:
    # Each block of a stream names its own dictionary: the limit holds for all of them.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=dictionary_bytes + _TABLES_BYTES)


def _zstandard(dictionary_bytes: int) -> Decoder:
    # A stream of one frame alone is unpacked, whose window was read from its header.
    window_log = max(_MIN_WINDOW_LOG, (dictionary_bytes - 1).bit_length())
    options = {_zstd.DecompressionParameter.window_log_max: window_log}
    decoder: Decoder = _zstd.ZstdDecompressor(options=options)
    return decoder


_DECODERS: Final[dict[int, Callable[[int], Decoder]]] = {
    12: lambda _: bz2.BZ2Decompressor(),
    14: lambda _: _ZipLzma(),
    20: _zstandard,  # its first number (APPNOTE 6.3.7), deprecated since
    93: _zstandard,
    95: _xz,
}


def has_decoder(method: int) -> bool:
    """Return whether members of *method* can be unpacked."""
    return method in _DECODERS


def dictionary_bytes(method: int, head: bytes) -> int:
    """Return the size of the dictionary that the member beginning with *head* requires.

    *head* are its first `HEAD_BYTES` bytes, or all. Zero for a method without a dictionary, and
    for a header that is not the method's: the decoder will refuse it.

    Raises:
        Unsupported: it is larger than `MAX_DICTIONARY_BYTES`.
    """
    read = {
        14: _lzma_dictionary_bytes,
        20: _zstandard_window_bytes,
        93: _zstandard_window_bytes,
        95: _xz_dictionary_bytes,
    }
    try:
        n_bytes = read[method](head) if method in read else 0
    except IndexError:  # the header is cut short
        n_bytes = 0
    if n_bytes > MAX_DICTIONARY_BYTES:
        raise Unsupported(
            f"it requires a dictionary of {n_bytes} bytes; at most {MAX_DICTIONARY_BYTES} are given"
        )
    return n_bytes


def decoder_bytes(method: int, dictionary: int, compressed_bytes: int, size_bytes: int) -> int:
    """Return the most memory that unpacking a member takes, at most `MAX_DECODER_BYTES`.

    A decoder writes to no more of its dictionary than it has put out, and what was not written to
    takes no memory.
    """
    tables = _BZIP2_BYTES if method == BZIP2 else _TABLES_BYTES
    waiting = min(STEP_BYTES, compressed_bytes) + 2 * min(STEP_BYTES, size_bytes)
    return min(dictionary, size_bytes) + tables + waiting


def new_decoder(method: int, dictionary: int) -> Decoder:
    """Return a decoder for *method* that takes no larger dictionary than of *dictionary* bytes."""
    return _DECODERS[method](dictionary)


def unpack(decoder: Decoder, data: bytes, max_bytes: int) -> bytes:
    """Return at most *max_bytes* bytes that come out of *decoder* for *data*, or for what it has.

    Raises:
        Damaged: the data is not what the method writes.
    """
    try:
        return decoder.decompress(data, max_bytes)
    except _FAILURES as failure:
        raise Damaged("its compressed bytes are not what its method writes") from failure


# -- headers ---------------------------------------------------------------------------------------


def _lzma_dictionary_bytes(head: bytes) -> int:
    """Return what the properties of LZMA in a zip name (APPNOTE 5.8.8)."""
    return int.from_bytes(head[5 : _ZipLzma.HEADER_BYTES], "little")


def _xz_dictionary_bytes(head: bytes) -> int:
    """Return what the header of the first block names (xz file format 1.2, sections 3.1, 5.3.1).

    Raises:
        IndexError: the header is cut short, or has no LZMA2 filter.
    """
    at = _XZ_STREAM_HEADER_BYTES
    flags = head[at + 1]
    at += 2
    if flags & 0x40:  # the compressed size is there
        _, at = _xz_integer(head, at)
    if flags & 0x80:  # the uncompressed size is there
        _, at = _xz_integer(head, at)
    for _ in range((flags & 3) + 1):
        filter_id, at = _xz_integer(head, at)
        n_properties, at = _xz_integer(head, at)
        if filter_id == lzma.FILTER_LZMA2:
            bits = head[at] & 0x3F
            return (2 | bits & 1) << (bits // 2 + 11)
        at += n_properties
    raise IndexError


def _xz_integer(head: bytes, at: int) -> tuple[int, int]:
    """Return the integer at *at*, seven bits to a byte, and where it ends (section 1.2)."""
    value = shift = 0
    while head[at] & 0x80:
        value |= (head[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | head[at] << shift, at + 1


def _zstandard_window_bytes(head: bytes) -> int:
    """Return the window of the first frame (RFC 8878, 3.1.1.1).

    Raises:
        IndexError: the header is cut short.
    """
    descriptor = head[4]
    if not descriptor & 0x20:  # not a single segment: the window is named
        exponent, mantissa = head[5] >> 3, head[5] & 7
        return (1 << exponent + 10) + (1 << exponent + 7) * mantissa
    # A single segment is its own window: of the frame's size.
    start = 5 + (0, 1, 2, 4)[descriptor & 3]
    n_bytes = (1, 2, 4, 8)[descriptor >> 6]
    size = int.from_bytes(head[start : start + n_bytes], "little")
    return size + 256 if n_bytes == 2 else size
