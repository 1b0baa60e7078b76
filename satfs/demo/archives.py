"""Zips of every make a vendor might deliver: stored, deflated, ZIP64, data descriptors, a folder.

The standard library writes only what a file needs; a reader must cope with all that is allowed
(APPNOTE.TXT, PKWARE), so this writes the variants on demand, with fixed times: the same members
give the same bytes.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

STORED, DEFLATED = 0, 8
_COPY_BYTES: Final = 1 << 20
_MAX_32: Final = 0xFFFFFFFF
_UTF8: Final = 0x800
_DESCRIPTOR: Final = 0x8


@dataclass(frozen=True)
class Member:
    """One file to pack. `modified_s` is seconds since the epoch, kept to the second."""

    name: str
    source: bytes | Path = field(repr=False)
    method: int = STORED
    modified_s: int = 1_769_615_867


@dataclass(frozen=True)
class ZipForm:
    """How an archive is made.

    `folder`: it holds all members (with its final slash). `zip64`: also values that would fit are
    written with 64-bit fields. `descriptors`: sizes follow the data instead of preceding it.
    `absolute`: names begin with a slash. `directories`: each directory is an entry as well, marked
    by its attributes alone, without a slash at the end of its name. `zeros_bytes`: how many zeros
    follow the end record.
    """

    folder: str = ""
    zip64: bool = False
    descriptors: bool = False
    comment: bytes = b""
    absolute: bool = False
    directories: bool = False
    zeros_bytes: int = 0


@dataclass
class _Entry:
    name: bytes
    method: int
    flags: int
    modified_s: int
    offset: int
    crc: int = 0
    packed_bytes: int = 0
    size_bytes: int = 0
    mode: int = 0o100644


def write_zip(file: BinaryIO, members: Iterable[Member], make: ZipForm | None = None) -> None:
    """Write an archive to an empty, seekable file, one member after the other."""
    make = make or ZipForm()
    members = list(members)
    entries = [_write_directory(file, name, members, make) for name in _directories(members, make)]
    entries += [_write_member(file, member, make) for member in members]
    start = file.tell()
    for entry in entries:
        file.write(_central_header(entry, make))
    _write_end(file, entries, start, make)


def _directories(members: Iterable[Member], make: ZipForm) -> list[str]:
    """Return the directories to be written as entries, the outer ones first."""
    if not make.directories:
        return []
    names = {str(parent) for member in members for parent in PurePosixPath(member.name).parents}
    return sorted(names - {"."})


def _write_directory(file: BinaryIO, name: str, members: list[Member], make: ZipForm) -> _Entry:
    directory = Member(name, b"", modified_s=max(member.modified_s for member in members))
    entry = _write_member(file, directory, make)
    entry.mode = 0o040755
    return entry


def _pieces(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while piece := file.read(_COPY_BYTES):
            yield piece


def _size(source: bytes | Path) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _write_member(file: BinaryIO, member: Member, make: ZipForm) -> _Entry:
    flags = _UTF8 | (_DESCRIPTOR if make.descriptors else 0)
    name = (("/" if make.absolute else "") + make.folder + member.name).encode()
    entry = _Entry(name, member.method, flags, member.modified_s, file.tell())
    wide = make.zip64 or _size(member.source) > _MAX_32 - (1 << 20)
    file.write(_local_header(entry, wide=wide, sizes_follow=make.descriptors))
    start = file.tell()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15) if member.method == DEFLATED else None
    for piece in _pieces(member.source):
        entry.crc = zlib.crc32(piece, entry.crc)
        entry.size_bytes += len(piece)
        file.write(packer.compress(piece) if packer else piece)
    if packer:
        file.write(packer.flush())
    entry.packed_bytes = file.tell() - start
    if make.descriptors:
        sizes = "<4sIQQ" if wide else "<4sIII"
        parts = (b"PK\x07\x08", entry.crc, entry.packed_bytes, entry.size_bytes)
        file.write(struct.pack(sizes, *parts))
    else:
        file.seek(entry.offset)
        file.write(_local_header(entry, wide=wide, sizes_follow=False))
        file.seek(0, 2)
    return entry


def _dos_time(modified_s: int) -> tuple[int, int]:
    at = datetime.fromtimestamp(modified_s, UTC)
    date = (at.year - 1980) << 9 | at.month << 5 | at.day
    return at.hour << 11 | at.minute << 5 | at.second // 2, date


def _unix_time(modified_s: int) -> bytes:
    return struct.pack("<HHBI", 0x5455, 5, 1, modified_s)


def _local_header(entry: _Entry, *, wide: bool, sizes_follow: bool) -> bytes:
    extra = _unix_time(entry.modified_s)
    sizes = (0, 0) if sizes_follow else (entry.packed_bytes, entry.size_bytes)
    if wide:
        extra += struct.pack("<HHQQ", 1, 16, sizes[1], sizes[0])
        sizes = (_MAX_32, _MAX_32)
    crc = 0 if sizes_follow else entry.crc
    needed = 45 if wide else 20
    head = (b"PK\x03\x04", needed, entry.flags, entry.method, *_dos_time(entry.modified_s), crc)
    fixed = struct.pack("<4sHHHHHIIIHH", *head, *sizes, len(entry.name), len(extra))
    return fixed + entry.name + extra


def _central_header(entry: _Entry, make: ZipForm) -> bytes:
    extra = _unix_time(entry.modified_s)
    numbers = (entry.size_bytes, entry.packed_bytes, entry.offset)
    wide = make.zip64 or max(numbers) >= _MAX_32
    if wide:
        extra += struct.pack("<HHQQQ", 1, 24, *numbers)
        numbers = (_MAX_32,) * 3
    size, packed, offset = numbers
    version = (3 << 8) | 45  # made on Unix: the upper half of the attributes is a file mode
    head = (b"PK\x01\x02", version, 45 if wide else 20, entry.flags, entry.method)
    lengths = (len(entry.name), len(extra), 0)
    # Mode and DOS attributes (APPNOTE 4.4.15): bit 4 of the latter marks a directory.
    attributes = entry.mode << 16 | (0x10 if stat.S_ISDIR(entry.mode) else 0)
    fixed = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        *(*head, *_dos_time(entry.modified_s), entry.crc, packed, size, *lengths),
        *(0, 0, attributes, offset),
    )
    return fixed + entry.name + extra


def _write_end(file: BinaryIO, entries: list[_Entry], start: int, make: ZipForm) -> None:
    stop = file.tell()
    n_entries, n_bytes = len(entries), stop - start
    if make.zip64 or n_entries >= 0xFFFF or stop >= _MAX_32:
        record = (b"PK\x06\x06", 44, 45, 45, 0, 0, n_entries, n_entries, n_bytes, start)
        file.write(struct.pack("<4sQHHIIQQQQ", *record))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, stop, 1))
        n_entries, n_bytes, start = 0xFFFF, _MAX_32, _MAX_32
    tail = (b"PK\x05\x06", 0, 0, n_entries, n_entries, n_bytes, start, len(make.comment))
    file.write(struct.pack("<4sHHHHIIH", *tail) + make.comment + bytes(make.zeros_bytes))
