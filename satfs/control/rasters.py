"""Rasters in a running mount: the layout, from the header, and the places of chosen blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from satfs.archive.central_directory import DEFLATED, STORED
from satfs.archive.decoders import METHOD_NAMES, has_decoder
from satfs.content.fetch.block_spans import BUFFER_BYTES, MERGE_GAP_BYTES
from satfs.control.mount_components import MountComponents
from satfs.control.walk import find, scene_of
from satfs.errors import Damaged, NotThere, Unsupported
from satfs.facts.scene import RasterFacts
from satfs.imagery.block_choice import table_needs
from satfs.imagery.description import blocks_of_sample, describe
from satfs.imagery.raster import Raster
from satfs.imagery.spans import merge_spans
from satfs.model import DELIVERY_ZIP, ByteRange, Json, LimitsReadAhead, Reader
from satfs.tree.archives import ContentsDirectory
from satfs.tree.names import RECORD_DIRECTORIES
from satfs.tree.nodes import ContentFile, File, Node
from satfs.tree.rendered import ListedFile
from satfs.tree.scenes import AttachmentFile

#: Bytes of a raster that are read first: the kernel requests them for a program that opens one.
HEAD_BYTES: Final = 64 * 1024
#: Reads after which a header is given up: a directory, its long values and its tables are three,
#: and a file may have 256 directories.
_MAX_ROUNDS: Final = 1024
#: How much of a packed member is unpacked in order to show its layout, in bytes.
_MAX_UNPACKED_BYTES: Final = 8 * 1024 * 1024
#: Names of methods of which any byte takes the whole member.
_UNPACKED_AS_A_WHOLE: Final = frozenset(
    name for method, name in METHOD_NAMES.items() if has_decoder(method)
)
_SUFFIXES: Final = (".tif", ".tiff")


def may_be_raster(node: Node) -> bool:
    """Return whether *node* is a file of the vendor's whose name is that of a TIFF."""
    is_made = isinstance(node, ContentFile | ListedFile)
    return isinstance(node, File) and not is_made and node.name.lower().endswith(_SUFFIXES)


async def read_layout(reader: Reader, max_bytes: int | None = None) -> Raster:
    """Return the raster that *reader* reads, with its layout and its facts.

    Nothing behind the first *max_bytes* is read; it counts as unknown. The reader reads nothing
    ahead.

    Raises:
        Unsupported: it is no TIFF, or one whose layout cannot be used; the message has the reason.
        SatfsError: its header cannot be read now.
    """
    raster = Raster(reader.size_bytes)
    head = ByteRange(0, HEAD_BYTES).clip(reader.size_bytes)
    if isinstance(reader, LimitsReadAhead):
        reader.limit_read_ahead(head)
    raster.feed(0, bytes(await reader.read(head)))
    await feed(raster, reader, lambda: (*raster.needs(), *raster.needs_for_facts()), max_bytes)
    if raster.layout is None:
        raise Unsupported(f"its layout is not known: {raster.reason or 'its header is too far in'}")
    return raster


async def feed(
    raster: Raster,
    reader: Reader,
    needs: Callable[[], Sequence[ByteRange]],
    max_bytes: int | None = None,
) -> None:
    """Read what *needs* returns, until that is nothing, or nothing new.

    Whole buffers are read, as a program does that looks at the same header.
    """
    last: Sequence[ByteRange] = ()
    for _ in range(_MAX_ROUNDS):
        spans = needs()
        if not spans or spans == last:
            return
        last = spans
        for span in merge_spans(as_buffers(span, reader.size_bytes) for span in spans):
            if max_bytes is not None and span.stop > max_bytes:
                return
            raster.feed(span.start, bytes(await reader.read(span)))


def as_buffers(span: ByteRange, size_bytes: int) -> ByteRange:
    """Return the buffers that a program reads for the bytes of *span* (`BUFFER_BYTES`)."""
    start = span.start // BUFFER_BYTES * BUFFER_BYTES
    return ByteRange(start, -(-span.stop // BUFFER_BYTES) * BUFFER_BYTES).clip(size_bytes)


async def described_rasters(mount: MountComponents, path_names: Sequence[str]) -> dict[str, Json]:
    """Return what `satfs info` shows of a raster, or of the rasters in a zip, at *path_names*.

    Empty for any other path. Rasters in a zip come from what was read of its members at once.

    Raises:
        SatfsError: it cannot be read now.
    """
    if len(path_names) < 2 or path_names[0] not in RECORD_DIRECTORIES:
        return {}
    try:
        node = await find(mount.root, path_names)
    except NotThere:
        return {}
    if isinstance(node, File) and may_be_raster(node):
        return await _described_raster(node)
    is_zip = isinstance(node, AttachmentFile) and node.attachment.name == DELIVERY_ZIP
    scene = scene_of(node)
    if scene is None or not (is_zip or isinstance(node, ContentsDirectory)):
        return {}
    return {"rasters": [_in_short(raster) for raster in (await mount.items.facts(scene)).rasters]}


async def _described_raster(node: File) -> dict[str, Json]:
    packing = packing_of(node)
    known: dict[str, Json] = {"packing": packing, "size_bytes": node.attributes().size_bytes}
    max_bytes = None if packing == METHOD_NAMES[STORED] else _MAX_UNPACKED_BYTES
    try:
        reader = await open_raster(node)
    except Unsupported as failure:
        return {**known, "raster": None, "reason": str(failure)}
    try:
        raster = await read_layout(reader, max_bytes)
        layout = raster.layout
        blocks = [] if layout is None else blocks_of_sample(layout)
        await feed(raster, reader, lambda: table_needs(raster, blocks), max_bytes)
    except (Unsupported, Damaged) as failure:
        return {**known, "raster": None, "reason": str(failure)}
    finally:
        reader.close()
    return {**known, "raster": describe(raster, MERGE_GAP_BYTES)}


def packing_of(node: File) -> str:
    """Return how a file is packed in the store: `stored`, or a method of compression."""
    method = node.xattrs().get("user.satfs.compression")
    return METHOD_NAMES[STORED] if method is None else method.decode()


async def open_raster(node: File) -> Reader:
    """Return a reader of a raster.

    Raises:
        Unsupported: it is packed so that any byte takes the whole of it, or cannot be unpacked.
        SatfsError: it cannot be opened now.
    """
    packing = packing_of(node)
    if packing not in (METHOD_NAMES[STORED], METHOD_NAMES[DEFLATED]):
        raise Unsupported(
            f"its layout is not known: it is packed as a whole ({packing})"
            if packing in _UNPACKED_AS_A_WHOLE
            else f"it is compressed in a way that satfs cannot undo ({packing})"
        )
    return await node.open()


def _in_short(raster: RasterFacts) -> dict[str, Json]:
    return {
        "path": raster.path,
        "kind": raster.kind.value,
        "size_bytes": raster.size_bytes,
        "width": raster.width,
        "height": raster.height,
        "data_type": raster.data_type,
        "bands": len(raster.bands),
        "block_width": raster.block_width,
        "block_height": raster.block_height,
        "epsg": raster.epsg,
        "is_cog": raster.is_cog,
    }
