"""Facts of rasters from the vendor's VRT that shows them. *Pure*.

A VRT is GDAL's XML ("VRT -- GDAL Virtual Format"): size, SRS, GeoTransform, the type of each band,
and the place of each source in the whole. A text that is not a well-formed VRT gives no facts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from posixpath import join, normpath
from typing import Final
from xml.etree import ElementTree

from msgspec import Struct, field

from satfs.facts import values
from satfs.facts.scene import NoData, Transform

#: A VRT of a scene has some ten elements for each source and band; one in tiles has some hundreds.
MAX_ELEMENTS: Final = 50_000
MAX_DEPTH: Final = 16
MAX_SOURCES: Final = 1000
_MAX_VALUE_CHARACTERS: Final = 16_384
#: GDAL's names of data types, and numpy's.
_DATA_TYPES: Final[Mapping[str, str]] = {
    "Byte": "uint8", "Int8": "int8", "UInt16": "uint16", "Int16": "int16", "UInt32": "uint32",
    "Int32": "int32", "Float32": "float32", "Float64": "float64",
}  # fmt: skip
#: The code of an SRS's outermost authority, at the end of its WKT, or by itself.
_AUTHORITY: Final = re.compile(
    r'(?:AUTHORITY\["EPSG","(\d{4,6})"\]|ID\["EPSG",(\d{4,6})\])\s*\]\s*$', re.IGNORECASE
)


class VrtSource(Struct, frozen=True):
    """A raster that a VRT shows: its size, and its affine transform."""

    width: int
    height: int
    transform: Transform | None


class Vrt(Struct, frozen=True):
    """The facts in a VRT. `sources` are by path, relative to `contents/`."""

    n_bands: int = 0
    data_type: str | None = None
    no_data: NoData | None = None
    epsg: int | None = None
    sources: Mapping[str, VrtSource] = field(default_factory=dict)


def read_vrt(body: bytes, directory: str = "") -> Vrt | None:
    """Return the facts of the VRT in *body*, a member in *directory* of the delivery, or None.

    A document type is refused: GDAL writes none, and entities expand to gigabytes. So are encodings
    of two bytes a character, in which one would not be found; GDAL writes UTF-8.
    """
    if b"<!DOCTYPE" in body or b"\0" in body:
        return None
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - without a document type nothing expands
    except (ElementTree.ParseError, ValueError, LookupError):  # the latter: of its encoding
        return None
    if root.tag != "VRTDataset" or _is_too_large(root):
        return None
    bands = root.findall("VRTRasterBand")
    types = {_DATA_TYPES.get(band.get("dataType", "Byte")) for band in bands}
    no_data = {values.no_data(_text(each)) for each in root.findall("VRTRasterBand/NoDataValue")}
    srs = _text(root.find("SRS"))
    match = _AUTHORITY.search(srs)
    return Vrt(
        n_bands=len(bands),
        data_type=types.pop() if len(types) == 1 else None,
        no_data=no_data.pop() if len(no_data) == 1 else None,
        epsg=values.epsg(match[1] or match[2]) if match else values.epsg(srs),
        sources=_sources(root, _transform(_text(root.find("GeoTransform"))), directory),
    )


def _is_too_large(root: ElementTree.Element) -> bool:
    level, n_elements = [root], 0
    for _ in range(MAX_DEPTH):
        n_elements += len(level)
        level = [inner for outer in level for inner in outer]
    return bool(level) or n_elements > MAX_ELEMENTS


def _text(element: ElementTree.Element | None) -> str:
    text = None if element is None else element.text
    return (text or "")[:_MAX_VALUE_CHARACTERS].strip()


def _sources(
    root: ElementTree.Element, corner: Transform | None, directory: str
) -> dict[str, VrtSource]:
    """Return the first source of each path, of those that are named relative to the VRT."""
    sources: dict[str, VrtSource] = {}
    for element in root.iter():
        name = element.find("SourceFilename")
        if element.tag not in ("SimpleSource", "ComplexSource") or len(sources) >= MAX_SOURCES:
            continue
        found = _source(corner, _rectangle(element, "SrcRect"), _rectangle(element, "DstRect"))
        if name is not None and name.get("relativeToVRT") == "1" and found is not None:
            sources.setdefault(normpath(join(directory, _text(name))), found)
    return sources


def _rectangle(source: ElementTree.Element, tag: str) -> tuple[float | None, ...]:
    found = source.find(tag)
    names = ("xOff", "yOff", "xSize", "ySize")
    return tuple(None if found is None else values.number(found.get(name)) for name in names)


def _transform(text: str) -> Transform | None:
    """Return GDAL's six numbers in the order of `Transform`."""
    numbers = [values.number(part.strip()) for part in text.split(",")]
    if len(numbers) != 6:
        return None
    c, a, b, f, d, e = numbers
    if a is None or b is None or c is None or d is None or e is None or f is None:
        return None
    return a, b, c, d, e, f


def _source(
    corner: Transform | None, source: tuple[float | None, ...], target: tuple[float | None, ...]
) -> VrtSource | None:
    """Return a source that is shown whole and in its own pixels; None for any other."""
    if None in source or None in target or source[:2] != (0.0, 0.0) or source[2:] != target[2:]:
        return None
    x, y, width, height = (float(number or 0) for number in target)
    if not (1 <= width < 2**31 and 1 <= height < 2**31):
        return None
    if not (width.is_integer() and height.is_integer()):
        return None
    transform = None
    if corner is not None:
        a, b, c, d, e, f = corner
        transform = (a, b, c + a * x + b * y, d, e, f + d * x + e * y)
    return VrtSource(int(width), int(height), transform)
