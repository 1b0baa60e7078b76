"""Facts from the header of a raster, read from as few bytes as possible. *Pure*.

The first piece of a raster holds its first directory, and of a cloud-optimised GeoTIFF all of them
with their tables: so one piece is enough for most rasters. Further pieces are read where the facts
need them; other directories are read only near the beginning, since a file with directories
elsewhere is not a cloud-optimised GeoTIFF.
"""

from __future__ import annotations

from typing import Final

from satfs.facts import values
from satfs.facts.scene import BandFacts, MemberFacts, RasterFacts
from satfs.facts.vendor_item import common_name_of
from satfs.imagery.geotiff import Facts
from satfs.imagery.layout import Image
from satfs.imagery.raster import Raster
from satfs.model import ByteRange

#: The first piece, in bytes: a block of the cache at least. The tables of a COG take 12 bytes for
#: each tile and overviews a third as much again; a compressed tile of 512 pixels a side with four
#: bands of 16 bits has about a megabyte, one of 256 pixels and 8 bits about 50 KiB.
_MIN_PIECE, _MAX_PIECE = 16 * 1024, 256 * 1024
_BYTES_PER_PIECE_BYTE: Final = 8192
#: How far from the beginning directories are followed: a share of the file, since in a small file
#: the overviews are near the end and near the beginning at once. How often something is read.
_MAX_HEAD_BYTES: Final = 1024 * 1024
_BYTES_PER_HEAD_BYTE: Final = 256
_MAX_ROUNDS: Final = 4
#: Most bytes of one round, all spans together.
_MAX_ROUND_BYTES: Final = 512 * 1024
#: Memory for the tables of one raster, in bytes. Those of the first blocks decide what is a COG.
_MAX_KEPT_BYTES: Final = 1024 * 1024
#: Most bands whose facts are kept.
_MAX_BANDS: Final = 1024
#: Names of numpy's for samples of whole bytes.
_DATA_TYPES: Final = frozenset(
    {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
    | {"float16", "float32", "float64", "complex64", "complex128"}
)


class RasterHeader:
    """The header of one member that is a raster, as far as it was fed."""

    def __init__(self, member: MemberFacts) -> None:
        self._member = member
        size_bytes = member.size_bytes
        self._raster = Raster(size_bytes, max_kept_bytes=_MAX_KEPT_BYTES)
        self._n_rounds = 0
        self._piece_bytes = max(_MIN_PIECE, min(_MAX_PIECE, size_bytes // _BYTES_PER_PIECE_BYTE))
        share = size_bytes // _BYTES_PER_HEAD_BYTE
        self._head_bytes = max(self._piece_bytes, min(_MAX_HEAD_BYTES, share))

    def needs(self) -> tuple[ByteRange, ...]:
        """Return the spans of the member to be read next; empty when nothing more is worth it.

        Each call counts as one round: feed all of them before the next one.
        """
        size_bytes = self._member.size_bytes
        self._n_rounds += 1
        if self._n_rounds > _MAX_ROUNDS or not size_bytes:
            return ()
        if self._n_rounds == 1:
            return (ByteRange(0, min(size_bytes, self._piece_bytes)),)
        near = [span for span in self._raster.needs() if span.stop <= self._head_bytes]
        spans = (*self._raster.needs_for_facts(), *near)
        if self._raster.facts() is None and self._raster.layout is None:
            spans = self._raster.needs()  # the first directory, wherever it is
        return spans if sum(map(len, spans)) <= _MAX_ROUND_BYTES else ()

    def feed(self, start: int, data: bytes | memoryview) -> None:
        """Learn from the bytes of the member that begin at *start*."""
        self._raster.feed(start, data)

    def facts(self) -> RasterFacts:
        """Return what is known by now; of a member that is no TIFF, name and size alone."""
        member = self._member
        known = RasterFacts(member.kind, member.path, member.size_bytes)
        layout, stated = self._raster.layout, self._raster.facts()
        image = layout.image() if layout is not None else None
        if image is None:
            return known
        stated = stated or Facts()
        return RasterFacts(
            member.kind,
            member.path,
            member.size_bytes,
            width=image.width,
            height=image.height,
            block_width=image.block_width,
            block_height=image.block_height,
            data_type=stated.data_type if stated.data_type in _DATA_TYPES else None,
            no_data=values.number(stated.no_data),
            bands=_bands(image, stated),
            epsg=values.epsg(stated.epsg),
            transform=stated.transform,
            has_rpc=stated.has_rpc,
            is_cog=self._raster.is_cog(),
        )


def _bands(image: Image, stated: Facts) -> tuple[BandFacts, ...]:
    """Return the bands by their descriptions; a description that is a common name is one."""
    if image.n_bands > _MAX_BANDS:
        return ()
    descriptions = {band: values.text(text) for band, text in (stated.descriptions or {}).items()}
    names = [descriptions.get(band) for band in range(image.n_bands)]
    return tuple(BandFacts(name, common_name_of(name)) for name in names)
