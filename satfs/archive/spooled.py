"""Members without checkpoints: unpacked once, as far as they are read, into the derived store.

Unpacked bytes are kept in the derived store, for all mounts, until their room is needed. Evicted
bytes are unpacked again, from the beginning: these methods know no other way. The same happens when
a member lost its decoder to others (`resources.DecoderMemory`) before all was unpacked.
"""

from __future__ import annotations

from typing import Final

import trio
from isal.isal_zlib import crc32
from msgspec import Struct, field

from satfs.archive.decoders import (
    HEAD_BYTES,
    METHOD_NAMES,
    STEP_BYTES,
    Decoder,
    decoder_bytes,
    dictionary_bytes,
    has_decoder,
    new_decoder,
    unpack,
)
from satfs.archive.member_data import MemberData
from satfs.archive.resources import ArchiveResources
from satfs.content.cache.derived import DerivedFile
from satfs.errors import Damaged, Unsupported
from satfs.model import ByteRange, Reader

#: Time that a decoder may wait for compressed bytes before another member may have its memory.
_MAX_INPUT_WAIT_S: Final = 2.0


class _Unpacking(Struct):
    """How far a member has been unpacked.

    Invariant: the decoder has taken the first `in_position` bytes; it has put out the first
    `position` bytes, which were kept, and then `pending`.
    """

    decoder: Decoder | None = None
    in_position: int = 0
    position: int = 0
    pending: bytearray = field(default_factory=bytearray)


class SpooledMember:
    """A member that is unpacked from its beginning, shared by all its readers.

    Invariant: bytes that complete a member are kept only when the member as a whole is sound.
    """

    def __init__(self, body: MemberData, file: DerivedFile, resources: ArchiveResources) -> None:
        self.size_bytes = body.member.size_bytes
        self._body = body
        self._file = file
        self._resources = resources
        self._zip: Reader | None = None
        self._n_open = 0
        # All below belong to the task that holds the lock, except `drop_decoder`.
        self._lock = trio.Lock()
        self._failure: Damaged | Unsupported | None = None
        self._unpacking = _Unpacking()
        # Position to unpack to, whether or not it is read: a decoder that was made again goes at
        # least twice as far as the one before. So members that take their decoders from each
        # other in turn unpack each byte a few times, not once for each read.
        self._run_to = 0
        self._is_at_work = False
        self._is_in_thread = False
        self._waits_since: float | None = None

    @classmethod
    async def create(
        cls, body: MemberData, identity: bytes, resources: ArchiveResources
    ) -> SpooledMember:
        """Return the member, with what was kept of it.

        Raises:
            Unsupported: there is no decoder for its method, or no room to unpack it.
        """
        member = body.member
        method = METHOD_NAMES.get(member.method, f"method {member.method}")
        if not has_decoder(member.method):
            raise Unsupported(f"member {body.path!r}: {method} is not supported")
        if member.size_bytes > resources.unpack_bytes:
            raise Unsupported(
                f"member {body.path!r}: {method} takes {member.size_bytes} bytes of the cache, and"
                f" {resources.unpack_bytes} may be taken: half of --cache-size, and unpack_bytes"
            )
        key = f"unpacked {identity.hex()}"
        file = await resources.derived.open(key, member.size_bytes, f"{body.label} (unpacked)")
        return cls(body, file, resources)

    def abandon(self) -> None:
        """Free what was never opened."""
        self._file.close()

    def open(self, zip_reader: Reader) -> None:
        """Count one more reader; *zip_reader* is ours from now on."""
        self._n_open += 1
        if self._zip is None:
            self._zip = zip_reader
        else:
            zip_reader.close()

    @property
    def is_open(self) -> bool:
        """Return whether a reader has it open."""
        return self._n_open > 0

    def release(self) -> None:
        """Count one less; after the last, what was unpacked is left to the derived store."""
        self._n_open -= 1
        if self._n_open == 0:
            self._restart()
            if self._zip is not None:
                self._zip.close()
                self._zip = None
            self._file.close()

    async def read(self, span: ByteRange, wanted_stop: int | None = None) -> bytes:
        """Return the bytes of *span*; fewer only at the end of the member.

        Raises:
            Damaged: the bytes are not of the method, or give others than the directory declares.
            Unsupported: they require too much memory, or there is no room for the unpacked bytes.
        """
        span = span.clip(self.size_bytes)
        self._body.require_sound()
        if not span:
            return b""
        while (data := await self._file.read(span)) is None:
            async with self._lock:
                await self._unpack_until_kept(span)
        self._saw(span, data)  # it may have been kept by an earlier mount
        return data

    # -- the decoder's memory --------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether the decoder must not be dropped: it unpacks, and the network keeps pace."""
        if self._is_in_thread or self._waits_since is None:
            return self._is_at_work
        return trio.current_time() - self._waits_since < _MAX_INPUT_WAIT_S

    def drop_decoder(self) -> None:
        """Give the decoder up for another member; the next read makes a new one."""
        self._run_to = min(self.size_bytes, 2 * self._unpacking.position)
        self._restart()

    def _restart(self) -> None:
        """Begin at the beginning, without a decoder."""
        self._unpacking.decoder = None
        self._unpacking = _Unpacking()
        self._resources.decoder_memory.release(self)

    # -- unpacking -------------------------------------------------------------------------------

    async def _unpack_until_kept(self, span: ByteRange) -> None:
        self._is_at_work = True
        try:
            while (gap := await self._file.first_gap(span)) is not None or (
                0 < self._unpacking.position < self._run_to
            ):
                if gap is not None and gap < self._unpacking.position:
                    self._run_to = 0
                    self._restart()  # it was kept, and had to go
                await self._step()
        except (Damaged, Unsupported):
            self._restart()
            raise
        finally:
            self._is_at_work = False
            self._resources.decoder_memory.became_idle()

    async def _step(self) -> None:
        """Unpack some more bytes and keep them. Cancelled anywhere, the next step goes on."""
        if self._failure is not None:
            raise type(self._failure)(f"member {self._body.path!r}: {self._failure}")
        unpacking = self._unpacking
        if not self._n_whole(unpacking):
            data = await self._input(unpacking)
            if self._unpacking is not unpacking:
                return  # dropped while it waited: these bytes are not the member's first
            if unpacking.decoder is None:
                unpacking.decoder = await self._reserved_decoder(data)
            if self._unpacking is not unpacking:  # closed meanwhile
                self._resources.decoder_memory.release(self)
                return
            output = await self._unpacked(unpacking, data)
            start = unpacking.position + len(unpacking.pending)
            unpacking.pending += output
            self._saw(ByteRange(start, start + len(output)), output)
        if n_whole := self._n_whole(unpacking):
            start = unpacking.position
            span = ByteRange(start, start + n_whole)
            if await self._file.first_gap(span) is not None:
                await self._file.write(start, bytes(unpacking.pending[:n_whole]))
            unpacking.position += n_whole
            del unpacking.pending[:n_whole]
            if unpacking.position == self.size_bytes:
                self._restart()  # the decoder has done all its work

    def _n_whole(self, unpacking: _Unpacking) -> int:
        """Return how many of the pending bytes the derived store takes."""
        n_pending = len(unpacking.pending)
        if unpacking.position + n_pending == self.size_bytes:
            return n_pending
        return n_pending - n_pending % self._file.grain_bytes

    async def _input(self, unpacking: _Unpacking) -> bytes:
        """Return the next compressed bytes; none while the decoder has some, and at the end."""
        decoder = unpacking.decoder
        if (decoder is not None and not decoder.needs_input) or self._zip is None:
            return b""
        start = unpacking.in_position
        stop = min(start + STEP_BYTES, self._body.member.compressed_bytes)
        if start >= stop:
            return b""
        self._waits_since = trio.current_time()
        try:
            return bytes(await self._body.fetch(self._zip.read, ByteRange(start, stop)))
        finally:
            self._waits_since = None

    async def _reserved_decoder(self, head: bytes) -> Decoder:
        """Return a new decoder for the member that begins with *head*, its memory reserved.

        Raises:
            Unsupported: it takes more than there is for a decoder.
        """
        member = self._body.member
        try:
            dictionary = dictionary_bytes(member.method, head[:HEAD_BYTES])
        except Unsupported as refused:
            self._failure = refused
            raise
        n_bytes = decoder_bytes(member.method, dictionary, member.compressed_bytes, self.size_bytes)
        await self._resources.decoder_memory.reserve(self, n_bytes)
        return new_decoder(member.method, dictionary)

    async def _unpacked(self, unpacking: _Unpacking, data: bytes) -> bytes:
        """Return what comes out of *data*, the next input."""
        self._is_in_thread = True
        try:
            return await self._resources.in_thread(lambda: self._unpack(unpacking, data))
        finally:
            self._is_in_thread = False

    def _unpack(self, unpacking: _Unpacking, data: bytes) -> bytes:
        """Return what comes out of *data*, the next input. Runs in a thread."""
        body, decoder = self._body, unpacking.decoder
        if decoder is None or decoder.eof:
            raise body.damaged("it holds fewer bytes than declared")
        start = unpacking.position + len(unpacking.pending)
        try:
            output = unpack(decoder, data, min(self.size_bytes - start, STEP_BYTES))
        except (Damaged, Unsupported) as failure:
            self._failure = failure
            raise
        unpacking.in_position += len(data)
        is_starved = decoder.needs_input and unpacking.in_position == body.member.compressed_bytes
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
