"""Facts of rasters from the vendor's VRT that shows them. *Pure*.

A VRT is GDAL's XML ("VRT -- GDAL Virtual Format"): size, SRS, GeoTransform, the type of each band,
and the place of each source in the whole. A text that is not a well-formed VRT gives no facts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from posixpath import join, normpath
from typing import Any, Final
from xml.parsers import expat

from msgspec import Struct, field

from satfs.facts import values
from satfs.facts.scene import Transform

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
    no_data: float | None = None
    epsg: int | None = None
    sources: Mapping[str, VrtSource] = field(default_factory=dict)


def read_vrt(body: bytes, directory: str = "") -> Vrt | None:
    """Return the facts of the VRT in *body*, a member in *directory* of the delivery, or None.

    A document type is refused: GDAL writes none, and entities expand to gigabytes.
    """
    reading = _Reading()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = reading.refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError):
        return None
    return reading.result(directory)


class _Reading:
    """Collects what is read of a VRT, element by element."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._text: list[str] = []
        self._n_elements = 0
        self._bands: list[str | None] = []
        self._no_data: list[str] = []
        self._values: dict[str, str] = {}
        #: Of the source that is being read: its name, and its two rectangles.
        self._name: str | None = None
        self._rectangles: dict[str, tuple[float | None, ...]] = {}
        self._sources: dict[str, tuple[tuple[float | None, ...], tuple[float | None, ...]]] = {}
        self._is_vrt = False

    def refuse(self, *_: Any) -> None:
        """Stop at a document type."""
        raise ValueError("a document type")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        self._n_elements += 1
        if self._n_elements > MAX_ELEMENTS or len(self._path) >= MAX_DEPTH:
            raise ValueError("too many elements")
        self._is_vrt = self._is_vrt or (not self._path and tag == "VRTDataset")
        self._path.append(tag)
        self._text = []
        if self._path[1:] == ["VRTRasterBand"]:
            self._bands.append(attributes.get("dataType"))
        if tag in ("SimpleSource", "ComplexSource"):
            self._name, self._rectangles = None, {}
        if tag == "SourceFilename":
            is_relative = attributes.get("relativeToVRT") == "1"
            self._rectangles["relative"] = (float(is_relative),)
        if tag in ("SrcRect", "DstRect"):
            names = ("xOff", "yOff", "xSize", "ySize")
            self._rectangles[tag] = tuple(values.number(attributes.get(name)) for name in names)

    def text(self, data: str) -> None:
        """Take a part of an element's text."""
        if sum(map(len, self._text)) + len(data) <= _MAX_VALUE_CHARACTERS:
            self._text.append(data)

    def end(self, tag: str) -> None:
        """End an element."""
        text = "".join(self._text).strip()
        self._text = []
        if self._path[1:] in (["SRS"], ["GeoTransform"]):
            self._values[tag] = text
        elif self._path[1:] == ["VRTRasterBand", "NoDataValue"]:
            self._no_data.append(text)
        elif tag == "SourceFilename" and self._rectangles.get("relative") == (1.0,):
            self._name = text
        elif tag in ("SimpleSource", "ComplexSource") and self._name is not None:
            source = self._rectangles.get("SrcRect"), self._rectangles.get("DstRect")
            if source[0] and source[1] and len(self._sources) < MAX_SOURCES:
                self._sources.setdefault(self._name, (source[0], source[1]))
        self._path.pop()

    def result(self, directory: str) -> Vrt | None:
        """Return what was read; None when it was no VRT."""
        if not self._is_vrt:
            return None
        types = {_DATA_TYPES.get(name or "Byte") for name in self._bands}
        no_data = {values.number(text) for text in self._no_data}
        srs = self._values.get("SRS", "")
        match = _AUTHORITY.search(srs)
        corner = _transform(self._values.get("GeoTransform", ""))
        sources = {
            normpath(join(directory, name)): found
            for name, (source, target) in self._sources.items()
            if (found := _source(corner, source, target)) is not None
        }
        return Vrt(
            n_bands=len(self._bands),
            data_type=types.pop() if len(types) == 1 else None,
            no_data=no_data.pop() if len(no_data) == 1 else None,
            epsg=values.epsg(match[1] or match[2]) if match else values.epsg(srs),
            sources=sources,
        )


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
