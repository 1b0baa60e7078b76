"""Which hosts respond to a further request on a connection, and which to the first one alone.

Some servers leave a connection open after a response, but read nothing from it any more. Some load
balancers leave connections open whose backend has gone. A request on such a connection gets no
response, nor does its repetition on another reused connection. So a request that is safe to repeat
moves from a silent reused connection to a new one. A host whose new connections responded at once,
several times in a row, gets one request per connection for a while. *Pure*: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from cachetools import LRUCache, TTLCache

#: A request leaves a reused connection that has sent no head of a response for this time. A new
#: connection must respond within the same time to show that the old connection was at fault. In
#: seconds. S3 responds within 0.2 s, and AWS recommends another connection after 2 s.
SILENCE_S: Final = 2.0
#: The same, as a share of the time in which a response must come, where that is short.
SHARE_OF_TIMEOUT: Final = 0.9
#: Silent connections, one after the other, that show that the host reads no second request.
MIN_SILENT: Final = 2
#: How long that is remembered, and that a host is slow on new connections as well, in seconds.
REMEMBERED_S: Final = 60.0
#: Hosts that are remembered.
MAX_HOSTS: Final = 64
#: Origins that are remembered because they keep connections open.
MAX_KEPT: Final = 16


class ReuseWatch:
    """Whether hosts respond to a second request on a connection, by origin."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._slow: TTLCache[str, bool] = TTLCache(MAX_HOSTS, REMEMBERED_S, timer=clock)
        self._once: TTLCache[str, bool] = TTLCache(MAX_HOSTS, REMEMBERED_S, timer=clock)
        #: Silent connections in a row, and when the last of them was seen.
        self._silent: TTLCache[str, tuple[int, float]] = TTLCache(
            MAX_HOSTS, REMEMBERED_S, timer=clock
        )

    def patience_s(self, origin: str, timeout_s: float | None = None) -> float | None:
        """Return how many seconds a reused connection may be silent; None: as long as a new one.

        *timeout_s* is the limit for a new connection, if it has one.
        """
        if origin in self._slow:
            return None
        return SILENCE_S if timeout_s is None else min(SILENCE_S, SHARE_OF_TIMEOUT * timeout_s)

    def responds_once(self, origin: str) -> bool:
        """Return whether a connection to *origin* is not to be used again."""
        return origin in self._once

    def note_reused(self, origin: str) -> None:
        """Note a response on a connection that was used before."""
        self._silent.pop(origin, None)
        self._once.pop(origin, None)

    def note_moved(self, origin: str, begun_s: float, moved_s: float) -> bool:
        """Note a response on a new connection, to a request that met silence on another one.

        The request was first sent at *begun_s*, and moved at *moved_s*. Requests that were silent
        at the same time count once, since the host may have paused. Returns whether connections to
        *origin* are not to be used again from now on.
        """
        now_s = self._clock()
        if now_s - moved_s >= SILENCE_S:
            self.note_slow(origin)
            return False
        n_silent, seen_s = self._silent.get(origin, (0, float("-inf")))
        if begun_s >= seen_s:
            n_silent += 1
            self._silent[origin] = (n_silent, now_s)
        if n_silent >= MIN_SILENT:
            self._once[origin] = True
        return origin in self._once

    def note_slow(self, origin: str) -> None:
        """Note that a new connection was silent, too."""
        self._silent.pop(origin, None)
        self._slow[origin] = True


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
