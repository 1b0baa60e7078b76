"""`tasks/` and a task's directory: its record, all its captures, and those that are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from satfs.errors import Garbled, NotThere
from satfs.json_bytes import json_bytes
from satfs.model import Capture, CaptureId, Task, TaskId
from satfs.stac.catalogs import task_collection, tasks_catalog
from satfs.tree import names, sidecars
from satfs.tree.captures import CaptureDirectory, CaptureHolder
from satfs.tree.nodes import Directory, Entry, Node, not_there, xattr_values
from satfs.tree.record_entries import entries_of, find
from satfs.tree.rendered import ListedFile, Rendering, listed, rendered_from
from satfs.tree.scenes import SourcedDirectory, TreeSources
from satfs.tree.times import time_ns

if TYPE_CHECKING:
    from satfs.api.record_list import RecordList

TASK_JSON: Final = "task.json"
CAPTURES_JSON: Final = "captures.json"
COLLECTION: Final = "collection.json"
CATALOG: Final = "catalog.json"
#: Names of a task's own files, and of files beside the tasks, which nothing else is shown under.
RESERVED_IN_TASK: Final = frozenset({TASK_JSON, CAPTURES_JSON, COLLECTION})
RESERVED_BESIDE_TASKS: Final = frozenset({CATALOG})


class Tasks(SourcedDirectory):
    """`tasks/`: every task of the contract, by its id."""

    __slots__ = ("_entries", "_listed")

    def __init__(self, parent: Directory, name: bytes, sources: TreeSources) -> None:
        super().__init__(parent, name, sources)
        #: The entries, and the listing that they were made of. Remembered however many there are:
        #: so is the listing.
        self._entries: Sequence[Entry] = ()
        self._listed: RecordList[Task] | None = None

    async def lookup(self, name: bytes) -> Node:
        """Return the task with that id, with a request for this one task at most."""
        if name == CATALOG.encode() and self.sources.has_catalogs:
            return await self._catalog().node(self, name)
        text = names.text_of(name, RESERVED_BESIDE_TASKS)
        if text is None:
            if not names.is_cut(name):
                raise not_there(self, name)
            tasks = await self.sources.catalogue.tasks()  # only a listing decides that
            text = find(self, name, tasks, RESERVED_BESIDE_TASKS).task_id
        task = await self.sources.catalogue.task(TaskId(text))
        if task.problem:
            raise Garbled(f"task {text}: {task.problem}")
        return self._make(name, task)

    async def children(self) -> Sequence[Entry]:
        """Return all tasks."""
        tasks = await self.sources.catalogue.tasks()
        if tasks is not self._listed:  # the same object while the listing is the same
            entries = await entries_of(tasks, task_name, self._make)
            if self.sources.has_catalogs:
                name = CATALOG.encode()
                entries.append(Entry(name, ListedFile(self, name)))
            # Together, with no await between. Another task may have made the same by now.
            self._listed, self._entries = tasks, entries
        return self._entries

    def _catalog(self) -> Rendering:
        async def tasks() -> tuple[RecordList[Task]]:
            return (await self.sources.catalogue.tasks(),)

        return rendered_from(self, CATALOG.encode(), _catalog, tasks, self.sources.rendered)

    def _make(self, name: bytes, task: Task) -> TaskDirectory:
        return TaskDirectory(self, name, task)


class TaskDirectory(CaptureHolder):
    """One task. Each call uses the present records."""

    __slots__ = ("_mtime_ns", "_name", "_status", "task_id")

    def __init__(self, parent: Tasks, name: bytes, task: Task) -> None:
        super().__init__(parent, name, parent.sources)
        self.task_id = task.task_id
        self._name = task.name
        self._status = task.status
        self._mtime_ns = time_ns(task.created_at)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return id, name and status of the task."""
        return xattr_values(task_id=self.task_id, task_name=self._name, task_status=self._status)

    async def lookup(self, name: bytes) -> Node:
        """Return the published capture or the sidecar called *name*."""
        if (sidecar := self._sidecars().get(name)) is not None:
            return await sidecar.node(self, name)
        captures = await self.sources.catalogue.captures(self.task_id)
        capture = find(self, name, captures, RESERVED_IN_TASK)
        if not capture.is_published:
            raise not_there(self, name)
        return self._make(name, capture)

    async def children(self) -> Sequence[Entry]:
        """Return the sidecars and the published captures, for one listing of captures."""
        captures = await self.sources.catalogue.captures(self.task_id)
        shown = (each for each in captures if each.is_published or each.problem)
        entries = await entries_of(shown, capture_name, self._make)
        return entries + await listed(self, self._sidecars())

    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record of a capture as the task's listing has it now."""
        capture = (await self.sources.catalogue.captures(self.task_id)).find(capture_id)
        if capture is None:
            raise NotThere(f"task {self.task_id} has no capture {capture_id} any more")
        return capture

    def _make(self, name: bytes, capture: Capture) -> CaptureDirectory:
        return CaptureDirectory(self, name, capture, self._mtime_ns)

    def _sidecars(self) -> Mapping[bytes, Rendering]:
        catalogue = self.sources.catalogue

        async def task_json() -> bytes:
            return sidecars.record_json(await catalogue.task(self.task_id))

        async def captures() -> tuple[RecordList[Capture]]:
            return (await catalogue.captures(self.task_id),)

        async def task_and_captures() -> tuple[Task, RecordList[Capture]]:
            return await catalogue.task(self.task_id), *await captures()

        rendered = self.sources.rendered
        found = {
            TASK_JSON.encode(): Rendering(task_json, task_json),
            CAPTURES_JSON.encode(): rendered_from(
                self, CAPTURES_JSON.encode(), sidecars.captures_json, captures, rendered
            ),
        }
        if self.sources.has_catalogs:
            name = COLLECTION.encode()
            found[name] = rendered_from(self, name, _collection, task_and_captures, rendered)
        return found


def task_name(task: Task) -> bytes:
    """Return the name of a task's directory in `tasks/`."""
    return names.name_of(task.task_id, RESERVED_BESIDE_TASKS)


def _catalog(tasks: Iterable[Task]) -> bytes:
    return json_bytes(tasks_catalog((task, task_name(task).decode()) for task in tasks))


def _collection(task: Task, captures: Iterable[Capture]) -> bytes:
    published = (
        (capture.capture_id, capture_name(capture).decode())
        for capture in captures
        if capture.is_published
    )
    return json_bytes(task_collection(task, published))


def capture_name(capture: Capture) -> bytes:
    """Return the name of a capture's directory in that of its task."""
    return names.name_of(capture.capture_id, RESERVED_IN_TASK)
