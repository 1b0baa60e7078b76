"""What the processes of a node share of the API: links, waits, and how many requests run at once.

A link that one process has received serves the others, all keep to a `Retry-After` that one has
received, and together they send no more requests at once than one alone may. Only while several
processes use one cache directory; a process alone shares nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio
from cachetools import LRUCache

from satfs.content.fetch.links import Sign
from satfs.model import AttachmentName, Link, SceneId
from satfs.node_board import NodeBoard
from satfs.node_locks import POLL_S, NodeLocks, number_of

#: Links of which is remembered that this process has used them.
MAX_USED_LINKS: Final = 10_000
#: A link of another process with less time left than this is not taken: getting one takes as long
#: as using it.
MIN_LEFT_S: Final = 2.0
#: Longest wait of a request for those of other processes, in seconds: they may be stopped, or meet
#: an API that does not respond. Then there is one more each time.
MAX_TURN_S: Final = 2.0
#: Longest pause that one process imposes on others; a deadline is shorter.
MAX_PAUSE_S: Final = 300.0


class NodeLinks:
    """Signs for all processes of a node: `sign` has the shape that `content` wants.

    A link is taken from another process once. A second call for the same attachment
    means that it was spent or refused, and gets another link.
    """

    def __init__(self, sign: Sign, locks: NodeLocks, board: NodeBoard, account: str) -> None:
        self._sign = sign
        self._locks = locks
        self._board = board
        self._account = account
        self._used: LRUCache[str, str] = LRUCache(MAX_USED_LINKS)

    async def sign(self, scene: SceneId, attachment: AttachmentName) -> Link:
        """Return a link that this process has not used before; raises what signing raises."""
        if not self._locks.is_shared(trio.current_time()):
            return await self._sign(scene, attachment)
        key = f"link {len(scene)} {self._account} {scene} {attachment}"
        async with self._locks.alone(key):
            link = self._left_by_another(key)
            if link is None:
                link = await self._sign(scene, attachment)
                self._board.write(key, {"url": link.url, "expires_at_s": link.expires_at_s})
        self._used[key] = link.url
        return link

    def _left_by_another(self, key: str) -> Link | None:
        note = self._board.read(key)
        if note is None:
            return None
        url, expires_at_s = note.get("url"), note.get("expires_at_s")
        if not isinstance(url, str) or url == self._used.get(key):
            return None
        # A link without an end is used for some minutes, and its age is not known here.
        if not isinstance(expires_at_s, int | float):
            return None
        return Link(url, expires_at_s) if expires_at_s - time.time() >= MIN_LEFT_S else None


class NodePauses:
    """Until when a `Retry-After` to any process of the node holds (`net.retry_loop.Pauses`)."""

    def __init__(
        self, locks: NodeLocks, board: NodeBoard, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._locks = locks
        self._board = board
        self._wall_clock = wall_clock

    def left_s(self, origin: str) -> float:
        """Return for how many seconds no request is to be sent to *origin*; 0.0 when it may be."""
        if not self._locks.is_shared(trio.current_time()):
            return 0.0
        note = self._board.read(f"pause {origin}")
        until_s = None if note is None else note.get("until_s")
        if not isinstance(until_s, int | float):
            return 0.0
        # A clock that was set back must not make a pause of days.
        left_s = until_s - self._wall_clock()
        return max(0.0, left_s) if left_s <= MAX_PAUSE_S else 0.0

    def note(self, origin: str, wait_s: float) -> None:
        """Note that *origin* requires a wait of *wait_s* seconds from now."""
        wait_s = min(wait_s, MAX_PAUSE_S)
        if self._locks.is_shared(trio.current_time()) and wait_s > self.left_s(origin):
            self._board.write(f"pause {origin}", {"until_s": self._wall_clock() + wait_s})


class NodeSlots:
    """At most *n_slots* requests at once of all processes of the node for one account.

    A slot is a lock, which the kernel releases when its process dies. How many requests a process
    alone may send at once is not its business (`RequestSlots`).
    """

    def __init__(
        self,
        locks: NodeLocks,
        account: str,
        n_slots: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._locks = locks
        self._numbers = [number_of(f"request {n} {account}") for n in range(n_slots)]
        self._held: set[int] = set()  # here: for the kernel this process may lock them again
        self._draw = draw

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold a slot for the body; waits until one is free, at most for `MAX_TURN_S`."""
        number = await self._taken() if self._locks.is_shared(trio.current_time()) else None
        try:
            yield
        finally:
            if number is not None:
                self._held.discard(number)
                self._locks.unlock(number, number + 1)

    async def _taken(self) -> int | None:
        """Return the number of a slot, which is taken; None when none has become free."""
        until_s = trio.current_time() + MAX_TURN_S
        while True:
            # Processes that all began with the first one would try most of them in vain.
            first = int(self._draw() * len(self._numbers))
            for number in (*self._numbers[first:], *self._numbers[:first]):
                if number not in self._held and self._locks.try_lock(number, number + 1):
                    self._held.add(number)
                    return number
            if trio.current_time() >= until_s:
                return None
            await trio.sleep(POLL_S)
