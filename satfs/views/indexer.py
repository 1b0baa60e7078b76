"""The index of scenes by date, product and age, kept by looking at one task after the other.

It holds for each task what its listings had, so that a task that was looked at again replaces its
own part. Links to scenes are made of it.

Nothing is requested before a program looks at a directory that needs the index. Then the listings
of all tasks are requested, one for each task and one for each published capture, two at a time with
pauses between, so that what programs wait for goes first. The index is kept on disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import structlog
import trio
from msgspec import Struct

from satfs.atomic_file import write_atomically
from satfs.errors import NotThere, SatfsError
from satfs.facts.record import facts_of_record
from satfs.model import Scene, Task
from satfs.request_slots import concurrent_map
from satfs.tree.captures import scene_name
from satfs.tree.tasks import capture_name, task_name

if TYPE_CHECKING:
    from satfs.api.listings import Listings

log = structlog.get_logger(__name__)

#: The name of the file that keeps the index, in the account's directory of the cache.
INDEX_FILE: Final = "scenes.json"
#: Tasks looked at at once: each has one listing in flight.
_TASKS_AT_ONCE: Final = 2
#: The pause after a task, in seconds: 20 tasks a second at most, however near the vendor is.
_PAUSE_S: Final = 0.1
#: Longest wait of a program for an index that was never complete, in seconds: small accounts are
#: complete by then, and a program that lists a directory is not kept waiting for large ones.
_FIRST_WAIT_S: Final = 3.0
#: An index counts as complete for this many seconds, and at least for this multiple of the time
#: that it took to make.
_REFRESH_S: Final = 600.0
_REFRESH_SHARE: Final = 20
#: The pause after a failure, in seconds.
_RETRY_S: Final = 60.0
#: The index is written while it is made, too, in seconds between: a mount may end any time.
_SAVE_S: Final = 60.0
#: From this number of scenes on, sorting takes 20 ms, longer than other tasks should wait.
_MANY: Final = 2000
#: Of what is kept: another form is not read.
FORM: Final = 1
#: How many scenes `latest/` has.
N_LATEST: Final = 50
#: The directory of scenes whose product is not known.
OTHER: Final = "other"


class IndexedScene(msgspec.Struct, frozen=True, array_like=True):
    """A scene: the names of its directory and of those above it, its product, and its time.

    `moment_s` is in seconds since the epoch, None where no time is known.
    """

    task: str
    capture: str
    scene: str
    product: str
    moment_s: float | None

    @property
    def moment(self) -> datetime | None:
        """When the scene was taken, in UTC."""
        return None if self.moment_s is None else datetime.fromtimestamp(self.moment_s, UTC)


class SavedIndex(msgspec.Struct, frozen=True):
    """An index as it is kept. `completed_at_s` is when all tasks had been looked at, if ever."""

    form: int
    completed_at_s: float | None
    tasks: dict[str, list[IndexedScene]]


#: A directory of links: further ones by name, or scenes.
Links: TypeAlias = "Mapping[str, Links | IndexedScene]"


class IndexState(Struct, frozen=True):
    """How complete an index is.

    `n_tasks` is None until the tasks were listed. `completed_at_s` is when all of them had been
    looked at, in this mount or an earlier one. `reason` is why that stopped, if it did.
    """

    n_tasks: int | None
    n_indexed: int
    n_scenes: int
    completed_at_s: float | None
    is_running: bool
    reason: str | None = None


def indexed(task: str, capture: str, name: str, scene: Scene) -> IndexedScene:
    """Return what the index holds of *scene*, whose directory is *name* in *capture* of *task*."""
    facts = facts_of_record(scene)
    moment_s = None if facts.moment is None else facts.moment.timestamp()
    return IndexedScene(task, capture, name, facts.product or OTHER, moment_s)


def saved(tasks: Mapping[str, list[IndexedScene]], completed_at_s: float | None) -> bytes:
    """Return an index in the form in which it is kept."""
    return msgspec.json.encode(SavedIndex(FORM, completed_at_s, dict(tasks)))


def read_saved(data: bytes) -> SavedIndex | None:
    """Return the index that was kept as *data*; None for another form, and for other bytes."""
    try:
        found = msgspec.json.decode(data, type=SavedIndex)
    except (ValueError, RecursionError):
        return None
    return found if found.form == FORM else None


def links_of(scenes: Iterable[IndexedScene]) -> dict[str, Links]:
    """Return the directories `by-date`, `by-product` and `latest`.

    A scene without a known time is in `by-product` alone. Of scenes with one name in one directory
    (an id that two captures list) the newest is shown.
    """
    by_date: dict[str, dict[str, dict[str, dict[str, IndexedScene]]]] = {}
    by_product: dict[str, dict[str, IndexedScene]] = {}
    timed: list[tuple[float, IndexedScene]] = []
    for scene in sorted(scenes, key=lambda each: (each.moment_s or 0.0, each.task, each.capture)):
        by_product.setdefault(scene.product, {})[scene.scene] = scene
        if scene.moment_s is not None and (day := scene.moment) is not None:
            timed.append((scene.moment_s, scene))
            month = by_date.setdefault(f"{day:%Y}", {}).setdefault(f"{day:%m}", {})
            month.setdefault(f"{day:%d}", {})[scene.scene] = scene
    newest = nlargest(N_LATEST, timed, key=lambda each: (each[0], each[1].scene))
    latest = {str(n): scene for n, (_, scene) in enumerate(newest, 1)}
    return {"by-date": by_date, "by-product": by_product, "latest": latest}


class SceneIndexer:
    """Makes and keeps the index; *path* is where, None: in memory only."""

    def __init__(
        self, catalogue: Listings, path: Path | None, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._catalogue = catalogue
        self._wall_clock = wall_clock
        self._path = path
        self._tasks: dict[str, list[IndexedScene]] = {}
        self._n_tasks: int | None = None
        self._completed_at_s: float | None = None
        self._took_s = 0.0
        self._reason: str | None = None
        self._is_running = False
        self._is_started = False
        self._wanted = trio.Event()
        #: Set when the first look at all tasks has ended, well or not, since the mount began.
        self._looked = trio.Event()
        self._links: Mapping[str, Links] | None = None
        self._version = 0

    def state(self) -> IndexState:
        """Return how complete the index is. Never waits."""
        n_scenes = sum(len(scenes) for scenes in self._tasks.values())
        return IndexState(
            self._n_tasks,
            len(self._tasks),
            n_scenes,
            self._completed_at_s,
            self._is_running,
            self._reason,
        )

    async def links(self) -> Mapping[str, Links]:
        """Return the directories of links for the scenes that are known, and request the others.

        Waits for an index that was never complete, for some seconds at most.
        """
        self._wanted.set()
        if self._is_started and self._completed_at_s is None:
            with trio.move_on_after(_FIRST_WAIT_S):
                await self._looked.wait()
        while self._links is None:
            version = self._version
            scenes = [scene for found in self._tasks.values() for scene in found]
            if len(scenes) < _MANY:
                self._links = links_of(scenes)
            else:
                links = await trio.to_thread.run_sync(links_of, scenes)
                self._links = links if version == self._version else None
        return self._links

    async def run(self) -> None:
        """Keep the index whenever a program wants it, until cancelled."""
        self._is_started = True
        while True:
            await self._wanted.wait()
            if self._n_tasks is None:
                await self._load()
            if self._is_fresh():
                self._looked.set()
                self._wanted = trio.Event()
                continue
            try:
                await self._look_at_all()
            except SatfsError as error:
                self._reason = str(error)
                log.info("the index of scenes is made later", reason=str(error))
                self._looked.set()
                await trio.sleep(_RETRY_S)

    def _is_fresh(self) -> bool:
        """Return whether the index is complete, and young enough.

        One that is from the future is not: the machine's clock was set back since.
        """
        if self._completed_at_s is None:
            return False
        age_s = self._wall_clock() - self._completed_at_s
        return 0 <= age_s < max(_REFRESH_S, _REFRESH_SHARE * self._took_s)

    async def _look_at_all(self) -> None:
        began_s = trio.current_time()
        self._is_running = True
        try:
            tasks = await self._catalogue.tasks()
            self._n_tasks = len(tasks)
            names = {task_name(task).decode() for task in tasks}
            for gone in set(self._tasks) - names:
                del self._tasks[gone]
                self._change()
            await self._look_at_each(tasks)
            self._completed_at_s = self._wall_clock()
            self._took_s = trio.current_time() - began_s
            self._reason = None
            await self._save()
        finally:
            self._is_running = False
            self._looked.set()

    async def _look_at_each(self, tasks: Iterable[Task]) -> None:
        """Look at all *tasks*, the newest first; the first failure ends it."""
        saved_at_s = trio.current_time()

        async def look(task: Task) -> None:
            nonlocal saved_at_s
            name = task_name(task).decode()
            try:
                self._put(name, await self._scenes_of(task))
            except NotThere:
                self._put(name, [])  # withdrawn since it was listed
            if trio.current_time() > saved_at_s + _SAVE_S:
                saved_at_s = trio.current_time()
                await self._save()
            await trio.sleep(_PAUSE_S)

        await concurrent_map(look, sorted(tasks, key=_created_s, reverse=True), _TASKS_AT_ONCE)

    async def _scenes_of(self, task: Task) -> list[IndexedScene]:
        found: list[IndexedScene] = []
        for capture in await self._catalogue.captures(task.task_id):
            if capture.is_published:
                names = (task_name(task).decode(), capture_name(capture).decode())
                scenes = await self._catalogue.scenes(capture.capture_id)
                found.extend(indexed(*names, scene_name(each).decode(), each) for each in scenes)
        return found

    def _put(self, task: str, scenes: list[IndexedScene]) -> None:
        if self._tasks.get(task) != scenes:
            self._tasks[task] = scenes
            self._change()

    async def _load(self) -> None:
        """Take in what an earlier mount has kept."""
        if self._path is None:
            return
        try:
            data = await trio.to_thread.run_sync(self._path.read_bytes)
        except OSError:
            return
        kept = read_saved(data)
        if kept is not None and not self._tasks:
            self._tasks = dict(kept.tasks)
            self._completed_at_s = kept.completed_at_s
            self._change()

    def _change(self) -> None:
        self._version += 1
        self._links = None

    async def _save(self) -> None:
        if self._path is None:
            return
        text = saved(self._tasks, self._completed_at_s).decode()
        try:
            await trio.to_thread.run_sync(write_atomically, self._path, text)
        except OSError as error:
            log.warning("the index of scenes was not kept", reason=error.strerror)


def _created_s(task: Task) -> float:
    return -math.inf if task.created_at is None else task.created_at.timestamp()
