"""One open handle: reads of `[start, stop)`, from the cache or the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from satfs.content.fetch.fetcher import Fetcher
from satfs.content.fetch.raster_files import MAGIC_BYTES, RasterFile, is_tiff
from satfs.content.fetch.raster_reads import RasterReads
from satfs.content.fetch.readahead import Pattern, Plan, ReadAhead
from satfs.errors import Damaged, Misuse
from satfs.model import ByteRange

#: Number of times that a read tests its blocks again after they were evicted, which happens only in
#: a cache much too small for its readers.
MAX_ROUNDS: Final = 64
#: Number of rounds in which spans of the cache are read to learn a raster's layout: header, ghost
#: area, a directory and its tables, for a dozen directories.
MAX_LOOKS: Final = 32


class ObjectReader:
    """A handle on one version of a remote object.

    *bounds* limits read-ahead to a part of the object: a member inside a zip. *on_first_read* is
    called with the offset of the first read.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        on_close: Callable[[], None] = lambda: None,
        *,
        bounds: ByteRange | None = None,
        on_first_read: Callable[[int], None] | None = None,
    ) -> None:
        self.size_bytes = fetcher.cached.size_bytes
        self._fetcher = fetcher
        self._on_close = on_close
        self._on_first_read = on_first_read
        self._is_closed = False
        self._is_unbounded = bounds is None
        self._habit: ReadAhead | None = ReadAhead(bounds or ByteRange(0, self.size_bytes))
        #: The place of a file that may be a raster: the object, or a member inside a zip.
        self._place = ByteRange(0, self.size_bytes) if bounds is None else None
        self._is_unzipped = False
        self._raster: RasterFile | None = None
        self._raster_reads: RasterReads | None = None
        self._is_looked_up = bounds is not None
        self._first: ByteRange | None = None
        #: The reader, for the fetcher, of bytes that are requested before the program reads them:
        #: directories of a raster, neighbours of a member. The program's reads do not cancel them.
        self._beside = object()
        fetcher.enter(self)

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """See `Reader.read`. Safe to call from many tasks.

        Raises:
            Changed: the vendor now serves another version, and the cache lacks bytes of this one.
            NotAllowed: the store refuses the object. Unreachable: all retries have failed. Fetched
            blocks are kept. Garbled: the store sends invalid responses.
        """
        if self._is_closed:
            raise Misuse("read on a closed handle")
        span = span.clip(self.size_bytes)
        if not span:
            return b""
        if self._on_first_read is not None:
            self._on_first_read(span.start)
            self._on_first_read = None
        fetcher, cached, trace = self._fetcher, self._fetcher.cached, self._fetcher.source.trace
        with cached.in_use():  # the handle may be closed meanwhile
            if not self._is_looked_up:
                await self._look_up()
            if (plan := self._plan(span)) is not None:
                fetcher.want(plan, self)
            self._first = self._first or span
            for _ in range(MAX_ROUNDS):
                if cached.holds(span):
                    fetcher.cache.touch(cached, span)
                    data = await fetcher.cache.read(cached, span)
                    if data is not None:
                        trace.served(len(span))
                        self._learn(span, data)
                        return data
                    continue
                with trace.waiting():
                    await fetcher.wait_for(span, self)
        raise Damaged("the cache is too small for what is being read at once")

    def is_near(self, span: ByteRange) -> bool:
        """See `Reader.is_near`: in the cache."""
        return self._fetcher.cached.holds(span.clip(self.size_bytes))

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """See `Reader.expected_part`."""
        reads = self._raster_reads
        return None if reads is None else reads.expected_part(span, self._fetcher.cached.holds)

    def locate_file(self, place: ByteRange | None, beginning: bytes | memoryview = b"") -> None:
        """See `RemoteReader.locate_file`."""
        self._forget_raster()
        self._is_unzipped = self._is_unbounded
        self._place = None if place is None else place.clip(self.size_bytes)
        self._first = None
        self._is_looked_up = place is None
        if self._place is not None and beginning:
            self._first = ByteRange(self._place.start, self._place.start + len(beginning))
            self._learn(self._first, beginning)

    def limit_read_ahead(self, place: ByteRange) -> None:
        """Read nothing ahead beyond *place* of the object.

        For a handle whose reads are known beforehand. With an empty *place* nothing is concluded
        from the order of reads: each fetches its own bytes.
        """
        place = place.clip(self.size_bytes)
        if not place:
            self._habit = None
        elif self._habit is not None and self._habit.bounds.start == place.start:
            self._habit.limit(place)
        else:
            self._habit = ReadAhead(place)
        self._place = self._raster = self._raster_reads = None
        self._is_looked_up = True

    def fetch_around(self, position: int, span: ByteRange) -> None:
        """See `FetchesAround.fetch_around`."""
        gaps = self._fetcher.cached.gaps(span.clip(self.size_bytes))
        gap = next((each for each in gaps if each.start <= position < each.stop), None)
        if gap is not None:
            self._fetcher.want(Plan(gap, (), Pattern.STRAY), self._beside)

    # -- rasters ---------------------------------------------------------------------------------

    def _plan(self, span: ByteRange) -> Plan | None:
        """Return the plan beside *span* for this read, or None."""
        reads, habit = self._raster_reads, self._habit
        if habit is None:
            return None
        window_bytes = self._fetcher.window_bytes(self)
        if reads is None:
            return habit.note(span, window_bytes, is_far=self._fetcher.is_far)
        n_before = reads.pattern.hit_bytes
        plan = reads.note(span, self._lacks_nothing)
        if n_read := reads.pattern.hit_bytes - n_before:
            self._fetcher.source.trace.predicted(n_read, 0)
        bulk_bytes = reads.bulk_bytes
        if bulk_bytes is not None:
            window_bytes = min(window_bytes, bulk_bytes)
        if bulk_bytes != 0 and (stop := reads.bulk_stop) is not None:
            window_bytes = min(window_bytes, max(0, stop - span.stop))
        by_offset = habit.note(span, window_bytes, is_far=self._fetcher.is_far)
        return plan if bulk_bytes == 0 else by_offset

    def _lacks_nothing(self, span: ByteRange) -> bool:
        """Return whether reading *span* sends no request: it is held, or held unchecked."""
        return next(self._fetcher.cached.gaps(span.clip(self.size_bytes)), None) is None

    def _learn(self, span: ByteRange, data: bytes | memoryview) -> None:
        """Learn the layout of a raster from bytes that were read."""
        place = self._place
        if self._raster is None:
            if place is None or not span.start <= place.start <= span.stop - MAGIC_BYTES:
                return
            at = place.start - span.start
            if not is_tiff(bytes(data[at : at + MAGIC_BYTES])):
                self._place = None
                return
            self._know(self._fetcher.rasters.add(place))
        if self._raster is not None:
            self._raster.feed(span.start, data)
            if (directory := self._raster.directory_ahead()) is not None:
                self._fetcher.want(Plan(directory, (), Pattern.STRAY), self._beside)

    def _know(self, raster: RasterFile) -> None:
        self._raster = raster
        self._raster_reads = RasterReads(raster, is_unzipped=self._is_unzipped)
        if self._first is not None:
            self._raster_reads.begin(self._first)

    def _forget_raster(self) -> None:
        if self._raster_reads is not None:
            unread_bytes = self._raster_reads.unread_bytes(self._lacks_nothing)
            self._fetcher.source.trace.predicted(0, unread_bytes)
        self._raster = self._raster_reads = None

    async def _look_up(self) -> None:
        """Learn the layout of a raster from its cached bytes, without a request.

        The kernel may have the first pages, and then they are never requested again.
        """
        self._is_looked_up = True
        place = self._place
        if place is None or len(place) <= MAGIC_BYTES:
            return
        if self._raster is None and (known := self._fetcher.rasters.get(place)) is not None:
            self._know(known)
            return
        needs = [ByteRange(place.start, place.start + MAGIC_BYTES)]
        if self._raster is not None:
            needs = self._raster.needs()
        for _ in range(MAX_LOOKS):
            is_held = [await self._look_at(span) for span in needs]
            needs = self._raster.needs() if self._raster is not None else []
            if not needs or not all(is_held):
                break
        if self._raster is not None:
            for table in self._raster.tables():
                await self._look_at_parts(table)

    async def _look_at_parts(self, table: ByteRange) -> None:
        """Learn from the parts of a table of blocks that are cached: it may be read piece by piece.

        A program that looks into a zip has read some of a table before it shows where the raster
        lies.
        """
        start = table.start
        for gap in [*self._fetcher.cached.gaps(table), ByteRange(table.stop, table.stop)]:
            if start < gap.start:
                await self._look_at(ByteRange(start, gap.start))
            start = max(start, gap.stop)

    async def _look_at(self, span: ByteRange) -> bool:
        """Learn from the bytes of *span* if they are cached; return whether they are."""
        cached = self._fetcher.cached
        if not cached.holds(span):
            return False
        data = await self._fetcher.cache.read(cached, span)
        if data is None:
            return False
        self._learn(span, data)
        return True

    def close(self) -> None:
        """See `Reader.close`."""
        if not self._is_closed:
            self._is_closed = True
            self._forget_raster()
            self._fetcher.leave(self._beside)
            self._fetcher.leave(self)
            self._on_close()
