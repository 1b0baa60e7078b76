"""Any range of a stored member: a range of the zip itself."""

from __future__ import annotations

from isal.isal_zlib import crc32

from satfs.archive.member_data import MemberData, Reader
from satfs.model import ByteRange


class StoredReader:
    """One open stored member. Reads are reads of the zip, moved; nothing is copied.

    The CRC of what passes is taken on the way (some 10 µs for 128 KiB), until the whole is known.
    """

    def __init__(self, body: MemberData, zip_reader: Reader) -> None:
        self.size_bytes = body.member.size_bytes
        self._body = body
        self._zip = zip_reader

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
        data = await body.fetch(self._zip.read, span)
        # No await from here on: the bytes may be a view that is good until then.
        if unseen := body.unseen(span):
            view = memoryview(data)
            for part in unseen:
                body.saw(part, crc32(view[part.start - span.start : part.stop - span.start]))
            body.require_sound()
        return data

    def is_near(self, span: ByteRange) -> bool:
        """Tell whether the bytes of *span* are here, as far as the zip's reader knows."""
        place = self._body.place(span.clip(self.size_bytes))
        return place is not None and self._zip.is_near(place)

    def close(self) -> None:
        """Close the zip's reader."""
        self._zip.close()
