"""A zip's central directory, from bytes to members.

For any bytes the outcome is `Members` or `Damaged`: members that cannot be shown are counted and
named with the reason (`paths.NameProblem`), and a directory that contradicts itself is not shown in
part, since users could not see that it is a part. Facts are from PKWARE's APPNOTE.TXT 6.3.10,
section 4.3.12, and Info-ZIP's extrafld.txt for the extra fields.
"""

from __future__ import annotations

import calendar
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from satfs.archive.decoders import has_decoder
from satfs.archive.end_record import CentralDirectory
from satfs.archive.member_offsets import least_stop
from satfs.archive.members import ENCRYPTED, EXECUTABLE, Members
from satfs.archive.missing_zip64 import (
    WRAP,
    Settling,
    StatedNumbers,
    TrueNumbers,
    fits_together,
    may_be_longer,
    settle,
    settle_sizes,
)
from satfs.archive.paths import NameProblem, UnsafeName, decode_name, split_path
from satfs.errors import Damaged

_ENTRY: Final = struct.Struct("<4s2B5H3L5H2L")
_LENGTHS: Final = struct.Struct("<3H")  # of name, extra field and comment, 28 bytes into an entry
_EXTRA: Final = struct.Struct("<2H")
_ENTRY_SIGNATURE: Final = b"PK\x01\x02"
#: A digital signature may follow the entries (APPNOTE 4.3.13). It is no part of the members.
_DIGITAL_SIGNATURE: Final = b"PK\x05\x05"

_ENCRYPTED_FLAG: Final = 1 << 0
#: The directory's names and lengths are masked as well (APPNOTE 4.4.4, bit 13).
_MASKED_FLAG: Final = 1 << 13

_FULL32: Final = 0xFFFFFFFF
_FULL16: Final = 0xFFFF

_ZIP64_FIELD: Final = 0x0001
_NTFS_FIELD: Final = 0x000A
_TIMESTAMP_FIELD: Final = 0x5455
_UNICODE_PATH_FIELD: Final = 0x7075

STORED: Final = 0
DEFLATED: Final = 8
#: Deflate's limit: 258 bytes out of two bits (RFC 1951 §3.2.5, a one-bit code for each half).
_MAX_FROM_DEFLATE: Final = 1032
#: An encrypted member is longer by its encryption header: 12 bytes, or what AES adds.
_MAX_ENCRYPTION_BYTES: Final = 64
#: A ratio that no other method reaches: bzip2 makes 46 MB of zeros out of 40 bytes.
_MAX_FROM_OTHERS: Final = 1 << 21

#: The file type in a Unix mode, and the one that a plain file has.
_TYPE_MASK: Final = 0o170000
_PLAIN_TYPES: Final = frozenset({0, 0o100000})

_MADE_ON_UNIX: Final = frozenset({3, 19})
#: "Version made by" 2.1 on Unix, sizes behind the data: macOS' Archive Utility, which knows no
#: ZIP64 and cuts sizes to 32 bits.
_ARCHIVE_UTILITY: Final = (21, 3)
_DESCRIPTOR_FLAG: Final = 1 << 3

_UNIX_DIRECTORY: Final = 0o040000
#: The directory bit of MS-DOS attributes, which many programs set on any system.
_DOS_DIRECTORY: Final = 0x10

#: The longest directory whose numbers may be cut and are looked into, in bytes: it is held as a
#: whole.
_MAX_CUT_BYTES: Final = 16 * 1024 * 1024
#: 1601-01-01, the beginning of NTFS time, in seconds of the epoch; its unit is 100 ns.
_NTFS_EPOCH_S: Final = -11_644_473_600
#: Modification times that are accepted: from 1970 to 2200, in ns since the epoch.
_PLAUSIBLE_NS: Final = range(7_258_118_400 * 10**9)


class DirectoryParser:
    """Reads a directory piece by piece, so that none of it has to be held and others can run.

    Feed all of its bytes in order, in pieces of any size, then call `finish`. Parsing takes about
    ten microseconds per entry, and lets other threads run.
    """

    def __init__(self, directory: CentralDirectory) -> None:
        self._directory = directory
        self._members = Members(directory.span.start, directory.n_entries)
        self._rest = b""
        self._n_bytes = 0
        self._n_entries = 0
        self._is_over = False
        # Entries whose numbers may be cut, until the true ones are known.
        self._held: list[tuple[bytes, StatedNumbers]] = []
        self._is_held = directory.is_cut or directory.span.start >= WRAP
        self._is_settled = False
        if len(directory.span) > _MAX_CUT_BYTES:
            if directory.is_cut:
                raise Damaged("it is over 4 GiB without ZIP64 records, and has too many members")
            self._is_held = False

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next *piece* of the directory.

        Raises:
            Damaged: it is not what a directory holds.
        """
        self._n_bytes += len(piece)
        data = self._rest + bytes(piece)
        position = 0
        while not self._is_over and position + 4 <= len(data):
            signature = data[position : position + 4]
            if signature == _DIGITAL_SIGNATURE:
                self._is_over = True
                break
            if signature != _ENTRY_SIGNATURE:
                raise Damaged(f"its directory breaks off after {self._n_entries} entries")
            if position + _ENTRY.size > len(data):
                break
            stop = position + _entry_bytes(data, position)
            if stop > len(data):
                break
            # Not the first one, where that is a directory.
            if not self._is_held and _is_of_archive_utility(data, position):
                self._is_held = len(self._directory.span) <= _MAX_CUT_BYTES
            if self._is_held:
                entry = data[position:stop]
                self._held.append((entry, _stated(entry)))
            else:
                self._entry(data, position)
            self._n_entries += 1
            position = stop
        self._rest = b"" if self._is_over else data[position:]

    def settling(self) -> Settling | None:
        """Return what finds the true numbers where they were cut, once everything was fed.

        Give its result to `finish`. None where the numbers are as they should be.
        """
        stated = [each for _, each in self._held]
        shift, data_stop = self._directory.shift, self._directory.span.start
        if self._directory.is_cut or not fits_together(stated, shift, data_stop):
            find = settle if data_stop >= WRAP else None
        else:
            is_archive_utility = any(_is_of_archive_utility(entry, 0) for entry, _ in self._held)
            find = settle_sizes if is_archive_utility else None
        self._is_settled = find is not None
        return None if find is None else find(stated, shift, data_stop)

    def finish(self, settled: Sequence[TrueNumbers | None] = ()) -> Members:
        """Return the members, once everything was fed, and *settled* is the result of `settling`.

        Takes about a microsecond per entry, more when their order in the zip is another.

        Raises:
            Damaged: bytes are missing, or another number of entries was announced.
        """
        directory = self._directory
        if self._rest or self._n_bytes != len(directory.span):
            raise Damaged(f"its directory breaks off after {self._n_entries} entries")
        if (self._n_entries - directory.n_entries) % (_FULL16 + 1):
            raise Damaged(
                f"its directory announces {directory.n_entries} entries and has {self._n_entries}"
            )
        found = settled if self._is_settled else [None] * len(self._held)
        for (entry, _), numbers in zip(self._held, found, strict=True):
            self._entry(entry, 0, numbers)
        self._members.settle(can_unpack)
        return self._members

    def _entry(self, data: bytes, position: int, settled: TrueNumbers | None = None) -> None:
        """Add the entry at *position*; *settled* are its true numbers where they were cut."""
        (
            _, made_by, made_on, _, flags, method, dos_time, dos_date, crc, compressed, size,
            n_name, n_extra, _, _, _, attributes, offset,
        ) = _ENTRY.unpack_from(data, position)  # fmt: skip
        if flags & _MASKED_FLAG:
            raise Damaged("its directory is encrypted")
        position += _ENTRY.size
        raw_name = data[position : position + n_name]
        mtime_ns = _dos_time_ns(dos_date, dos_time)
        unicode_path = b""
        is_wide = False
        if n_extra:
            fields = _extra_fields(data, position + n_name, position + n_name + n_extra)
            unicode_path = fields.get(_UNICODE_PATH_FIELD, b"")
            mtime_ns = _extra_time_ns(fields, mtime_ns)
            is_wide = _ZIP64_FIELD in fields
            if is_wide:
                size, compressed, offset = _widened(fields[_ZIP64_FIELD], size, compressed, offset)
        name = decode_name(raw_name, flags=flags, made_on=made_on, unicode_path=unicode_path)
        try:
            parts, is_directory = split_path(name, made_on=made_on)
            if is_directory or (size == 0 and _is_directory(attributes)):
                if self._members.add_directory(parts, mtime_ns) is None:
                    raise UnsafeName(NameProblem.TOO_MANY)
                return
            if self._is_settled:
                if settled is None:
                    raise UnsafeName(NameProblem.CUT)
                offset = settled.offset
                compressed, size = settled.compressed_bytes, settled.size_bytes
            else:
                offset += self._directory.shift
            if least_stop(offset, compressed) > self._members.offsets.data_stop:
                raise UnsafeName(NameProblem.MISPLACED)
            is_encrypted = flags & _ENCRYPTED_FLAG
            if not _can_be(method, compressed, size, is_encrypted=bool(is_encrypted)):
                raise UnsafeName(NameProblem.CONTRADICTION)
            if (
                (made_by, made_on) == _ARCHIVE_UTILITY
                and flags & _DESCRIPTOR_FLAG
                and not (is_wide or self._is_settled or method == STORED)
                and may_be_longer(compressed, size, _most_ratio(method))
            ):
                raise UnsafeName(NameProblem.CUT)
        except UnsafeName as refused:
            self._members.refuse(name, refused.refusal)
            return
        kept = ENCRYPTED * is_encrypted
        if made_on in _MADE_ON_UNIX and _is_executable(attributes >> 16):
            kept |= EXECUTABLE
        self._members.add_file(parts, offset, n_name, method, compressed, size, crc, kept, mtime_ns)


def _entry_bytes(data: bytes, position: int) -> int:
    """Return the length of the entry at *position*: fixed part, name, extra field, comment."""
    n_name, n_extra, n_comment = _LENGTHS.unpack_from(data, position + 28)
    return _ENTRY.size + int(n_name) + int(n_extra) + int(n_comment)


def _is_of_archive_utility(data: bytes, position: int) -> bool:
    """Return whether the entry at *position* was made by a program that cuts sizes."""
    made_by, made_on, _, flags = struct.unpack_from("<2B2H", data, position + 4)
    return (made_by, made_on) == _ARCHIVE_UTILITY and bool(flags & _DESCRIPTOR_FLAG)


def _is_directory(attributes: int) -> bool:
    """Return whether *attributes* (APPNOTE 4.4.15) are a directory's, on Unix or MS-DOS."""
    kind = attributes >> 16 & _TYPE_MASK
    return kind == _UNIX_DIRECTORY or (kind == 0 and bool(attributes & _DOS_DIRECTORY))


def _is_executable(mode: int) -> bool:
    """Return whether a Unix *mode* is a program's; a symbolic link has all bits as well."""
    return mode & _TYPE_MASK in _PLAIN_TYPES and bool(mode & 0o111)


def _can_be(method: int, compressed: int, size: int, *, is_encrypted: bool) -> bool:
    """Return whether that many bytes can be inflated from that many."""
    if method == STORED:
        added = compressed - size
        return 0 <= added <= _MAX_ENCRYPTION_BYTES if is_encrypted else added == 0
    return size <= compressed * _most_ratio(method)


def can_unpack(method: int) -> bool:
    """Return whether members of that *method* can be opened."""
    return method in (STORED, DEFLATED) or has_decoder(method)


def _most_ratio(method: int) -> int:
    """Return how many bytes the *method* can make of one."""
    if method == STORED:
        return 1
    return _MAX_FROM_DEFLATE if method == DEFLATED else _MAX_FROM_OTHERS


def _stated(entry: bytes) -> StatedNumbers:
    """Return the numbers of one *entry* of the directory as they stand there."""
    (
        _, _, _, _, flags, method, _, _, crc, compressed, size, n_name, n_extra, _, _, _, _, offset,
    ) = _ENTRY.unpack_from(entry)  # fmt: skip
    extra_start = _ENTRY.size + n_name
    fields = _extra_fields(entry, extra_start, extra_start + n_extra)
    if _ZIP64_FIELD in fields:
        size, compressed, offset = _widened(fields[_ZIP64_FIELD], size, compressed, offset)
    return StatedNumbers(
        name=entry[_ENTRY.size : extra_start],
        offset=offset,
        compressed_bytes=compressed,
        size_bytes=size,
        crc32=crc,
        is_stored=method == STORED and not flags & _ENCRYPTED_FLAG,
        is_deflated=method == DEFLATED and not flags & _ENCRYPTED_FLAG,
        most_ratio=_most_ratio(method),
        is_wide=_ZIP64_FIELD in fields,
    )


def _extra_fields(data: bytes, position: int, stop: int) -> dict[int, bytes]:
    """Return the bodies of the extra fields, the first of each kind; stops where they break off."""
    fields: dict[int, bytes] = {}
    while position + 4 <= stop:
        kind, length = _EXTRA.unpack_from(data, position)
        position += 4
        if position + length > stop:
            break
        fields.setdefault(kind, data[position : position + length])
        position += length
    return fields


def _widened(body: bytes, size: int, compressed: int, offset: int) -> tuple[int, int, int]:
    """Return size, compressed size and offset with ZIP64 values where 32 bits were not enough.

    The field holds those that are needed, in this order (APPNOTE 4.5.3). One that is missing stays
    as it is, and is later found to be outside of the archive.
    """
    numbers = [size, compressed, offset]
    position = 0
    for index, number in enumerate(numbers):
        if number == _FULL32 and position + 8 <= len(body):
            numbers[index] = int.from_bytes(body[position : position + 8], "little")
            position += 8
    return numbers[0], numbers[1], numbers[2]


def _extra_time_ns(fields: dict[int, bytes], otherwise_ns: int | None) -> int | None:
    """Return the best modification time in the extra *fields*: these are UTC, unlike DOS time."""
    stamp = fields.get(_TIMESTAMP_FIELD)
    if stamp is not None and len(stamp) >= 5 and stamp[0] & 1:  # bit 0: a modification time follows
        mtime_ns = int.from_bytes(stamp[1:5], "little", signed=True) * 10**9
        if mtime_ns in _PLAUSIBLE_NS:
            return mtime_ns
    ntfs = fields.get(_NTFS_FIELD)
    if ntfs is not None:
        # Four reserved bytes, then attributes; attribute 1 is three times: mtime, atime, ctime.
        times = _extra_fields(ntfs, 4, len(ntfs)).get(1, b"")
        mtime_ns = _NTFS_EPOCH_S * 10**9 + int.from_bytes(times[:8], "little") * 100
        if len(times) >= 8 and mtime_ns in _PLAUSIBLE_NS:
            return mtime_ns
    return otherwise_ns


@lru_cache(maxsize=4096)
def _dos_time_ns(date: int, time: int) -> int | None:
    """Return an MS-DOS date and time, taken as UTC, in ns since the epoch; None if it is not valid.

    It is local time in a zone that the archive does not state, in steps of two seconds.
    """
    year, month, day = 1980 + (date >> 9), date >> 5 & 0xF, date & 0x1F
    hour, minute, second = time >> 11, time >> 5 & 0x3F, 2 * (time & 0x1F)
    if not (1 <= month <= 12 and hour < 24 and minute < 60 and second < 60):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, hour, minute, second)) * 10**9
