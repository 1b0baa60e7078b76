"""Members of methods without checkpoints: unpacked once, as far as they are read, into a file.

The file has no name and is gone with the process. While nobody has the member open it is kept for
as long as its room is not needed (`workshop.Workshop.reserve_spool`).
"""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import IO, Final

import trio
from isal.isal_zlib import crc32

from satfs.archive.body import Body, Reader
from satfs.archive.decoders import DECODERS, METHOD_NAMES, Decoder, unpack
from satfs.archive.workshop import Workshop
from satfs.errors import Damaged, Unsupported
from satfs.model import ByteRange

#: Compressed bytes asked for, and unpacked bytes written, in one step.
_STEP_BYTES: Final = 1024 * 1024


class SpooledMember:
    """A member that is unpacked from its beginning, for all who have it open.

    Raises (on creation):
        Unsupported: there is no decoder for its method, or no room to unpack it.
    """

    def __init__(self, body: Body, identity: bytes, workshop: Workshop) -> None:
        member = body.member
        self.size_bytes = member.size_bytes
        method = METHOD_NAMES.get(member.method, f"method {member.method}")
        if member.method not in DECODERS:
            raise Unsupported(f"member {body.path!r}: {method} is not supported")
        if workshop.spool_directory is None or not workshop.reserve_spool(member.size_bytes):
            raise Unsupported(
                f"member {body.path!r}: {method} takes {member.size_bytes} bytes of disk,"
                " more than there are for it"
            )
        self._directory = workshop.spool_directory
        self._body = body
        self._identity = identity
        self._workshop = workshop
        self._decoder: Decoder = DECODERS[member.method]()
        self._zip: Reader | None = None
        self._n_open = 0
        # All below belong to who holds the lock; whoever reads looks at `_n_done` alone.
        self._lock = trio.Lock()
        self._file: IO[bytes] | None = None
        self._close_file: weakref.finalize[[], SpooledMember] | None = None
        self._in_position = 0
        self._unwritten = b""
        self._n_done = 0
        self._crc = 0
        self._failure: Damaged | Unsupported | None = None

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
        """Count one less; after the last, the workshop may take the room back."""
        self._n_open -= 1
        if self._n_open == 0:
            if self._zip is not None:
                self._zip.close()
                self._zip = None
            self._workshop.park(self._identity, self)

    def discard(self) -> None:
        """Give the room back. Nobody has it open."""
        if self._close_file is not None:
            self._close_file()
        self._file = None
        self._workshop.release_spool(self.size_bytes)

    async def read(self, span: ByteRange) -> bytes:
        """Return the bytes of *span*; fewer only at the end of the member.

        Raises:
            Damaged: the compressed bytes are none, or give others than the directory declares.
            Unsupported: there is no room on the disk to unpack it.
        """
        span = span.clip(self.size_bytes)
        self._body.require_sound()
        if not span:
            return b""
        if self._n_done < span.stop:
            async with self._lock:
                while self._n_done < span.stop:
                    await self._step()
            self._body.require_sound()
        return await self._workshop.in_thread(lambda: self._read_back(span))

    async def _step(self) -> None:
        """Unpack some more bytes into the file; everything is noted, or nothing."""
        if self._failure is not None:
            raise self._body.damaged(str(self._failure))
        data = b""
        if self._decoder.needs_input and self._zip is not None:
            n_packed = self._body.member.compressed_bytes
            stop = min(self._in_position + _STEP_BYTES, n_packed)
            if self._in_position < stop:
                span = ByteRange(self._in_position, stop)
                data = bytes(await self._body.fetch(self._zip.read, span))
        await self._workshop.in_thread(lambda: self._unpack(data))

    def _unpack(self, data: bytes) -> None:
        """Unpack *data*, the next input, and write what comes out. Runs in a thread."""
        body = self._body
        if not self._unwritten:  # else the disk was full last time
            if self._decoder.eof:
                raise body.damaged("it holds fewer bytes than declared")
            n_left = self.size_bytes - self._n_done
            try:
                self._unwritten = unpack(self._decoder, data, min(n_left, _STEP_BYTES))
            except (Damaged, Unsupported) as failure:
                self._failure = failure
                raise
            self._in_position += len(data)
            is_starved = (
                self._decoder.needs_input and self._in_position == body.member.compressed_bytes
            )
            if is_starved and not self._unwritten:
                raise body.damaged("it holds fewer bytes than declared")
        self._write(self._unwritten)
        self._crc = crc32(self._unwritten, self._crc)
        self._n_done += len(self._unwritten)
        self._unwritten = b""
        if self._n_done == self.size_bytes:
            if not (self._decoder.eof or self._decoder.needs_input) and unpack(
                self._decoder, b"", 1
            ):
                body.condemn("it holds more bytes than declared")
            body.saw(ByteRange(0, self.size_bytes), self._crc)

    def _write(self, output: bytes) -> None:
        try:
            if self._file is None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed when discarded or forgotten
                    dir=self._directory, prefix="satfs-"
                )
                self._close_file = weakref.finalize(self, self._file.close)
            self._file.seek(self._n_done)
            self._file.write(output)
            self._file.flush()
        except OSError as failure:
            raise Unsupported(
                f"member {self._body.path!r}: no room on the disk to unpack it"
            ) from failure

    def _read_back(self, span: ByteRange) -> bytes:
        if self._file is None:
            return b""
        try:
            return os.pread(self._file.fileno(), len(span), span.start)
        except OSError as failure:
            raise Unsupported(f"member {self._body.path!r}: the disk failed") from failure


class SpooledReader:
    """One open handle of a spooled member."""

    def __init__(self, member: SpooledMember, zip_reader: Reader) -> None:
        self.size_bytes = member.size_bytes
        self._member = member
        member.open(zip_reader)

    async def read(self, span: ByteRange) -> bytes:
        """Return the bytes of *span*; see `SpooledMember.read`."""
        return await self._member.read(span)

    def close(self) -> None:
        """Let go of the member."""
        self._member.release()
