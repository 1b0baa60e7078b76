"""The uncompressed TIFFs in one object: their layouts, shared by all handles on them.

Pure: bytes of the object in, layouts out.
"""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from satfs.imagery.raster import Raster
from satfs.model import ByteRange

#: How a TIFF begins, classic and BigTIFF, in both byte orders (TIFF 6.0, page 13; BigTIFF design).
_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAGIC_BYTES: Final = 4

#: Rasters of one object whose layouts are remembered, and how much of the tables of each: those of
#: some 75,000 blocks. A delivery has fewer than eight rasters; of a larger one the last pages of
#: the tables are kept.
MAX_RASTERS: Final = 8
MAX_TABLE_BYTES: Final = 2 * 1024 * 1024
#: Directories of one raster that are requested before a program does: those of an image and its
#: overviews, each of which is known once the one before it has been read.
MAX_DIRECTORIES_AHEAD: Final = 8


def is_tiff(head: bytes) -> bool:
    """Return whether *head* is the beginning of a TIFF."""
    return head[:MAGIC_BYTES] in _MAGIC


class RasterFile:
    """A TIFF at *place* in an object, uncompressed as a file; shared by all handles on it."""

    def __init__(self, place: ByteRange) -> None:
        self.place = place
        self.raster = Raster(len(place), max_kept_bytes=MAX_TABLE_BYTES)
        self._n_directories_ahead = 0
        self._last_needed: ByteRange | None = None

    def feed(self, start: int, data: bytes | memoryview) -> None:
        """Learn from bytes of the object, which begin at *start*."""
        skip = max(0, self.place.start - start)
        data = memoryview(data)[skip : max(0, self.place.stop - start)]
        if data:
            self.raster.feed(start + skip - self.place.start, data)

    def needs(self) -> list[ByteRange]:
        """Return the spans of the object that the layout needs next."""
        return [self._shift(span) for span in self.raster.needs()]

    def directory_ahead(self) -> ByteRange | None:
        """Return where the next directory lies in the object, once for each of a few.

        A program that opens a raster follows the chain of its directories, and has work to do in
        between. None where nothing shows that there is one more.
        """
        if self.raster.is_done or self.raster.layout is None:
            return None
        needed = next(iter(self.needs()), None)
        if needed is None or needed == self._last_needed:
            return None
        self._last_needed = needed
        self._n_directories_ahead += 1
        return needed if self._n_directories_ahead <= MAX_DIRECTORIES_AHEAD else None

    def tables(self) -> list[ByteRange]:
        """Return where the block tables lie in the object, those that are kept as a whole."""
        layout = self.raster.layout
        images = layout.images if layout is not None else ()
        tables = (table for image in images for table in (image.offsets, image.sizes))
        return [self._shift(t.span) for t in tables if len(t.span) <= MAX_TABLE_BYTES // 4]

    def _shift(self, span: ByteRange) -> ByteRange:
        return ByteRange(span.start + self.place.start, span.stop + self.place.start)


class RasterFiles:
    """The TIFFs known in one object: itself, or members of a zip; the last ones used."""

    def __init__(self) -> None:
        self._files: LRUCache[ByteRange, RasterFile] = LRUCache(MAX_RASTERS)

    def get(self, place: ByteRange) -> RasterFile | None:
        """Return the raster at exactly that place, None when none is known."""
        found: RasterFile | None = self._files.get(place)
        return found

    def add(self, place: ByteRange) -> RasterFile:
        """Return the raster at that place, a new one if need be."""
        found = self.get(place)
        if found is None:
            found = self._files[place] = RasterFile(place)
        return found
