"""One raster file, learnt from the bytes that come by: which block lies where."""

from __future__ import annotations

from typing import Final

from satfs.imagery.geotiff import Facts, read_facts
from satfs.imagery.layout import LEADER_BYTES, Block, Image, Layout
from satfs.imagery.parser import LayoutParser
from satfs.imagery.spans import SpanParser
from satfs.imagery.tables import MAX_KEPT_BYTES, BlockTables
from satfs.model import ByteRange

#: An image of at most this many pixels a side counts as a COG without tiles (the OGC's COG
#: standard, 21-026, and GDAL's validate_cloud_optimized_geotiff).
_SMALL_SIDE: Final = 512


class Raster:
    """One version of one raster file of *size_bytes*, as far as the given bytes show it.

    It never waits, and never raises for what the file holds. While `layout` is None, and for every
    block or offset that is unknown, the file is to be read as bytes. A layout that is wrong leads
    to spans that are of no use; it never leads to wrong bytes, since reads name offsets.
    """

    def __init__(self, size_bytes: int, *, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self.size_bytes = size_bytes
        self.max_kept_bytes = max_kept_bytes
        self._parser = LayoutParser(size_bytes)
        self._tables = BlockTables(size_bytes, max_kept_bytes=max_kept_bytes)
        self._n_images = 0
        self._facts: SpanParser[Facts] | None = None

    @property
    def layout(self) -> Layout | None:
        """Return the images known so far; None before the first, and when there is no layout."""
        return self._parser.layout

    @property
    def is_done(self) -> bool:
        """Return whether the layout is complete, or known to be none."""
        return self._parser.is_done

    @property
    def reason(self) -> str | None:
        """Return why there is no layout, for a log; None while there is or may be one."""
        return self._parser.reason

    @property
    def kept_bytes(self) -> int:
        """Return about what is kept of the file's tables, in bytes."""
        return self._tables.kept_bytes

    def needs(self) -> tuple[ByteRange, ...]:
        """Return the spans that the layout needs next; empty when it is done."""
        return self._parser.needs()

    def needs_for_facts(self) -> tuple[ByteRange, ...]:
        """Return the spans that `facts` needs next; empty when it has its answer."""
        if self._facts is None:
            return () if self.is_done else self.needs()
        return self._facts.needs()

    def feed(self, start: int, data: bytes | memoryview) -> None:
        """Learn from the bytes of the file that begin at *start*: any bytes, in any order.

        Costs next to nothing where they hold neither directories nor tables.
        """
        if not self.is_done:
            self._learn(start, data)
        self._tables.feed(start, data)
        if self._facts is not None:
            self._facts.feed(start, data)

    def facts(self) -> Facts | None:
        """Return what the file states about itself; None while spans of it are missing."""
        return self._facts.result if self._facts is not None else None

    def needs_of(self, block: Block) -> tuple[ByteRange, ...]:
        """Return the spans of the tables that `span_of` needs for a block; empty for none."""
        return self._tables.needs(block)

    def span_of(self, block: Block) -> ByteRange | None:
        """Return the bytes of a block; empty for a sparse one, None when it is not known."""
        return self._tables.span(block)

    def fetch_span_of(self, block: Block) -> ByteRange | None:
        """Return the bytes of a block, its leader and trailer included: what GDAL reads of it."""
        span = self.span_of(block)
        if not span or self.layout is None:
            return span
        structure = self.layout.structure
        start = span.start - LEADER_BYTES * structure.has_leaders
        stop = span.stop + LEADER_BYTES * structure.has_trailers
        return ByteRange(max(0, start), stop).clip(self.size_bytes)

    def block_at(self, position: int) -> Block | None:
        """Return the block that holds a byte of the file; None for none, and when it is unknown."""
        return self._tables.block_at(position)

    def located(self, position: int) -> tuple[Block, ByteRange] | None:
        """Return the block that holds a byte of the file, and where it lies; None as `block_at`."""
        block = self.block_at(position)
        span = self.span_of(block) if block is not None else None
        return (block, span) if block is not None and span is not None else None

    def following(self, position: int) -> Block | None:
        """Return the known block that starts first at or behind a position; None for none."""
        return self._tables.following(position)

    def is_cog(self) -> bool | None:
        """Return whether the header is that of a cloud-optimised GeoTIFF; None while that is open.

        It is one when its directories precede its blocks, and the blocks of each overview those of
        the larger ones, and when it is tiled, or small.
        """
        layout = self.layout
        if layout is None or not layout.is_complete:
            return None
        if any(max(i.width, i.height) > _SMALL_SIDE and not i.is_tiled for i in layout.images):
            return False
        if layout.structure.has_directories_first:
            return True
        head = max(image.directory.stop for image in layout.images)
        levels = [image for image in layout.images if not image.is_mask and image.page == 0]
        starts = [self._tables.offset(Block(image.number, 0)) for image in levels]
        known = [start for start in starts if start is not None]
        if any(start and start < head for start in known):
            return False
        if len(known) < len(starts):
            return None
        laid_out = [start for start in known if start]  # a sparse first block lies nowhere
        return laid_out == sorted(laid_out, reverse=True)

    def _learn(self, start: int, data: bytes | memoryview) -> None:
        self._parser.feed(start, data)
        self._take_images()
        if self._parser.is_done:
            self._parser.forget()

    def _take_images(self) -> None:
        layout = self.layout
        images: tuple[Image, ...] = layout.images if layout is not None else ()
        if self._parser.reason is not None:
            self._tables = BlockTables(self.size_bytes)
            self._facts = None
            return
        if layout is None or len(images) == self._n_images:
            return
        for image in images[self._n_images :]:
            self._tables.add(image, layout.byte_order)
        tiff, directory = self._parser.tiff_format, self._parser.directory
        if self._facts is None and tiff is not None and directory is not None:
            self._facts = SpanParser(read_facts(tiff, directory, self.size_bytes), self.size_bytes)
        self._n_images = len(images)
        for start, data in self._parser.held():
            self._tables.feed(start, data)
            if self._facts is not None:
                self._facts.feed(start, data)
