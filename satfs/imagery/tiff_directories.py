"""A TIFF's header and its image directories (IFDs), from bytes to fields.

Facts are from TIFF 6.0 (Adobe, 1992), section 2, and from the BigTIFF design that libtiff
documents. Only fields that satfs uses are kept; the values of the others are never looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from msgspec import Struct

from satfs.errors import Damaged
from satfs.model import ByteRange

#: The longest header, in bytes: 8 of a classic TIFF, 16 of a BigTIFF.
HEADER_BYTES: Final = 16
#: Fields of one directory. A GDAL file has about 20, a camera's some 60; a million would be made
#: in order to cost memory.
MAX_FIELDS: Final = 1024


class Tag(IntEnum):
    """The tags of the fields that are used here."""

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    STRIP_OFFSETS = 273
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    PLANAR_CONFIGURATION = 284
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    SUB_IFDS = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    IMAGE_DEPTH = 32997
    TILE_DEPTH = 32998
    MODEL_PIXEL_SCALE = 33550
    MODEL_TIEPOINT = 33922
    MODEL_TRANSFORMATION = 34264
    GEO_KEY_DIRECTORY = 34735
    GDAL_METADATA = 42112
    GDAL_NODATA = 42113
    RPC_COEFFICIENT = 50844


_KEPT: Final = frozenset(Tag)

#: Bytes of one value, by field type (TIFF 6.0, page 15; 13 is IFD; 16 to 18 are BigTIFF's).
TYPE_BYTES: Final[Mapping[int, int]] = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
ASCII: Final = 2
DOUBLE: Final = 12
#: BYTE, SHORT, LONG, IFD, LONG8, IFD8: what a size, a count or an offset may be stored as, with the
#: letter that `struct` and `array` have for it.
UNSIGNED: Final[Mapping[int, str]] = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


class TiffFormat(Struct, frozen=True):
    """How numbers are stored in one file: `byte_order` is `<` or `>`, as `struct` has it."""

    byte_order: str
    is_big: bool
    first_directory: int

    @property
    def header_bytes(self) -> int:
        """Return how long the header is, in bytes."""
        return 16 if self.is_big else 8

    @property
    def count_bytes(self) -> int:
        """Return how many bytes at the start of a directory hold its number of fields."""
        return 8 if self.is_big else 2

    def directory_bytes(self, n_fields: int) -> int:
        """Return the length of a directory of *n_fields*, in bytes, its two ends included."""
        return 8 + 20 * n_fields + 8 if self.is_big else 2 + 12 * n_fields + 4


class Field(Struct, frozen=True):
    """One field of a directory: where its values lie, and the values when they are stored in it."""

    type: int
    count: int
    span: ByteRange
    inline: bytes | None


class Directory(Struct, frozen=True):
    """One image directory: its place in the file, its fields by tag, and where the next one is.

    `next_offset` is 0 in the last one.
    """

    span: ByteRange
    fields: Mapping[int, Field]
    next_offset: int


def parse_header(head: bytes) -> TiffFormat:
    """Return the format of a file from its first 16 bytes (8 are enough for a classic TIFF).

    Raises:
        Damaged: it is not a TIFF, or too short to be one.
    """
    byte_order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if byte_order is None or len(head) < 8:
        raise Damaged("not a TIFF")
    version, offset = struct.unpack_from(byte_order + "HI", head, 2)
    if version == 42:
        return TiffFormat(byte_order, is_big=False, first_directory=offset)
    if version != 43 or len(head) < 16:
        raise Damaged("not a TIFF")
    offset_bytes, reserved, offset = struct.unpack_from(byte_order + "HHQ", head, 4)
    if (offset_bytes, reserved) != (8, 0):
        raise Damaged("not a BigTIFF of the one known kind")
    return TiffFormat(byte_order, is_big=True, first_directory=offset)


def parse_n_fields(tiff: TiffFormat, data: bytes) -> int:
    """Return the number of fields that the first bytes of a directory state.

    Raises:
        Damaged: they state no field, or more than `MAX_FIELDS`.
    """
    n: int = struct.unpack_from(tiff.byte_order + ("Q" if tiff.is_big else "H"), data)[0]
    if not 1 <= n <= MAX_FIELDS:
        raise Damaged(f"a directory of {n} fields")
    return n


def parse_directory(tiff: TiffFormat, offset: int, data: bytes) -> Directory:
    """Return the directory at *offset*, given all its bytes (`TiffFormat.directory_bytes`).

    A tag that occurs twice keeps its first field, as libtiff does. Fields of unknown types are
    left out.
    """
    n_fields = parse_n_fields(tiff, data)
    entry = struct.Struct(tiff.byte_order + ("HHQ" if tiff.is_big else "HHI"))
    pointer = struct.Struct(tiff.byte_order + ("Q" if tiff.is_big else "I"))
    fields: dict[int, Field] = {}
    position = tiff.count_bytes
    for _ in range(n_fields):
        tag, type_, count = entry.unpack_from(data, position)
        position += entry.size
        if tag in _KEPT and tag not in fields and type_ in TYPE_BYTES and count:
            n_bytes = count * TYPE_BYTES[type_]
            if n_bytes <= pointer.size:
                inline = data[position : position + n_bytes]
                start = offset + position
                fields[tag] = Field(type_, count, ByteRange(start, start + n_bytes), inline)
            else:
                (start,) = pointer.unpack_from(data, position)
                fields[tag] = Field(type_, count, ByteRange(start, start + n_bytes), None)
        position += pointer.size
    (next_offset,) = pointer.unpack_from(data, position)
    return Directory(ByteRange(offset, offset + len(data)), fields, next_offset)


def parse_integers(tiff: TiffFormat, field: Field, data: bytes) -> tuple[int, ...]:
    """Return the unsigned integers that *data*, the first bytes of a field's values, holds.

    Raises:
        Damaged: the field is not of an unsigned integer type.
    """
    letter = UNSIGNED.get(field.type)
    if letter is None:
        raise Damaged(f"a field of type {field.type} where unsigned integers are due")
    n = min(field.count, len(data) // TYPE_BYTES[field.type])
    return struct.unpack_from(f"{tiff.byte_order}{n}{letter}", data)


def inline_integer(tiff: TiffFormat, directory: Directory, tag: int, default: int | None) -> int:
    """Return the one integer of a field that needs no look elsewhere in the file.

    Raises:
        Damaged: the field is missing and has no default, or is no single unsigned integer.
    """
    field = directory.fields.get(tag)
    if field is None:
        if default is None:
            raise Damaged(f"tag {tag} is missing")
        return default
    if field.inline is None:
        raise Damaged(f"{field.count} values of tag {tag} where one is due")
    return parse_integers(tiff, field, field.inline)[0]
