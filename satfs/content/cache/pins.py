"""The objects in a mount's cache, the pinned ones, and the space that is left."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.capacity import spare_bytes
from satfs.content.cache.index import CachedVersion, Index
from satfs.errors import BadCache

#: Share of the cache's limit that is not available for pins: bytes in flight count before they are
#: there, and eviction frees a little more than is needed.
SLACK: Final = 0.03


class StoredObject(Struct, frozen=True):
    """One version of one object in the cache; *label* is for display: scene/attachment."""

    name: str
    label: str
    size_bytes: int


class Pins:
    """The cache in *directory*, to list and to pin its objects; waits for the disk in threads."""

    def __init__(self, cache: BlockCache, directory: Path, free_fraction: float) -> None:
        self._cache = cache
        self._directory = directory
        self._free_fraction = free_fraction

    async def kept(self) -> dict[str, CachedVersion]:
        """Return the objects on disk by their names; none where there is no disk."""
        index = self._cache.index
        if index is None:
            return {}
        await self._cache.commit()
        return {each.name: each for each in await self._cache.on_index(index.kept) or ()}

    async def pin(self, objects: Iterable[StoredObject]) -> None:
        """Protect *objects* from eviction, fetched or not; not other versions of them.

        Raises:
            BadCache: nothing is kept on disk here.
        """
        index, wanted = self._index(), tuple(objects)
        kept = await self._cache.on_index(index.kept) or ()
        names = {each.name for each in wanted}
        labels = {each.label for each in wanted}

        def pin() -> None:
            for each in wanted:
                index.open_object(each.name, each.label, each.size_bytes, is_new=False)
                index.pin(each.name, is_pinned=True)
            for other in kept:
                if other.is_pinned and other.label in labels and other.name not in names:
                    index.pin(other.name, is_pinned=False)

        await self._cache.on_index(pin)

    async def unpin(self, labels: Collection[str]) -> list[CachedVersion]:
        """Unpin the objects with one of *labels*; return those that were pinned.

        Raises:
            BadCache: nothing is kept on disk here.
        """
        index = self._index()
        return await self._cache.on_index(lambda: unpin(index, labels)) or []

    async def capacity_bytes(self, names: Collection[str]) -> int:
        """Return how many bytes of the objects called *names* could be kept at once.

        This is the limit, or the space of the disk, less the pinned bytes of other objects.

        Raises:
            BadCache: nothing is kept on disk here.
        """
        self._index()
        statistics = self._cache.statistics()
        try:
            spare = await spare_bytes(self._directory, self._free_fraction)
        except OSError as problem:
            raise BadCache(f"cache_dir: {self._directory} cannot be used any more") from problem
        kept = await self.kept()
        pinned = sum(
            each.held_bytes for each in kept.values() if each.is_pinned and each.name not in names
        )
        limit = min(statistics["disk_limit_bytes"], statistics["disk_bytes"] + max(0, spare))
        return max(0, int(limit * (1 - SLACK)) - pinned)

    def _index(self) -> Index:
        index = self._cache.index
        if index is None:
            raise BadCache(
                "nothing can be kept: this mount has no cache on disk; mount with a cache size"
                " above 0 and a cache directory that can be written to"
            )
        return index


def unpin(index: Index, labels: Collection[str] | None) -> list[CachedVersion]:
    """Unpin the objects with one of *labels*, or all (None); return those that were pinned.

    Waits for the disk.
    """
    pinned = [
        each for each in index.kept() if each.is_pinned and (labels is None or each.label in labels)
    ]
    for each in pinned:
        index.pin(each.name, is_pinned=False)
    return pinned
