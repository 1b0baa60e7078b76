"""One listing: its records, when they expire, and what to serve when no new ones can be had."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import structlog
import trio

from satfs.api import wire
from satfs.api.listing_store import ListingStore, Stored
from satfs.errors import Garbled, NotAllowed, NotThere, SatfsError, Unreachable
from satfs.model import Capture, Json, Scene, Task
from satfs.refreshable import Refreshable

log = structlog.get_logger(__name__)

#: A listing that stays the same is kept on disk anew after this time, so that it does not look old.
KEPT_ANEW_S = 86_400.0
#: How long a listing that is known waits to be renewed, once a vendor has failed to answer in full
#: time: the known one is served then, instead of having each directory wait for a deadline.
UNWELL_PATIENCE_S = 2.0

Item = TypeVar("Item", Task, Capture, Scene)
#: What is listed (`tasks`, `captures`, …), and of which id.
Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ListingState:
    """What is known about one listing, for a status display. *asked_at_s* is wall clock."""

    kind: str
    id: str
    n_records: int
    asked_at_s: float
    is_stale: bool


@dataclass(slots=True)
class Terms:
    """What all listings have in common.

    A listing is believed for *ttl_s*; an absence, and a stale listing that was served because
    nobody answered, for *negative_ttl_s*. *weigh* is called with the records that a listing holds.
    *is_unwell* while the vendor was last found out of reach: then a known listing waits for
    *patience_s* alone.
    """

    ttl_s: float
    negative_ttl_s: float
    store: ListingStore | None
    weigh: Callable[[CachedListing[Any], tuple[Any, ...]], None]
    wall_clock: Callable[[], float] = time.time
    patience_s: float = UNWELL_PATIENCE_S
    is_unwell: bool = False


class CachedListing(Generic[Item]):
    """The records of one listing.

    *ask* gets them from the vendor, *reader* makes one of what was kept on disk, *id_of* tells its
    id. A listing that was renewed and is equal stays the same object.
    """

    def __init__(
        self,
        key: Key,
        ask: Callable[[], Awaitable[tuple[Item, ...]]],
        reader: Callable[[Json], Item | None],
        id_of: Callable[[Item], str],
        terms: Terms,
    ) -> None:
        self.key = key
        self.is_stale = False
        self._ask: Callable[[], Awaitable[tuple[Item, ...]]] = ask
        self._reader: Callable[[Json], Item | None] = reader
        self._id_of: Callable[[Item], str] = id_of
        self._terms = terms
        self._fresh: Refreshable[tuple[Item, ...]] = Refreshable(self._renew)
        self._asked_at_s = 0.0
        self._stale_until = float("-inf")
        self._absence: tuple[NotThere, float] | None = None
        self._kept: tuple[Item, ...] | None = None
        self._kept_at_s = 0.0
        self._index: tuple[tuple[Item, ...], dict[str, Item]] = ((), {})

    async def get(self) -> tuple[Item, ...]:
        """Return the records: believed, renewed, or the last ones known when those cannot be had.

        Raises whatever the vendor's answer means; `Unreachable`, `Garbled` and `NotAllowed` only
        when nothing is known (docs/decisions/0009).
        """
        now = trio.current_time()
        if self.is_stale and now < self._stale_until:
            await trio.lowlevel.checkpoint()
            return self.last()
        if self._absence is not None and now < self._absence[1]:
            await trio.lowlevel.checkpoint()
            raise copy(self._absence[0])
        failure: SatfsError | None = None
        is_hasty = self._terms.is_unwell and self.is_known
        try:
            with trio.move_on_after(self._terms.patience_s if is_hasty else math.inf):
                items = await self._fresh.get()
                self._note_answer()
                return items
        except NotThere as absence:
            await self._note_absence(absence)
            raise
        except (Unreachable, Garbled, NotAllowed) as reason:
            failure = reason
            # A 403 is about this listing alone.
            self._terms.is_unwell = type(reason) is not NotAllowed
            if not self.is_known:
                await self._recall()
            if not self.is_known:
                raise
        self._note_failure(failure)
        return self.last()

    def peek(self) -> tuple[Item, ...] | None:
        """Return the records while they may be believed, else None. Never waits."""
        return self._fresh.peek()

    def last(self) -> tuple[Item, ...]:
        """Return the records that were listed last, believed or not; none when none are known."""
        return self._fresh.last() or ()

    @property
    def is_known(self) -> bool:
        """Return whether the listing was ever answered, in this mount or in a recalled one."""
        return self._fresh.last() is not None

    def find(self, id: str) -> Item | None:
        """Return the one of the last records that has that *id*. Never waits."""
        items = self.last()
        if self._index[0] is not items:
            self._index = (items, {self._id_of(item): item for item in items})
        return self._index[1].get(id)

    def invalidate(self) -> None:
        """Believe nothing any more; what was known is still served when nobody answers."""
        self._fresh.invalidate()
        self._stale_until = float("-inf")
        self._absence = None

    def take_in(self, stored: Stored) -> None:
        """Hold what was kept on disk, as stale, unless something is held already."""
        items, _ = wire.records(stored.records, self._reader)
        if self.is_known or (stored.records and not items):
            return
        self._fresh.recall(items)
        self._asked_at_s = stored.asked_at_s
        self._terms.weigh(self, self.last())

    def state(self) -> ListingState:
        """Return what is known about the listing."""
        return ListingState(*self.key, len(self.last()), self._asked_at_s, self.is_stale)

    async def _renew(self) -> tuple[tuple[Item, ...], float]:
        items = await self._ask()
        if self.is_known and self.last() == items:
            items = self.last()
        self._asked_at_s = self._terms.wall_clock()
        self._absence = None
        self._terms.weigh(self, items)
        await self._keep(items)
        return items, self._terms.ttl_s

    async def _keep(self, items: tuple[Item, ...]) -> None:
        """Keep *items* on disk, unless they are there since not too long ago."""
        store, now_s = self._terms.store, self._terms.wall_clock()
        if store is None or (items is self._kept and 0 <= now_s - self._kept_at_s < KEPT_ANEW_S):
            return
        await store.save(*self.key, [item.record for item in items])
        self._kept, self._kept_at_s = items, now_s

    async def _recall(self) -> None:
        stored = None if self._terms.store is None else await self._terms.store.load(*self.key)
        if stored is not None:
            self.take_in(stored)

    async def _note_absence(self, absence: NotThere) -> None:
        """Remember for a moment that there is nothing, and forget what there was."""
        self._absence = (absence, trio.current_time() + self._terms.negative_ttl_s)
        if self.is_known:
            self._fresh = Refreshable(self._renew)
            self._terms.weigh(self, ())
        self.is_stale = False
        if self._terms.store is not None:
            await self._terms.store.delete(*self.key)

    def _note_answer(self) -> None:
        self._terms.is_unwell = False
        if self.is_stale:
            self.is_stale = False
            log.info("listing is fresh again", kind=self.key[0], id=self.key[1])

    def _note_failure(self, failure: SatfsError | None) -> None:
        """Serve what is known for a moment: a walk must not wait for each directory anew."""
        if not self.is_stale:
            log.warning(
                "listing is served stale",
                kind=self.key[0],
                id=self.key[1],
                reason="no answer in time" if failure is None else str(failure),
            )
        self.is_stale = True
        self._stale_until = trio.current_time() + self._terms.negative_ttl_s
