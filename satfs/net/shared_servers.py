"""Hosts that are one server under several names, which serves few connections at a time.

The API and the store may be names of one balancer. Where it lets one connection through, a request
to one of them waits for as long as an idle connection to the other is kept. Two hosts are known to
share when both were found at one address, and one of them responded as soon as idle connections to
the other were closed: many names lead to the address of a large network, which serves them all.

*Pure*: moments are seconds of any one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cachetools import LRUCache

#: Time from the end of the others' connections to a response that shows that they were in the way,
#: in seconds.
SOON_S: Final = 1.0
#: Pairs of hosts that are remembered.
MAX_PAIRS: Final = 64


class SharedServers:
    """What is known of hosts that share a server, by their origins."""

    def __init__(self) -> None:
        #: Returns the address and port at which a host was found last; None if it is not known.
        self.peer_of: Callable[[str], str | None] = lambda origin: None
        self._pairs: LRUCache[frozenset[str], bool] = LRUCache(MAX_PAIRS)
        #: By host, when connections to which others were closed for it.
        self._closed: LRUCache[str, tuple[float, tuple[str, ...]]] = LRUCache(MAX_PAIRS)

    def may_share(self, one: str, other: str) -> bool:
        """Return whether both were found at one address."""
        peer = self.peer_of(one)
        return peer is not None and peer == self.peer_of(other)

    @property
    def is_any_known(self) -> bool:
        """Return whether any two hosts are known to share a server."""
        return bool(self._pairs)

    def share(self, one: str, other: str) -> bool:
        """Return whether the connections to one of them are known to be in the other's way."""
        return frozenset((one, other)) in self._pairs

    def note_closed(self, origin: str, others: Iterable[str], now_s: float) -> None:
        """Note that idle connections to *others* were closed for a request to *origin*."""
        self._closed[origin] = (now_s, tuple(others))

    def note_response(self, origin: str, now_s: float) -> None:
        """Note a response on a new connection to *origin*."""
        closed_s, others = self._closed.pop(origin, (0.0, ()))
        if now_s - closed_s <= SOON_S:
            for other in others:
                self._pairs[frozenset((origin, other))] = True
