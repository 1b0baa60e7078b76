"""A position in a deflated member: a running inflater and its last output."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from isal.isal_zlib import crc32
from msgspec import Struct, field

from satfs.archive.checkpoints import Checkpoint
from satfs.archive.inflate import Inflater
from satfs.archive.resources import ArchiveResources
from satfs.model import ByteRange, Reader


class InflateStep(Struct):
    """The result of one step in a thread."""

    output: memoryview
    checkpoints: list[Checkpoint] = field(default_factory=list)
    crcs: list[tuple[ByteRange, int]] = field(default_factory=list)


class Cursor:
    """A running inflater and its last output.

    `out_position` is how far it is in the member, `in_position` which of the compressed bytes it
    takes next; `chunks` ends at `out_position`, without gaps. All of it is changed by the task that
    holds `lock`, the output on the event loop only, the inflater and its input in threads.
    """

    def __init__(self, start: Checkpoint, reader: Reader, resources: ArchiveResources) -> None:
        self.lock = trio.Lock()
        self.reader = reader
        self.chunks: deque[tuple[int, memoryview]] = deque()
        self.out_position = start.out_position
        self.in_position = start.in_bits // 8
        self.bound_for = start.out_position  # where the holder of the lock is going
        self.forgets_to = 0  # output before this is forgotten on the way
        self.served_to = -1  # where the last read that it served stopped
        self.ahead_stop = 0  # up to where it may inflate ahead of its reader
        self.n_in_row = 0  # reads that each went on where the one before stopped
        self.is_ahead = False  # whether a task inflates ahead
        self.is_over = False  # whether nothing more can come out
        self.is_closed = False
        self._is_gone = False
        self._waiting = b""  # compressed bytes that come after those the inflater has
        self._base_bits = 8 * self.in_position
        self._inflater = Inflater(start.window, start.in_bits % 8)
        self._resources = resources

    @property
    def is_busy(self) -> bool:
        """Return whether a task holds the lock."""
        return self.lock.locked()

    @property
    def needs_input(self) -> bool:
        """Return whether nothing more can come out without more compressed bytes."""
        return self._inflater.needs_input and not self._waiting

    @property
    def n_unread(self) -> int:
        """Return how many compressed bytes are here and not inflated yet."""
        return self._inflater.n_unread + len(self._waiting)

    @property
    def first_kept(self) -> int:
        """Return where the output that is still there begins."""
        return self.chunks[0][0] if self.chunks else self.out_position

    def covers(self, span: ByteRange) -> bool:
        """Return whether all of *span* is there."""
        return self.first_kept <= span.start and span.stop <= self.out_position

    def take(self, span: ByteRange) -> bytes | memoryview:
        """Return *span*, which is covered; not copied where one chunk holds it."""
        parts = []
        for start, chunk in self.chunks:
            if start < span.stop and span.start < start + len(chunk):
                parts.append(chunk[max(0, span.start - start) : span.stop - start])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def note(self, outcome: InflateStep) -> None:
        """Take over the result of a step; forget output before `forgets_to`."""
        if outcome.output:
            self.chunks.append((self.out_position, outcome.output))
            self.out_position += len(outcome.output)
        while self.chunks and self.chunks[0][0] + len(self.chunks[0][1]) <= self.forgets_to:
            self.chunks.popleft()

    def step(
        self, data: bytes, n_out: int, due: int, distance: int, unseen: list[ByteRange]
    ) -> InflateStep:
        """Inflate up to *n_out* bytes, *data* being the next input. Runs in a thread.

        Takes a checkpoint at the first block boundary from output position *due* on, and then every
        *distance*; and the CRC of each span in *unseen*.

        After any error but this the cursor is good for nothing, and must be closed.

        Raises:
            Damaged: not deflate data, right from the first byte; and so it will be next time.
        """
        self._take_in(data)
        buffer = bytearray(n_out)
        outcome = InflateStep(memoryview(b""))
        base, at = self.out_position, 0
        while at < n_out and self._feed():
            to_block = base + at >= due
            stop = n_out if to_block else min(n_out, due - base)
            at = self._inflater.inflate(buffer, at, stop, to_block=to_block)
            if self._inflater.is_finished or (self._inflater.is_damaged and at):
                break
            if to_block and self._inflater.is_between_blocks:
                in_bits = self._base_bits + self._inflater.bit_position
                point = Checkpoint(base + at, in_bits, self._inflater.window())
                outcome.checkpoints.append(point)
                due = base + at + distance
        outcome.output = memoryview(buffer).toreadonly()[:at]
        for span in unseen:
            part = outcome.output[span.start - base : span.stop - base]
            if part:
                outcome.crcs.append((ByteRange(span.start, span.start + len(part)), crc32(part)))
        return outcome

    def has_more(self, data: bytes) -> bool:
        """Return whether another byte comes out, *data* being the next input. Runs in a thread."""
        self._take_in(data)
        while self._feed() and not self._inflater.is_finished:
            if self._inflater.inflate(bytearray(1), 0, 1):
                return True
        return False

    def _take_in(self, data: bytes) -> None:
        self.in_position += len(data)
        self._waiting = self._waiting + data if self._waiting else data

    def _feed(self) -> bool:
        """Give the inflater what waits, when it needs it; return whether it can go on."""
        if self._inflater.needs_input and self._waiting:
            self._inflater.feed(self._waiting)
            self._waiting = b""
        return not self._inflater.needs_input

    @property
    def is_finished(self) -> bool:
        """Return whether the stream's own end was reached."""
        return self._inflater.is_finished

    def close(self) -> None:
        """Free everything, once no task works with it any more."""
        self.is_closed = True
        self._resources.forget(self)
        if not self.is_busy:
            self.let_go()

    def let_go(self) -> None:
        """Free what is held; once, however often called."""
        if not self._is_gone:
            self._is_gone = True
            self.chunks.clear()
            self._inflater.close()
            self.reader.close()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock; a task that closes the cursor during that time leaves the rest to us."""
        try:
            async with self.lock:
                try:
                    yield
                finally:
                    self.bound_for = self.out_position
        finally:
            if self.is_closed and not self.is_busy:
                self.let_go()
