"""A raster's statements about itself: its samples, its place on Earth, the names of its bands.

Facts are from the OGC's GeoTIFF standard 1.1 (19-008r4), chapter 7, and from GDAL's GTiff driver
documentation for the two fields of its own (42112 GDAL_METADATA, 42113 GDAL_NODATA).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Final
from xml.etree.ElementTree import ParseError, XMLParser

from msgspec import Struct

from satfs.errors import Damaged
from satfs.imagery.spans import Steps
from satfs.imagery.tiff_directories import (
    ASCII,
    DOUBLE,
    TYPE_BYTES,
    Directory,
    Field,
    Tag,
    TiffFormat,
    parse_integers,
)
from satfs.model import ByteRange

#: The longest value that is read, in bytes. GDAL_METADATA of a hyperspectral raster has some 30 KB.
MAX_VALUE_BYTES: Final = 64 * 1024
#: Descriptions of bands that are kept.
MAX_DESCRIPTIONS: Final = 1024

#: Keys of the GeoTIFF directory; the value for a system without a code (0 is: not set); and the
#: model of a raster in the coordinates of a map.
_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC_TYPE, _PROJECTED_TYPE = 1024, 1025, 2048, 3072
_USER_DEFINED: Final = 32767
_PROJECTED_MODEL: Final = 1
_PIXEL_IS_POINT: Final = 2
#: SampleFormat (TIFF 6.0, page 80; 5 and 6 are libtiff's), as GDAL and numpy begin such names.
_SAMPLE_FORMATS: Final[Mapping[int, str]] = {
    1: "uint", 2: "int", 3: "float", 5: "complex_int", 6: "complex",
}  # fmt: skip
#: ExtraSamples (TIFF 6.0, page 31): the sample is opacity, multiplied into the others or not.
_OPACITY: Final = (1, 2)
_READ: Final = (
    Tag.BITS_PER_SAMPLE,
    Tag.EXTRA_SAMPLES,
    Tag.SAMPLE_FORMAT,
    Tag.MODEL_PIXEL_SCALE,
    Tag.MODEL_TIEPOINT,
    Tag.MODEL_TRANSFORMATION,
    Tag.GEO_KEY_DIRECTORY,
    Tag.GDAL_METADATA,
    Tag.GDAL_NODATA,
)


class Facts(Struct, frozen=True):
    """The statements of the first image of a file. None: it states nothing usable.

    `data_type` is like `uint16`, of the first band, or `unknown`. `epsg` is the code of the
    projected system, else of the geographic one. `transform` is (a, b, c, d, e, f) with
    x = a·column + b·row + c and y = d·column + e·row + f at a pixel's upper left corner.
    `no_data` is the value as the file spells it. `descriptions` holds the names of bands, by
    number, from 0. `has_alpha`: the last band is the opacity of the others.
    """

    data_type: str = "unknown"
    epsg: int | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    no_data: str | None = None
    descriptions: Mapping[int, str] | None = None
    has_rpc: bool = False
    has_alpha: bool = False


def read_facts(tiff: TiffFormat, directory: Directory, size_bytes: int) -> Steps[Facts]:
    """Read the facts of a directory of a file of *size_bytes*.

    A field that makes no sense counts as missing, and so does one beyond the end of the file.
    """
    fields = {tag: directory.fields[tag] for tag in _READ if tag in directory.fields}
    # Only the first sample's bits and format are looked at: GDAL refuses samples that differ.
    stated = {
        tag: ByteRange(field.span.start, field.span.start + TYPE_BYTES[field.type])
        if tag in (Tag.BITS_PER_SAMPLE, Tag.SAMPLE_FORMAT)
        else field.span
        for tag, field in fields.items()
        if field.inline is None
    }
    spans = {
        tag: span
        for tag, span in stated.items()
        if span.stop <= size_bytes and span.stop - span.start <= MAX_VALUE_BYTES
    }
    values = {tag: field.inline for tag, field in fields.items() if field.inline is not None}
    if spans:
        data = yield tuple(spans.values())
        values.update(zip(spans, data, strict=True))

    def integers(tag: Tag) -> tuple[int, ...]:
        try:
            return parse_integers(tiff, fields[tag], values[tag]) if tag in values else ()
        except Damaged:
            return ()

    def doubles(tag: Tag) -> tuple[float, ...]:
        return _doubles(tiff, fields[tag], values[tag]) if tag in values else ()

    def text(tag: Tag) -> str:
        return _text(fields[tag], values[tag]) if tag in values else ""

    bits = integers(Tag.BITS_PER_SAMPLE) if Tag.BITS_PER_SAMPLE in fields else (1,)
    kind = _SAMPLE_FORMATS.get(next(iter(integers(Tag.SAMPLE_FORMAT)), 1))
    keys = geo_keys(integers(Tag.GEO_KEY_DIRECTORY))
    return Facts(
        data_type=f"{kind}{bits[0]}" if kind and bits else "unknown",
        epsg=epsg_code(keys),
        transform=affine_transform(
            doubles(Tag.MODEL_PIXEL_SCALE),
            doubles(Tag.MODEL_TIEPOINT),
            doubles(Tag.MODEL_TRANSFORMATION),
            is_point=keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT,
        ),
        no_data=text(Tag.GDAL_NODATA).strip() or None,
        descriptions=band_descriptions(text(Tag.GDAL_METADATA)) or None,
        has_rpc=Tag.RPC_COEFFICIENT in directory.fields,
        has_alpha=next(reversed(integers(Tag.EXTRA_SAMPLES)), 0) in _OPACITY,
    )


def geo_keys(values: tuple[int, ...]) -> dict[int, int]:
    """Return the keys of a GeoKeyDirectory whose values are in it; empty when it is malformed."""
    if len(values) < 4 or values[0] != 1:
        return {}
    entries = zip(values[4::4], values[5::4], values[6::4], values[7::4], strict=False)
    return {key: value for key, place, count, value in entries if place == 0 and count == 1}


def epsg_code(keys: Mapping[int, int]) -> int | None:
    """Return the code of the system that a raster's coordinates are in; None for one without code.

    The geographic system of a projected raster is what its projection is based on.
    """
    code = keys.get(_PROJECTED_TYPE, 0)
    if not code and keys.get(_MODEL_TYPE) != _PROJECTED_MODEL:
        code = keys.get(_GEOGRAPHIC_TYPE, 0)
    return None if code in (0, _USER_DEFINED) else code


def affine_transform(
    scale: tuple[float, ...],
    tiepoints: tuple[float, ...],
    matrix: tuple[float, ...],
    *,
    is_point: bool = False,
) -> tuple[float, float, float, float, float, float] | None:
    """Return pixel to coordinates, as in `Facts`; None when the fields do not state one.

    *is_point*: coordinates are those of a pixel's centre (PixelIsPoint).
    """
    if len(scale) >= 2 and len(tiepoints) >= 6 and scale[0] and scale[1]:
        column, row, _, x, y, _ = tiepoints[:6]
        right, down = scale[0], -abs(scale[1])
        a, b, c, d, e, f = right, 0.0, x - column * right, 0.0, down, y - row * down
    elif len(matrix) == 16:
        a, b, _, c, d, e, _, f = matrix[:8]
    else:
        return None
    if is_point:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    transform = (a, b, c, d, e, f)
    return transform if all(map(math.isfinite, transform)) else None


class _Descriptions:
    """Collects band descriptions while GDAL_METADATA is parsed. Declarations of entities fail."""

    def __init__(self) -> None:
        self.by_band: dict[int, str] = {}
        self._band: int | None = None
        self._parts: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        sample = attributes.get("sample", "")
        is_description = tag == "Item" and attributes.get("role") == "description"
        is_number = sample.isascii() and sample.isdigit() and len(sample) <= 6
        self._band = int(sample) if is_description and is_number else None
        self._parts = []

    def data(self, text: str) -> None:
        """Take a part of an element's text."""
        if self._band is not None:
            self._parts.append(text)

    def end(self, _tag: str) -> None:
        """End an element."""
        if self._band is not None and len(self.by_band) < MAX_DESCRIPTIONS:
            self.by_band[self._band] = "".join(self._parts).strip()
        self._band = None

    def close(self) -> dict[int, str]:
        """Return what was collected."""
        return {band: text for band, text in sorted(self.by_band.items()) if text}


def band_descriptions(text: str) -> dict[int, str]:
    """Return the names of bands, by number from 0, in the XML of GDAL_METADATA; empty if broken."""
    if "<!" in text:  # GDAL writes no document type and no entities; others expand to gigabytes
        return {}
    collected = _Descriptions()
    try:
        parser = XMLParser(target=collected)  # noqa: S314 - without declarations, see above
        parser.feed(text)
        parser.close()
    except (ParseError, ValueError):
        return {}
    return collected.close()


def _doubles(tiff: TiffFormat, field: Field, data: bytes) -> tuple[float, ...]:
    if field.type != DOUBLE:
        return ()
    return struct.unpack_from(f"{tiff.byte_order}{len(data) // 8}d", data)


def _text(field: Field, data: bytes) -> str:
    if field.type != ASCII:
        return ""
    return data.partition(b"\0")[0].decode("utf-8", "replace")
