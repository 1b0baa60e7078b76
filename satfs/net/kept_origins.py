"""The origins that keep connections open for another request, as one client has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from cachetools import LRUCache

#: Origins that are remembered.
MAX_KEPT: Final = 16


class KeptOrigins:
    """The origins to which a client's connections were kept open after a response."""

    def __init__(self) -> None:
        self._seen_s: LRUCache[str, float] = LRUCache(MAX_KEPT)
        #: Called with an origin that keeps connections open, at its first response.
        self.on_new: Callable[[str], None] = lambda origin: None

    def __contains__(self, origin: str) -> bool:
        return origin in self._seen_s

    def note(self, origin: str) -> None:
        """Note that *origin* keeps a connection open, now."""
        is_new = origin not in self._seen_s
        self._seen_s[origin] = trio.current_time()
        if is_new:
            self.on_new(origin)

    def within(self, within_s: float) -> list[str]:
        """Return the origins that were noted within the last *within_s* seconds."""
        since_s = trio.current_time() - within_s
        return [origin for origin, at_s in self._seen_s.items() if at_s >= since_s]
