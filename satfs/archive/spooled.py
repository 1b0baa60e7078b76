"""Members without checkpoints: unpacked once, as far as they are read, into the derived store.

Whatever was unpacked is kept in the cache, by whoever and in whichever mount, until its room is
needed. Bytes that had to go are unpacked again, from the beginning: such methods know no other way.
"""

from __future__ import annotations

from typing import Final

import trio
from isal.isal_zlib import crc32

from satfs.archive.decoders import DECODERS, METHOD_NAMES, Decoder, unpack
from satfs.archive.member_data import MemberData, Reader
from satfs.archive.resources import ArchiveResources, DerivedStoreFile
from satfs.errors import Damaged, Unsupported
from satfs.model import ByteRange

#: Compressed bytes asked for, and unpacked bytes written, in one step.
_STEP_BYTES: Final = 1024 * 1024


class SpooledMember:
    """A member that is unpacked from its beginning, for all who have it open.

    Invariants:
        The decoder has put out the first `_position` bytes, which were kept, and then `_pending`.
        Bytes that complete a member are kept only when the member as a whole is sound.
    """

    def __init__(
        self, body: MemberData, file: DerivedStoreFile, workshop: ArchiveResources
    ) -> None:
        self.size_bytes = body.member.size_bytes
        self._body = body
        self._file = file
        self._workshop = workshop
        self._zip: Reader | None = None
        self._n_open = 0
        # All below belong to who holds the lock.
        self._lock = trio.Lock()
        self._failure: Damaged | Unsupported | None = None
        self._rewind()

    @classmethod
    async def on_shelf(
        cls, body: MemberData, identity: bytes, workshop: ArchiveResources
    ) -> SpooledMember:
        """Return the member, with what was kept of it.

        Raises:
            Unsupported: there is no decoder for its method, or no room to unpack it.
        """
        member = body.member
        method = METHOD_NAMES.get(member.method, f"method {member.method}")
        if member.method not in DECODERS:
            raise Unsupported(f"member {body.path!r}: {method} is not supported")
        if workshop.shelf is None or member.size_bytes > workshop.unpack_bytes:
            raise Unsupported(
                f"member {body.path!r}: {method} takes {member.size_bytes} bytes of the cache,"
                " more than there are for it"
            )
        key = f"unpacked {identity.hex()}"
        file = await workshop.shelf.open(key, member.size_bytes, f"{body.label} (unpacked)")
        return cls(body, file, workshop)

    def abandon(self) -> None:
        """Let go of what was never opened."""
        self._file.close()

    def open(self, zip_reader: Reader) -> None:
        """Count one more who has it open; *zip_reader* is ours from now on."""
        self._n_open += 1
        if self._zip is None:
            self._zip = zip_reader
        else:
            zip_reader.close()

    @property
    def is_open(self) -> bool:
        """Tell whether somebody has it open."""
        return self._n_open > 0

    def release(self) -> None:
        """Count one less; after the last, what was unpacked is left to the shelf."""
        self._n_open -= 1
        if self._n_open == 0:
            if self._zip is not None:
                self._zip.close()
                self._zip = None
            self._file.close()

    async def read(self, span: ByteRange) -> bytes:
        """Return the bytes of *span*; fewer only at the end of the member.

        Raises:
            Damaged: the compressed bytes are none, or give others than the directory declares.
            Unsupported: they ask for too much memory, or there is no room to keep what comes out.
        """
        span = span.clip(self.size_bytes)
        self._body.require_sound()
        if not span:
            return b""
        while (data := await self._file.read(span)) is None:
            async with self._lock:
                while (gap := await self._file.first_gap(span)) is not None:
                    if gap < self._position:
                        self._rewind()  # it was kept, and had to go
                    await self._step()
        self._saw(span, data)  # it may have been kept by an earlier mount
        return data

    # -- unpacking -------------------------------------------------------------------------------

    def _rewind(self) -> None:
        self._decoder: Decoder = DECODERS[self._body.member.method]()
        self._in_position = 0
        self._position = 0
        self._pending = bytearray()

    async def _step(self) -> None:
        """Unpack some more bytes onto the shelf. Cancelled anywhere, the next step goes on."""
        if self._failure is not None:
            raise type(self._failure)(f"member {self._body.path!r}: {self._failure}")
        if not self._n_whole():
            data = await self._input()
            output = await self._workshop.in_thread(lambda: self._unpack(data))
            start = self._position + len(self._pending)
            self._pending += output
            self._saw(ByteRange(start, start + len(output)), output)
        if n_whole := self._n_whole():
            span = ByteRange(self._position, self._position + n_whole)
            if await self._file.first_gap(span) is not None:
                await self._file.write(self._position, bytes(self._pending[:n_whole]))
            self._position += n_whole
            del self._pending[:n_whole]

    def _n_whole(self) -> int:
        """Return how many of the pending bytes the shelf takes."""
        n_pending = len(self._pending)
        if self._position + n_pending == self.size_bytes:
            return n_pending
        return n_pending - n_pending % self._file.grain_bytes

    async def _input(self) -> bytes:
        """Return the next compressed bytes; none while the decoder has some, and at the end."""
        if not self._decoder.needs_input or self._zip is None:
            return b""
        stop = min(self._in_position + _STEP_BYTES, self._body.member.compressed_bytes)
        if self._in_position >= stop:
            return b""
        return bytes(await self._body.fetch(self._zip.read, ByteRange(self._in_position, stop)))

    def _unpack(self, data: bytes) -> bytes:
        """Return what comes out of *data*, the next input. Runs in a thread."""
        body, decoder = self._body, self._decoder
        if decoder.eof:
            raise body.damaged("it holds fewer bytes than declared")
        start = self._position + len(self._pending)
        try:
            output = unpack(decoder, data, min(self.size_bytes - start, _STEP_BYTES))
        except (Damaged, Unsupported) as failure:
            self._failure = failure
            raise
        self._in_position += len(data)
        is_starved = decoder.needs_input and self._in_position == body.member.compressed_bytes
        if is_starved and not output:
            raise body.damaged("it holds fewer bytes than declared")
        is_last = start + len(output) == self.size_bytes
        if is_last and not decoder.eof and not decoder.needs_input and unpack(decoder, b"", 1):
            body.condemn("it holds more bytes than declared")
        return output

    def _saw(self, span: ByteRange, data: bytes) -> None:
        """Take the CRCs of *data* that are still needed, and raise Damaged if they are wrong."""
        view = memoryview(data)
        for part in self._body.unseen(span):
            crc = crc32(view[part.start - span.start : part.stop - span.start])
            self._body.saw(part, crc)
        self._body.require_sound()


class SpooledReader:
    """One open handle of a spooled member."""

    def __init__(self, member: SpooledMember, zip_reader: Reader) -> None:
        self.size_bytes = member.size_bytes
        self._member = member
        member.open(zip_reader)

    async def read(self, span: ByteRange) -> bytes:
        """Return the bytes of *span*; see `SpooledMember.read`."""
        return await self._member.read(span)

    def is_near(self, span: ByteRange) -> bool:
        """Tell that it is not known: what is here is the compressed member, if anything."""
        return False

    def close(self) -> None:
        """Let go of the member."""
        self._member.release()
