"""Check blocks of an earlier mount against their checksums, before they are first served."""

from __future__ import annotations

from typing import Final

import trio

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.objects import CachedObject, Layer
from satfs.model import ByteRange

#: Bytes checked against their checksums at once: one thread hop instead of 256.
CHECK_BYTES: Final = 4 * 1024 * 1024


async def check_blocks(cached: CachedObject, span: ByteRange) -> list[int]:
    """Check the blocks of *span* that an earlier mount left; return the numbers of damaged ones.

    Those are absent afterwards, all others held. Waits for the disk, in a thread.
    """
    damaged: list[int] = []
    for layer in cached.layers:
        while (run := next(layer.map.unchecked(span), None)) is not None:
            stop = min(run.stop, run.start + CHECK_BYTES)
            damaged += await _check_run(layer, ByteRange(run.start, stop))
    return damaged


async def _check_run(layer: Layer, run: ByteRange) -> list[int]:
    first, last = run.start // BLOCK_BYTES, -(-run.stop // BLOCK_BYTES)
    expected = list(layer.map.hashes(first, last))
    good = await trio.to_thread.run_sync(layer.file.verify, run, expected)
    # No checkpoint from here on: the map may have changed while we were in the thread, so only
    # blocks that still wait with the same checksum are judged.
    damaged: list[int] = []
    if all(good) and layer.map.confirm(first, expected):
        return damaged
    for number, is_good in enumerate(good, first):
        block = ByteRange(number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, run.stop))
        still = next(layer.map.unchecked(block), None) is not None
        if not still or layer.map.hashes(number, number + 1)[0] != expected[number - first]:
            continue
        if is_good:
            layer.map.hold(number, [expected[number - first]])
        else:
            layer.map.drop(block)
            damaged.append(number)
    return damaged
