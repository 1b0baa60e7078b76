"""The block tables of one file, as far as they were seen, and the way back from offset to block.

A raster of 10⁶ tiles has 12 MB of tables, which are not to be fetched or unpacked in order to read
one tile. So tables are kept as the bytes that came by, in pieces, and one item is unpacked when it
is needed. For the way back the offsets of the known pieces are kept in sorted arrays.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import islice
from operator import lt
from typing import Final

from msgspec import Struct

from satfs.imagery.layout import Block, Image, Table
from satfs.imagery.spans import HeldSpans
from satfs.model import ByteRange

#: The unit in which a table is kept, in bytes, counted from the start of the table: 128 offsets of
#: a BigTIFF. GDAL reads tables in pages of 4 KiB of the file, which hold three of these at least.
PIECE_BYTES: Final = 1024
#: Limit of the bytes of one file's tables, the way back included: those of a million blocks. Beyond
#: it all are forgotten, and learnt again from later reads.
MAX_KEPT_BYTES: Final = 32 * 1024 * 1024
#: Blocks in one sorted array of the way back. Two arrays become one of this length at most, so that
#: a merge takes three milliseconds, and a search goes through 64 arrays per million blocks. Blocks
#: that lie in the file as they are numbered need one array, however many they are.
_MAX_RUN: Final = 16_384
#: Parts of pieces that wait for the rest, in bytes: two for each of some thirty reads.
_MAX_PARTS_BYTES: Final = 64 * 1024
#: The memory of a piece beside its bytes: the object, its key, its place in the dictionary.
_PIECE_OVERHEAD_BYTES: Final = 200


class _Run(Struct):
    """Known blocks of one image by their offsets, ascending; sparse ones are left out.

    `numbers[i]` is the block at `offsets[i]`; a range where they ascend one by one.
    """

    offsets: array[int]
    numbers: range | array[int]

    @property
    def n_bytes(self) -> int:
        """Return what it takes in memory, in bytes."""
        n = len(self.offsets) * self.offsets.itemsize
        return n if isinstance(self.numbers, range) else n + len(self.numbers) * 4


class BlockTables:
    """The tables of one file of *size_bytes*, as far as they are known.

    Nothing here waits or raises for what the file holds. A span that a table states beyond the end
    of the file ends there.
    """

    def __init__(self, size_bytes: int, *, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._size_bytes = size_bytes
        self._max_kept_bytes = max_kept_bytes
        self._is_swapped = False
        self._images: list[Image] = []
        #: Every table by where it starts, with its image where it holds offsets; and the starts
        #: alone. Images may share a table (tifffile writes equal ones once); it is kept once.
        self._tables: list[tuple[int, Table, int | None]] = []
        self._starts: list[int] = []
        #: By the start of the table and the number of the piece in it.
        self._pieces: dict[tuple[int, int], bytes] = {}
        self._parts = HeldSpans(_MAX_PARTS_BYTES)
        self._runs: dict[int, list[_Run]] = {}
        self._kept_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """Return about what is kept in memory, in bytes."""
        return self._kept_bytes

    def add(self, image: Image, byte_order: str) -> None:
        """Take another image, whose number is the next one."""
        self._is_swapped = byte_order != ("<" if sys.byteorder == "little" else ">")
        self._images.append(image)
        for table, owner in ((image.offsets, image.number), (image.sizes, None)):
            if table.span.start not in self._starts:
                self._tables.append((table.span.start, table, owner))
        self._tables.sort(key=lambda item: item[0])
        self._starts = [start for start, *_ in self._tables]
        for table in (image.offsets, image.sizes):
            if table.inline is not None:
                self.feed(table.span.start, table.inline)

    def feed(self, start: int, data: bytes | memoryview) -> None:
        """Keep the pieces of tables that are among the bytes of the file that begin at *start*.

        A piece that two reads share is kept once both have come.
        """
        stop = start + len(data)
        first = max(0, bisect_right(self._starts, start) - 1)
        for table_start, table, image in self._tables[first:]:
            if table_start >= stop:
                break
            self._join_parts(table, image, start, data)
            self._feed_table(table, image, start, data)

    def needs(self, block: Block) -> tuple[ByteRange, ...]:
        """Return the spans of the file that must be fed before `span` can answer; may be empty."""
        if (image := self._image(block)) is None:
            return ()
        return tuple(
            _piece_span(table, block.number * table.item_bytes // PIECE_BYTES)
            for table in (image.offsets, image.sizes)
            if self._item(table, block.number) is None
        )

    def offset(self, block: Block) -> int | None:
        """Return where a block starts, in bytes; 0 for a sparse one, None when it is not known."""
        image = self._image(block)
        return None if image is None else self._item(image.offsets, block.number)

    def span(self, block: Block) -> ByteRange | None:
        """Return the bytes of a block; empty for a sparse one, None when it is not known."""
        image, offset = self._image(block), self.offset(block)
        if image is None or offset is None:
            return None
        if offset == 0:
            return ByteRange(0, 0)
        if (size := self._item(image.sizes, block.number)) is None:
            return None
        return ByteRange(offset, offset + size).clip(self._size_bytes) if size else ByteRange(0, 0)

    def block_at(self, position: int) -> Block | None:
        """Return the block that holds a byte of the file; None for none, and when it is unknown.

        Where blocks overlap, which only a broken file has, it is one of those that hold the byte,
        or None.
        """
        best: Block | None = None
        best_start = -1
        for image, runs in self._runs.items():
            for run in runs:
                i = bisect_right(run.offsets, position) - 1
                if i < 0 or run.offsets[i] <= best_start:
                    continue
                block = Block(image, run.numbers[i])
                span = self.span(block)
                if span is not None and span.start <= position < span.stop:
                    best, best_start = block, span.start
        return best

    def following(self, position: int) -> Block | None:
        """Return the known block that starts first at or behind a position; None for none."""
        best: tuple[int, Block] | None = None
        for image, runs in self._runs.items():
            for run in runs:
                i = bisect_left(run.offsets, position)
                if i < len(run.offsets) and (best is None or run.offsets[i] < best[0]):
                    best = (run.offsets[i], Block(image, run.numbers[i]))
        return best[1] if best else None

    def _image(self, block: Block) -> Image | None:
        """Return the image of a block; None where the layout was given up since."""
        return self._images[block.image] if block.image < len(self._images) else None

    def _item(self, table: Table, number: int) -> int | None:
        index, position = divmod(number * table.item_bytes, PIECE_BYTES)
        piece = self._pieces.get((table.span.start, index))
        if piece is None:
            return None
        item = piece[position : position + table.item_bytes]
        return int.from_bytes(item, sys.byteorder if not self._is_swapped else _OTHER_ORDER)

    def _feed_table(
        self, table: Table, image: int | None, start: int, data: bytes | memoryview
    ) -> None:
        key, length = table.span.start, len(table.span)
        first = -(-max(0, start - table.span.start) // PIECE_BYTES)
        stop = start + len(data) - table.span.start
        # The last piece of a table is shorter than the others.
        end = -(-length // PIECE_BYTES) if stop >= length else stop // PIECE_BYTES
        begin = None  # of the pieces that are new, one behind the other
        for index in range(first, end):
            is_new = (key, index) not in self._pieces
            if is_new:
                span = _piece_span(table, index)
                self._pieces[key, index] = bytes(data[span.start - start : span.stop - start])
                self._kept_bytes += len(span) + _PIECE_OVERHEAD_BYTES
                begin = index if begin is None else begin
            if begin is not None and (
                not is_new
                or index == end - 1
                or (index + 1 - begin) * PIECE_BYTES // table.item_bytes >= _MAX_RUN
            ):
                if image is not None:
                    self._index(table, image, range(begin, index + is_new))
                begin = None
        if self._kept_bytes > self._max_kept_bytes:
            self._forget()

    def _join_parts(
        self, table: Table, image: int | None, start: int, data: bytes | memoryview
    ) -> None:
        """Keep the pieces of which *data* holds a part, and earlier reads the rest."""
        stop = start + len(data)
        for edge in (start, stop):
            if not table.span.start < edge < table.span.stop:
                continue
            index = (edge - table.span.start) // PIECE_BYTES
            piece = _piece_span(table, index)
            if piece.start == edge or (table.span.start, index) in self._pieces:
                continue
            first = max(piece.start, start)
            self._parts.add(first, bytes(data[first - start : piece.stop - start]))
            whole = self._parts.get(piece)
            if whole is not None:
                self._feed_table(table, image, piece.start, whole)

    def _forget(self) -> None:
        self._pieces.clear()
        self._parts.clear()
        self._runs.clear()
        self._kept_bytes = 0

    def _index(self, table: Table, image: int, pieces: range) -> None:
        """Enter the offsets of new pieces, which lie one behind the other, into the way back."""
        start = table.span.start
        items = array(table.letter, b"".join(self._pieces[start, index] for index in pieces))
        if self._is_swapped:
            items.byteswap()
        first = pieces.start * PIECE_BYTES // table.item_bytes
        run = _sorted_run(array("Q", items), range(first, first + len(items)))
        if not run.offsets:
            return
        self._kept_bytes += run.n_bytes
        runs = self._runs.setdefault(image, [])
        runs.append(run)
        # Merge while the last two are of about one size: each block is moved a few times only.
        while len(runs) > 1 and _is_mergeable(runs[-2], runs[-1]):
            last, before = runs.pop(), runs.pop()
            merged = _merged(before, last)
            self._kept_bytes += merged.n_bytes - before.n_bytes - last.n_bytes
            runs.append(merged)


_OTHER_ORDER: Final = "big" if sys.byteorder == "little" else "little"


def _piece_span(table: Table, index: int) -> ByteRange:
    start = table.span.start + index * PIECE_BYTES
    return ByteRange(start, min(start + PIECE_BYTES, table.span.stop))


def _sorted_run(offsets: array[int], numbers: range | array[int]) -> _Run:
    if offsets and offsets[0] > 0 and all(map(lt, offsets, islice(offsets, 1, None))):
        return _Run(offsets, numbers)
    order = sorted((i for i, offset in enumerate(offsets) if offset), key=offsets.__getitem__)
    return _Run(array("Q", (offsets[i] for i in order)), array("I", (numbers[i] for i in order)))


def _is_mergeable(before: _Run, last: _Run) -> bool:
    n, m = len(before.offsets), len(last.offsets)
    return _follows(before, last) or (n <= 2 * m and n + m <= _MAX_RUN)


def _follows(before: _Run, last: _Run) -> bool:
    """Return whether one run goes on where another ends, in the file and in the numbers."""
    return (
        isinstance(before.numbers, range)
        and isinstance(last.numbers, range)
        and before.numbers.stop == last.numbers.start
        and before.offsets[-1] < last.offsets[0]
    )


def _merged(before: _Run, last: _Run) -> _Run:
    if _follows(before, last):
        before.offsets.extend(last.offsets)
        return _Run(before.offsets, range(before.numbers[0], last.numbers[-1] + 1))
    numbers = array("I", before.numbers)
    numbers.extend(last.numbers)
    before.offsets.extend(last.offsets)
    return _sorted_run(before.offsets, numbers)
