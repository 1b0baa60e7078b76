"""Facts of a delivery: the members to read, how much of each, and the facts in them. *Pure*.

`DeliveryParser` never waits: it states which bytes it needs, is given them, and returns
`DeliveryFacts` for any content of the members. These facts depend on the version of the zip alone,
so they are cached with it, in the form of `to_bytes` and `of_bytes`. `combine` adds them to the
facts of the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from posixpath import basename, dirname
from typing import Final

import msgspec
from msgspec import Struct, field
from msgspec.structs import astuple, replace

from satfs.facts import values
from satfs.facts.geometry import bbox_of
from satfs.facts.member_kinds import raster_kind
from satfs.facts.scene import (
    RASTER_KINDS,
    BandFacts,
    MemberFacts,
    MemberKind,
    RasterFacts,
    SceneFacts,
    ViewFacts,
)
from satfs.facts.vendor_item import VendorItem, bands_of, common_name_of, read_angles, read_item
from satfs.facts.vrt import Vrt, read_vrt
from satfs.imagery.geotiff import Facts
from satfs.imagery.layout import Image, Layout
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
    """The header of one member that is a raster, as far as it was fed: read from few bytes.

    The first piece of a raster holds its first directory, and of a cloud-optimised GeoTIFF all of
    them with their tables: so one piece is enough for most rasters. Further pieces are read where
    the facts need them; other directories are read only near the beginning, since a file with
    directories elsewhere is not a cloud-optimised GeoTIFF.
    """

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
            no_data=values.no_data(stated.no_data),
            bands=_bands(image, stated),
            has_alpha=stated.has_alpha,
            has_mask=_has_mask(layout),
            epsg=values.epsg(stated.epsg),
            transform=stated.transform,
            has_rpc=stated.has_rpc,
            is_cog=self._raster.is_cog(),
        )


def _has_mask(layout: Layout | None) -> bool | None:
    if layout is None:
        return None
    if layout.image(is_mask=True) is not None:
        return True
    return False if layout.is_complete else None


def _bands(image: Image, stated: Facts) -> tuple[BandFacts, ...]:
    """Return the bands by their descriptions; a description that is a common name is one."""
    if image.n_bands > _MAX_BANDS:
        return ()
    descriptions = {band: values.text(text) for band, text in (stated.descriptions or {}).items()}
    names = [descriptions.get(band) for band in range(image.n_bands)]
    return tuple(BandFacts(name, common_name_of(name)) for name in names)


#: Written in front of what is kept. Facts of another form, or read by other rules, are read again.
FORM: Final = 3
#: The largest document of each kind that is read, in bytes, and how many of a kind. The vendor's
#: have 2 to 10 KiB; an item of a mosaic can be a hundred times as long.
_MAX_DOCUMENT_BYTES: Final = {
    MemberKind.ITEM: 1024 * 1024,
    MemberKind.ANGLES: 256 * 1024,
    MemberKind.VRT: 256 * 1024,
}
_MAX_DOCUMENTS: Final = 8
#: Rasters whose headers are read: a delivery in tiles can have hundreds, each another request.
#: Facts of the others are those that a VRT states.
MAX_HEADERS: Final = 64


class DeliveryFacts(Struct, frozen=True):
    """The facts of one version of a zip. `members` and `rasters` are as in `SceneFacts`."""

    members: tuple[MemberFacts, ...] = ()
    rasters: tuple[RasterFacts, ...] = ()
    item: VendorItem | None = None
    angles: ViewFacts = field(default_factory=ViewFacts)

    def to_bytes(self) -> bytes:
        """Return the facts in the form in which they are kept."""
        return bytes([FORM]) + msgspec.json.encode(self)

    @classmethod
    def of_bytes(cls, data: bytes) -> DeliveryFacts | None:
        """Return the facts that were kept as *data*; None for another form, and for other bytes."""
        if data[:1] != bytes([FORM]):
            return None
        try:
            return msgspec.json.decode(data[1:], type=cls)
        except (ValueError, RecursionError):
            return None


class MemberPart(Struct, frozen=True):
    """A part of a member that is to be read."""

    member: MemberFacts
    span: ByteRange


class DeliveryParser:
    """Learns the facts of a zip that has these *members* (see `members.known_members`)."""

    def __init__(self, members: Iterable[MemberFacts]) -> None:
        self._members = tuple(members)
        rasters = [member for member in self._members if member.kind in RASTER_KINDS]
        self._rasters = rasters
        self._headers = {member.path: RasterHeader(member) for member in rasters[:MAX_HEADERS]}
        self._documents: dict[str, bytes] = {}
        self._is_begun = False

    def needs(self) -> tuple[MemberPart, ...]:
        """Return the parts to be read next, all of which can be read at once; empty at the end.

        A part that is not fed before the next call counts as unreadable.
        """
        documents = () if self._is_begun else self._wanted_documents()
        self._is_begun = True
        by_path = {member.path: member for member in self._rasters}
        heads = (
            MemberPart(by_path[path], span)
            for path, header in self._headers.items()
            for span in header.needs()
        )
        return (*documents, *heads)

    def feed(self, part: MemberPart, data: bytes) -> None:
        """Learn from the bytes of a part; fewer than wanted count as unreadable."""
        if len(data) != len(part.span):
            return
        header = self._headers.get(part.member.path)
        if header is not None:
            header.feed(part.span.start, data)
        else:
            self._documents[part.member.path] = data

    def facts(self) -> DeliveryFacts:
        """Return what was learnt. Takes some milliseconds for the longest documents."""
        item, angles, vrts = None, ViewFacts(), []
        for member in self._members:
            body = self._documents.get(member.path)
            if body is None:
                continue
            if member.kind is MemberKind.ITEM and item is None:
                item = read_item(body)
            elif member.kind is MemberKind.ANGLES and angles == ViewFacts():
                angles = read_angles(body)
            elif member.kind is MemberKind.VRT:
                vrt = read_vrt(body, dirname(member.path))
                vrts += [] if vrt is None else [(raster_kind(basename(member.path)), vrt)]
        rasters = tuple(self._raster(member, vrts, item) for member in self._rasters)
        return DeliveryFacts(self._members, rasters, item, angles)

    def _wanted_documents(self) -> tuple[MemberPart, ...]:
        wanted: list[MemberPart] = []
        for kind, max_bytes in _MAX_DOCUMENT_BYTES.items():
            fit = [
                MemberPart(member, ByteRange(0, member.size_bytes))
                for member in self._members
                if member.kind is kind and 0 < member.size_bytes <= max_bytes
            ]
            wanted += sorted(fit, key=lambda part: part.member.path.count("/"))[:_MAX_DOCUMENTS]
        return tuple(wanted)

    def _raster(
        self,
        member: MemberFacts,
        vrts: list[tuple[MemberKind | None, Vrt]],
        item: VendorItem | None,
    ) -> RasterFacts:
        header = self._headers.get(member.path)
        found = (
            header.facts()
            if header is not None
            else RasterFacts(member.kind, member.path, member.size_bytes)
        )
        if found.width is None:
            found = _by_vrt(found, vrts)
        bands = bands_of(item, basename(member.path), member.kind, len(found.bands))
        return replace(found, bands=_merged(bands, found.bands)) if bands else found


def combine(facts: SceneFacts, delivery: DeliveryFacts) -> SceneFacts:
    """Return *facts* of a record with those of its scene's zip; the latter have precedence."""
    item = delivery.item or VendorItem()
    geometry = item.geometry or facts.geometry
    codes = {raster.epsg for raster in delivery.rasters if raster.epsg is not None}
    is_projected = all(raster.transform is not None for raster in delivery.rasters)
    by_item = item.epsg if is_projected else None
    return replace(
        facts,
        product=item.product or facts.product,
        geometry=geometry,
        bbox=None if geometry is None else bbox_of(geometry),
        moment=item.moment or facts.moment,
        platform=item.platform or facts.platform,
        constellation=item.constellation or facts.constellation,
        instruments=item.instruments or facts.instruments,
        gsd_m=values.first(item.gsd_m, facts.gsd_m),
        cloud_percent=values.first(item.cloud_percent, facts.cloud_percent),
        view=_first_angles(item.view, delivery.angles, facts.view),
        epsg=(codes.pop() if len(codes) == 1 else None) if codes else by_item,
        vendor_properties=item.vendor_properties,
        has_delivery=True,
        members=delivery.members,
        rasters=delivery.rasters,
    )


def _by_vrt(known: RasterFacts, vrts: list[tuple[MemberKind | None, Vrt]]) -> RasterFacts:
    """Return what a VRT states of a raster whose header is not known."""
    for kind, vrt in vrts:
        source = vrt.sources.get(known.path)
        if source is not None and kind is known.kind:
            return replace(
                known,
                width=source.width,
                height=source.height,
                data_type=vrt.data_type,
                no_data=vrt.no_data,
                bands=(BandFacts(),) * min(vrt.n_bands, 1024),
                epsg=vrt.epsg,
                transform=source.transform,
            )
    return known


def _merged(
    stated: tuple[BandFacts, ...], described: tuple[BandFacts, ...]
) -> tuple[BandFacts, ...]:
    """Return the bands as the item states them, with what it leaves out from the header.

    Common names are from one of the two, never mixed: they could contradict each other.
    """
    by_item = [band.common_name or common_name_of(band.name) for band in stated]
    common_names = by_item if any(by_item) else [band.common_name for band in described]
    return tuple(
        replace(band, name=band.name or other.name, common_name=common_name)
        for band, other, common_name in zip(stated, described, common_names, strict=True)
    )


def _first_angles(*views: ViewFacts) -> ViewFacts:
    """Return of each angle the first one that is stated."""
    return ViewFacts(*(values.first(*angles) for angles in zip(*map(astuple, views), strict=True)))
