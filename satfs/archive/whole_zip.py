"""A zip that is open as a file, read by a program that looks into it itself, as `/vsizip/` does.

The zip's directory shows in which member a read is, so that a raster is read in the same way as
through `contents/`: the reader below is given the member's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from satfs.archive.central_directory import STORED
from satfs.archive.end_record import TAIL_BYTES, CentralDirectory, locate
from satfs.archive.member_data import MemberData
from satfs.archive.member_offsets import LOCAL_HEADER_BYTES
from satfs.errors import SatfsError
from satfs.model import ByteRange, LimitsReadAhead, RemoteReader

if TYPE_CHECKING:
    from satfs.archive.archive import Archive

#: A read that starts so near to where the last one stopped, in bytes, goes on with it.
_SEQUENTIAL_BYTES: Final = 2 * 1024 * 1024
#: How far from its end a program may look for a zip's end record, in bytes: the longest comment
#: lies behind it (APPNOTE 4.3.16), and a buffer begins up to 8 KiB before it. GDAL looks for the
#: record of a ZIP64 in all of that first, from the end backwards, 8 KiB at a time.
_END_SEARCH_BYTES: Final = 22 + 65_535 + 8 * 1024


class WholeZipReader:
    """One open zip; reads are those of *reader*, unchanged.

    The directory of *archive* is read when a program has left the beginning of the zip, once its
    end is here: it came with the zip's size, or with the program's own look at it. No read of the
    zip waits or fails for the directory's sake. Where a program looks for the zip's end record, all
    that it may read for that comes with the first read that is not cached.
    """

    def __init__(self, reader: RemoteReader, archive: Archive) -> None:
        self.size_bytes = reader.size_bytes
        self._reader = reader
        self._archive: Archive | None = archive
        #: The member that was read last, and the place of its bytes, once that is known.
        self._body: MemberData | None = None
        self._place: ByteRange | None = None
        #: Up to where the zip was read from its beginning on; None once it was read elsewhere.
        self._copied_to: int | None = 0

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """Return the bytes of *span*; fewer only at the end of the zip. Raises as *reader* does."""
        span = span.clip(self.size_bytes)
        if self._is_copied_on(span):
            self._copied_to = max(self._copied_to or 0, span.stop)
        else:
            self._copied_to = None
            if span.start < self.size_bytes - TAIL_BYTES or self._body is not None:
                await self._look_up(span.start)
            search = ByteRange(max(0, self.size_bytes - _END_SEARCH_BYTES), self.size_bytes)
            if search.start <= span.start and not self._reader.is_near(span):
                await self._reader.read(ByteRange(search.start, span.stop))
        data = await self._reader.read(span)
        # No await from here on: the bytes may be a view that is good until then.
        self._learn(span, data)
        return data

    def is_near(self, span: ByteRange) -> bool:
        """Return whether the bytes of *span* are here."""
        return self._reader.is_near(span)

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Return what a program needs of *span*, as far as the zip's reader knows."""
        is_inside = self._place is not None and self._place.start <= span.start < self._place.stop
        return self._reader.expected_part(span) if is_inside else None

    def limit_read_ahead(self, span: ByteRange) -> None:
        """Read nothing ahead beyond *span* of the zip."""
        self._archive = None
        if isinstance(self._reader, LimitsReadAhead):
            self._reader.limit_read_ahead(span)

    def close(self) -> None:
        """Close the zip's reader."""
        self._reader.close()

    def _is_copied_on(self, span: ByteRange) -> bool:
        """Return whether the zip has been read from its beginning on, up to a read of *span*."""
        if self._copied_to is None:
            return False
        return span.start == 0 or 0 < self._copied_to >= span.start - _SEQUENTIAL_BYTES

    async def _look_up(self, position: int) -> None:
        """Find the member of a read, and give the reader its place."""
        if self._archive is None or not await self._may_look_up(self._archive):
            return
        if self._body is None or not self._body.holds(position):
            try:
                self._body = await self._archive.stored_at(position)
            except SatfsError:
                self._archive = None  # it is no zip that can be read: it is read as bytes
            self._move(None)
        body = self._body
        if self._place is None and body is not None:
            whole = ByteRange(0, body.member.size_bytes)
            start = body.member.header_offset
            header = ByteRange(start, start + LOCAL_HEADER_BYTES)
            if body.place(whole) is None and self._reader.is_near(header):
                body.learn_start(await self._reader.read(header))
            self._move(body.place(whole))

    async def _may_look_up(self, archive: Archive) -> bool:
        """Return whether the directory is known, or can be read from what is here. Never waits."""
        if archive.is_read:
            return True
        tail = ByteRange(max(0, self.size_bytes - TAIL_BYTES), self.size_bytes)
        if not self._reader.is_near(tail):
            return False
        try:
            found = locate(bytes(await self._reader.read(tail)), self.size_bytes)
        except SatfsError:
            found = None
        if not isinstance(found, CentralDirectory):
            self._archive = None  # no zip, or one whose end takes a search: it is read as bytes
            return False
        return self._reader.is_near(found.span)

    def _learn(self, span: ByteRange, data: bytes | memoryview) -> None:
        """Take in a local header that was read: it has the place where its member's bytes begin."""
        body = self._body
        if body is None or self._place is not None or body.member.method != STORED:
            return
        at = body.member.header_offset - span.start
        if 0 <= at <= len(data) - LOCAL_HEADER_BYTES:
            body.learn_start(data[at : at + LOCAL_HEADER_BYTES])

    def _move(self, place: ByteRange | None) -> None:
        if place != self._place:
            self._place = place
            self._reader.locate_file(place)
