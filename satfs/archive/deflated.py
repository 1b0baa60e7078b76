"""Any range of a deflated member, inflated from the nearest checkpoint or cursor.

Deflate can only be read forwards, from a place with all that the inflater needs. There are two
kinds of these places. A `Cursor` is a running inflater with its last output in memory: it serves
sequential readers and inflates ahead of them, of a raster no further than to the last block that is
expected to be read. A `Checkpoint` is 32 KiB of output and a position, taken every 2 MiB: a cursor
can be started there, so that no read inflates more in vain than that distance, once the member has
been passed through.

Both belong to the member, not to an open file: several readers share them. Bytes are inflated in
threads, one step at a time; what a step found out (output, checkpoints, CRCs) is noted on the event
loop, all at once, so a reader that is cancelled leaves everything as if it had read less.

Where no checkpoint is known yet, a far read must pass through all bytes before it. One reader at a
time does: the others wait for it, and go on from the checkpoints it left.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from satfs.archive.checkpoints import Checkpoint, Checkpoints
from satfs.archive.cursor import Cursor, InflateStep
from satfs.archive.member_data import MemberData, OpenZip
from satfs.archive.resources import ArchiveResources
from satfs.errors import Damaged, SatfsError
from satfs.model import ByteRange, LimitsReadAhead, Reader

log = structlog.get_logger(__name__)

#: Output of one step, in bytes: some milliseconds of work, so that the way to a thread and back
#: (0.1 ms) hardly counts.
STEP_BYTES: Final = 2 * 1024 * 1024
#: Minimum and maximum of compressed bytes that are requested at once, whatever the output needs by
#: the member's average.
_MIN_INPUT_BYTES: Final = 32 * 1024
_MAX_INPUT_BYTES: Final = 2 * 1024 * 1024
#: Cursors of one member: readers at more places than that take turns.
_MAX_CURSORS: Final = 8
#: A reader goes on if it starts so near to where the last read stopped, in bytes: the kernel's
#: read-ahead comes out of order, by a request or two. So often in a row makes it a sequential one.
_SEQUENTIAL_BYTES: Final = 256 * 1024
_SEQUENTIAL_READS: Final = 2


class DeflatedMember:
    """A deflated member, shared by all its readers: `open` and `release` are called in pairs.

    Memory while it is open: its checkpoints, and its cursors' share of `resources`'s.
    """

    def __init__(
        self,
        body: MemberData,
        identity: bytes,
        checkpoints: Checkpoints,
        open_zip: OpenZip,
        resources: ArchiveResources,
    ) -> None:
        self.size_bytes = body.member.size_bytes
        self._body = body
        self._identity = identity
        self._checkpoints = checkpoints
        self._is_worth_saving = False
        self._open_zip = open_zip
        self._resources = resources
        self._cursors: list[Cursor] = []
        self._n_open = 0
        self._spare: Reader | None = None  # of the zip, for the next cursor
        # Held by the one reader that passes through what is not known yet.
        self._exploring = trio.Lock()
        body.is_checked = body.is_checked or checkpoints.is_checked

    @property
    def is_open(self) -> bool:
        """Return whether a reader has it open."""
        return self._n_open > 0

    def open(self, zip_reader: Reader) -> None:
        """Count one more reader; *zip_reader* is ours from now on."""
        self._n_open += 1
        if self._spare is None:
            self._spare = zip_reader
        else:
            zip_reader.close()

    def release(self) -> None:
        """Count one less; after the last, keep what was learnt and free the rest."""
        self._n_open -= 1
        if self._n_open == 0:
            for cursor in self._cursors:
                if not cursor.is_closed:
                    cursor.close()
            self._cursors.clear()
            if self._spare is not None:
                self._spare.close()
                self._spare = None
            self._save()
            self._resources.put_away(self._identity, self._checkpoints)

    async def read(self, span: ByteRange, wanted_stop: int | None = None) -> bytes | memoryview:
        """Return the bytes of *span*; fewer only at the end of the member.

        *wanted_stop* is where the reader is expected to stop: bytes behind it are neither inflated
        nor requested ahead. With None both follow from the reader's offsets. Waits for nothing when
        the bytes are still in memory.

        Raises:
            Damaged: the bytes are not deflate data, give more or fewer bytes than the directory
                declares, or others than were checksummed; the last is known, and raised, once every
                byte of the member was inflated.
        """
        span = span.clip(self.size_bytes)
        self._body.require_sound()
        if not span:
            return b""
        while True:
            cursor = self._near(span)
            if cursor is None:
                await self._enter(span, wanted_stop)
            elif cursor.covers(span):
                break
            else:
                await self._pursue(cursor, span, wanted_stop)
        data = cursor.take(span)
        self._body.require_sound()
        self._served(cursor, span, wanted_stop)
        return data

    # -- finding a place -------------------------------------------------------------------------

    def _near(self, span: ByteRange) -> Cursor | None:
        """Return the cursor that has *span*, or will first; None when a checkpoint is nearer."""
        self._cursors = [cursor for cursor in self._cursors if not cursor.is_closed]
        share = self._resources.share_bytes
        best, least = None, self._checkpoints.distance_bytes
        least = min(least, span.start - self._checkpoints.before(span.start).out_position + share)
        for cursor in self._cursors:
            if cursor.covers(span):
                return cursor
            # Its position when the lock is free: its holder goes on, and forgets the output behind.
            if max(cursor.first_kept, cursor.forgets_to) <= span.start:
                gap = max(0, span.start - max(cursor.out_position, cursor.bound_for))
                if gap <= least:
                    best, least = cursor, gap
        return best

    async def _enter(self, span: ByteRange, wanted_stop: int | None) -> None:
        """Start a cursor at the nearest checkpoint, and take it to *span*."""
        point = self._checkpoints.before(span.start)
        if span.start - point.out_position <= 2 * self._checkpoints.distance_bytes:
            await self._pursue(await self._start(point), span, wanted_stop)
            return
        async with self._exploring:
            # A reader that explored before us has left checkpoints, and perhaps a cursor.
            if self._near(span) is None:
                point = self._checkpoints.before(span.start)
                await self._pursue(await self._start(point), span, wanted_stop)

    async def _start(self, point: Checkpoint) -> Cursor:
        """Return a new cursor at *point*, one of the others giving way if there are too many."""
        reader, self._spare = self._spare, None
        if reader is None:
            reader = await self._open_zip(self._body.bounds)
        try:
            cursor = Cursor(point, reader, self._resources)
        except BaseException:
            reader.close()
            raise
        # No await up to here: the cursor is known to all before anything else can happen.
        open_ones = [other for other in self._cursors if not other.is_closed]
        if len(open_ones) >= _MAX_CURSORS:
            idle = next((other for other in open_ones if not other.is_busy), None)
            if idle is not None:
                idle.close()
        self._cursors.append(cursor)
        self._resources.admit(cursor)
        return cursor

    # -- going there -----------------------------------------------------------------------------

    async def _pursue(
        self, cursor: Cursor, span: ByteRange, wanted_stop: int | None = None
    ) -> None:
        """Inflate on with *cursor* until it covers *span*, if it still can when its turn comes."""
        async with cursor.held():
            if cursor.is_closed or cursor.first_kept > span.start:
                return
            self._limit_requests(cursor, span, wanted_stop)
            cursor.bound_for = max(cursor.out_position, span.stop)
            cursor.forgets_to = span.start - self._resources.share_bytes
            await self._advance(cursor, span.stop)

    def _limit_requests(self, cursor: Cursor, span: ByteRange, wanted_stop: int | None) -> None:
        """Have *cursor*'s reader of the zip read nothing ahead that is not expected to be inflated.

        How far that is in the packed bytes is known by the member's average alone.
        """
        if not isinstance(cursor.reader, LimitsReadAhead):
            return
        bounds, member = self._body.bounds, self._body.member
        if wanted_stop is not None:
            n_out = min(max(span.stop, wanted_stop), self.size_bytes)
            n_in = n_out * member.compressed_bytes // max(1, member.size_bytes) * 9 // 8
            stop = min(bounds.start + n_in + _MIN_INPUT_BYTES, bounds.stop)
            bounds = ByteRange(bounds.start, stop)
        cursor.reader.limit_read_ahead(bounds)

    async def _advance(self, cursor: Cursor, stop: int) -> None:
        """Inflate on until *cursor*, which we hold, is at *stop*, step by step."""
        while cursor.out_position < stop and not cursor.is_closed:
            n_out = min(STEP_BYTES, stop - cursor.out_position)
            data = await self._input(cursor, n_out)
            if not data and cursor.needs_input:
                raise self._body.damaged("it holds fewer bytes than declared")
            ahead = ByteRange(cursor.out_position, cursor.out_position + n_out)
            due = self._checkpoints.next_due(ahead.start)
            distance, unseen = self._checkpoints.distance_bytes, self._body.unseen(ahead)
            try:
                outcome = await self._resources.in_thread(
                    lambda: cursor.step(data, n_out, due, distance, unseen)  # noqa: B023 - at once
                )
            except Damaged:
                raise
            except Exception:
                cursor.close()  # what came out is lost: it must not go on as if it were not
                raise
            # From here on nothing waits: all of it is noted, or nothing.
            cursor.note(outcome)
            self._learn(outcome)
            if cursor.is_finished and cursor.out_position < self.size_bytes:
                raise self._body.damaged("it holds fewer bytes than declared")
        if cursor.out_position == self.size_bytes and not cursor.is_closed:
            await self._settle(cursor)

    async def _settle(self, cursor: Cursor) -> None:
        """See to it that nothing comes after the last byte declared."""
        while not cursor.is_over and not cursor.is_finished:
            data = await self._input(cursor, 1)
            if not data and cursor.needs_input:
                break  # everything is there; a missing end mark does no harm
            if await self._resources.in_thread(lambda: cursor.has_more(data)):  # noqa: B023
                self._body.condemn("it holds more bytes than declared")
                break
        cursor.is_over = True

    async def _input(self, cursor: Cursor, n_out: int) -> bytes:
        """Return what *cursor* is to have of the compressed bytes for *n_out* more; maybe none."""
        member = self._body.member
        # By the member's average, and a little more: a step should not end for want of input.
        n_in = n_out * member.compressed_bytes // max(1, member.size_bytes) * 9 // 8
        n_in = min(_MAX_INPUT_BYTES, n_in + _MIN_INPUT_BYTES)
        if n_in <= cursor.n_unread + _MIN_INPUT_BYTES and not cursor.needs_input:
            return b""
        n_in = max(_MIN_INPUT_BYTES, n_in - cursor.n_unread)
        stop = min(cursor.in_position + n_in, member.compressed_bytes)
        if cursor.in_position >= stop:
            return b""
        # Copied before it goes to a thread: a view would not be good there any more.
        return bytes(
            await self._body.fetch(cursor.reader.read, ByteRange(cursor.in_position, stop))
        )

    # -- afterwards ------------------------------------------------------------------------------

    def _learn(self, outcome: InflateStep) -> None:
        for point in outcome.checkpoints:
            if self._checkpoints.add(point):
                self._is_worth_saving = True
        for span, crc in outcome.crcs:
            self._body.saw(span, crc)
        if self._body.is_checked and not self._checkpoints.is_checked:
            self._checkpoints.is_checked = True
            self._is_worth_saving = True
            self._save()

    def _save(self) -> None:
        """Keep what was learnt, unless that is nothing: a small member is inflated in no time."""
        if self._is_worth_saving and len(self._checkpoints) > 1:
            self._is_worth_saving = False
            self._resources.save_soon(self._identity, self._checkpoints, self._body.label)

    def _served(self, cursor: Cursor, span: ByteRange, wanted_stop: int | None) -> None:
        """Note that *cursor* served *span*, and inflate ahead of a reader that goes on."""
        cursor.ahead_stop = self.size_bytes if wanted_stop is None else wanted_stop
        self._resources.used(cursor)
        goes_on = abs(span.start - cursor.served_to) <= _SEQUENTIAL_BYTES
        cursor.n_in_row = cursor.n_in_row + 1 if goes_on else 0
        cursor.served_to = span.stop
        n_ahead = cursor.out_position - span.stop
        if (
            cursor.n_in_row >= _SEQUENTIAL_READS
            and not cursor.is_ahead
            and n_ahead < self._resources.share_bytes
            and cursor.out_position < min(cursor.ahead_stop, self.size_bytes)
        ):
            cursor.is_ahead = True
            self._resources.nursery.start_soon(self._run_ahead, cursor)

    async def _run_ahead(self, cursor: Cursor) -> None:
        """Inflate until *cursor* is a share ahead of what it served last, two shares at a time."""
        try:
            while not cursor.is_closed:
                share = self._resources.share_bytes
                before = cursor.out_position
                stop = min(cursor.ahead_stop, self.size_bytes)
                if before >= min(cursor.served_to + share, stop):
                    break
                step = ByteRange(cursor.served_to, min(before + 2 * share, stop))
                wanted_stop = None if stop == self.size_bytes else stop
                await self._pursue(cursor, step, wanted_stop)
                if cursor.out_position == before:
                    break  # another reader took the cursor elsewhere
        except SatfsError as failure:
            # A reader that comes here will meet the failure itself, if it is still there.
            log.debug("not inflated ahead", member=self._body.path, reason=str(failure))
        except Exception as failure:
            # A bug, or no memory. It must not end the mount; and readers meet it all the same.
            log.error(
                "inflating ahead failed", member=self._body.path, reason=type(failure).__name__
            )
        finally:
            cursor.is_ahead = False
