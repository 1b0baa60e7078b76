"""One listing: its records, their expiry, and the records to serve when a renewal fails."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, Generic, TypeAlias, TypeVar

import structlog
import trio
from msgspec import Struct, field

from satfs.api.listing_store import ListingStore, Stored
from satfs.api.record_list import RecordList
from satfs.api.record_parsers import RecordParser
from satfs.errors import (
    DeadlineReached,
    Garbled,
    NotAllowed,
    NotThere,
    SatfsError,
    Unfinished,
    Unreachable,
)
from satfs.model import Capture, Scene, Task
from satfs.node_locks import NodeLocks
from satfs.refreshable import Refreshable

log = structlog.get_logger(__name__)

#: A listing that stays the same is written to disk again after this time: it must not look old.
STORED_AGAIN_AFTER_S = 86_400.0
#: How long a listing that is known waits to be renewed, once the vendor has not responded in full
#: time: the known one is served then, instead of having each directory wait for a deadline.
UNWELL_PATIENCE_S = 2.0
#: How long it is remembered that the vendor refuses the credential; then one listing tries again.
REFUSED_S = 5.0

Item = TypeVar("Item", Task, Capture, Scene)
#: The kind of the listing (`tasks`, `captures`, …), and the id that it belongs to.
Key: TypeAlias = tuple[str, str]


class ListingState(Struct, frozen=True):
    """One listing, for a status display. *requested_at_s* is wall clock."""

    kind: str
    id: str
    n_records: int
    requested_at_s: float
    is_stale: bool


class Terms(Struct):
    """The configuration that all listings share.

    A listing is fresh for *ttl_s*. An absence, and a stale listing that was served because there
    was no response, are used for *negative_ttl_s*. *weigh* is called with the records of a listing.
    A known listing of several pages waits for its renewal for *longest_wait_s*, and any known one
    for *patience_s* alone while *is_unwell*: when the vendor was last found out of reach, or
    refuses. *waiting* are the limits of the calls that wait, with their listing.
    """

    ttl_s: float
    negative_ttl_s: float
    store: ListingStore | None
    weigh: Callable[[CachedListing[Any], RecordList[Any]], None]
    wall_clock: Callable[[], float] = time.time
    patience_s: float = UNWELL_PATIENCE_S
    longest_wait_s: float = math.inf
    is_unwell: bool = False
    #: Of the processes of this node that use the same *store*, one requests a listing for all.
    locks: NodeLocks | None = None
    account: str = ""
    #: Until when a refusal is remembered, and from when on no call waits for a renewal meanwhile.
    refused_until_s: float = -math.inf
    hasty_from_s: float = 0.0
    waiting: dict[trio.CancelScope, CachedListing[Any] | None] = field(default_factory=dict)

    @contextmanager
    def patience(
        self, *, is_known: bool, listing: CachedListing[Any] | None = None, is_long: bool = False
    ) -> Iterator[None]:
        """Limit how long the block waits for a renewal of what is known already, if it is.

        The block is left early while the vendor is unwell, and from `note_refusal` on. *listing*
        may be known on disk. *is_long*: it is one whose pages may come slowly, which is to be
        served before the kernel's call ends.
        """
        limit, now_s = trio.CancelScope(), trio.current_time()
        if is_known and now_s < self.refused_until_s:
            limit.deadline = self.hasty_from_s
        elif is_known and self.is_unwell:
            limit.deadline = now_s + self.patience_s
        elif is_long:
            limit.deadline = now_s + self.longest_wait_s
        if is_known or listing is not None:
            self.waiting[limit] = listing
        try:
            with limit:
                yield
        finally:
            self.waiting.pop(limit, None)

    async def note_refusal(self) -> None:
        """Take in that the vendor refuses the credential now, and that it is tried again.

        Calls that wait for a renewal of what is known wait for `patience_s` more; later calls do
        not wait, for `REFUSED_S`: a walk must not wait in each directory again.
        """
        now_s = trio.current_time()
        if now_s >= self.refused_until_s:
            self.hasty_from_s = now_s + self.patience_s
        self.is_unwell, self.refused_until_s = True, now_s + self.patience_s + REFUSED_S
        for limit, listing in list(self.waiting.items()):
            if listing is not None and not listing.is_known:
                await listing.recall()
            if listing is None or listing.is_known:
                limit.deadline = min(limit.deadline, self.hasty_from_s)

    def note_response(self) -> None:
        """Take in that the vendor has responded."""
        self.is_unwell, self.refused_until_s = False, -math.inf


class CachedListing(Generic[Item]):
    """The records of one listing.

    *fetch* gets them from the vendor, *parser* makes them of what was kept on disk. A listing that
    was renewed and is equal stays the same object.

    The records may be spilled: they leave the memory, and are read from disk when they are wanted.
    They are fresh for as long as if they had stayed.
    """

    def __init__(
        self,
        key: Key,
        fetch: Callable[[], Awaitable[RecordList[Item]]],
        parser: RecordParser[Item],
        terms: Terms,
    ) -> None:
        self.key = key
        self.is_stale = False
        self._fetch: Callable[[], Awaitable[RecordList[Item]]] = fetch
        self._parser: RecordParser[Item] = parser
        self._terms = terms
        self._none: RecordList[Item] = RecordList(parser)
        self._fresh: Refreshable[RecordList[Item]] = Refreshable(self._renew)
        self._requested_at_s = 0.0
        self._stale_until = float("-inf")
        self._absence: tuple[NotThere, float] | None = None
        self._kept: RecordList[Item] | None = None
        self._kept_at_s = 0.0
        #: Until when spilled records are fresh, on trio's clock and on the wall's.
        self._spilled_until = (float("-inf"), float("-inf"))
        self._may_use_disk = True
        self._invalid_at_s = float("-inf")  # wall clock

    async def get(self) -> RecordList[Item]:
        """Return the records: fresh, renewed, or the last known ones when a renewal fails.

        Raises what the vendor's response means; `Unreachable`, `Garbled` and `NotAllowed` only
        when nothing is known (docs/decisions/0009).
        """
        now_s = trio.current_time()
        remembered = self._absence
        if remembered is not None and now_s < remembered[1]:
            await trio.lowlevel.checkpoint()
            raise copy(remembered[0])
        is_served_stale = self.is_stale and now_s < self._stale_until
        is_disk_best = is_served_stale or self._terms.is_unwell or self._spilled_until[0] > now_s
        if is_disk_best and not self.is_known:
            await self.recall()
        if is_served_stale and self.is_known:
            stale = self.last()  # at a checkpoint, another listing may take its place in memory
            await trio.lowlevel.checkpoint()
            return stale
        failure: SatfsError = DeadlineReached(f"{' '.join(self.key)}: no response in time")
        try:
            with self._terms.patience(
                is_known=self.is_known, listing=self, is_long=len(self.last().pages) > 1
            ):
                items = await self._fresh.get()
                self._note_renewal()
                return items
        except NotThere as absence:
            await self._note_absence(absence)
            raise
        except (Unreachable, Garbled, NotAllowed) as reason:
            failure = reason
            # A 403 is about this listing alone, and a vendor that sends pages works.
            self._terms.is_unwell = type(reason) not in (NotAllowed, Unfinished)
        if not self.is_known:  # never known in this mount, or spilled meanwhile
            await self.recall()
        if not self.is_known:
            raise failure
        self._note_failure(failure)
        return self.last()

    def peek(self) -> RecordList[Item] | None:
        """Return the records while they are fresh, else None. Never waits."""
        return self._fresh.peek()

    def last(self) -> RecordList[Item]:
        """Return the records that were listed last, fresh or not; none when none are known."""
        last = self._fresh.last()
        return self._none if last is None else last

    @property
    def is_known(self) -> bool:
        """Return whether the listing has ever come, in this mount or in a recalled one."""
        return self._fresh.last() is not None

    def find(self, id: str) -> Item | None:
        """Return the one of the last records that has that *id*. Never waits."""
        return self.last().find(id)

    def invalidate(self) -> None:
        """Make the records stale; they are served while the vendor is silent."""
        self._fresh.invalidate()
        self._stale_until = float("-inf")
        self._absence = None
        self._spilled_until = (float("-inf"), float("-inf"))
        self._may_use_disk = False
        self._invalid_at_s = self._terms.wall_clock()

    def spill(self) -> bool:
        """Let the records leave the memory; return False where they could not be read again."""
        if self._terms.store is None or self._kept is None or self._kept is not self.last():
            return False
        left_s = self._fresh.left_s()
        if left_s is not None:
            now_s, now_wall_s = trio.current_time(), self._terms.wall_clock()
            self._spilled_until = (now_s + left_s, now_wall_s + left_s)
        self.forget()
        return True

    def forget(self) -> None:
        """Forget the records, and that they were ever known; a renewal under way goes on."""
        self._fresh.forget()
        self._kept = None

    def take_in(self, stored: Stored, *, is_on_disk: bool = True) -> None:
        """Hold the listing *stored*, unless one is held already; *is_on_disk*: it is on disk.

        It is stale, with two exceptions. A listing that this mount has spilled is fresh as long as
        before. A listing of several pages that was requested less than `ttl_s` ago is fresh for the
        rest of that time: to renew it would take several requests.
        """
        if self.is_known:
            return
        items = RecordList(self._parser, stored.pages)
        now_s, now_wall_s = trio.current_time(), self._terms.wall_clock()
        left_s = min(self._spilled_until[0] - now_s, self._spilled_until[1] - now_wall_s)
        age_s = now_wall_s - stored.requested_at_s
        if len(stored.pages) > 1 and self._may_use_disk and 0 <= age_s < self._terms.ttl_s:
            left_s = max(left_s, self._terms.ttl_s - age_s)
        self._fresh.recall(items, left_s)
        self._requested_at_s = stored.requested_at_s
        if is_on_disk:
            self._kept, self._kept_at_s = items, stored.requested_at_s
        self._terms.weigh(self, items)

    def state(self) -> ListingState:
        """Return what is known about the listing."""
        return ListingState(*self.key, len(self.last()), self._requested_at_s, self.is_stale)

    async def _renew(self) -> tuple[RecordList[Item], float]:
        locks = self._terms.locks
        if locks is None or not locks.is_shared(trio.current_time()):
            return await self._fetched()
        async with locks.alone(f"listing {self._terms.account} {self.key[0]} {self.key[1]}"):
            return await self._left_by_another() or await self._fetched(is_shared=True)

    async def _left_by_another(self) -> tuple[RecordList[Item], float] | None:
        """Return what another process of this node has listed, while it is fresh."""
        stored = None if self._terms.store is None else await self._terms.store.load(*self.key)
        if stored is None or stored.requested_at_s <= self._invalid_at_s:
            return None
        age_s = self._terms.wall_clock() - stored.requested_at_s
        if not 0 <= age_s < self._terms.ttl_s:
            return None
        items = RecordList(self._parser, stored.pages).sharing(self.last())
        self._requested_at_s = stored.requested_at_s
        self._absence = None
        self._terms.weigh(self, items)
        self._kept, self._kept_at_s = items, stored.requested_at_s
        return items, self._terms.ttl_s - age_s

    async def _fetched(self, *, is_shared: bool = False) -> tuple[RecordList[Item], float]:
        """Return what the vendor lists now; where it is shared, others find it on disk."""
        # The beginning: what was published meanwhile may be missing.
        requested_at_s = self._terms.wall_clock()
        items = (await self._fetch()).sharing(self.last())
        self._terms.note_response()
        self._requested_at_s = requested_at_s
        self._absence = None
        self._terms.weigh(self, items)
        await self._keep(items, is_shared=is_shared)
        return items, self._terms.ttl_s

    async def _keep(self, items: RecordList[Item], *, is_shared: bool) -> None:
        """Keep *items* on disk, unless they are there since not too long ago."""
        store, now_s = self._terms.store, self._terms.wall_clock()
        kept_for_s = 0.0 if is_shared else STORED_AGAIN_AFTER_S
        if store is None or (items is self._kept and 0 <= now_s - self._kept_at_s < kept_for_s):
            return
        await store.save(*self.key, items.pages, self._requested_at_s)
        self._kept, self._kept_at_s = items, now_s

    async def recall(self) -> None:
        """Take in what was kept on disk, if nothing is known; waits for the disk."""
        stored = None if self._terms.store is None else await self._terms.store.load(*self.key)
        if stored is not None:
            self.take_in(stored)

    async def _note_absence(self, absence: NotThere) -> None:
        """Remember for a moment that there is nothing, and forget what there was."""
        self._absence = (absence, trio.current_time() + self._terms.negative_ttl_s)
        if self.is_known:
            self.forget()
            self._terms.weigh(self, self._none)
        self.is_stale = False
        if self._terms.store is not None:
            await self._terms.store.delete(*self.key)

    def _note_renewal(self) -> None:
        if self.is_stale:
            self.is_stale = False
            log.info("listing is fresh again", kind=self.key[0], id=self.key[1])

    def _note_failure(self, failure: SatfsError) -> None:
        """Serve what is known for a moment: a walk must not wait for each directory again."""
        if not self.is_stale:
            log.warning(
                "listing is served stale", kind=self.key[0], id=self.key[1], reason=str(failure)
            )
        self.is_stale = True
        self._stale_until = trio.current_time() + self._terms.negative_ttl_s
