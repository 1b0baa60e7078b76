"""Wait while another process of this node fetches the same blocks, and take over when it does not.

Used by each range request before it takes a connection, and again when it has one. Where no other
process uses the cache it costs a lock and its release, some microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.claims import MAX_LEVEL, Claim
from satfs.content.fetch.range_request import RangeRequest
from satfs.node_locks import POLL_S

#: When another process has fetched no block for this time, it is stopped, or its connection is;
#: then one of the waiting processes fetches the blocks too. Well above the time to a first byte on
#: a far line, and above the scheduling delays of a busy machine. A wrong guess costs one range that
#: is fetched twice.
STALLED_S: Final = 5.0


class Claiming:
    """Decides when a range request of this process may be sent.

    *slot_freed* is called when a request begins to wait for another process: it takes no connection
    meanwhile, so another request may take one.
    """

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache
        self.slot_freed: Callable[[], None] = lambda: None
        #: Range requests that wait for another process now.
        self.n_elsewhere = 0

    async def wait_for_others(self, range_request: RangeRequest) -> None:
        """Wait until no other process fetches the first block of *range_request*.

        Blocks that other processes have fetched by then are removed from it; perhaps none are left.
        """
        cache, cached = self._cache, range_request.cached
        if not cache.claims.is_shared(trio.current_time()):
            return
        is_elsewhere = False
        try:
            since_s = trio.current_time()
            while range_request.is_wanted():
                absent = range_request.absent
                other = cache.claims.other(cached, absent, range_request.sharing.level)
                if other is None:
                    return
                if other.start > absent.start:
                    range_request.cut(other.start)
                    return
                if not is_elsewhere:
                    is_elsewhere = True
                    self.n_elsewhere += 1
                    self.slot_freed()
                await trio.sleep(POLL_S)
                if await self._take_in(range_request, max_age_s=POLL_S):
                    since_s = trio.current_time()
                if trio.current_time() - since_s > STALLED_S:
                    range_request.sharing.level = min(range_request.sharing.level + 1, MAX_LEVEL)
                    since_s = trio.current_time()
        finally:
            self.n_elsewhere -= is_elsewhere

    async def claim(self, range_request: RangeRequest) -> Claim | None:
        """Return a claim on the missing blocks of *range_request*, to be ended with `Claims.end`.

        None when another process has claimed them, or when no block is missing any more: try again.
        """
        cache, cached = self._cache, range_request.cached
        claim = cache.claims.take(cached, range_request.absent, range_request.sharing.level)
        if claim is None:
            return None
        try:
            # A process enters its blocks in the index before it releases its claim. It may have
            # done both since the index was last read.
            if cache.claims.is_shared_now(trio.current_time()):
                await self._take_in(range_request)
                if not range_request.is_wanted():
                    cache.claims.end(claim)
                    return None
        except BaseException:
            cache.claims.end(claim)
            raise
        claim.held_until = max(claim.start, range_request.held_until)
        claim.cut(range_request.stop)
        return claim

    async def _take_in(self, range_request: RangeRequest, max_age_s: float = 0.0) -> bool:
        """Remove blocks that other processes have fetched from *range_request*; return if any were.

        Entries of the last *max_age_s* seconds may be missed.
        """
        changes = await self._cache.changes(max_age_s)
        if changes == range_request.sharing.seen_changes:
            return False
        range_request.sharing.seen_changes = changes
        absent = range_request.absent
        await self._cache.load_changes(range_request.cached, absent)
        gap = next(range_request.cached.gaps(absent), None)
        if gap == absent:
            return False
        range_request.brought_elsewhere(gap)
        return True
