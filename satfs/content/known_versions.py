"""The versions that attachments were last seen to have: in memory, and in the cache's index."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

import trio
from cachetools import LRUCache, TTLCache

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.index import KnownVersion
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.open_fetchers import Key
from satfs.model import Version

#: Versions kept in memory, the least recently used forgotten first; the index keeps all of them.
MAX_VERSIONS: Final = 100_000


class KnownVersions:
    """The known versions of the attachments of one *account*.

    An object that is not there counts as absent for *absent_s*.
    """

    def __init__(
        self, cache: BlockCache, dispatcher: Dispatcher, account: str, absent_s: float
    ) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._account = account
        self.now = time.time
        self._known: LRUCache[Key, KnownVersion] = LRUCache(MAX_VERSIONS)
        #: Attachments without an object, with the revision of the record, while that is believed.
        self._absent: TTLCache[Key, tuple[str, str]] = TTLCache(
            MAX_VERSIONS, absent_s, timer=trio.current_time
        )
        self._forgetting: Counter[Key] = Counter()

    def peek(self, key: Key) -> KnownVersion | None:
        """Return the version of *key* if it is in memory. Never waits."""
        return self._known.get(key)

    async def recall(self, key: Key) -> KnownVersion | None:
        """Return the version of *key*, from memory or from the index; None for an unknown one."""
        known = self._known.get(key)
        if known is None and not self._forgetting[key]:
            known = await self.indexed(key)
            if self._forgetting[key] or key in self._known:
                known = self._known.get(key)  # something newer came during the wait
            elif known is not None:
                self.remember(key, known)
        return known

    def is_forgetting(self, key: Key) -> bool:
        """Return whether the index may still have a version that was forgotten."""
        return self._forgetting[key] > 0

    async def indexed(self, key: Key) -> KnownVersion | None:
        """Return what the index has, which other processes of this node write to as well."""
        index = self._cache.index
        if index is None:
            return None
        return await self._cache.on_index(lambda: index.version(self._account, *key))

    def remember(self, key: Key, known: KnownVersion) -> None:
        """Keep a version in memory, which the index has."""
        self._known[key] = known

    async def note(self, key: Key, version: Version, revision: str) -> KnownVersion:
        """Keep a version that the store has shown just now, in memory and in the index."""
        known = KnownVersion(revision, version.etag, version.size_bytes, self.now())
        self.remember(key, known)
        self._absent.pop(key, None)
        index = self._cache.index
        if index is not None:
            await self._cache.on_index(lambda: index.note_version(self._account, *key, known))
        return known

    def why_absent(self, key: Key, revision: str) -> str | None:
        """Return why *key* has no object, if that was seen for this *revision* a moment ago."""
        seen, why = self._absent.get(key, (None, None))
        return why if seen == revision else None

    def note_absent(self, key: Key, revision: str, why: str) -> None:
        """Note that *key* has no object."""
        self._absent[key] = revision, why

    def forget(self, key: Key) -> None:
        """Forget a version, and that there is none. Never waits."""
        self._known.pop(key, None)
        self._absent.pop(key, None)
        index = self._cache.index
        if index is None:
            return
        # Until the index has forgotten it too, it must not be recalled from there.
        self._forgetting[key] += 1

        async def forget_in_index() -> None:
            await self._cache.on_index(lambda: index.forget_version(self._account, *key))
            self._forgetting[key] -= 1
            self._forgetting += Counter()  # drops zeros

        self._dispatcher.run_in_background(forget_in_index)
