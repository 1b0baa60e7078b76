"""From the first bytes of a TIFF to its layout, however little of the file is at hand.

Fed with spans of the file, the parser states which it needs next: the header, then one directory
after the other. Nothing that a file holds makes it raise, run without end, or keep more than a
megabyte: a file that contradicts itself has no layout, and is read as bytes.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

from satfs.errors import Damaged
from satfs.imagery.layout import Image, Layout, Structure, Table
from satfs.imagery.spans import SpanParser, Steps
from satfs.imagery.tiff_directories import (
    HEADER_BYTES,
    TYPE_BYTES,
    UNSIGNED,
    Directory,
    Field,
    Tag,
    TiffFormat,
    inline_integer,
    parse_directory,
    parse_header,
    parse_integers,
    parse_n_fields,
)
from satfs.model import ByteRange

#: Directories of one file that are read. A COG of a million pixels a side has 12 overviews, each
#: with a mask: 26. The images behind this number of pages are read as bytes.
MAX_DIRECTORIES: Final = 256
#: Directories that one directory may hold in itself. Microscopes write one for each overview.
MAX_SUB_DIRECTORIES: Final = 64
#: Sides of an image and of a block, in pixels: what GDAL's own 32-bit integers can count.
MAX_SIDE: Final = 2**31 - 1
#: Blocks of one image: their numbers are kept in 32 bits.
MAX_BLOCKS: Final = 2**32 - 1

_GHOST_START: Final = b"GDAL_STRUCTURAL_METADATA_SIZE="
#: `GDAL_STRUCTURAL_METADATA_SIZE=000140 bytes\n`: the size has six digits.
_GHOST_HEAD_BYTES: Final = 43
#: The longest ghost area that is read, in bytes. GDAL writes some 150 to 250.
_MAX_GHOST_BYTES: Final = 4096

#: NewSubfileType and the older SubfileType (TIFF 6.0, pages 36 and 40).
_IS_REDUCED, _IS_MASK, _OLD_REDUCED = 1, 4, 2
_PIXEL_INTERLEAVE, _BAND_INTERLEAVE = 1, 2


class LayoutParser:
    """Learns the layout of one file of *size_bytes* from spans of it, in any order."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._images: list[Image] = []
        self._first_directory: Directory | None = None
        self._format: TiffFormat | None = None
        self._structure = Structure()
        self._parser = SpanParser(self._steps(), size_bytes)
        self._layout: Layout | None = None
        self._update()

    @property
    def is_done(self) -> bool:
        """Return whether nothing more is to be learnt."""
        return self._parser.is_done

    @property
    def reason(self) -> str | None:
        """Return why the file has no layout, for a log; None while it has or may have one."""
        return self._parser.reason

    @property
    def layout(self) -> Layout | None:
        """Return what is known: None before the first image, and when the file has no layout."""
        return self._layout

    @property
    def tiff_format(self) -> TiffFormat | None:
        """Return how numbers are stored; None before the header is known."""
        return self._format

    @property
    def directory(self) -> Directory | None:
        """Return the first directory, which holds the facts about the whole file."""
        return self._first_directory

    def needs(self) -> tuple[ByteRange, ...]:
        """Return the spans that are needed next, within the file; empty when it is done."""
        return self._parser.needs()

    def feed(self, start: int, data: bytes | memoryview) -> None:
        """Take the bytes of the file that begin at *start*. Never raises for what they hold."""
        self._parser.feed(start, data)
        self._update()

    def held(self) -> list[tuple[int, bytes]]:
        """Return the pieces of the file that are still kept, as pairs of start and bytes."""
        return self._parser.held.pieces()

    def forget(self) -> None:
        """Drop the pieces that are kept. Only sensible once it is done."""
        self._parser.held.clear()

    def _update(self) -> None:
        if self.reason is not None or self._format is None or not self._images:
            self._layout = None
            return
        is_complete = bool(self._parser.result)
        known = self._layout
        if (
            known is None
            or len(known.images) != len(self._images)
            or known.is_complete is not is_complete
        ):
            self._layout = Layout(
                self._format.byte_order,
                self._format.is_big,
                tuple(self._images),
                self._structure,
                is_complete,
            )

    def _steps(self) -> Steps[bool]:
        """Read header, ghost area and directories; return whether all directories were read."""
        (head,) = yield (ByteRange(0, HEADER_BYTES).clip(self._size_bytes),)
        tiff = self._format = parse_header(head)
        start = tiff.header_bytes
        if start + _GHOST_HEAD_BYTES <= self._size_bytes:
            (head,) = yield (ByteRange(start, start + _GHOST_HEAD_BYTES),)
            span = ghost_span(start, head).clip(self._size_bytes)
            if span:
                (text,) = yield (span,)
                self._structure = parse_structure(text)
        seen: set[int] = set()
        #: Directories to read: the offset, the image that holds it, if one does, and the offsets of
        #: all that this one holds. tifffile lists them, and chains them to each other as well.
        waiting: deque[tuple[int, Image | None, tuple[int, ...]]] = deque()
        waiting.append((tiff.first_directory, None, ()))
        while waiting:
            offset, parent, siblings = waiting.popleft()
            if offset in seen:
                raise Damaged("directories in a loop")
            if len(seen) == MAX_DIRECTORIES:
                return False
            seen.add(offset)
            (data,) = yield (ByteRange(offset, offset + tiff.count_bytes),)
            n_bytes = tiff.directory_bytes(parse_n_fields(tiff, data))
            (data,) = yield (ByteRange(offset, offset + n_bytes),)
            directory = parse_directory(tiff, offset, data)
            inner = directory.fields.get(Tag.SUB_IFDS)
            inner_offsets: tuple[int, ...] = ()
            if inner is not None:
                _check_sub_directories(inner)
                values = inner.inline
                if values is None:
                    (values,) = yield (inner.span,)
                inner_offsets = parse_integers(tiff, inner, values)
            image = self._add(tiff, directory, parent)
            if directory.next_offset and directory.next_offset not in siblings:
                waiting.appendleft((directory.next_offset, parent, siblings))
            for place in reversed(inner_offsets):
                waiting.appendleft((place, image or parent, inner_offsets))
        return True

    def _add(self, tiff: TiffFormat, directory: Directory, parent: Image | None) -> Image | None:
        """Add the image of a directory; return None for one without blocks behind the first."""
        self._first_directory = self._first_directory or directory
        has_blocks = any(
            tag in directory.fields for tag in (Tag.TILE_OFFSETS, Tag.STRIP_OFFSETS)
        ) and (Tag.IMAGE_WIDTH in directory.fields)
        if not has_blocks and self._images:
            return None
        image = parse_image(tiff, directory, self._images, parent)
        tables = [table for i in (*self._images, image) for table in (i.offsets, i.sizes)]
        spans = sorted({table.span for table in tables})  # images may share one
        if image.offsets.span == image.sizes.span:
            raise Damaged("one table for the offsets and the sizes of blocks")
        if spans[-1].stop > self._size_bytes:
            raise Damaged("a table of blocks reaches beyond the end of the file")
        if any(one.overlaps(other) for one, other in pairwise(spans)):
            raise Damaged("tables of blocks overlap")
        if spans[0].start < tiff.header_bytes:
            raise Damaged("a table of blocks lies in the header")
        self._images.append(image)
        return image


def ghost_span(start: int, head: bytes) -> ByteRange:
    """Return where the ghost area's lines are, given the bytes behind the header; empty if none."""
    stop = start + _GHOST_HEAD_BYTES
    digits = head[len(_GHOST_START) : len(_GHOST_START) + 6]
    if not head.startswith(_GHOST_START) or not digits.isdigit():
        return ByteRange(stop, stop)
    return ByteRange(stop, stop + min(int(digits), _MAX_GHOST_BYTES))


def parse_structure(text: bytes) -> Structure:
    """Return what the lines `KEY=VALUE` of a ghost area state; unknown ones are left out."""
    lines = text.decode("ascii", "replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    # GDAL leaves a space behind `KNOWN_INCOMPATIBLE_EDITION=NO`, so that `YES` fits in its place.
    stated = {key.strip(): value.strip() for key, _, value in pairs}
    if stated.get("KNOWN_INCOMPATIBLE_EDITION", "NO") != "NO":
        return Structure()
    return Structure(
        has_directories_first=stated.get("LAYOUT") == "IFDS_BEFORE_DATA",
        has_leaders=stated.get("BLOCK_LEADER") == "SIZE_AS_UINT4",
        has_trailers=stated.get("BLOCK_TRAILER") == "LAST_4_BYTES_REPEATED",
    )


def parse_image(
    tiff: TiffFormat, directory: Directory, before: list[Image], parent: Image | None
) -> Image:
    """Return the image that a directory describes, behind those *before* it in the file.

    *parent* is the image whose directory holds this one, if one does (SubIFDs).

    Raises:
        Damaged: what it states is missing, impossible, or too large to be meant.
    """

    def number(tag: Tag, default: int | None = None) -> int:
        return inline_integer(tiff, directory, tag, default)

    width, height = number(Tag.IMAGE_WIDTH), number(Tag.IMAGE_LENGTH)
    is_tiled = Tag.TILE_WIDTH in directory.fields
    if is_tiled:
        block_width, block_height = number(Tag.TILE_WIDTH), number(Tag.TILE_LENGTH)
    else:
        block_width = width
        block_height = min(height, number(Tag.ROWS_PER_STRIP, height))
    sides = (width, height, block_width, block_height)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise Damaged("an image or a block without pixels, or with too many")
    if number(Tag.IMAGE_DEPTH, 1) != 1 or number(Tag.TILE_DEPTH, 1) != 1:
        raise Damaged("an image of more than two dimensions")
    n_bands, interleave = number(Tag.SAMPLES_PER_PIXEL, 1), number(Tag.PLANAR_CONFIGURATION, 1)
    if n_bands < 1 or interleave not in (_PIXEL_INTERLEAVE, _BAND_INTERLEAVE):
        raise Damaged(f"{n_bands} bands in interleave {interleave}")
    is_band_interleaved = interleave == _BAND_INTERLEAVE and n_bands > 1
    n_blocks = -(-width // block_width) * -(-height // block_height)
    n_blocks *= n_bands if is_band_interleaved else 1
    kind = number(Tag.NEW_SUBFILE_TYPE, 0)
    is_reduced = bool(kind & _IS_REDUCED) or number(Tag.SUBFILE_TYPE, 0) == _OLD_REDUCED
    is_mask = bool(kind & _IS_MASK)
    page, level = _role(before, parent, (width, height), is_reduced, is_mask)
    return Image(
        number=len(before),
        page=page,
        level=level,
        is_mask=is_mask and bool(before),
        width=width,
        height=height,
        block_width=block_width,
        block_height=block_height,
        n_bands=n_bands,
        is_tiled=is_tiled,
        is_band_interleaved=is_band_interleaved,
        compression=number(Tag.COMPRESSION, 1),
        predictor=number(Tag.PREDICTOR, 1),
        directory=directory.span,
        offsets=_table(directory, (Tag.TILE_OFFSETS, Tag.STRIP_OFFSETS), n_blocks),
        sizes=_table(directory, (Tag.TILE_BYTE_COUNTS, Tag.STRIP_BYTE_COUNTS), n_blocks),
    )


def _role(
    before: list[Image],
    parent: Image | None,
    size: tuple[int, int],
    is_reduced: bool,
    is_mask: bool,
) -> tuple[int, int]:
    """Return page and level of an image behind those *before* it."""
    if not before:
        return 0, 0
    if parent is not None:
        page = parent.page
        is_reduced = is_reduced or (not is_mask and size < (parent.width, parent.height))
    else:
        page = max(image.page for image in before)
    if not is_reduced and not is_mask:
        return max(image.page for image in before) + 1, 0
    siblings = [image for image in before if image.page == page]
    if not is_mask:
        return page, sum(not image.is_mask for image in siblings)
    masked = {(i.width, i.height): i.level for i in siblings if not i.is_mask}
    n_masks = sum(image.is_mask for image in siblings)
    return page, masked.get(size, n_masks if is_reduced else 0)


def _table(directory: Directory, tags: tuple[Tag, ...], n_blocks: int) -> Table:
    """Return the first table there is of some tags (libtiff takes strips' tags for tiles too)."""
    field = next((directory.fields[tag] for tag in tags if tag in directory.fields), None)
    if field is None:
        raise Damaged("an image without a table of its blocks")
    letter = UNSIGNED.get(field.type)
    if letter is None:
        raise Damaged(f"a table of blocks of type {field.type}")
    if not n_blocks <= min(field.count, MAX_BLOCKS):
        raise Damaged(f"a table of {field.count} blocks for an image of {n_blocks}")
    item_bytes = TYPE_BYTES[field.type]
    start = field.span.start
    span = ByteRange(start, start + n_blocks * item_bytes)
    return Table(span, item_bytes, letter, field.inline)


def _check_sub_directories(field: Field) -> None:
    if field.count > MAX_SUB_DIRECTORIES:
        raise Damaged(f"{field.count} directories in one")
