"""What each directory holds, for as long as it may be believed.

The questions of `api.client.Aleph`, answered from memory. A listing is asked for once, however many
wait for it, believed for `listing_ttl_s`, and then asked for again. When the vendor is out of reach
the last one known is served and marked as stale, be it from memory or from the disk of an earlier
mount: what was listed stays listed. An answer that is served again is the same object as before,
and so is a renewed listing that turned out equal, so that callers may keep what they made of it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog
import trio
from cachetools import LRUCache, TTLCache

from satfs.api import wire
from satfs.api.listing_store import ListingStore, Stored
from satfs.errors import Garbled, NeedsContract, NeedsLogin, NotAllowed, NotThere, Unreachable
from satfs.fresh import Fresh
from satfs.model import PUBLISHED, Capture, CaptureId, Json, Scene, SceneId, Task, TaskId
from satfs.settings import Settings

log = structlog.get_logger(__name__)

#: Most records remembered beside the list of tasks; those used least recently are forgotten (their
#: listings are asked for again). A record with its footprint takes about 6 kB in memory.
MAX_REMEMBERED_RECORDS = 20_000
#: Most names remembered as absent.
MAX_ABSENT = 4096
#: Most listings read back from disk when the vendor is out of reach.
MAX_RECALLED_LISTINGS = 5000

TASKS, CAPTURES, SCENES, TASK, SCENE = "tasks", "captures", "scenes", "task", "scene"

Item = TypeVar("Item", Task, Capture, Scene)
Key = tuple[str, str]


class Questions(Protocol):
    """What is asked of the vendor (`api.client.Aleph`)."""

    async def tasks(self) -> tuple[Task, ...]:
        """Return all tasks."""
        ...

    async def task(self, task_id: TaskId) -> Task:
        """Return one task."""
        ...

    async def captures(self, task_id: TaskId) -> tuple[Capture, ...]:
        """Return all captures of a task."""
        ...

    async def scenes(self, capture_id: CaptureId) -> tuple[Scene, ...]:
        """Return all scenes of a capture."""
        ...

    async def scene(self, scene_id: SceneId) -> Scene:
        """Return one scene."""
        ...


@dataclass(frozen=True, slots=True)
class ListingState:
    """What is known about one listing, for a status display. *asked_at_s* is wall clock."""

    kind: str
    id: str
    n_records: int
    asked_at_s: float
    is_stale: bool


class _Listing(Generic[Item]):
    """One listing: its records, how to ask for them again, and how much to believe them."""

    def __init__(
        self,
        key: Key,
        ask: Callable[[], Awaitable[tuple[Item, ...]]],
        id_of: Callable[[Item], str],
        owner: Listings,
    ) -> None:
        self.key = key
        self.fresh: Fresh[tuple[Item, ...]] = Fresh(self._renew)
        self.asked_at_s = 0.0
        self.is_stale = False
        self.stale_until = float("-inf")
        #: What the listing costs of the memory for all: its records, and itself.
        self.weight = 1
        self._ask: Callable[[], Awaitable[tuple[Item, ...]]] = ask
        self._id_of: Callable[[Item], str] = id_of
        self._owner = owner
        self._index: tuple[tuple[Item, ...], dict[str, Item]] = ((), {})

    def last(self) -> tuple[Item, ...]:
        """Return the records that were listed last, believed or not; none before the first."""
        return self.fresh.last() or ()

    def find(self, id: str, items: tuple[Item, ...]) -> Item | None:
        """Return the one of *items* (a value of this listing) with that id."""
        if self._index[0] is not items:
            self._index = (items, {self._id_of(item): item for item in items})
        return self._index[1].get(id)

    async def _renew(self) -> tuple[tuple[Item, ...], float]:
        items = await self._ask()
        known = self.fresh.last()
        if known is not None and known == items:
            items = known
        return items, await self._owner.renewed(self, items)


class Listings:
    """Listings and look-ups, remembered. Never asks twice for what it may believe.

    *store* keeps listings over a restart; without one they live in memory only.

    Every coroutine raises what `Aleph` raises, but `Unreachable` only when nothing is known.
    """

    def __init__(
        self,
        client: Questions,
        settings: Settings,
        store: ListingStore | None = None,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._settings = settings
        self._store = store
        self._wall_clock = wall_clock
        self._tasks: _Listing[Task] = _Listing(
            (TASKS, ""), client.tasks, lambda task: task.task_id, self
        )
        self._others: LRUCache[Key, _Listing[Any]] = LRUCache(
            MAX_REMEMBERED_RECORDS,
            getsizeof=lambda listing: min(listing.weight, MAX_REMEMBERED_RECORDS),
        )
        self._absent: TTLCache[Key, str] = TTLCache(
            MAX_ABSENT, settings.negative_ttl_s, timer=trio.current_time
        )

    # -- the questions -----------------------------------------------------------------------------

    async def tasks(self) -> tuple[Task, ...]:
        """Return all tasks."""
        return await self._answer(self._tasks)

    async def task(self, task_id: TaskId) -> Task:
        """Return one task; raises NotThere when there is none.

        Answered from the list of tasks while that may be believed; otherwise looked up by itself,
        so that one path does not cost a whole listing.
        """
        listed = self._tasks.fresh.peek()
        if listed is None:
            try:
                return await self._look_up(self._look_up_task(task_id))
            except (NeedsLogin, NeedsContract):
                raise
            except (NotAllowed, Garbled):
                # A gateway may refuse a path that is no task's. The list knows.
                listed = await self.tasks()
            except Unreachable:
                listed = self._tasks.last()
                if self._tasks.find(task_id, listed) is None:
                    raise
        task = self._tasks.find(task_id, listed)
        if task is None:
            raise NotThere(f"there is no task {task_id!r}")
        return task

    async def captures(self, task_id: TaskId) -> tuple[Capture, ...]:
        """Return all captures of a task; raises NotThere when there is no such task."""
        return await self._answer(self._captures(task_id))

    async def capture(self, capture_id: CaptureId) -> Capture:
        """Return one capture; raises NotThere when there is none.

        The vendor has no question for a single capture. One that was seen in a listing is known;
        of any other only its scenes can be asked for, and having some, it must be published.
        """
        for listing in self._of_kind(CAPTURES):
            found: Capture | None = listing.find(capture_id, listing.last())
            if found is not None:
                return found
        if not await self.scenes(capture_id):
            raise NotThere(f"nothing is known of a capture {capture_id!r}")
        record = {"capture_id": capture_id, "status": PUBLISHED}
        return Capture(capture_id, PUBLISHED, record)

    async def scenes(self, capture_id: CaptureId) -> tuple[Scene, ...]:
        """Return the scenes of a capture; none when there is no such capture."""
        return await self._answer(self._scenes(capture_id))

    async def scene(self, scene_id: SceneId) -> Scene:
        """Return one scene; raises NotThere when there is none."""
        for listing in self._of_kind(SCENES):
            listed = listing.fresh.peek()
            if listed is not None and (found := listing.find(scene_id, listed)) is not None:
                scene: Scene = found
                return scene
        try:
            return await self._look_up(self._look_up_scene(scene_id))
        except Unreachable:
            for known in self.known_scenes():
                if known.scene_id == scene_id:
                    return known
            raise

    def known_captures(self) -> tuple[Capture, ...]:
        """Return the captures seen in listings, each id once. Never waits."""
        return self._known(CAPTURES, lambda capture: capture.capture_id)

    def known_scenes(self) -> tuple[Scene, ...]:
        """Return the scenes seen in listings or looked up, each id once. Never waits."""
        return self._known((SCENES, SCENE), lambda scene: scene.scene_id)

    # -- forgetting, recalling, telling ------------------------------------------------------------

    def forget(self) -> None:
        """Believe nothing any more: whatever is asked next is asked of the vendor."""
        self._tasks.fresh.invalidate()
        self._tasks.stale_until = float("-inf")
        self._absent.clear()
        for listing in self._others.values():
            listing.fresh.invalidate()
            listing.stale_until = float("-inf")

    def forget_tasks(self) -> None:
        """Ask for the list of tasks next time."""
        self._forget(self._tasks)

    def forget_captures(self, task_id: TaskId) -> None:
        """Ask for the captures of a task next time."""
        self._forget(self._captures(task_id))

    def forget_scenes(self, capture_id: CaptureId) -> None:
        """Ask for the scenes of a capture next time."""
        self._forget(self._scenes(capture_id))

    async def recall(self) -> int:
        """Take in what earlier mounts kept on disk, as stale; return the number of listings.

        For a mount that starts, so that `known_captures` and `known_scenes` know, and for one that
        starts without network. Waits for the disk only.
        """
        if self._store is None:
            return 0
        stored = await self._store.load_all(MAX_RECALLED_LISTINGS)
        # The newest last: they are the last to be forgotten.
        for one in reversed(stored):
            listing = self._by_key(one.kind, one.id)
            if listing is not None:
                self._take_in(listing, one)
        return len(stored)

    def states(self) -> tuple[ListingState, ...]:
        """Return what is known about every listing. Never waits."""
        listings = [self._tasks, *self._others.values()]
        return tuple(
            ListingState(*one.key, len(one.last()), one.asked_at_s, one.is_stale)
            for one in listings
            if one.fresh.last() is not None
        )

    @property
    def is_stale(self) -> bool:
        """Tell whether any listing was last served without being believed."""
        return any(state.is_stale for state in self.states())

    # -- how it is done ----------------------------------------------------------------------------

    async def _look_up(self, listing: _Listing[Item]) -> Item:
        """Return the only record of a look-up."""
        return (await self._answer(listing))[0]

    async def _answer(self, listing: _Listing[Item]) -> tuple[Item, ...]:
        """Return the records of *listing*: believed, renewed, or the last ones known."""
        if listing.is_stale and trio.current_time() < listing.stale_until:
            await trio.lowlevel.checkpoint()
            return listing.last()
        gone = self._absent.get(listing.key)
        if gone is not None:
            await trio.lowlevel.checkpoint()
            raise NotThere(gone)
        try:
            items = await listing.fresh.get()
        except NotThere as absence:
            self._absent[listing.key] = str(absence)
            await self._drop(listing)
            raise
        except Unreachable:
            if listing.fresh.last() is None:
                await self._recall_one(listing)
            known = listing.fresh.last()
            if known is None:
                raise
            self._mark_stale(listing)
            return known
        if listing.is_stale:
            listing.is_stale = False
            log.info("listing is fresh again", kind=listing.key[0], id=listing.key[1])
        return items

    async def renewed(self, listing: _Listing[Any], items: tuple[Any, ...]) -> float:
        """Note that *listing* was answered with *items*; return how long they may be believed."""
        listing.asked_at_s = self._wall_clock()
        if self._store is not None:
            await self._store.save(*listing.key, [item.record for item in items])
        self._weigh(listing, len(items))
        return self._settings.listing_ttl_s

    def _weigh(self, listing: _Listing[Any], n_records: int) -> None:
        """Put *listing* on the scales with what it holds now; the least used give way."""
        if listing is self._tasks:
            return
        self._others.pop(listing.key, None)
        listing.weight = n_records + 1
        self._others[listing.key] = listing

    async def _drop(self, listing: _Listing[Any]) -> None:
        self._others.pop(listing.key, None)
        if self._store is not None:
            await self._store.delete(*listing.key)

    def _mark_stale(self, listing: _Listing[Any]) -> None:
        if not listing.is_stale:
            log.warning("listing is served stale", kind=listing.key[0], id=listing.key[1])
        listing.is_stale = True
        # Whoever walks a tree without network must not wait for each directory anew.
        listing.stale_until = trio.current_time() + self._settings.negative_ttl_s

    def _forget(self, listing: _Listing[Any]) -> None:
        listing.fresh.invalidate()
        listing.stale_until = float("-inf")
        self._absent.pop(listing.key, None)

    async def _recall_one(self, listing: _Listing[Any]) -> None:
        stored = None if self._store is None else await self._store.load(*listing.key)
        if stored is not None:
            self._take_in(listing, stored)

    def _take_in(self, listing: _Listing[Any], stored: Stored) -> None:
        reader: Callable[[Json], Any] = _READERS[listing.key[0]]
        items, _ = wire.records(stored.records, reader)
        if items or listing.key[0] in (TASKS, CAPTURES, SCENES):
            listing.fresh.recall(items)
            listing.asked_at_s = stored.asked_at_s
            self._weigh(listing, len(items))

    # -- which listings there are ------------------------------------------------------------------

    def _captures(self, task_id: TaskId) -> _Listing[Capture]:
        return self._listing(
            (CAPTURES, task_id),
            lambda: self._client.captures(task_id),
            lambda capture: capture.capture_id,
        )

    def _scenes(self, capture_id: CaptureId) -> _Listing[Scene]:
        return self._listing(
            (SCENES, capture_id),
            lambda: self._client.scenes(capture_id),
            lambda scene: scene.scene_id,
        )

    def _look_up_task(self, task_id: TaskId) -> _Listing[Task]:
        async def ask() -> tuple[Task, ...]:
            return (await self._client.task(task_id),)

        return self._listing((TASK, task_id), ask, lambda task: task.task_id)

    def _look_up_scene(self, scene_id: SceneId) -> _Listing[Scene]:
        async def ask() -> tuple[Scene, ...]:
            return (await self._client.scene(scene_id),)

        return self._listing((SCENE, scene_id), ask, lambda scene: scene.scene_id)

    def _listing(
        self,
        key: Key,
        ask: Callable[[], Awaitable[tuple[Item, ...]]],
        id_of: Callable[[Item], str],
    ) -> _Listing[Item]:
        listing: _Listing[Item] | None = self._others.get(key)
        if listing is None:
            listing = self._others[key] = _Listing(key, ask, id_of, self)
        return listing

    def _by_key(self, kind: str, id: str) -> _Listing[Any] | None:
        match kind:
            case "tasks":
                return self._tasks
            case "captures":
                return self._captures(TaskId(id))
            case "scenes":
                return self._scenes(CaptureId(id))
            case "task":
                return self._look_up_task(TaskId(id))
            case "scene":
                return self._look_up_scene(SceneId(id))
            case _:
                return None

    def _of_kind(self, *kinds: str) -> list[_Listing[Any]]:
        return [listing for key, listing in self._others.items() if key[0] in kinds]

    def _known(
        self, kinds: str | tuple[str, ...], id_of: Callable[[Item], str]
    ) -> tuple[Item, ...]:
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        found: dict[str, Item] = {}
        for listing in self._of_kind(*kinds):
            for item in listing.last():
                found.setdefault(id_of(item), item)
        return tuple(found.values())


_READERS: Mapping[str, Callable[[Json], Any]] = {
    TASKS: wire.task,
    TASK: wire.task,
    CAPTURES: wire.capture,
    SCENES: wire.scene,
    SCENE: wire.scene,
}
