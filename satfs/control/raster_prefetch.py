"""Fetch chosen blocks of rasters once: those of a window or a box, and those of the overviews.

The header of each raster is read first, which has the places of its blocks. Then the bytes are
fetched that a program requests when it reads these blocks: the header, the tables and the blocks,
as whole buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from satfs.content.fetch.block_spans import BUFFER_BYTES, MERGE_GAP_BYTES
from satfs.control.mount_components import MountComponents
from satfs.control.prefetching import Fetching, Take, collect, jobs_of, read_piece, require_room
from satfs.control.progress import CommandProgress
from satfs.control.rasters import as_buffers, feed, may_be_raster, open_raster, read_layout
from satfs.control.server import Given, Result, SendNotice
from satfs.control.walk import Target
from satfs.errors import BadSettings, Damaged, NotThere, SatfsError, Unsupported
from satfs.facts.scene import RASTER_KINDS
from satfs.imagery.block_choice import (
    BlockChoice,
    Box,
    block_spans,
    chosen_blocks,
    table_groups,
    table_needs,
)
from satfs.imagery.geotiff import Facts
from satfs.imagery.layout import Block
from satfs.imagery.raster import Raster
from satfs.imagery.spans import merge_spans
from satfs.model import ByteRange, Json, LimitsReadAhead, Reader
from satfs.request_slots import concurrent_map
from satfs.tree.nodes import File

#: The longest range that is read at once, in bytes, and ranges of one raster that are read at once:
#: with four rasters they fill a line of 100 ms and 1 GB/s.
_MAX_RANGE_BYTES: Final = 8 * 1024 * 1024
_RANGES_AT_ONCE: Final = 8
#: Tables of one group of blocks are read again where they were forgotten for those of another.
_TABLE_TRIES: Final = 2


def block_choice_of(given: Given) -> BlockChoice | None:
    """Return which blocks a request chooses; None when it wants files.

    Raises:
        BadSettings: `window` or `bbox` make no sense, or both are given.
    """
    window, box = given.get("window"), given.get("bbox")
    has_overviews = given.get("overviews") is True
    if window is None and box is None:
        return BlockChoice(has_overviews=True) if has_overviews else None
    if window is not None and box is not None:
        raise BadSettings("either --window or --bbox can be given")
    if window is not None:
        return BlockChoice(window=_window(window), has_overviews=has_overviews)
    return BlockChoice(box=_box(box), has_overviews=has_overviews)


async def prefetch_blocks(
    mount: MountComponents, given: Given, choice: BlockChoice, send: SendNotice
) -> Result:
    """Fetch the blocks of *choice* of all rasters that *given* (as for `prefetch`) selects.

    Of a scene these are the rasters in its zip. A raster that does not touch the window or box is
    left out, and counted as `outside`.

    Raises:
        BadSettings: a condition is not valid, or no path was given.
        BadCache: it would not fit. Nothing but headers is fetched then.
        NotThere: the paths lead to no raster.
    """
    progress, jobs = CommandProgress(send), jobs_of(given)
    bands = given.get("bands") or [kind.value for kind in RASTER_KINDS]
    found = await collect(mount, {**given, "bands": bands}, progress)
    rasters = [
        each for each in found if isinstance(each.node, SatfsError) or may_be_raster(each.node)
    ]
    if not rasters:
        raise NotThere("there is no raster (.tif, .tiff) at these paths")
    plans, failures = await _plans(rasters, choice, jobs)
    await progress.planned([plan.size_bytes for plan in plans.values()] + [0] * len(failures))
    for path, failure in failures.items():
        await progress.ended(path, 0, failure)
    await require_room(mount, sum(plan.size_bytes for plan in plans.values()))

    async def read(target: Target, node: File, take: Take) -> int:
        return await _read_blocks(plans[target.path], node, take)

    await Fetching(progress, jobs, read).run(list(plans.values()))
    return {**progress.result(), "outside": len(rasters) - len(plans) - len(failures)}


class _Plan(Target, frozen=True):
    """A raster of which *spans* are wanted. A packed raster is read from front to back."""

    spans: Sequence[ByteRange] = ()
    is_packed: bool = False

    @property
    def size_bytes(self) -> int:
        """Return how many bytes of the file are wanted."""
        return sum(map(len, self.spans))


async def _plans(
    rasters: Sequence[Target], choice: BlockChoice, jobs: int
) -> tuple[dict[str, _Plan], dict[str, SatfsError]]:
    """Return what to read of each raster, by path, and why some cannot be read."""

    async def plan_of(target: Target) -> _Plan | SatfsError | None:
        node = target.node
        if isinstance(node, SatfsError):
            return node
        try:
            return await _plan(target.path, node, choice)
        except SatfsError as failure:
            return failure

    plans, failures = {}, {}
    outcomes = await concurrent_map(plan_of, rasters, jobs)
    for target, outcome in zip(rasters, outcomes, strict=True):
        if isinstance(outcome, SatfsError):
            failures[target.path] = outcome
        elif outcome is not None:
            plans[target.path] = outcome
    return plans, failures


async def _plan(path: str, node: File, choice: BlockChoice) -> _Plan | None:
    """Return what to read of one raster; None when it has none of the chosen blocks.

    Raises:
        Unsupported: its layout, or its projection, is not known.
        SatfsError: its header cannot be read.
    """
    reader = await open_raster(node)
    try:
        raster = await read_layout(reader)
        layout = raster.layout
        assert layout is not None  # noqa: S101 - read_layout's promise
        blocks = chosen_blocks(layout, raster.facts() or Facts(), choice)
        if not blocks:
            return None
        spans = await places_of(raster, reader, blocks)
    except Damaged as failure:
        raise Unsupported(f"its layout is not known: {failure}") from failure
    finally:
        reader.close()
    size_bytes = raster.size_bytes
    whole = merge_spans((as_buffers(span, size_bytes) for span in spans), MERGE_GAP_BYTES)
    return _Plan(path, node, whole, is_packed=not isinstance(reader, LimitsReadAhead))


async def places_of(raster: Raster, reader: Reader, blocks: Sequence[Block]) -> list[ByteRange]:
    """Return where *blocks* lie, as spans in the order of the blocks.

    Raises:
        Unsupported: the place of a block is not known, though the tables were read.
        SatfsError: the tables cannot be read.
    """
    spans: list[ByteRange] = []
    for group in table_groups(raster, blocks, BUFFER_BYTES):
        await trio.lowlevel.checkpoint()
        for _ in range(_TABLE_TRIES):
            await feed(raster, reader, partial(table_needs, raster, group))
            if all(raster.span_of(block) is not None for block in group):
                break
        else:
            raise Unsupported("the places of its blocks are not known")
        spans += block_spans(raster, group, MERGE_GAP_BYTES)
    return spans


async def _read_blocks(plan: _Plan, node: File, take: Take) -> int:
    """Read the spans of a plan, several at once, and return how many bytes they are."""
    pieces = [
        ByteRange(start, min(start + _MAX_RANGE_BYTES, span.stop))
        for span in plan.spans
        for start in range(span.start, span.stop, _MAX_RANGE_BYTES)
    ]
    n_bytes = 0
    reader = await open_raster(node)

    async def read(piece: ByteRange) -> None:
        nonlocal n_bytes
        data = await read_piece(reader, piece)
        n_bytes += len(data)
        await take(data, n_bytes)
        await trio.lowlevel.checkpoint()

    try:
        if isinstance(reader, LimitsReadAhead):
            reader.limit_read_ahead(ByteRange(0, 0))
        await concurrent_map(read, pieces, 1 if plan.is_packed else _RANGES_AT_ONCE)
    finally:
        reader.close()
    return n_bytes


def _window(given: Json) -> tuple[int, int, int, int]:
    is_list = isinstance(given, list) and len(given) == 4
    if not is_list or not all(type(number) is int for number in given):
        raise BadSettings("--window takes COLUMN,ROW,WIDTH,HEIGHT in pixels")
    column, row, width, height = given
    if min(column, row) < 0 or min(width, height) < 1:
        raise BadSettings("--window: column and row are from 0, width and height from 1")
    return column, row, width, height


def _box(given: Json) -> Box:
    is_list = isinstance(given, list) and len(given) == 4
    if not is_list or not all(type(number) in (int, float) for number in given):
        raise BadSettings("--bbox takes WEST,SOUTH,EAST,NORTH in degrees")
    west, south, east, north = map(float, given)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
        raise BadSettings("--bbox: longitudes are -180 to 180, latitudes -90 to 90, south first")
    return west, south, east, north
