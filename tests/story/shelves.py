"""A vendor's catalogue and its objects, in memory, in place of the packages below the tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import trio
from msgspec.structs import replace

from satfs.api import record_parsers
from satfs.errors import Changed, NotThere, SatfsError, Unfinished
from satfs.model import (
    DELIVERY_ZIP,
    AttachmentName,
    ByteRange,
    Capture,
    CaptureId,
    Scene,
    SceneId,
    Task,
    TaskId,
    Version,
)
from satfs.tree.scenes import Extra, TreeSources

PREVIEW = AttachmentName("preview")
CREATED = datetime(2026, 1, 19, 14, 3, 22, 481905, tzinfo=UTC)
TAKEN = datetime(2026, 1, 28, 15, 57, 48, 311000, tzinfo=UTC)


def make_task(task_id: str = "341271", **changes: Any) -> Task:
    record = {"task_id": task_id, "task_name": "Harbour", "status": "completed"}
    task = Task(TaskId(task_id), "Harbour", "completed", CREATED, record)
    return replace(task, **changes)


def make_capture(capture_id: str, status: str | None = "published") -> Capture:
    return Capture(CaptureId(capture_id), status, {"capture_id": capture_id, "status": status})


def make_scene(
    scene_id: str,
    capture_id: str,
    files: Iterable[tuple[str, str]] | None = None,
    *,
    taken: datetime = TAKEN,
    problem: str | None = None,
) -> Scene:
    if files is None:
        files = [("preview", f"{scene_id}_preview.png"), ("delivery_zip", f"{scene_id}.zip")]
    record = {
        "scene_id": scene_id,
        "sceneset_id": capture_id,
        "productname": "L1D_SR",
        "timestamp": taken.isoformat(),
        "last_modified": "2026-01-28T21:40:09.120000+00:00",
        "footprint": {"type": "Point", "coordinates": [1.0, 2.0]},
        "attachments": [{"name": name, "file_name": file_name} for name, file_name in files],
        **({} if problem is None else {record_parsers.UNREADABLE: problem}),
    }
    return record_parsers.scene.of(scene_id, record)


R = TypeVar("R", Task, Capture, Scene)


class Listed(tuple[R, ...]):
    """Records as a listing returns them."""

    def ids(self) -> Iterator[str]:
        return (self.id_at(index) for index in range(len(self)))

    def id_at(self, index: int) -> str:
        match self[index]:
            case Task(task_id=task_id):
                return task_id
            case Capture(capture_id=capture_id):
                return capture_id
            case Scene(scene_id=scene_id):
                return scene_id

    def find(self, id: str) -> R | None:
        places = [index for index, each in enumerate(self.ids()) if each == id]
        return self[places[0]] if places else None


@dataclass
class FakeCatalogue:
    """Returns records from memory, counts calls, and fails or waits as configured.

    *failures* are by the method's name; *delay_s* is waited in every call. The next *n_unfinished*
    listings of scenes end before all of their pages have come.
    """

    calls: Counter[str] = field(default_factory=Counter)
    failures: dict[str, Exception] = field(default_factory=dict)
    delay_s: float = 0.0
    n_unfinished: int = 0
    _tasks: Listed[Task] = field(default_factory=Listed)
    _captures: dict[str, Listed[Capture]] = field(default_factory=dict)
    _scenes: dict[str, Listed[Scene]] = field(default_factory=dict)

    def put(self, task: Task, *captures: Capture) -> None:
        kept = [each for each in self._tasks if each.task_id != task.task_id]
        self._tasks = Listed((*kept, task))
        self._captures[task.task_id] = Listed(captures)

    def put_scenes(self, capture_id: str, *scenes: Scene) -> None:
        self._scenes[capture_id] = Listed(scenes)

    async def _answer(self, question: str) -> None:
        self.calls[question] += 1
        await trio.sleep(self.delay_s)
        if question in self.failures:
            raise self.failures[question]

    async def tasks(self) -> Listed[Task]:
        await self._answer("tasks")
        return self._tasks

    async def task(self, task_id: TaskId) -> Task:
        await self._answer("task")
        for task in self._tasks:
            if task.task_id == task_id:
                return task
        raise NotThere(f"no task {task_id}")

    async def captures(self, task_id: TaskId) -> Listed[Capture]:
        await self._answer("captures")
        if task_id not in self._captures:
            raise NotThere(f"no task {task_id}")
        return self._captures[task_id]

    async def capture(self, capture_id: CaptureId) -> Capture:
        await self._answer("capture")
        for capture in self.known_captures():
            if capture.capture_id == capture_id:
                return capture
        if capture_id in self._scenes:
            return make_capture(capture_id)
        raise NotThere(f"no capture {capture_id}")

    async def scenes(self, capture_id: CaptureId) -> Listed[Scene]:
        await self._answer("scenes")
        if self.n_unfinished:
            self.n_unfinished -= 1
            raise Unfinished("2 pages have come, and there are more")
        return self._scenes.get(capture_id, Listed())

    async def scene(self, scene_id: SceneId) -> Scene:
        await self._answer("scene")
        for scene in self.known_scenes():
            if scene.scene_id == scene_id:
                return scene
        raise NotThere(f"no scene {scene_id}")

    def known_captures(self) -> Listed[Capture]:
        return Listed(capture for captures in self._captures.values() for capture in captures)

    def known_scenes(self) -> Listed[Scene]:
        return Listed(scene for scenes in self._scenes.values() for scene in scenes)


@dataclass
class FakeObjects:
    """Holds the bytes of attachments; fails, waits and changes as configured."""

    calls: Counter[str] = field(default_factory=Counter)
    failures: dict[tuple[str, str], Exception] = field(default_factory=dict)
    read_failure: Exception | None = None
    delay_s: float = 0.0
    n_open: int = 0
    held: set[tuple[str, str]] = field(default_factory=set)
    contents: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)

    def put(self, scene_id: str, content: bytes, name: str = DELIVERY_ZIP, etag: str = "1") -> None:
        self.contents[scene_id, name] = (f'"{etag}"', content)

    def _look(self, scene: str, attachment: str) -> tuple[Version, bytes]:
        if (scene, attachment) in self.failures:
            raise self.failures[scene, attachment]
        if (scene, attachment) not in self.contents:
            raise NotThere(f"no object {attachment} of {scene}")
        etag, content = self.contents[scene, attachment]
        return Version(etag, len(content)), content

    async def version(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        self.calls["version"] += 1
        await trio.sleep(self.delay_s)
        return self._look(scene, attachment)[0]

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        self.calls[f"ahead {scene}/{attachment}"] += 1

    async def is_held(self, scene: SceneId, attachment: AttachmentName, version: Version) -> bool:
        return (scene, attachment) in self.held

    async def open(self, scene: SceneId, attachment: AttachmentName, version: Version) -> _Reader:
        self.calls["open"] += 1
        await trio.sleep(self.delay_s)
        seen, content = self._look(scene, attachment)
        if seen != version:
            raise Changed(f"{attachment} of {scene} was replaced")
        self.n_open += 1
        return _Reader(self, content)


class _Reader:
    def __init__(self, objects: FakeObjects, content: bytes) -> None:
        self._objects = objects
        self._content = content
        self.size_bytes = len(content)

    async def read(self, span: ByteRange) -> bytes | memoryview:
        self._objects.calls["read"] += 1
        await trio.sleep(self._objects.delay_s)
        if self._objects.read_failure is not None:
            raise self._objects.read_failure
        return memoryview(self._content)[span.start : span.stop]

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Know no layout."""
        return None

    def locate_file(self, place: ByteRange | None, beginning: bytes | memoryview = b"") -> None:
        """Look at no layout."""

    def is_near(self, span: ByteRange) -> bool:
        return False

    def close(self) -> None:
        self._objects.n_open -= 1


def failing(*members: SatfsError | Exception) -> ExceptionGroup[Exception]:
    """Return what a nursery raises when these tasks failed in it."""
    return ExceptionGroup("nursery", list(members))


def sources_of(
    catalogue: FakeCatalogue, objects: FakeObjects, extras: tuple[Extra, ...] = ()
) -> TreeSources:
    """Return these in place of the listings and the contents of a mount."""
    return TreeSources(catalogue, objects, extras)  # type: ignore[arg-type]
