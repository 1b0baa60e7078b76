"""Where the blocks of one raster lie in an object, and which of them a span touches.

Pure. A raster lies at a place of an object, which may be a zip; the layout counts from the raster's
first byte, and requests from the object's.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from satfs.content.fetch.raster_files import RasterFile
from satfs.imagery.layout import Block
from satfs.model import KIB, ByteRange

#: The unit in which a program reads a file that fills a buffer with a block's last bytes: stdio's
#: buffer on a file whose `st_blksize` is smaller is one of 8 KiB in GDAL (cpl_vsil_unix_stdio_64),
#: and begins at a multiple of its length. Bytes behind a block that fill this buffer are fetched
#: with the block, and do not show that the program needs the next block.
BUFFER_BYTES: Final = 8 * KIB
#: The same for a program that looks into a zip itself: unzip's buffer, which may begin at any place
#: (GDAL's copy of minizip, UNZ_BUFSIZE).
UNZIP_BUFFER_BYTES: Final = 64 * KIB
#: Blocks at most this far apart are fetched in one range: the gap takes less time than a round
#: trip.
MERGE_GAP_BYTES: Final = 16 * KIB
#: Most blocks of one request that are considered as blocks; a longer request is read as bytes.
MAX_BLOCKS_PER_REQUEST: Final = 256
#: Most blocks to the left of the first block of a window that are looked up in the cache.
_MAX_LOOKS_LEFT: Final = 8
#: Most strips above the first strip of a window that are looked up there: a window of 1024 rows.
_MAX_STRIPS_ABOVE: Final = 1024


class BlockSpans:
    """The blocks of *file*, in offsets of the object that it lies in.

    *is_unzipped*: the program reads the object, and looks for the file in it itself.
    """

    def __init__(self, file: RasterFile, *, is_unzipped: bool) -> None:
        self._raster = file.raster
        self._is_unzipped = is_unzipped
        self._size_bytes = len(file.place)
        self.base = file.place.start
        #: Bytes behind a block that a program may read together with the last bytes of the block.
        self.behind_bytes = BUFFER_BYTES + UNZIP_BUFFER_BYTES * is_unzipped

    def inside(self, span: ByteRange) -> ByteRange:
        """Return the part of a span of the object that lies in the raster, counted from its start.

        Empty where there is none.
        """
        start = min(max(0, span.start - self.base), self._size_bytes)
        return ByteRange(start, min(max(start, span.stop - self.base), self._size_bytes))

    def buffered(self, span: ByteRange) -> ByteRange:
        """Return the span of the object that a program reads to get the bytes of a block.

        A program reads whole buffers: the first may begin before the block, the last may end behind
        it.
        """
        start, stop, base = span.start, span.stop, 0
        if self._is_unzipped:  # through stdio, whose buffer begins at a multiple in the object
            stop, base = stop + UNZIP_BUFFER_BYTES, self.base
        start = max(0, (start + base) // BUFFER_BYTES * BUFFER_BYTES - base)
        stop = -(-(stop + base) // BUFFER_BYTES) * BUFFER_BYTES - base
        return ByteRange(start + self.base, min(stop, self._size_bytes) + self.base)

    def touched_by(self, span: ByteRange) -> Iterator[tuple[Block, int]]:
        """Yield the known blocks that a span touches, and how many bytes of each, in order."""
        raster = self._raster
        block = raster.block_at(span.start) or raster.following(span.start)
        for _ in range(MAX_BLOCKS_PER_REQUEST):
            where = raster.span_of(block) if block is not None else None
            if block is None or not where or where.start >= span.stop:
                return
            yield block, min(where.stop, span.stop) - max(where.start, span.start)
            block = raster.following(max(where.stop, where.start + 1))

    def few_touched_by(self, span: ByteRange) -> list[tuple[Block, int]]:
        """Return the same as a list; an empty one of so many that they are read as bytes."""
        blocks = list(self.touched_by(span))
        return blocks if len(blocks) < MAX_BLOCKS_PER_REQUEST else []

    def spans_of(self, blocks: Iterable[Block]) -> Iterator[ByteRange]:
        """Yield the spans of the object to fetch for blocks, as far as their places are known."""
        for block in blocks:
            if where := self._raster.fetch_span_of(block):
                yield self.buffered(where)

    def is_held(self, block: Block, holds: Callable[[ByteRange], bool], start: int = 0) -> bool:
        """Return whether the bytes of a block are in the cache, those before *start* aside."""
        where = self._raster.fetch_span_of(block)
        if where is None:
            return False
        return holds(ByteRange(max(start, where.start) + self.base, where.stop + self.base))

    def is_sparse(self, block: Block) -> bool:
        """Return whether a block was never written: a program reads it without a request."""
        where = self._raster.span_of(block)
        return where is not None and not where

    def n_cached_before(self, block: Block, holds: Callable[[ByteRange], bool]) -> int:
        """Return how many blocks directly to the left of one are cached or sparse, of a few.

        Of a strip it is how many directly above it are.
        """
        layout = self._raster.layout
        if layout is None:
            return 0
        image, place = layout.images[block.image], layout.block_coordinates(block)
        if image.n_columns == 1:
            return self._n_cached_above(block, place.row, holds)
        for n in range(min(place.column, _MAX_LOOKS_LEFT)):
            left = Block(block.image, block.number - n - 1)
            spans = list(self.spans_of([left]))
            if not (spans and all(map(holds, spans))) and not self.is_sparse(left):
                return n
        return min(place.column, _MAX_LOOKS_LEFT)

    def _n_cached_above(self, strip: Block, row: int, holds: Callable[[ByteRange], bool]) -> int:
        """Return how many strips directly above one are cached, where they lie in order."""
        here = self._raster.fetch_span_of(strip)

        def is_cached(n: int) -> bool:
            first = self._raster.fetch_span_of(Block(strip.image, strip.number - n))
            if not here or not first or first.start >= here.start:
                return False
            return holds(ByteRange(first.start + self.base, here.start + self.base))

        # The more strips, the longer the span: the first number of them that is not cached.
        return bisect(
            range(1, min(row, _MAX_STRIPS_ABOVE) + 1), False, key=lambda n: not is_cached(n)
        )

    def holds_directory(self, span: ByteRange) -> bool:
        """Return whether a directory begins in *span*, which a program would look for there."""
        layout = self._raster.layout
        images = layout.images if layout is not None else ()
        return any(span.start <= image.directory.start < span.stop for image in images)

    def is_header(self, position: int) -> bool:
        """Return whether a byte of the raster is one of a directory or of a table of blocks."""
        layout = self._raster.layout
        images = layout.images if layout is not None else ()
        spans = (s for i in images for s in (i.directory, i.offsets.span, i.sizes.span))
        return any(span.start <= position < span.stop for span in spans)
