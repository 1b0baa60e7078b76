"""The objects that are open: one fetcher for each version, shared by its handles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import trio

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.directory import object_name
from satfs.content.cache.open_objects import alone_with
from satfs.content.cache.pins import StoredObject
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.egress_limit import EgressLimit
from satfs.content.fetch.fetcher import Fetcher
from satfs.content.fetch.links import LinkCaches
from satfs.content.fetch.range_request import ObjectSource
from satfs.model import AttachmentName, SceneId, Version
from satfs.read_trace import ReadTraces

#: Objects kept open after their last handle, the least recently used closed first: programs open
#: and close the same file many times, and blocks in memory go with their object.
IDLE_OBJECTS: Final = 48

#: An attachment, and one version of it.
Key = tuple[SceneId, AttachmentName]
Place = tuple[Key, Version]


class OpenFetchers:
    """The fetchers of one mount. *on_outdated* is called when the store serves another version.

    Invariants:
        An object is open once, however many handles read it.
        It stays open while it has a handle or bytes on their way, and for a while after that.
    """

    def __init__(
        self,
        *,
        cache: BlockCache,
        dispatcher: Dispatcher,
        links: LinkCaches,
        account: str,
        traces: ReadTraces,
        egress: EgressLimit,
        on_outdated: Callable[[Place], None],
    ) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._links = links
        self._account = account
        self._traces = traces
        self._egress = egress
        self._on_outdated = on_outdated
        self.by_place: OrderedDict[Place, Fetcher] = OrderedDict()
        self._n_handles: dict[Place, int] = {}
        self._opening: dict[Place, trio.Lock] = {}
        cache.objects.make_room = self._close_all_idle

    def alone_with(self, place: Place) -> AbstractAsyncContextManager[None]:
        """Keep other tasks from opening *place* meanwhile."""
        return alone_with(self._opening, place)

    async def get(self, place: Place) -> Fetcher:
        """Return the fetcher of *place*; opens it if need be. The caller is `alone_with` it.

        Raises:
            TooManyOpen: no descriptor is left for it.
        """
        fetcher = self.by_place.get(place)
        if fetcher is None or (fetcher.is_outdated and not self._n_handles.get(place)):
            key, version = place
            stored = self.stored(place)
            cached = await self._cache.acquire(stored.name, stored.label, stored.size_bytes)
            trace = self._traces.of(stored.label)
            source = ObjectSource(stored.label, self._links.of(key), version, trace)
            # Looked up again: an idle one may have been closed during the wait.
            if (outdated := self.by_place.pop(place, None)) is not None:
                outdated.cached.release()
            outdate = partial(self._on_outdated, place)
            fetcher = Fetcher(self._cache, cached, self._dispatcher, source, outdate, self._egress)
            self.by_place[place] = fetcher
        self.by_place.move_to_end(place)
        return fetcher

    @property
    def n_handles(self) -> int:
        """Return the number of handles that are open."""
        return sum(self._n_handles.values())

    def handle_opened(self, place: Place) -> None:
        """Count a handle: *place* stays open until `handle_closed`."""
        self._n_handles[place] = self._n_handles.get(place, 0) + 1

    def handle_closed(self, place: Place) -> None:
        """Count a handle less."""
        self._n_handles[place] -= 1
        if not self._n_handles[place]:
            del self._n_handles[place]
        self.close_idle()

    def close_idle(self, n_kept: int = IDLE_OBJECTS) -> None:
        """Close the objects without use, except the *n_kept* that were used last."""
        idle = [
            place
            for place, fetcher in self.by_place.items()
            if place not in self._n_handles and not fetcher.is_fetching
        ]
        for each in idle[: max(0, len(idle) - n_kept)]:
            self.by_place.pop(each).cached.release()

    async def _close_all_idle(self) -> None:
        """Close every idle object: another one needs its descriptors. Waits for the index."""
        self.close_idle(n_kept=0)
        await self._cache.commit()  # an object is closed when the index knows what it holds

    def stored(self, place: Place) -> StoredObject:
        """Return the name, label and size of *place* in the cache."""
        key, version = place
        name = object_name(self._account, *key, version.etag, str(version.size_bytes))
        return StoredObject(name, label_of(*key), version.size_bytes)


def label_of(scene: SceneId, attachment: AttachmentName) -> str:
    """Return an attachment's label for logs, errors and people."""
    return f"{scene}/{attachment}"
