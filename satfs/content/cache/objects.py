"""The blocks of one object: in a file on disk, in memory, or partly in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import trio
from msgspec import Struct, field

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import BLOCK_BYTES, BlockMap, align
from satfs.errors import Damaged
from satfs.model import ByteRange


class Spilled(Exception):
    """The disk refused bytes: the object continues in memory, from its last whole block."""


class Layer(Struct):
    """One file with blocks of an object, and its block map."""

    file: BlockFile
    map: BlockMap


class CachedObject(Struct, eq=False):
    """One object's blocks, shared by all of its readers.

    `layers[-1]` takes new blocks. There are two only after the disk failed: the first still serves
    its blocks. `object_id` is None when the index doesn't know the object.

    Invariants:
        While `n_users` is not 0, the files stay open: a task that waits for a thread, and a
        transfer that brings bytes, each count as a user. Only `retain` and `release` change it. A
        segment in `landing` (the number of transfers that bring bytes of it) is never evicted: the
        file has bytes of blocks that are not whole yet, and no map would show their loss. No bytes
        are written into a segment in `leaving`: its space is being given back. `n_losses` grows
        whenever blocks are dropped.
    """

    name: str
    size_bytes: int
    layers: list[Layer]
    object_id: int | None
    #: Called when the last user has released the object.
    on_unused: Callable[[CachedObject], None] = lambda cached: None
    n_users: int = 0
    dirty: set[int] = field(default_factory=set)
    used: dict[int, float] = field(default_factory=dict)
    landing: Counter[int] = field(default_factory=Counter)
    leaving: set[int] = field(default_factory=set)
    n_losses: int = 0

    def retain(self) -> None:
        """Count one more user, until it calls `release`."""
        self.n_users += 1

    def release(self) -> None:
        """Count one user less; the files may be closed when it was the last one."""
        self.n_users -= 1
        if not self.n_users:
            self.on_unused(self)

    def in_use(self) -> ObjectUse:
        """Return a use of this object: `with cached.in_use():` keeps its files open."""
        return ObjectUse(self)

    @property
    def is_settled(self) -> bool:
        """Return whether the index has all entries of this object."""
        return not self.dirty and (self.object_id is None or not self.used)

    @property
    def top(self) -> Layer:
        """Return the layer that takes new blocks."""
        return self.layers[-1]

    def holds(self, span: ByteRange) -> bool:
        """Return whether *span* may be served now."""
        if self.layers[0].map.holds(span):
            return True
        if len(self.layers) == 1:
            return False
        return all(self._layer_of(block) is not None for block in _blocks(span, self.size_bytes))

    def gaps(self, span: ByteRange) -> Iterator[ByteRange]:
        """Yield the parts of *span* that must be fetched, as whole blocks."""
        if len(self.layers) == 1:
            yield from self.top.map.gaps(span)
            return
        for gap in self.top.map.gaps(span):
            yield from self.layers[0].map.gaps(gap)

    def view(self, span: ByteRange) -> bytes | memoryview | None:
        """Return the bytes of the held *span* without waiting, or None if only the disk has them.

        A memoryview is valid until the next checkpoint.
        """
        for layer in self.layers:
            if layer.map.holds(span):
                # Segments that are not in the index yet are fresh, see COMMIT_INTERVAL_S.
                is_fresh = self.dirty.issuperset(layer.map.segments_of(span))
                return layer.file.view(span, is_fresh=is_fresh)
        pieces: list[memoryview] = []
        for block in _blocks(span, self.size_bytes):
            layer_of = self._layer_of(block)
            piece = None if layer_of is None else layer_of.file.view(_overlap(block, span))
            if piece is None:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def read_from_disk(self, span: ByteRange) -> bytes:
        """Return the bytes of the held *span*; waits for the disk: belongs in a thread.

        Raises:
            Damaged: a cache file was cut short.
            OSError: the disk failed.
        """
        for layer in self.layers:
            if layer.map.holds(span):
                return layer.file.read_from_disk(span)
        pieces = []
        for block in _blocks(span, self.size_bytes):
            layer_of = self._layer_of(block)
            if layer_of is None:
                raise Damaged("a block left the cache while it was read")
            pieces.append(layer_of.file.read_from_disk(_overlap(block, span)))
        return b"".join(pieces)

    def touch(self, span: ByteRange, now_s: float) -> None:
        """Note that *span* was used."""
        for number in self.layers[0].map.segments_of(span):
            self.used[number] = now_s

    def _layer_of(self, block: ByteRange) -> Layer | None:
        for layer in self.layers:
            if layer.map.holds(block):
                return layer
        return None


class ObjectUse:
    """One use of a cached object: its files stay open from the creation to the end of `with`.

    It may be created by one task and entered by another one, which must enter it.
    """

    __slots__ = ("_cached",)

    def __init__(self, cached: CachedObject) -> None:
        self._cached = cached
        cached.retain()

    def __enter__(self) -> None:
        """Continue the use that began with the creation."""

    def __exit__(self, *_: object) -> None:
        """End the use."""
        self._cached.release()


def _blocks(span: ByteRange, size_bytes: int) -> Iterator[ByteRange]:
    whole = align(span, size_bytes)
    for start in range(whole.start, whole.stop, BLOCK_BYTES):
        yield ByteRange(start, min(start + BLOCK_BYTES, size_bytes))


def _overlap(one: ByteRange, other: ByteRange) -> ByteRange:
    return ByteRange(max(one.start, other.start), min(one.stop, other.stop))


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
    # No checkpoint from here on: the map may have changed during the thread, so only blocks that
    # are still unchecked with the same checksum get a result.
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
