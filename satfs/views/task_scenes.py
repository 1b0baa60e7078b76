"""The facts of the scenes of one task, collected for its view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import trio
from cachetools import LRUCache
from msgspec import Struct
from msgspec.structs import replace

from satfs.errors import NotThere, SatfsError
from satfs.facts.record import facts_of_record
from satfs.facts.scene import SceneFacts
from satfs.model import DELIVERY_ZIP, Task
from satfs.refreshable import Refreshable
from satfs.request_slots import RequestSlots, concurrent_map
from satfs.tree.captures import CaptureDirectory
from satfs.tree.nodes import Directory
from satfs.tree.scenes import SceneDirectory
from satfs.tree.tasks import TaskDirectory
from satfs.views.scene_view import SceneView

#: Captures listed, and scenes looked at, at once.
_CAPTURES_AT_ONCE: Final = 8
_SCENES_AT_ONCE: Final = 16
#: How long scenes are used that could not all be looked at in time, in seconds: as long as a
#: program takes from `stat` to `open`.
_INCOMPLETE_S: Final = 2.0
#: Scenes remembered for all tasks together; what is known and rendered of one takes some 20 KB.
_MAX_SCENES: Final = 2000
#: From this number of scenes on, rendering takes 10 ms, longer than other tasks should wait.
_MANY: Final = 50

T = TypeVar("T")

#: Returns what is known of a scene, its zip included; raises SatfsError when that cannot be read.
FactsOf = Callable[[SceneDirectory], Awaitable[SceneFacts]]


@dataclass(frozen=True, slots=True)
class TaskScenes:
    """A task and its scenes. `n_unknown` of them are known by their records alone."""

    task: Task
    scenes: tuple[SceneView, ...]
    n_unknown: int = 0
    _made: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    async def once(self, name: str, make: Callable[[TaskScenes], T]) -> T:
        """Return what *make* makes of this, under that *name*; made once."""
        if name not in self._made:
            if len(self.scenes) < _MANY:
                self._made[name] = make(self)
            else:
                self._made[name] = await trio.to_thread.run_sync(make, self)
        made: T = self._made[name]
        return made

    def before(self, name: str) -> bytes | None:
        """Return the file that was made under that *name*, None before it was."""
        return self._made.get(name)


class ScenesTerms(Struct, frozen=True):
    """How scenes are collected: the source of facts, and how long facts are believed.

    `contents` is the name of the directory with the members of a zip, None where the mount shows
    none. `deadline_s` is the longest wait for the facts of all scenes together.
    """

    facts_of: FactsOf
    contents: str | None
    ttl_s: float
    deadline_s: float


class ScenesOfTasks:
    """Collects the scenes of tasks, once for all programs that look at a view."""

    def __init__(self, terms: ScenesTerms) -> None:
        self._terms = terms
        self._kept: LRUCache[tuple[str, ...], Refreshable[TaskScenes]] = LRUCache(
            _MAX_SCENES, getsizeof=_n_scenes
        )
        #: The same by records alone.
        self._recorded: LRUCache[tuple[str, ...], Refreshable[TaskScenes]] = LRUCache(
            _MAX_SCENES, getsizeof=_n_scenes
        )

    async def load(self, directory: TaskDirectory, task: Task) -> TaskScenes:
        """Return the scenes of the task in *directory*; the same object while they are the same.

        A scene whose zip cannot be read, or not in time, is known by its record alone.

        Raises:
            SatfsError: the captures or scenes cannot be listed.
        """
        collect = partial(self._collect, directory, task)
        return await _kept_in(self._kept, directory, task, collect)

    async def load_records(self, directory: TaskDirectory, task: Task) -> TaskScenes:
        """Return the scenes of the task by their records alone, for its listings and no more.

        Raises:
            SatfsError: the captures or scenes cannot be listed.
        """
        collect = partial(self._collect_records, directory, task)
        return await _kept_in(self._recorded, directory, task, collect)

    async def load_one(self, directory: TaskDirectory, name: bytes) -> SceneView | None:
        """Return the scene whose directory is called *name*; None where the task has none.

        Of the zips, only that of this scene is read.

        Raises:
            SatfsError: the captures cannot be listed, or the scene's zip cannot be read now.
        """
        for capture in await _capture_directories(directory):
            try:
                scene = await capture.lookup(name)
                if isinstance(scene, SceneDirectory):
                    return await self._view(scene, await self._terms.facts_of(scene))
            except NotThere:
                continue
        return None

    def peek(self, directory: Directory) -> TaskScenes | None:
        """Return the scenes if they are known and still believed. Never waits."""
        kept = self._kept.get(directory.path)
        return None if kept is None else kept.peek()

    async def _collect(self, directory: TaskDirectory, task: Task) -> tuple[TaskScenes, float]:
        directories = await _scene_directories(directory)
        facts: dict[SceneDirectory, SceneFacts] = {}
        slots = RequestSlots(_SCENES_AT_ONCE)

        async def look(scene: SceneDirectory) -> None:
            async with slots.held():
                try:
                    facts[scene] = await self._terms.facts_of(scene)
                except SatfsError:
                    return  # known by its record alone

        with trio.move_on_after(self._terms.deadline_s):
            await concurrent_map(look, directories)
        views = await self._views(directories, facts)
        found = TaskScenes(task, tuple(views), len(directories) - len(facts))
        lifetime_s = _INCOMPLETE_S if found.n_unknown else self._terms.ttl_s
        return _same_as_before(self._kept, directory, found), lifetime_s

    async def _collect_records(
        self, directory: TaskDirectory, task: Task
    ) -> tuple[TaskScenes, float]:
        views = await self._views(await _scene_directories(directory), None)
        found = TaskScenes(task, tuple(views), len(views))
        return _same_as_before(self._recorded, directory, found), self._terms.ttl_s

    async def _views(
        self, scenes: Iterable[SceneDirectory], facts: Mapping[SceneDirectory, SceneFacts] | None
    ) -> list[SceneView]:
        """Return each of *scenes* with its *facts*; None: by its record, a zip as announced."""
        views = []
        for scene in scenes:
            try:
                view = await self._view(scene, None if facts is None else facts.get(scene))
            except NotThere:
                continue  # withdrawn since it was listed
            if facts is None and DELIVERY_ZIP in (each.name for each in scene.attachments):
                view = replace(view, delivery=DELIVERY_ZIP)
            views.append(view)
        return views

    async def _view(self, scene: SceneDirectory, facts: SceneFacts | None) -> SceneView:
        names = {
            str(attachment.name): name.decode()
            for attachment, name in scene.attachment_names().items()
        }
        known = facts or facts_of_record(await scene.record())
        return SceneView(
            known,
            "/".join(("captures", *scene.path[-2:])),
            names.get("preview"),
            names.get("thumbnail"),
            names.get(DELIVERY_ZIP) if known.has_delivery else None,
            self._terms.contents,
        )


async def _kept_in(
    cache: LRUCache[tuple[str, ...], Refreshable[TaskScenes]],
    directory: TaskDirectory,
    task: Task,
    collect: Callable[[], Awaitable[tuple[TaskScenes, float]]],
) -> TaskScenes:
    """Return the scenes of a task from *cache*; what they are now where they are not believed."""
    kept = cache.get(directory.path)
    last = None if kept is None else kept.last()
    if kept is None or (last is not None and last.task.name != task.name):
        kept = Refreshable(collect)
        cache[directory.path] = kept
    found = await kept.get()
    cache.pop(directory.path, None)
    if len(found.scenes) < _MAX_SCENES:
        cache[directory.path] = kept  # weighed by what it holds now
    return found


def _same_as_before(
    cache: LRUCache[tuple[str, ...], Refreshable[TaskScenes]],
    directory: TaskDirectory,
    found: TaskScenes,
) -> TaskScenes:
    """Return the object that *cache* has if it is equal to *found*: what was rendered stays."""
    before = cache.get(directory.path)
    last = None if before is None else before.last()
    return last if last is not None and last == found else found


def _n_scenes(kept: Refreshable[TaskScenes]) -> int:
    last = kept.last()
    return 1 if last is None else 1 + len(last.scenes)


async def _capture_directories(directory: TaskDirectory) -> list[CaptureDirectory]:
    """Return the published captures of a task, for its listing.

    Raises:
        SatfsError: they cannot be listed.
    """
    entries = await directory.children()
    return [entry.target for entry in entries if isinstance(entry.target, CaptureDirectory)]


async def _scene_directories(directory: TaskDirectory) -> list[SceneDirectory]:
    """Return the scenes of all published captures, in the order of the listings.

    Raises:
        SatfsError: a listing is not available. Without it, readers would not notice that scenes
        lack.
    """
    captures = await _capture_directories(directory)
    slots = RequestSlots(_CAPTURES_AT_ONCE)

    async def scenes_of(capture: CaptureDirectory) -> list[SceneDirectory]:
        async with slots.held():
            entries = await capture.children()
        return [each.target for each in entries if isinstance(each.target, SceneDirectory)]

    return [each for found in await concurrent_map(scenes_of, captures) for each in found]
