"""The true numbers of a zip whose directory has them cut to 32 bits.

macOS' Archive Utility (Finder's "Compress") writes sizes and offsets modulo 2^32 and the number of
entries modulo 65,536, without ZIP64 records; other programs write the ZIP64 end record, and cut
the numbers of the entries. The true numbers are found again: a local header with the member's name
stands where a member begins, and a member ends where the next one begins. The true size of an
unpacked member is stated nowhere; where two sizes are possible, no size is reported.

Nothing here reads: `settle` yields the ranges that it needs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

from satfs.archive.members import LOCAL_HEADER_BYTES
from satfs.model import ByteRange

#: By what a number of 32 bits may be too small: a multiple of this.
WRAP: Final = 1 << 32

#: Local headers and data descriptors read of one zip. Finding one boundary among a million members
#: takes some twenty; a zip made to need more keeps its members without a size.
MAX_PROBES: Final = 1024
#: Packing ratios of a raster: fewer than this is usual, and more than that is constant data only.
_USUAL_RATIO: Final = 20
_UNUSUAL_RATIO: Final = 8
#: The same of a zip whose numbers were cut for certain: there a member of 4 GiB that packs well is
#: nothing strange, so that more has to speak for the smaller size.
_RARE_RATIO: Final = 64
#: Bytes that a sample is unpacked to at most, and compressed bytes of which a packing ratio shows
#: anything.
_MAX_UNPACKED_BYTES: Final = 8 * 1024 * 1024
_MIN_SAMPLE_BYTES: Final = 4 * 1024
#: Compressed bytes from the beginning of a member that are unpacked to see how well it packs.
SAMPLE_BYTES: Final = 64 * 1024

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_DESCRIPTOR_SIGNATURE: Final = b"PK\x07\x08"
#: Lengths of a data descriptor (APPNOTE 4.3.9): CRC and two sizes of 32 or 64 bits each, with a
#: signature or without; 0 for a member without one.
_NARROW_DESCRIPTORS: Final = (12, 16)
_WIDE_DESCRIPTORS: Final = (20, 24)


@dataclass(frozen=True, slots=True)
class StatedNumbers:
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


@dataclass(frozen=True, slots=True)
class TrueNumbers:
    """The true numbers of one entry; `offset` counts from the zip's first byte."""

    offset: int
    compressed_bytes: int
    size_bytes: int


#: Yields a range of the zip, is sent its bytes, and returns for each entry its true numbers, or
#: None where they are not known.
Settling = Generator[ByteRange, bytes, list[TrueNumbers | None]]


def is_doubtful(compressed_bytes: int, size_bytes: int, most_ratio: int) -> bool:
    """Return whether *size_bytes* may have been cut: whether 2^32 more is possible and as likely.

    A larger size is impossible where the method cannot make it out of the packed bytes (RFC 1951),
    and is ruled out where imagery packs to the smaller one only.
    """
    longer = size_bytes + WRAP
    if longer > compressed_bytes * most_ratio:
        return False
    return (
        size_bytes < compressed_bytes - compressed_bytes // 64
        or size_bytes > _USUAL_RATIO * compressed_bytes
        or longer < _UNUSUAL_RATIO * compressed_bytes
    )


def is_possibly_cut(entry: StatedNumbers) -> bool:
    """Return whether the entry's method can make 2^32 bytes more than it states."""
    is_longer_possible = entry.size_bytes + WRAP <= entry.compressed_bytes * entry.most_ratio
    return is_longer_possible and not (entry.is_wide or entry.is_stored)


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


def packing(sample: bytes) -> float | None:
    """Return how many bytes are deflated into one of *sample*, the beginning of deflated data.

    None where it is not deflated data, or too little of it.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        n_bytes = len(inflater.decompress(sample, _MAX_UNPACKED_BYTES))
    except zlib.error:
        return None
    n_read = len(sample) - len(inflater.unconsumed_tail)
    return n_bytes / n_read if n_read >= _MIN_SAMPLE_BYTES else None


def packs_as_usual(sample: bytes, n_compressed: int) -> bool:
    """Return whether deflated data that begins with *sample* packs as imagery does, there at least.

    Of data that packs `_RARE_RATIO` times, nearly all of it packs so.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    most = _USUAL_RATIO * len(sample)
    try:
        unpacked = inflater.decompress(sample, most + 1)
    except zlib.error:
        return False
    return len(sample) == min(SAMPLE_BYTES, n_compressed) and len(unpacked) <= most


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

    Nothing states it. How the first bytes of a member pack distinguishes two sizes of which one is
    a multiple of the other; where both are as likely, or the sample is not deflated data, there is
    none. Waits for nothing.
    """
    probes = _Probes(stated, shift, data_stop)
    settled: list[TrueNumbers | None] = []
    for entry in stated:
        offset = entry.offset + shift
        is_known = not is_possibly_cut(entry) or (yield from probes.is_as_stated(entry, offset))
        found = TrueNumbers(offset, entry.compressed_bytes, entry.size_bytes)
        settled.append(found if is_known else None)
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
        elif wraps or is_doubtful(compressed_bytes, entry.size_bytes, entry.most_ratio):
            size_bytes = None
        elif entry.size_bytes + WRAP <= compressed_bytes * entry.most_ratio:
            is_sample_wanted = True
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
        if not entry.is_deflated or is_doubtful(
            entry.compressed_bytes, entry.size_bytes, entry.most_ratio
        ):
            return False
        # Header and sample in one read: a zip may have some hundred such members.
        n_wanted = LOCAL_HEADER_BYTES + len(entry.name) + SAMPLE_BYTES
        data = yield from self._read(offset, min(n_wanted, self._data_stop - offset))
        if len(data) < LOCAL_HEADER_BYTES or not data.startswith(_LOCAL_SIGNATURE):
            return False
        n_name, n_extra = _LOCAL.unpack_from(data)[-2:]
        start = LOCAL_HEADER_BYTES + int(n_name) + int(n_extra)
        ratio = packing(data[start : start + entry.compressed_bytes])
        # Nearer to the stated size than to the larger one, as multiples.
        longer = entry.size_bytes + WRAP
        return ratio is not None and (
            (ratio * entry.compressed_bytes) ** 2 < entry.size_bytes * longer
        )

    def _is_smaller(self, entry: StatedNumbers, start: int) -> Generator[ByteRange, bytes, bool]:
        """Return whether *entry*, whose data begin at *start*, has the stated size, not 2^32 more.

        Nothing states it. 2^32 more would take data that packs uncommonly well from end to end.
        """
        if not entry.is_deflated or (
            entry.size_bytes + WRAP < _RARE_RATIO * entry.compressed_bytes
        ):
            return False
        sample = yield from self._read(start, min(SAMPLE_BYTES, entry.compressed_bytes))
        return packs_as_usual(sample, entry.compressed_bytes)
