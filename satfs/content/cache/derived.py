"""Data that is made from fetched bytes and kept in the cache beside them, each as one more object.

So it counts as cached bytes, its blocks are checked before they are served, it is evicted when it
is the least recently used, and `satfs cache` shows and clears it.
"""

from __future__ import annotations

from contextlib import closing
from hashlib import blake2b
from typing import Final

import trio

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.directory import object_name
from satfs.content.cache.objects import CachedObject, Spilled
from satfs.errors import Unsupported
from satfs.model import ByteRange

#: Bytes written between two checkpoints: under a millisecond.
_STEP_BYTES: Final = 1024 * 1024
#: Keeps these names apart from those of deliveries, which begin with an account.
_KIND: Final = "derived"


class Derived:
    """Records and files that were made from the deliveries of *account*, in *cache*.

    A key is any text; it identifies the source of the data, version included.
    """

    def __init__(self, cache: BlockCache, account: str) -> None:
        self._cache = cache
        self._account = account

    @property
    def max_bytes(self) -> int:
        """Largest file that is made: half the cache, so that it fits beside its source."""
        return self._cache.limit_bytes // 2

    # -- records: whole or not at all --------------------------------------------------------------

    async def get(self, key: str) -> bytes | None:
        """Return the data stored under *key* last; None when not all of it is kept."""
        for name, size_bytes in await self._generations(key):
            with closing(await self._open(name, size_bytes, "")) as file:
                pieces = [await file.read(span) for span in _steps(size_bytes)]
            found = [piece for piece in pieces if piece is not None]
            if len(found) == len(pieces):
                return b"".join(found)
            await self._cache.eviction.discard(name, size_bytes)
        return None

    async def put(self, key: str, data: bytes, label: str) -> None:
        """Store *data* under *key*, in place of earlier data, if there is a disk.

        *label* is for display. If it is interrupted, the earlier data stays.
        """
        if not self._cache.is_persistent or not data:
            return
        before = await self._generations(key)
        digest = blake2b(data, digest_size=8).hexdigest()
        name = f"{self._stem(key)}-{digest}"
        with closing(await self._open(name, len(data), label)) as file:
            for span in _steps(len(data)):
                if await file.first_gap(span) is not None:
                    await file.write(span.start, data[span.start : span.stop])
                await trio.lowlevel.checkpoint()
        for other, size_bytes in before:
            if other != name:
                await self._cache.eviction.discard(other, size_bytes)

    # -- files: any part of them -------------------------------------------------------------------

    async def open(self, key: str, size_bytes: int, label: str) -> DerivedFile:
        """Return the file *key*, of *size_bytes*, with the parts that are still kept."""
        return await self._open(self._stem(key), size_bytes, label)

    async def _open(self, name: str, size_bytes: int, label: str) -> DerivedFile:
        return DerivedFile(self._cache, await self._cache.acquire(name, label, size_bytes))

    def _stem(self, key: str) -> str:
        return object_name(_KIND, self._account, key)

    async def _generations(self, key: str) -> list[tuple[str, int]]:
        index = self._cache.index
        if index is None:
            return []
        return await self._cache.on_index(lambda: index.find(f"{self._stem(key)}-")) or []


class DerivedFile:
    """One such file, open until `close`. Parts of it are kept, and may be evicted."""

    #: Writes begin at a multiple of this, and end at one or at the end of the file.
    grain_bytes: Final = BLOCK_BYTES

    def __init__(self, cache: BlockCache, cached: CachedObject) -> None:
        self._cache = cache
        self._cached = cached

    async def first_gap(self, span: ByteRange) -> int | None:
        """Return where the first missing byte of *span* lies, rounded down; None: all are kept."""
        await self._cache.check(self._cached, span)
        if self._cached.holds(span):
            return None
        return next((gap.start for gap in self._cached.gaps(span)), None)

    async def read(self, span: ByteRange) -> bytes | None:
        """Return the bytes of *span*; None when not all of them are kept."""
        cached = self._cached
        with cached.in_use():  # the file may be closed meanwhile
            await self._cache.check(cached, span)
            if not cached.holds(span):
                return None
            self._cache.touch(cached, span)
            data = await self._cache.read(cached, span)
            return None if data is None else bytes(data)

    async def write(self, start: int, data: bytes) -> None:
        """Keep *data* at *start*; see `grain_bytes`.

        Raises:
            Unsupported: there is no room, neither on disk nor in memory.
        """
        cache, cached = self._cache, self._cached
        span = ByteRange(start, start + len(data))
        with cache.begin_landing(cached, span):
            await cache.reserve(cached, span)
            for _ in range(2):  # on disk, or else in memory
                layer = cached.top
                try:
                    cache.put(cached, layer, start, data)
                    cache.hold(cached, layer, start // BLOCK_BYTES, None, span.stop)
                except Spilled:
                    continue
                return
            raise Unsupported("neither disk nor memory has room for it")

    def close(self) -> None:
        """Close the file; its kept parts stay as long as there is room."""
        self._cached.release()


def _steps(size_bytes: int) -> list[ByteRange]:
    return [
        ByteRange(start, min(start + _STEP_BYTES, size_bytes))
        for start in range(0, size_bytes, _STEP_BYTES)
    ]
