"""Any range of a stored member: a range of the zip itself."""

from __future__ import annotations

from isal.isal_zlib import crc32

from satfs.archive.member_data import MemberData
from satfs.model import ByteRange, LimitsReadAhead, RemoteReader


class StoredReader:
    """One open stored member. Reads are reads of the zip, moved; nothing is copied.

    The CRC of what passes is taken on the way (some 10 µs for 128 KiB), until the whole is known.
    """

    def __init__(self, body: MemberData, zip_reader: RemoteReader) -> None:
        self.size_bytes = body.member.size_bytes
        self._body = body
        self._zip = zip_reader
        self._whole = ByteRange(0, self.size_bytes)
        self._is_located = False

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """Return the bytes of *span*; fewer only at the end of the member.

        Raises:
            Damaged: the archive contradicts itself about the member, or these were the last bytes
                of it to be seen, and its CRC is another.
        """
        span = span.clip(self.size_bytes)
        if not span:
            return b""
        body = self._body
        body.require_sound()
        self._locate()
        data = await body.fetch(self._zip.read, span)
        # No await from here on: the bytes may be a view that is good until then.
        if unseen := body.unseen(span):
            view = memoryview(data)
            for part in unseen:
                body.saw(part, crc32(view[part.start - span.start : part.stop - span.start]))
            body.require_sound()
        self._locate(data if span.start == 0 else b"")
        return data

    def _locate(self, beginning: bytes | memoryview = b"") -> None:
        """Give the zip's reader the place of the member, once its local header was read."""
        if not self._is_located and (place := self._body.place(self._whole)) is not None:
            self._is_located = True
            self._zip.locate_file(place, beginning)

    def limit_read_ahead(self, span: ByteRange) -> None:
        """Read nothing ahead beyond *span* of the member."""
        self._is_located = True  # as a raster it would be read ahead by its layout
        if isinstance(self._zip, LimitsReadAhead):
            self._zip.limit_read_ahead(
                self._body.reach(span.clip(self.size_bytes)) if span else span
            )

    def is_near(self, span: ByteRange) -> bool:
        """Return whether the bytes of *span* are here, as far as the zip's reader knows."""
        place = self._body.place(span.clip(self.size_bytes))
        return place is not None and self._zip.is_near(place)

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Return what a program needs of *span*, as far as the zip's reader knows."""
        place = self._body.place(span.clip(self.size_bytes))
        part = None if place is None else self._zip.expected_part(place)
        return None if part is None else ByteRange(span.start, span.start + len(part))

    def close(self) -> None:
        """Close the zip's reader."""
        self._zip.close()
