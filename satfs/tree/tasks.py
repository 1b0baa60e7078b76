"""`tasks/` and a task's directory: its record, all its captures, and those that are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from satfs.errors import NotThere, SatfsError
from satfs.model import Capture, CaptureId, Task, TaskId
from satfs.tree import names, sidecars
from satfs.tree.captures import CaptureDirectory
from satfs.tree.nodes import (
    Attributes,
    BytesFile,
    Directory,
    Entry,
    Kind,
    Node,
    not_there,
    xattr_values,
)
from satfs.tree.offspring import Offspring
from satfs.tree.scenes import Sources
from satfs.tree.times import time_ns

TASK_JSON: Final = "task.json"
CAPTURES_JSON: Final = "captures.json"
_RESERVED: Final = frozenset({TASK_JSON, CAPTURES_JSON})


class Tasks(Directory):
    """`tasks/`: every task of the contract, by its id."""

    __slots__ = ("_offspring", "_sources")

    def __init__(self, parent: Directory, name: bytes, sources: Sources) -> None:
        super().__init__(parent, name)
        self._sources = sources
        self._offspring = Offspring(self._make, _task_name)

    async def lookup(self, name: bytes) -> Node:
        """Return the task with that id; asks for this one task, or less."""
        text = names.text_of(name)
        if text is None and names.is_cut(name):  # only a listing can tell
            known = await self._offspring.of(await self._sources.catalogue.tasks())
            if name in known:
                return known[name]
        if text is None:
            raise not_there(self, name)
        return self._offspring.one(name, await self._sources.catalogue.task(TaskId(text)))

    async def children(self) -> Sequence[Entry]:
        """Return all tasks."""
        known = await self._offspring.of(await self._sources.catalogue.tasks())
        return [Entry(name, node) for name, node in known.items()]

    def _make(self, name: bytes, task: Task) -> TaskDirectory:
        return TaskDirectory(self, name, task, self._sources)


class TaskDirectory(Directory):
    """One task. Asked again, it asks for the records of today."""

    __slots__ = ("_offspring", "_sources", "_time_ns", "task")

    def __init__(self, parent: Directory, name: bytes, task: Task, sources: Sources) -> None:
        super().__init__(parent, name)
        self.task = task
        self._sources = sources
        self._time_ns = time_ns(task.created_at)
        self._offspring = Offspring(self._make, _capture_name)

    def attributes(self) -> Attributes:
        """Return what `stat` tells: made when the task was."""
        return Attributes(Kind.DIRECTORY, 0o555, 0, self._time_ns, self._time_ns)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return id, name and status of the task."""
        task = self.task
        return xattr_values(task_id=task.task_id, task_name=task.name, task_status=task.status)

    async def lookup(self, name: bytes) -> Node:
        """Return the published capture or the sidecar called *name*."""
        catalogue = self._sources.catalogue
        if name == TASK_JSON.encode():
            task = await catalogue.task(self.task.task_id)
            return self._file(name, sidecars.task_json(task))
        captures = await catalogue.captures(self.task.task_id)
        if name == CAPTURES_JSON.encode():
            return self._file(name, sidecars.captures_json(captures))
        known = await self._offspring.of(captures)
        if name not in known or not known[name].capture.is_published:
            raise not_there(self, name)
        return known[name]

    async def children(self) -> Sequence[Entry]:
        """Return the sidecars and the published captures, for one listing of captures."""
        captures = await self._sources.catalogue.captures(self.task.task_id)
        entries = []
        for sidecar in (TASK_JSON, CAPTURES_JSON):
            name = sidecar.encode()
            try:
                entries.append(Entry(name, await self.lookup(name)))
            except SatfsError as error:
                entries.append(Entry(name, error))
        known = await self._offspring.of(captures)
        entries.extend(
            Entry(name, node) for name, node in known.items() if node.capture.is_published
        )
        return entries

    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record of a capture as the task's listing has it now."""
        for capture in await self._sources.catalogue.captures(self.task.task_id):
            if capture.capture_id == capture_id:
                return capture
        raise NotThere(f"task {self.task.task_id} has no capture {capture_id} any more")

    def _make(self, name: bytes, capture: Capture) -> CaptureDirectory:
        return CaptureDirectory(
            self, name, capture, sources=self._sources, holder=self, time_ns=self._time_ns
        )

    def _file(self, name: bytes, content: bytes) -> BytesFile:
        return BytesFile(self, name, content, mtime_ns=self._time_ns, xattrs=self.xattrs())


def _task_name(task: Task) -> bytes:
    return names.name_of(task.task_id)


def _capture_name(capture: Capture) -> bytes:
    return names.name_of(capture.capture_id, _RESERVED)
