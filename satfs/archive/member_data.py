"""One member's bytes in the zip: their position, and their checksum."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from satfs.archive.checksum import Checksum
from satfs.archive.member_offsets import LOCAL_HEADER_BYTES
from satfs.archive.members import Member
from satfs.content.fetch.raster_files import MAGIC_BYTES, RasterFile, is_tiff
from satfs.content.fetch.raster_reads import RasterReads
from satfs.errors import Damaged
from satfs.model import ByteRange, Reader, RemoteReader

if TYPE_CHECKING:
    from satfs.archive.deflated import DeflatedMember
    from satfs.archive.spooled import SpooledMember

#: Reads a range inside of the zip. All that this package needs of `content`.
ReadRange: TypeAlias = Callable[[ByteRange], Awaitable[bytes | memoryview]]


#: Opens the zip to read within the bounds given: what reading ahead should not go beyond. None are
#: given by a caller that does not know it yet.
OpenZip: TypeAlias = Callable[[ByteRange | None], Awaitable[RemoteReader]]

_HEADER: Final = struct.Struct("<4s5H3L2H")
_SIGNATURE: Final = b"PK\x03\x04"
_ENCRYPTED_FLAG: Final = 1

#: Extra field of a local header that is allowed for, in bytes, when its header is read together
#: with the first data: Info-ZIP's two fields take 28, ZIP64 20. A longer one costs a second read.
_EXPECTED_EXTRA_BYTES: Final = 64
#: The farthest beginning of a first read that the header is still read together with, in bytes.
_TOGETHER_BYTES: Final = 64 * 1024


class MemberData:
    """A *member* called *path* of a zip, where the next member or the directory is at *stop*.

    Shared by all readers of the member, since what it learns is the same for all: where the data
    begins (by the local header's own lengths, which are not the directory's), which bytes were
    seen, and whether they were right.
    """

    def __init__(self, member: Member, path: str, stop: int, label: str = "") -> None:
        self.member = member
        self.path = path
        self.label = label or path
        """The name for people, among the members of all zips."""
        self.is_checked = False
        """Whether every byte was seen, and the CRC was right."""
        self.raster: RasterFile | None = None
        """The layout of a packed TIFF, in offsets of the unpacked member, once it was begun."""
        self._stop = stop
        self._data_start: int | None = None
        self._checksum = Checksum(member.size_bytes)
        self._damage: str | None = None

    @property
    def bounds(self) -> ByteRange:
        """The member's place in the zip, local header included: exact, or a little too long."""
        return self._header_span(_EXPECTED_EXTRA_BYTES + self.member.compressed_bytes)

    def bounds_of(self, first_bytes: int | None) -> ByteRange:
        """Return the place of the stored member's first bytes, as `bounds`; None: of all bytes."""
        if first_bytes is None:
            return self.bounds
        n_bytes = min(first_bytes, self.member.compressed_bytes)
        return self._header_span(_EXPECTED_EXTRA_BYTES + n_bytes)

    def holds(self, position: int) -> bool:
        """Return whether a position of the zip is in the local header, the data, or just behind."""
        return self.member.header_offset <= position < self._stop

    # -- the bytes as they stand in the zip ------------------------------------------------------

    async def fetch(self, read: ReadRange, span: ByteRange) -> bytes | memoryview:
        """Return exactly the bytes *span* of the member as stored, counted from its first.

        The first time the local header is read as well, in the same request where possible. A
        memoryview is good until the next checkpoint.

        Raises:
            Damaged: there is no local header, or it contradicts the directory.
        """
        start = self._data_start
        if start is None:
            if span.start <= _TOGETHER_BYTES:
                return await self._fetch_with_header(read, span)
            start = self._find_start(await read(self._header_span(0)))
        return await self._fetch_at(read, start, span)

    async def _fetch_at(self, read: ReadRange, start: int, span: ByteRange) -> bytes | memoryview:
        data = await read(ByteRange(start + span.start, start + span.stop))
        if len(data) != len(span):
            raise self.damaged("the archive is cut off in the middle of it")
        return data

    async def _fetch_with_header(self, read: ReadRange, span: ByteRange) -> bytes | memoryview:
        requested = self._header_span(_EXPECTED_EXTRA_BYTES + span.stop)
        data = memoryview(await read(requested))
        start = self._find_start(data)
        first, stop = start + span.start - requested.start, start + span.stop - requested.start
        if stop <= len(data):
            return data[first:stop]
        # A longer extra field than guessed: the rest of the span is requested on its own.
        begun = bytes(data[first:])
        rest = await self._fetch_at(read, start, ByteRange(span.start + len(begun), span.stop))
        return b"".join((begun, rest))

    def _header_span(self, n_more: int) -> ByteRange:
        """Return the local header, name included, and *n_more* bytes, but nothing of others."""
        start = self.member.header_offset
        stop = start + LOCAL_HEADER_BYTES + self.member.name_bytes + n_more
        return ByteRange(start, max(start, min(stop, self._stop)))

    def _find_start(self, header: bytes | memoryview) -> int:
        """Return where the data begins, by the local *header*, and remember it."""
        member = self.member
        if len(header) < LOCAL_HEADER_BYTES:
            raise self.damaged("its local header is cut off")
        signature, _, flags, method, _, _, _, _, _, n_name, n_extra = _HEADER.unpack_from(header)
        if signature != _SIGNATURE:
            raise self.damaged("there is no local header where the directory places it")
        if method != member.method or bool(flags & _ENCRYPTED_FLAG) != member.is_encrypted:
            raise self.damaged("its local header contradicts the directory")
        start = member.header_offset + LOCAL_HEADER_BYTES + int(n_name) + int(n_extra)
        if start + member.compressed_bytes > self._stop:
            raise self.damaged("its bytes would reach into the next member or the directory")
        self._data_start = start
        return start

    def reach(self, span: ByteRange) -> ByteRange:
        """Return where in the zip reading *span* may look: the local header is included."""
        return self._header_span(_EXPECTED_EXTRA_BYTES + span.stop)

    def learn_start(self, header: bytes | memoryview) -> None:
        """Take in the local *header* from another read; a wrong one is ignored."""
        with suppress(Damaged):
            self._find_start(header)

    def place(self, span: ByteRange) -> ByteRange | None:
        """Return where in the zip *span* of the member as stored is, if its beginning is known."""
        start = self._data_start
        return None if start is None else ByteRange(start + span.start, start + span.stop)

    # -- the bytes as they were put in -----------------------------------------------------------

    def unseen(self, span: ByteRange) -> list[ByteRange]:
        """Return the parts of *span*, of the unpacked member, whose CRC is still needed."""
        return [] if self.is_checked else self._checksum.missing(span)

    def saw(self, span: ByteRange, crc: int) -> None:
        """Note that the unpacked bytes *span* have that *crc*, and compare once all were seen."""
        self._checksum.add(span, crc)
        whole = self._checksum.whole
        if whole is None or self.is_checked:
            return
        if whole == self.member.crc32:
            self.is_checked = True
        else:
            self.condemn("its bytes are not those that were checksummed (CRC-32)")

    def condemn(self, damage: str) -> None:
        """Remember that the member as a whole is *damage*d: no read succeeds any more."""
        self._damage = damage

    def require_sound(self) -> None:
        """Raise Damaged if the member is known to be."""
        if self._damage is not None:
            raise self.damaged(self._damage)

    def damaged(self, how: str) -> Damaged:
        """Return the error with *how* this member is damaged."""
        return Damaged(f"member {self.path!r}: {how}")


class PackedReader:
    """One open handle of a packed member.

    With *body*, the blocks of a TIFF that the handle reads decide how much is unpacked ahead.
    """

    def __init__(
        self,
        member: DeflatedMember | SpooledMember,
        zip_reader: Reader,
        *,
        body: MemberData | None = None,
    ) -> None:
        self.size_bytes = member.size_bytes
        self._member = member
        self._body = body
        raster = None if body is None else body.raster
        self._reads = None if raster is None else RasterReads(raster)
        member.open(zip_reader)

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """Return the bytes of *span*, unpacked."""
        wanted_stop: int | None = None
        if self._reads is not None:
            self._reads.note(span, _nothing_held)
            wanted_stop = self._reads.wanted_stop
        data = await self._member.read(span, wanted_stop)
        # No await from here on: the bytes may be a view that is good until then.
        self._learn(span, data)
        return data

    def is_near(self, span: ByteRange) -> bool:
        """Return False: what is held is the packed member, if anything."""
        return False

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Return what a program needs of *span*, as far as the layout of a raster shows it."""
        reads = self._reads
        return None if reads is None else reads.expected_part(span, _nothing_held)

    def close(self) -> None:
        """Release the member."""
        self._member.release()

    def _learn(self, span: ByteRange, data: bytes | memoryview) -> None:
        """Learn the layout of a raster from bytes that were read."""
        body = self._body
        if body is None:
            return
        if body.raster is None and span.start == 0 and is_tiff(bytes(data[:MAGIC_BYTES])):
            body.raster = RasterFile(ByteRange(0, self.size_bytes))
        if body.raster is None:
            return
        if self._reads is None:
            self._reads = RasterReads(body.raster)
            self._reads.begin(span)
        body.raster.feed(span.start, data)


def _nothing_held(_span: ByteRange) -> bool:
    return False
