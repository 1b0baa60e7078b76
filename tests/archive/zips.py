"""Zips for tests: honest ones from the standard library, and any other made by hand.

`Entry` states each field of a member's headers; `build` writes members, directory and end records
as stated, wrong numbers included. Fields that are not stated are those of an honest program.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

import trio

from satfs.archive.central_directory import DirectoryParser
from satfs.archive.end_record import TAIL_BYTES, CentralDirectory, NeedMore, locate
from satfs.archive.member_offsets import Row
from satfs.archive.members import ROOT, Members
from satfs.model import ByteRange

#: 2024-02-03 04:05:06 as a DOS date and time.
DOS_DATE, DOS_TIME = (2024 - 1980) << 9 | 2 << 5 | 3, 4 << 11 | 5 << 5 | 6 >> 1


def deflated(data: bytes, level: int = 6) -> bytes:
    """Return *data* as a raw deflate stream."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


@dataclass(frozen=True)
class Entry:
    """A member, and the statements of its headers where these are wrong."""

    name: bytes
    content: bytes = b""
    method: int = 0
    packed: bytes | None = None  # the bytes in the zip; made of the content when None
    flags: int = 0
    made_on: int = 3
    mode: int = 0o100644
    date: int = DOS_DATE
    time: int = DOS_TIME
    extra: bytes = b""
    local_extra: bytes = b""
    local_name: bytes | None = None  # the directory's when None
    attributes: int = 0  # those of MS-DOS
    comment: bytes = b""
    crc: int | None = None
    size: int | None = None
    compressed: int | None = None
    offset: int | None = None
    has_descriptor: bool = False
    is_absent: bool = False  # only in the directory

    def payload(self) -> bytes:
        """Return the bytes that stand in the zip."""
        if self.packed is not None:
            return self.packed
        return deflated(self.content) if self.method == 8 else self.content


@dataclass(frozen=True)
class Layout:
    """The records around the members, honest by default."""

    prefix: bytes = b""
    comment: bytes = b""
    trailing: bytes = b""
    gap: bytes = b""  # between directory and end record
    is_zip64: bool = False
    n_entries: int | None = None
    directory_bytes: int | None = None
    directory_offset: int | None = None


def build(entries: Iterable[Entry], layout: Layout | None = None) -> bytes:
    """Return a zip of *entries*; offsets do not count the prefix, as when it was added later."""
    layout = layout or Layout()
    body = io.BytesIO()
    directory = io.BytesIO()
    n_entries = 0
    for entry in entries:
        payload = entry.payload()
        crc = crc32(entry.content) if entry.crc is None else entry.crc
        size = len(entry.content) if entry.size is None else entry.size
        compressed = len(payload) if entry.compressed is None else entry.compressed
        offset = body.tell() if entry.offset is None else entry.offset
        if not entry.is_absent:
            body.write(_local_header(entry, crc, size, compressed) + payload)
            if entry.has_descriptor:
                numbers = (number & 0xFFFFFFFF for number in (crc, compressed, size))
                body.write(struct.pack("<4s3L", b"PK\x07\x08", *numbers))
        directory.write(_central_header(entry, crc, size, compressed, offset))
        n_entries += 1
    offset = body.tell() if layout.directory_offset is None else layout.directory_offset
    data = directory.getvalue()
    length = len(data) if layout.directory_bytes is None else layout.directory_bytes
    count = n_entries if layout.n_entries is None else layout.n_entries
    ending = layout.gap
    if layout.is_zip64:
        position = body.tell() + len(data) + len(ending)
        ending += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, offset
        )
        ending += struct.pack("<4sLQL", b"PK\6\7", 0, position, 1)
        count, length, offset = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    ending += struct.pack(
        "<4s4H2LH",
        b"PK\5\6",
        0,
        0,
        count & 0xFFFF,
        count & 0xFFFF,
        length,
        offset,
        len(layout.comment),
    )
    return layout.prefix + body.getvalue() + data + ending + layout.comment + layout.trailing


def _local_header(entry: Entry, crc: int, size: int, compressed: int) -> bytes:
    flags = entry.flags
    if entry.has_descriptor:
        flags, crc, size, compressed = flags | 8, 0, 0, 0
    name = entry.name if entry.local_name is None else entry.local_name
    header = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 20, flags, entry.method, entry.time, entry.date,
        crc & 0xFFFFFFFF, min(compressed, 0xFFFFFFFF), min(size, 0xFFFFFFFF),
        len(name), len(entry.local_extra),
    )  # fmt: skip
    return header + name + entry.local_extra


def _central_header(entry: Entry, crc: int, size: int, compressed: int, offset: int) -> bytes:
    numbers = [size, compressed, offset]
    wide = b"".join(struct.pack("<Q", number) for number in numbers if number >= 0xFFFFFFFF)
    extra = (extra_field(1, wide) if wide else b"") + entry.extra
    size, compressed, offset = (min(number, 0xFFFFFFFF) for number in numbers)
    header = struct.pack(
        "<4s2B5H3L5H2L", b"PK\1\2", 30, entry.made_on, 20, entry.flags | 8 * entry.has_descriptor,
        entry.method, entry.time, entry.date, crc & 0xFFFFFFFF, compressed, size, len(entry.name),
        len(extra), len(entry.comment), 0, 0, entry.mode << 16 | entry.attributes, offset,
    )  # fmt: skip
    return header + entry.name + extra + entry.comment


def extra_field(kind: int, body: bytes) -> bytes:
    """Return one extra field."""
    return struct.pack("<2H", kind, len(body)) + body


def honest(contents: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of *contents* as the standard library writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def find_directory(data: bytes, tail_bytes: int = TAIL_BYTES) -> CentralDirectory:
    """Return the directory's place in the zip *data*, requesting more as a reader does."""
    tail = data[max(0, len(data) - tail_bytes) :]
    found = locate(tail, len(data))
    for _ in range(3):
        if isinstance(found, NeedMore):
            assert found.span.stop == len(data)
            assert len(found.span) > len(tail)
            tail = data[found.span.start :]
            found = locate(tail, len(data))
    assert isinstance(found, CentralDirectory)
    return found


def members(data: bytes | memoryview, directory: CentralDirectory) -> Members:
    """Return the members in the bytes *data* of a whole directory."""
    parser = DirectoryParser(directory)
    parser.feed(data)
    return parser.finish()


def read_members(data: bytes, tail_bytes: int = TAIL_BYTES) -> Members:
    """Return the members of the zip *data*."""
    directory = find_directory(data, tail_bytes)
    return members(data[directory.span.start : directory.span.stop], directory)


def files(tree: Members) -> dict[str, Row]:
    """Return each file's path and row."""
    return {path: row for path, row in walk(tree).items() if not tree.is_directory(row)}


def directories(tree: Members) -> set[str]:
    """Return the paths of all directories but the root."""
    return {path for path, row in walk(tree).items() if tree.is_directory(row)}


def walk(tree: Members) -> dict[str, Row]:
    """Return path and row of every entry, as a program that lists directories finds it."""
    found: dict[str, Row] = {}
    pending = [ROOT]
    while pending:
        for row in tree.children(pending.pop()):
            path = tree.path(row).decode()
            assert path not in found, "no name twice"
            found[path] = row
            if tree.is_directory(row):
                pending.append(row)
    return found


def refusals(tree: Members) -> dict[str, str]:
    """Return why which name is not shown."""
    return {refused.name: refused.refusal.name for refused in tree.refused}


class CountingZip:
    """A zip in memory that is read as satfs reads one, and counts the requests."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.asked: list[ByteRange] = []
        self.located: list[ByteRange | None] = []
        #: The cached ranges of the zip.
        self.kept = ByteRange(0, 0)
        self.n_open = 0
        self._lent: list[bytearray] = []

    async def open(self, bounds: ByteRange | None) -> CountingZip:
        """Return a reader of the same zip and counts."""
        assert bounds is None or bounds.stop <= self.size_bytes
        self.n_open += 1
        return self

    async def read(self, span: ByteRange) -> memoryview:
        """Return the part of *span* that exists, in a view that is good for one turn."""
        await trio.lowlevel.checkpoint()
        self.asked.append(span)
        lent = bytearray(self.data[span.start : span.stop])
        self._lent.append(lent)
        if len(self._lent) == 1:
            trio.lowlevel.spawn_system_task(self._take_back)
        return memoryview(lent)

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Know no layout."""
        return None

    def locate_file(self, place: ByteRange | None, beginning: bytes | memoryview = b"") -> None:
        """Note the place that a file is given; look at no layout."""
        self.located.append(place)

    def is_near(self, span: ByteRange) -> bool:
        """Tell whether *span* is in `kept`, which is nothing at first."""
        return self.kept.start <= span.start and span.stop <= self.kept.stop

    async def _take_back(self) -> None:
        """Overwrite lent bytes: a reader that still uses them after a checkpoint sees others."""
        while self._lent:
            lent = self._lent.pop()
            lent[:] = b"\xaa" * len(lent)

    def close(self) -> None:
        """Count one reader less."""
        self.n_open -= 1

    @property
    def n_bytes_asked(self) -> int:
        """Return the sum of the requested lengths."""
        return sum(len(span) for span in self.asked)
