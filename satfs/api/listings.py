"""The records of each directory, from memory until they expire.

The requests of `api.client.Aleph`, served from memory. A listing is requested once for all callers
that wait for it, fresh for `listing_ttl_s`, and then requested again. When the vendor is out of
reach, or its responses make no sense, the last known listing is served and marked as stale, from
memory or from the disk of an earlier mount: entries stay listed. A renewed listing that turned out
equal is the same object as before.

The records in memory are bounded in bytes, over all listings. Those used least recently leave it,
and are read from disk when they are wanted again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from cachetools import LRUCache

from satfs.api import record_parsers
from satfs.api.cached_listing import (
    UNWELL_PATIENCE_S,
    CachedListing,
    Item,
    Key,
    ListingState,
    Terms,
)
from satfs.api.client import Aleph
from satfs.api.listing_store import ListingStore, Stored
from satfs.api.record_list import RecordList, joined, list_of_one
from satfs.api.record_parsers import RecordParser
from satfs.errors import Garbled, NeedsContract, NeedsLogin, NotAllowed, NotThere, Unreachable
from satfs.model import PUBLISHED, Capture, CaptureId, Scene, SceneId, Task, TaskId
from satfs.node_locks import NodeLocks
from satfs.settings import Settings

#: Limit of listings and look-ups remembered beside the list of tasks; those used least recently are
#: forgotten. Each takes 2 kB beside its records.
MAX_REMEMBERED_LISTINGS: Final = 10_000
#: Limit of listings read back from disk at once.
MAX_RECALLED_LISTINGS: Final = 5000
#: The share of a call's deadline for which a listing that is known waits to be renewed.
_WAIT_SHARE: Final = 0.8

TASKS, CAPTURES, SCENES, TASK, SCENE = "tasks", "captures", "scenes", "task", "scene"


class Listings:
    """Listings and look-ups, remembered. Nothing that is fresh is requested again.

    *store* keeps listings over a restart; without one they live in memory only. With *locks*, the
    processes of a node that use it request a listing of *account* once.

    Every coroutine raises what `Aleph` raises, but `Unreachable` and `Garbled` only when nothing is
    known.
    """

    def __init__(
        self,
        client: Aleph,
        settings: Settings,
        store: ListingStore | None,
        *,
        wall_clock: Callable[[], float] = time.time,
        locks: NodeLocks | None = None,
        account: str = "",
    ) -> None:
        self._client = client
        self._store = store
        self._terms = Terms(
            settings.listing_ttl_s,
            settings.negative_ttl_s,
            store,
            self._weigh,
            wall_clock,
            # One call may need several listings, after the one that found the vendor unwell.
            min(UNWELL_PATIENCE_S, settings.metadata_deadline_s / 8),
            # A known listing is served before the deadline of the kernel's call.
            _WAIT_SHARE * settings.metadata_deadline_s,
            locks=locks,
            account=account,
        )
        self._tasks: CachedListing[Task] = CachedListing(
            (TASKS, ""), client.tasks, record_parsers.task, self._terms
        )
        self._max_bytes = settings.listing_memory_bytes
        #: The bytes that each listing holds in memory, those used least recently first.
        self._held: OrderedDict[Key, int] = OrderedDict()
        self._others: LRUCache[Key, CachedListing[Any]] = LRUCache(MAX_REMEMBERED_LISTINGS)

    # -- the requests ------------------------------------------------------------------------------

    async def tasks(self) -> RecordList[Task]:
        """Return all tasks."""
        return await self._tasks.get()

    async def task(self, task_id: TaskId) -> Task:
        """Return one task; raises NotThere when no task has that id.

        Taken from the list of tasks while that is fresh; otherwise looked up by itself,
        so that one path does not cost a whole listing.
        """
        if self._tasks.peek() is None:
            try:
                with self._patience(self._tasks.find(task_id)):
                    return (await self._looked_up_task(task_id).get())[0]
            except (NeedsLogin, NeedsContract):
                if self._tasks.find(task_id) is None:
                    raise
            except (NotAllowed, Garbled):
                # A gateway may refuse a path that is no task's. The list knows.
                await self._tasks.get()
            except Unreachable:
                if self._tasks.find(task_id) is None:
                    raise
        task = self._tasks.find(task_id)
        if task is None:
            raise NotThere(f"there is no task {task_id!r}")
        return task

    async def captures(self, task_id: TaskId) -> RecordList[Capture]:
        """Return all captures of a task; raises NotThere when there is no such task."""
        return await self._captures(task_id).get()

    async def capture(self, capture_id: CaptureId) -> Capture:
        """Return one capture; raises NotThere when no capture has that id.

        The API has no request for a single capture. One that was seen in a listing is known;
        of any other only its scenes can be requested, and with some, it must be published.
        """
        for listing in self._of_kind(CAPTURES):
            found: Capture | None = listing.find(capture_id)
            # A published capture stays published; another status counts while its listing is fresh.
            if found is not None and (found.is_published or listing.peek() is not None):
                return found
        if not await self.scenes(capture_id):
            raise NotThere(f"nothing is known of a capture {capture_id!r}")
        return Capture(capture_id, PUBLISHED, {"capture_id": capture_id, "status": PUBLISHED})

    async def scenes(self, capture_id: CaptureId) -> RecordList[Scene]:
        """Return the scenes of a capture; none when there is no such capture."""
        return await self._scenes(capture_id).get()

    async def scene(self, scene_id: SceneId) -> Scene:
        """Return one scene; raises NotThere when no scene has that id."""
        stale: Scene | None = None
        for listing in self._of_kind(SCENES):
            found: Scene | None = listing.find(scene_id)
            if found is not None and listing.peek() is not None:
                return found
            stale = found or stale
        try:
            with self._patience(stale):
                return (await self._looked_up_scene(scene_id).get())[0]
        except (Unreachable, Garbled, NotAllowed):
            if stale is None:
                raise
        if stale is None:  # `_patience` has an end for what is known alone
            raise Unreachable(f"nothing is known of scene {scene_id!r}")
        return stale

    async def note_refusal(self) -> None:
        """Take in that the vendor refuses the credential, and that it is tried again.

        From now on, a renewal of a known listing is waited for no longer than a moment.
        """
        await self._terms.note_refusal()

    def _patience(self, known: object | None) -> AbstractContextManager[None]:
        """Return the limit of the wait for a renewal of what is *known* already, if it is."""
        return self._terms.patience(is_known=known is not None)

    def known_captures(self) -> RecordList[Capture]:
        """Return the captures seen in listings, each id once. Never waits."""
        return joined(record_parsers.capture, (each.last() for each in self._of_kind(CAPTURES)))

    def last_scenes(self, capture_id: CaptureId) -> RecordList[Scene] | None:
        """Return the scenes of a capture as they came last; None: never. Never waits."""
        listing = self._others.get((SCENES, capture_id))
        return listing.last() if listing is not None and listing.is_known else None

    def known_scenes(self) -> RecordList[Scene]:
        """Return the scenes seen in listings or looked up, each id once. Never waits."""
        return joined(record_parsers.scene, (each.last() for each in self._of_kind(SCENES, SCENE)))

    # -- forgetting, recalling, reporting ----------------------------------------------------------

    def forget(self) -> None:
        """Make everything stale: the next call sends a request to the vendor."""
        for listing in self._all():
            listing.invalidate()

    def forget_tasks(self) -> None:
        """Request the list of tasks next time."""
        self._tasks.invalidate()

    def forget_captures(self, task_id: TaskId) -> None:
        """Request the captures of a task next time."""
        self._captures(task_id).invalidate()

    def forget_scenes(self, capture_id: CaptureId) -> None:
        """Request the scenes of a capture next time, and each by itself."""
        listing = self._scenes(capture_id)
        for scene_id in listing.last().ids():
            if (SCENE, scene_id) in self._others:
                self._looked_up_scene(SceneId(scene_id)).invalidate()
        listing.invalidate()

    def forget_task(self, task_id: TaskId) -> None:
        """Look a task up by itself next time, unless the list of tasks has it."""
        if (TASK, task_id) in self._others:
            self._looked_up_task(task_id).invalidate()

    def forget_scene(self, scene_id: SceneId) -> None:
        """Request a scene next time, by itself and in the listing that has it."""
        for listing in self._of_kind(SCENES, SCENE):
            if listing.find(scene_id) is not None:
                listing.invalidate()

    def state(self, kind: str, id: str) -> ListingState | None:
        """Return what is known about one listing; None when it has never come."""
        return next((each for each in self.states() if (each.kind, each.id) == (kind, id)), None)

    def take_tasks(self, tasks: RecordList[Task]) -> None:
        """Hold the list of *tasks* that the mount was begun with, as stale.

        A mount that loses its network right after its start shows what it has seen.
        """
        requested_at_s = self._terms.wall_clock()
        self._tasks.take_in(Stored(TASKS, "", requested_at_s, tasks.pages), is_on_disk=False)

    async def recall(self) -> int:
        """Take in what earlier mounts kept on disk, as stale; return the number of listings.

        For a mount that starts, so that `known_captures` and `known_scenes` know, and for one that
        starts without network. Waits for the disk only.
        """
        if self._store is None:
            return 0
        stored = await self._store.load_all(MAX_RECALLED_LISTINGS, self._max_bytes // 2)
        # The newest last: they are the last to be forgotten.
        for one in reversed(stored):
            listing = self._by_key(one.kind, one.id)
            if listing is not None:
                listing.take_in(one)
        return len(stored)

    def states(self) -> tuple[ListingState, ...]:
        """Return what is known about every listing. Never waits."""
        return tuple(listing.state() for listing in self._all() if listing.is_known)

    # -- which listings there are ------------------------------------------------------------------

    def _all(self) -> list[CachedListing[Any]]:
        return [self._tasks, *self._others.values()]

    def _of_kind(self, *kinds: str) -> list[CachedListing[Any]]:
        return [listing for key, listing in self._others.items() if key[0] in kinds]

    def _captures(self, task_id: TaskId) -> CachedListing[Capture]:
        return self._listing(
            (CAPTURES, task_id), lambda: self._client.captures(task_id), record_parsers.capture
        )

    def _scenes(self, capture_id: CaptureId) -> CachedListing[Scene]:
        return self._listing(
            (SCENES, capture_id), lambda: self._client.scenes(capture_id), record_parsers.scene
        )

    def _looked_up_task(self, task_id: TaskId) -> CachedListing[Task]:
        async def fetch() -> RecordList[Task]:
            task = await self._client.task(task_id)
            return list_of_one(record_parsers.task, task_id, task.record)

        return self._listing((TASK, task_id), fetch, record_parsers.task)

    def _looked_up_scene(self, scene_id: SceneId) -> CachedListing[Scene]:
        async def fetch() -> RecordList[Scene]:
            scene = await self._client.scene(scene_id)
            return list_of_one(record_parsers.scene, scene_id, scene.record)

        return self._listing((SCENE, scene_id), fetch, record_parsers.scene)

    def _listing(
        self, key: Key, fetch: Callable[[], Awaitable[RecordList[Item]]], parser: RecordParser[Item]
    ) -> CachedListing[Item]:
        listing: CachedListing[Item] | None = self._others.get(key)
        if listing is None:
            listing = self._others[key] = CachedListing(key, fetch, parser, self._terms)
        elif key in self._held:
            self._held.move_to_end(key)
        return listing

    def _by_key(self, kind: str, id: str) -> CachedListing[Any] | None:
        listings: Mapping[str, Callable[[Any], CachedListing[Any]]] = {
            TASKS: lambda _: self._tasks,
            CAPTURES: self._captures,
            SCENES: self._scenes,
            TASK: self._looked_up_task,
            SCENE: self._looked_up_scene,
        }
        return listings[kind](id) if kind in listings else None

    def _weigh(self, listing: CachedListing[Any], records: RecordList[Any]) -> None:
        """Note what *listing* holds now; those used least recently leave the memory.

        The list of tasks never does: everything hangs on it.
        """
        if listing is self._tasks:
            return
        self._held[listing.key] = records.size_bytes
        self._held.move_to_end(listing.key)
        for key in [key for key in self._held if key not in self._others]:
            del self._held[key]
        n_bytes = sum(self._held.values())
        while n_bytes > self._max_bytes and len(self._held) > 1:
            key, n_spilled = self._held.popitem(last=False)
            n_bytes -= n_spilled
            if not self._others[key].spill():
                del self._others[key]
