"""The true numbers of a zip whose directory has them cut to 32 bits.

macOS' Archive Utility (Finder's "Compress") writes sizes and offsets modulo 2^32 and the number of
entries modulo 65,536, without ZIP64 records; other programs write the ZIP64 end record, and cut
the numbers of the entries. The true numbers are found again: a local header with the member's name
stands where a member begins, and a member ends where the next one begins. The true size of an
unpacked member is stated nowhere but in the format of its own content: a TIFF with offsets of 32
bits has no byte beyond 4 GiB. Where two sizes are possible, no size is reported.

Nothing here reads: `settle` yields the ranges that it needs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Sequence
from typing import Final

from msgspec import Struct

from satfs.archive.member_offsets import LOCAL_HEADER_BYTES
from satfs.model import ByteRange

#: By what a number of 32 bits may be too small: a multiple of this.
WRAP: Final = 1 << 32

#: Local headers and data descriptors read of one zip. Finding one boundary among a million members
#: takes some twenty; a zip made to need more keeps its members without a size.
MAX_PROBES: Final = 1024
#: Compressed bytes from the beginning of a member that are unpacked to see what it is: the tables
#: of a deflate block take 300 (RFC 1951 §3.2.7).
SAMPLE_BYTES: Final = 1024
#: Bytes of the extra field of a local header that are read with it; programs write some thirty.
_LOCAL_EXTRA_BYTES: Final = 64
#: Bytes from the beginning of a file that state its format and dimensions.
_BEGINNING_BYTES: Final = 32
#: Bytes from the beginning of a PNG to its colour type.
_PNG_HEADER_BYTES: Final = 26
#: Samples of a pixel by PNG's colour type.
_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Bytes that a PNG may have beside its pixels: chunks of metadata.
_PNG_EXTRA_BYTES: Final = 64 * 1024 * 1024

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_DESCRIPTOR_SIGNATURE: Final = b"PK\x07\x08"
#: Lengths of a data descriptor (APPNOTE 4.3.9): CRC and two sizes of 32 or 64 bits each, with a
#: signature or without; 0 for a member without one.
_NARROW_DESCRIPTORS: Final = (12, 16)
_WIDE_DESCRIPTORS: Final = (20, 24)


class StatedNumbers(Struct, frozen=True):
    """The numbers of one entry of the directory as they stand there, ZIP64 field included."""

    name: bytes
    offset: int
    compressed_bytes: int
    size_bytes: int
    crc32: int
    is_stored: bool
    is_deflated: bool
    most_ratio: int
    """How many bytes its method can make of one."""
    is_wide: bool = False
    """Whether a ZIP64 field states its numbers, which are the true ones then."""


class TrueNumbers(Struct, frozen=True):
    """The true numbers of one entry; `offset` counts from the zip's first byte."""

    offset: int
    compressed_bytes: int
    size_bytes: int


#: Yields a range of the zip, is sent its bytes, and returns for each entry its true numbers, or
#: None where they are not known.
Settling = Generator[ByteRange, bytes, list[TrueNumbers | None]]


def is_possibly_cut(entry: StatedNumbers) -> bool:
    """Return whether the entry's method can make 2^32 bytes more than it states."""
    is_known = entry.is_wide or entry.is_stored
    return not is_known and may_be_longer(
        entry.compressed_bytes, entry.size_bytes, entry.most_ratio
    )


def may_be_longer(compressed_bytes: int, size_bytes: int, most_ratio: int) -> bool:
    """Return whether a method that makes *most_ratio* bytes of one can make 2^32 bytes more."""
    return size_bytes + WRAP <= compressed_bytes * most_ratio


def fits_together(stated: Sequence[StatedNumbers], shift: int, data_stop: int) -> bool:
    """Return whether the entries, as stated, fill the zip: no overlap, and no gap of 4 GiB.

    Between a member and the next one lie two fields of at most 64 KiB and a data descriptor.
    """
    stop: int | None = None
    for entry in sorted(stated, key=lambda each: each.offset):
        start = entry.offset + shift
        if stop is not None and not stop <= start < stop + WRAP:
            return False
        stop = start + LOCAL_HEADER_BYTES + entry.compressed_bytes
    return stop is None or stop <= data_stop < stop + WRAP


def longest_bytes(beginning: bytes) -> int | None:
    """Return the most bytes of a file that begins so, by its own format; None where none is stated.

    A TIFF that is not a BigTIFF has offsets of 32 bits (TIFF 6.0, section 2). A PNG states its
    dimensions first (PNG, 11.2.2), and deflate makes its rows longer by a thousandth at most.
    """
    if beginning.startswith((b"II*\0", b"MM\0*")):
        return WRAP
    if (
        beginning.startswith(b"\x89PNG\r\n\x1a\n")
        and beginning[12:16] == b"IHDR"
        and len(beginning) >= _PNG_HEADER_BYTES
    ):
        width, height, depth, colour = struct.unpack_from(">2L2B", beginning, 16)
        if (n_samples := _PNG_SAMPLES.get(colour)) is None:
            return None
        row_bytes = 1 + -(-width * depth * n_samples // 8)
        return int(height * row_bytes * 1001 // 1000 + _PNG_EXTRA_BYTES)
    return None


def beginning_of(sample: bytes) -> bytes:
    """Return the first bytes of the content that *sample* begins, or nothing: deflated data."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(sample, _BEGINNING_BYTES)
    except zlib.error:
        return b""


def settle(stated: Sequence[StatedNumbers], shift: int, data_stop: int) -> Settling:
    """Find the true numbers of the entries *stated*, in the order of the directory.

    *shift* is added to every offset, *data_stop* is where the directory begins. Waits for nothing.
    """
    probes = _Probes(stated, shift, data_stop)
    offsets = yield from probes.offsets()
    in_order = sorted({offset for offset in offsets if offset is not None})
    following = dict(zip(in_order, [*in_order, data_stop][1:], strict=True))
    settled: list[TrueNumbers | None] = []
    for entry, offset, next_offset in zip(stated, offsets, [*offsets, 0][1:], strict=True):
        # Where the next entry was not found, it is not known where this one ends.
        if offset is None or next_offset is None:
            settled.append(None)
        else:
            settled.append((yield from probes.numbers(entry, offset, following[offset])))
    return settled


def settle_sizes(stated: Sequence[StatedNumbers], shift: int, data_stop: int) -> Settling:
    """Find out which of the entries have a size that was cut, where no offset was.

    The format of a member's content may state it, or a data descriptor of 64 bits; otherwise there
    is no size. Waits for nothing.
    """
    probes = _Probes(stated, shift, data_stop)
    in_order = sorted({entry.offset + shift for entry in stated})
    following = dict(zip(in_order, [*in_order, data_stop][1:], strict=True))
    settled: list[TrueNumbers | None] = []
    for entry in stated:
        offset = entry.offset + shift
        if not is_possibly_cut(entry) or (yield from probes.is_as_stated(entry, offset)):
            settled.append(TrueNumbers(offset, entry.compressed_bytes, entry.size_bytes))
        else:
            settled.append((yield from probes.numbers(entry, offset, following[offset])))
    return settled


class _Probes:
    """The reads of one zip, counted."""

    def __init__(self, stated: Sequence[StatedNumbers], shift: int, data_stop: int) -> None:
        self._stated = stated
        self._shift = shift
        self._data_stop = data_stop
        self._n_left = MAX_PROBES

    def _read(self, start: int, n_bytes: int) -> Generator[ByteRange, bytes, bytes]:
        if self._n_left <= 0 or start + n_bytes > self._data_stop:
            return b""
        self._n_left -= 1
        return (yield ByteRange(start, start + n_bytes))

    # -- where each begins -----------------------------------------------------------------------

    def offsets(self) -> Generator[ByteRange, bytes, list[int | None]]:
        """Return the true offset of each entry.

        Programs that cut numbers write members in the order of the directory, so the multiple of
        2^32 never decreases: between two entries with the same one nothing is read.
        """
        wraps: list[int | None] = [None] * len(self._stated)
        most = self._data_stop // WRAP
        pending = [(0, len(wraps), 0, most)]
        while pending:
            start, stop, low, high = pending.pop()
            if start >= stop:
                continue
            if low == high:
                wraps[start:stop] = [low] * (stop - start)
                continue
            middle = (start + stop) // 2
            found = yield from self._wraps(middle, low, high)
            wraps[middle] = found
            pending.append((middle + 1, stop, low if found is None else found, high))
            pending.append((start, middle, low, high if found is None else found))
        offsets = [
            None if wrap is None else entry.offset % WRAP + self._shift + wrap * WRAP
            for entry, wrap in zip(self._stated, wraps, strict=True)
        ]
        known = [offset for offset in offsets if offset is not None]
        if known == sorted(known) and all(offset < self._data_stop for offset in known):
            return offsets
        return (yield from self._offsets_in_any_order())

    def _offsets_in_any_order(self) -> Generator[ByteRange, bytes, list[int | None]]:
        found: list[int | None] = []
        for index, entry in enumerate(self._stated):
            wraps = yield from self._wraps(index, 0, self._data_stop // WRAP)
            start = entry.offset % WRAP + self._shift
            found.append(None if wraps is None else start + wraps * WRAP)
        return found

    def _wraps(self, index: int, low: int, high: int) -> Generator[ByteRange, bytes, int | None]:
        """Return the multiple of 2^32, from *low* to *high*, at which the entry begins."""
        entry = self._stated[index]
        for wraps in range(low, high + 1):
            start = entry.offset % WRAP + self._shift + wraps * WRAP
            data = yield from self._read(start, LOCAL_HEADER_BYTES + len(entry.name))
            if data.startswith(_LOCAL_SIGNATURE) and data[LOCAL_HEADER_BYTES:] == entry.name:
                return wraps
        return None

    # -- how long each is ------------------------------------------------------------------------

    def numbers(
        self, entry: StatedNumbers, offset: int, stop: int
    ) -> Generator[ByteRange, bytes, TrueNumbers | None]:
        """Return the true numbers of *entry*, which begins at *offset* and ends before *stop*."""
        room = stop - offset - LOCAL_HEADER_BYTES - entry.compressed_bytes
        if room < 0:
            return None
        wraps = room // WRAP
        compressed_bytes = entry.compressed_bytes + wraps * WRAP
        size_bytes: int | None = entry.size_bytes
        is_sample_wanted = False
        if entry.is_wide and not wraps:
            pass  # stated in 64 bits
        elif entry.is_stored:
            if (compressed_bytes - entry.size_bytes) % WRAP == 0:
                size_bytes = compressed_bytes
        elif wraps:
            size_bytes = None
        else:
            is_sample_wanted = is_possibly_cut(entry)
        if wraps == 0 and size_bytes is not None and not is_sample_wanted:
            return TrueNumbers(offset, compressed_bytes, size_bytes)
        # The member's end as the local header has it must be its end by the next one's beginning.
        header = yield from self._read(offset, LOCAL_HEADER_BYTES)
        if len(header) < LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_SIGNATURE):
            return None
        n_name, n_extra = _LOCAL.unpack_from(header)[-2:]
        start = offset + LOCAL_HEADER_BYTES + int(n_name) + int(n_extra)
        end = start + compressed_bytes
        if is_sample_wanted and not (yield from self._is_smaller(entry, start)):
            size_bytes = None
        length = stop - end
        if length in _NARROW_DESCRIPTORS + _WIDE_DESCRIPTORS:
            data = yield from self._read(end, length)
            data = data.removeprefix(_DESCRIPTOR_SIGNATURE)
            if int.from_bytes(data[:4], "little") != entry.crc32:
                return None
            if length in _WIDE_DESCRIPTORS:
                if int.from_bytes(data[4:12], "little") != compressed_bytes:
                    return None
                size_bytes = int.from_bytes(data[12:20], "little")
        elif length != 0:
            return None
        return None if size_bytes is None else TrueNumbers(offset, compressed_bytes, size_bytes)

    def is_as_stated(self, entry: StatedNumbers, offset: int) -> Generator[ByteRange, bytes, bool]:
        """Return whether *entry*, which begins at *offset*, is as long as it states."""
        # Header and sample in one read: a zip may have some hundred such members.
        n_wanted = LOCAL_HEADER_BYTES + len(entry.name) + _LOCAL_EXTRA_BYTES + SAMPLE_BYTES
        data = yield from self._read(offset, min(n_wanted, self._data_stop - offset))
        if len(data) < LOCAL_HEADER_BYTES or not data.startswith(_LOCAL_SIGNATURE):
            return False
        n_name, n_extra = _LOCAL.unpack_from(data)[-2:]
        start = LOCAL_HEADER_BYTES + int(n_name) + int(n_extra)
        return _is_proven(entry, data[start : start + entry.compressed_bytes])

    def _is_smaller(self, entry: StatedNumbers, start: int) -> Generator[ByteRange, bytes, bool]:
        """Return whether *entry*, whose data begin at *start*, is as long as it states."""
        sample = yield from self._read(start, min(SAMPLE_BYTES, entry.compressed_bytes))
        return _is_proven(entry, sample)


def _is_proven(entry: StatedNumbers, sample: bytes) -> bool:
    """Return whether *entry*, whose data begin with *sample*, cannot have 2^32 bytes more."""
    # Data that does not pack becomes longer by 5 bytes in 16 KiB at least (RFC 1951 §3.2.4).
    if not entry.is_deflated or entry.size_bytes < entry.compressed_bytes * 99 // 100:
        return False
    longest = longest_bytes(beginning_of(sample))
    return longest is not None and entry.size_bytes + WRAP > longest
