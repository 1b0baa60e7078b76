"""The number of connections that each host accepts, stored for later processes.

An unknown host gets its connections in steps (`net/host_limit.py`), which take most of the time of
a short program. So the cache's index stores the number for a day, for all processes that use the
directory. It stores a digest of the host's name, not the name, which is part of links.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Final

import trio

from satfs.content.cache.blocks import BlockCache
from satfs.json_bytes import json_object
from satfs.net.permits import Permits

#: Longest time for which a number is used, in seconds: hosts change, and so do networks.
MAX_AGE_S: Final = 86_400.0
#: Seconds between two tests for new numbers.
KEEP_EVERY_S: Final = 5.0
#: Hosts that are kept, the latest first; an account's objects lie at one or two.
MAX_HOSTS: Final = 16

_KEY: Final = "connections of hosts"


class HostLimitStore:
    """Loads the limits with which *permits* may begin, and stores the limits that they learn."""

    def __init__(
        self, permits: Permits, cache: BlockCache, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._permits = permits
        self._cache = cache
        self._wall_clock = wall_clock
        #: By digest: connections that responded at once, and when that was seen.
        self._known: dict[str, tuple[int, float]] = {}
        self._kept: dict[str, int] = {}

    async def load(self) -> None:
        """Have *permits* begin with the stored numbers; waits for the disk."""
        index = self._cache.index
        text = None if index is None else await self._cache.on_index(partial(index.note, _KEY))
        self._known = parsed(text or b"", self._wall_clock())
        self._permits.n_known_before = self._n_known

    async def keep(self) -> None:
        """Store new numbers every few seconds until cancelled, and once more at the end."""
        try:
            while True:
                await trio.sleep(KEEP_EVERY_S)
                await self._keep()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KEEP_EVERY_S):
                await self._keep()

    def _n_known(self, origin: str) -> int:
        return self._known.get(_digest(origin), (0, 0.0))[0]

    async def _keep(self) -> None:
        index, seen = self._cache.index, self._permits.n_responding()
        if index is None or seen == self._kept:
            return
        self._kept = seen
        now_s = self._wall_clock()
        text = await self._cache.on_index(partial(index.note, _KEY))
        hosts = {
            **parsed(text or b"", now_s),  # other processes keep theirs as well
            **{_digest(origin): (n, now_s) for origin, n in seen.items()},
        }
        latest = sorted(hosts.items(), key=lambda each: -each[1][1])[:MAX_HOSTS]
        await self._cache.on_index(partial(index.note, _KEY, json.dumps(dict(latest)).encode()))


def parsed(text: bytes, now_s: float) -> dict[str, tuple[int, float]]:
    """Return the numbers in *text* that are valid and not too old at *now_s*.

    By the digest of a host: how many connections responded at once, and when that was seen.
    """
    found: dict[str, tuple[int, float]] = {}
    for digest, value in (json_object(text) or {}).items():
        match value:
            case [int(n), int(at_s) | float(at_s)] if n > 0 and 0 <= now_s - at_s <= MAX_AGE_S:
                found[digest] = (n, float(at_s))
    return found


def _digest(origin: str) -> str:
    return blake2b(origin.encode(), digest_size=8).hexdigest()
