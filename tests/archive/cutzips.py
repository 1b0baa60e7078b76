"""Zips over 4 GiB without ZIP64 records, as macOS' Archive Utility writes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import trio
from fakes.sparse import SparseContent

from satfs.model import ByteRange

FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Big:
    """A member of a sparse zip: zeros but for what is stated, and its data's *beginning*."""

    name: bytes
    packed: int
    size: int | None = None
    method: int = 0
    descriptor: str = "<4s3L"
    local_extra: bytes = bytes(16)
    crc: int = 0x12345678
    beginning: bytes = b""


@dataclass
class SparseZip:
    """A zip of any size with its numbers cut to 32 bits; what is not written is zeros."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    size_bytes: int = 0
    content: SparseContent | None = None
    n_reads: int = 0

    def write(self, data: bytes) -> None:
        self.pieces[self.size_bytes] = data
        self.size_bytes += len(data)

    async def open(self, bounds: ByteRange | None) -> SparseZip:
        await trio.lowlevel.checkpoint()
        self.content = SparseContent(self.size_bytes, self.pieces)
        return self

    async def read(self, span: ByteRange) -> bytes:
        await trio.lowlevel.checkpoint()
        self.n_reads += 1
        assert self.content is not None
        return self.content.read(span.start, span.stop)

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Know no layout."""
        return None

    def locate_file(self, place: ByteRange | None, beginning: bytes | memoryview = b"") -> None:
        """Look at no layout."""

    def is_near(self, span: ByteRange) -> bool:
        return False

    def close(self) -> None:
        pass


def build_cut(
    members: list[Big],
    *,
    prefix: int = 0,
    made_by: int = 0x0315,
    has_zip64: bool = False,
    is_offset_cut: bool = False,
) -> SparseZip:
    """Return a zip as macOS' Archive Utility writes it.

    With *has_zip64* its entries alone are cut, and the ZIP64 end record is right but for the offset
    of the directory with *is_offset_cut*.
    """
    made = SparseZip(size_bytes=prefix)
    directory = bytearray()
    for member in members:
        offset = made.size_bytes - prefix
        size = member.packed if member.size is None else member.size
        flags = 8 if member.descriptor else 0
        sizes = (0, 0, 0) if flags else (member.crc, member.packed & FULL, size & FULL)
        lengths = len(member.name), len(member.local_extra)
        made.write(
            struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, member.method, 0, 0, *sizes, *lengths)
            + member.name
            + member.local_extra
        )
        if member.beginning:
            made.write(member.beginning)
        made.size_bytes += member.packed - len(member.beginning)
        if member.descriptor:
            wide = "Q" in member.descriptor
            numbers = [
                member.crc,
                *(number if wide else number & FULL for number in (member.packed, size)),
            ]
            signature = [b"PK\7\x08"] if "4s" in member.descriptor else []
            made.write(struct.pack(member.descriptor, *signature, *numbers))
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", made_by, 20, flags, member.method, 0, 0, member.crc,
            member.packed & FULL, size & FULL, len(member.name), 0, 0, 0, 0, 0o100644 << 16,
            offset & FULL,
        ) + member.name  # fmt: skip
    start = made.size_bytes - prefix
    n_entries = len(members) & 0xFFFF
    end = made.size_bytes + len(directory)
    made.write(bytes(directory))
    if has_zip64:
        stated_start = start & FULL if is_offset_cut else start
        made.write(
            struct.pack(
                "<4sQ2H2L4Q", b"PK\6\6", 44, made_by, 45, 0, 0, len(members), len(members),
                len(directory), stated_start,
            )
            + struct.pack("<4sLQL", b"PK\6\7", 0, end - prefix, 1)
        )  # fmt: skip
    made.write(
        struct.pack(
            "<4s4H2LH", b"PK\5\6", 0, 0, n_entries, n_entries, len(directory), start & FULL, 0
        )
    )
    return made
