"""Tasks, captures, scenes and attachments, as the API returns them.

Records are plain dictionaries and are sent as they are, so that a test can put anything into them:
nulls, missing fields, hostile names. `make_task`, `make_capture` and `make_scene` fill in what a
realistic record has; keyword arguments replace fields, and the value `OMIT` leaves one out.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from satfs.demo.contents import BytesContent, Content

PUBLISHED: Final = "published"
DELIVERY_ZIP: Final = "delivery_zip"
TASK_STATUSES: Final = ("received", "completed", "failed", "rejected", "canceled")

#: Given as a field's value: the record does not have that field at all.
OMIT: Final = object()

_START: Final = datetime(2026, 1, 19, 14, 3, 22, 481905, tzinfo=UTC)


@dataclass
class Attachment:
    """A file of a scene. Without a content its link leads to nothing (404 at the store)."""

    name: str
    file_name: str
    content: Content | None
    content_type: str = "application/zip"
    last_modified_s: float = _START.timestamp()
    #: Replaces the entry in the scene's record; None: an entry made from name and file name.
    record: Any = None
    #: The object's key in the bucket; given by the catalogue when empty.
    key: str = ""


@dataclass
class Scene:
    """One deliverable of a capture; `record` lacks the attachments, which responses add."""

    scene_id: str
    record: dict[str, Any]
    attachments: list[Attachment] = field(default_factory=list)

    def attachment(self, name: str) -> Attachment | None:
        """Return the attachment of that name."""
        return next((a for a in self.attachments if a.name == name), None)


@dataclass
class Capture:
    """One acquisition of a task. Its scenes are listed only while its status is `published`."""

    capture_id: str
    record: dict[str, Any]
    scenes: list[Scene] = field(default_factory=list)

    @property
    def is_published(self) -> bool:
        """Return whether the scenes are delivered."""
        return bool(self.record.get("status") == PUBLISHED)


@dataclass
class Task:
    """A tasking order, visible to one contract or (None) to each."""

    task_id: str
    record: dict[str, Any]
    captures: list[Capture] = field(default_factory=list)
    contract_id: str | None = None

    def is_visible(self, contract: str | None) -> bool:
        """Return whether a contract sees the task; None stands for an account without contracts."""
        return contract is None or self.contract_id in (None, contract)


def _record(defaults: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**defaults, **changes}.items() if value is not OMIT}


def utc_text(moment: datetime, *, micros: bool = False) -> str:
    """Return a moment as tasking writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micros else "%Y-%m-%dT%H:%M:%SZ")


def make_task(
    task_id: int | str,
    captures: Iterable[Capture] = (),
    *,
    contract_id: str | None = None,
    **fields: Any,
) -> Task:
    """Return a task with a realistic record, *fields* replaced."""
    moment = _START + timedelta(days=hash_number("task", task_id) % 40)
    defaults: dict[str, Any] = {
        "task_id": task_id,
        "task_name": f"Task {task_id}",
        "project_name": "Coast 2026",
        "product": 169,
        "start": utc_text(moment.replace(hour=0, minute=0, second=0)),
        "end": utc_text(moment.replace(hour=0, minute=0, second=0) + timedelta(days=14)),
        "priority": 13 + hash_number("priority", task_id) % 2,
        "client": "Example Geo Ltd",
        "target": {"type": "Point", "coordinates": [-58.3702, -34.6083, 0.0]},
        "created_time": utc_text(moment, micros=True),
        "status": "completed",
    }
    return Task(str(task_id), _record(defaults, fields), list(captures), contract_id)


def make_capture(
    capture_id: str, scenes: Iterable[Scene] = (), *, status: Any = PUBLISHED, **fields: Any
) -> Capture:
    """Return a capture; the API promises an id and a status, and no more."""
    defaults: dict[str, Any] = {"capture_id": capture_id, "status": status}
    return Capture(capture_id, _record(defaults, fields), list(scenes))


def make_scene(
    scene_id: str,
    attachments: Iterable[Attachment] = (),
    *,
    moment: datetime = _START,
    **fields: Any,
) -> Scene:
    """Return a scene with a realistic record, *fields* replaced; `sceneset_id` is set on adding."""
    level = re.search(r"_(L\d[A-D]?(?:_SR)?)_", scene_id)
    satellite = re.search(r"_SN(\d+)_", scene_id)
    west, south = -58.41, -34.64
    ring = [[west, south], [west + 0.08, south], [west + 0.08, south + 0.07], [west, south + 0.07]]
    defaults: dict[str, Any] = {
        "scene_id": scene_id,
        "productname": level.group(1) if level else "cube",
        "supplier": "satellogic",
        "satellite_class": "newsat",
        "satellite_name": f"newsat{satellite.group(1) if satellite else 33}",
        "timestamp": moment.isoformat(timespec="microseconds"),
        "last_modified": (moment + timedelta(hours=6)).isoformat(timespec="microseconds"),
        "footprint": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "metadata": {},
        "bands": {"red": [0], "green": [0], "blue": [0], "nir": [0]},
        "rasters": [],
    }
    return Scene(scene_id, _record(defaults, fields), list(attachments))


def make_delivery(
    scene_id: str, content: Content | bytes, file_name: str | None = None
) -> Attachment:
    """Return the `delivery_zip` attachment of a scene."""
    held = BytesContent(content) if isinstance(content, bytes) else content
    return Attachment(DELIVERY_ZIP, file_name or f"{scene_id}.zip", held)


def make_preview(scene_id: str, content: Content | bytes, name: str = "preview") -> Attachment:
    """Return a PNG attachment of a scene; its file name has no task id, as the vendor's."""
    held = BytesContent(content) if isinstance(content, bytes) else content
    stem = re.sub(r"_MS_\d+$", "_MS", scene_id)
    return Attachment(name, f"{stem}_{name}.png", held, "image/png")


def hash_number(*parts: object) -> int:
    """Return a number that depends on *parts* alone: the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def capture_uuid(*parts: object) -> str:
    """Return a lower-case UUID that depends on *parts* alone."""
    return str(uuid.UUID(int=random.Random(repr(parts)).getrandbits(128), version=4))


def _key_part(text: str) -> str:
    """Return *text* fit for a URL's path, with a hash where characters had to be replaced."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", text)[:120].lstrip(".") or "x"
    return safe if safe == text else f"{safe}-{hash_number(text) % 16**8:08x}"


class Catalogue:
    """Everything for sale, with the indexes to find it by id or by key.

    Changed through its methods, each of which is atomic for readers in other threads.
    """

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._lock = threading.RLock()
        self.tasks: list[Task] = []
        self._is_shared = True  # no task belongs to one contract: nothing to look through
        self._task_by_id: dict[str, Task] = {}
        self._capture_by_id: dict[str, Capture] = {}
        self._task_of_capture: dict[str, Task] = {}
        self._scene_by_id: dict[str, Scene] = {}
        self._capture_of_scene: dict[str, Capture] = {}
        self._attachment_by_key: dict[str, Attachment] = {}
        for task in tasks:
            self.add_task(task)

    # -- looking ---------------------------------------------------------------------------------

    def tasks_of(self, contract: str | None) -> list[Task]:
        """Return the tasks that a contract sees, in order; not to be changed."""
        if self._is_shared:
            return self.tasks
        return [task for task in self.tasks if task.is_visible(contract)]

    def task(self, task_id: object) -> Task | None:
        """Return the task of that id."""
        return self._task_by_id.get(str(task_id))

    def capture(self, capture_id: str) -> Capture | None:
        """Return the capture of that id."""
        return self._capture_by_id.get(capture_id)

    def scene(self, scene_id: str) -> Scene | None:
        """Return the scene of that id, published or not."""
        return self._scene_by_id.get(scene_id)

    def task_of(self, scene_id: str) -> Task | None:
        """Return the task that a scene belongs to."""
        capture = self._capture_of_scene.get(scene_id)
        return self.task_of_capture(capture.capture_id) if capture else None

    def task_of_capture(self, capture_id: str) -> Task | None:
        """Return the task that a capture belongs to."""
        return self._task_of_capture.get(capture_id)

    def published_scene(self, scene_id: str) -> Scene | None:
        """Return the scene of that id if its capture is published."""
        capture = self._capture_of_scene.get(scene_id)
        return self._scene_by_id.get(scene_id) if capture and capture.is_published else None

    def published_scenes(self) -> list[Scene]:
        """Return all delivered scenes, in the order of tasks and captures."""
        return [scene for capture in self.published_captures() for scene in capture.scenes]

    def published_captures(self) -> list[Capture]:
        """Return all captures whose scenes are delivered, in the order of tasks."""
        with self._lock:
            return [each for task in self.tasks for each in task.captures if each.is_published]

    def stored_at(self, key: str) -> Attachment | None:
        """Return the attachment stored under a key of the bucket."""
        return self._attachment_by_key.get(key)

    def content(self, scene_id: str, attachment: str = DELIVERY_ZIP) -> Content:
        """Return what an attachment holds, to compare with; KeyError when there is nothing."""
        scene = self.scene(scene_id)
        held = scene.attachment(attachment) if scene else None
        if held is None or held.content is None:
            raise KeyError((scene_id, attachment))
        return held.content

    # -- changing --------------------------------------------------------------------------------

    def add_task(self, task: Task, *, position: int | None = None) -> Task:
        """Put a task into the listing, at the end or at a position."""
        with self._lock:
            if position is None:
                self.tasks.append(task)  # a reader's slice has it, or has it not
            else:
                self.tasks = [*self.tasks[:position], task, *self.tasks[position:]]
            self._is_shared = self._is_shared and task.contract_id is None
            self._task_by_id.setdefault(task.task_id, task)
            for capture in task.captures:
                self._index_capture(task, capture)
        return task

    def remove_task(self, task_id: object) -> None:
        """Take a task out of listing and look-up; its captures and scenes go with it."""
        with self._lock:
            task = self._task_by_id.pop(str(task_id))
            self.tasks = [other for other in self.tasks if other is not task]
            for capture in task.captures:
                self._forget_capture(capture)

    def add_capture(self, task_id: object, capture: Capture) -> Capture:
        """Give a task another capture."""
        with self._lock:
            task = self._task_by_id[str(task_id)]
            task.captures = [*task.captures, capture]
            self._index_capture(task, capture)
        return capture

    def set_status(self, capture_id: str, status: str) -> None:
        """Change a capture's status: `published` publishes it, any other withdraws it."""
        with self._lock:
            capture = self._capture_by_id[capture_id]
            capture.record = {**capture.record, "status": status}

    def remove_capture(self, capture_id: str) -> None:
        """Take a capture and its scenes away."""
        with self._lock:
            capture = self._capture_by_id[capture_id]
            task = self._task_of_capture[capture_id]
            task.captures = [other for other in task.captures if other is not capture]
            self._forget_capture(capture)

    def add_scene(self, capture_id: str, scene: Scene) -> Scene:
        """Give a capture another scene."""
        with self._lock:
            capture = self._capture_by_id[capture_id]
            capture.scenes = [*capture.scenes, scene]
            self._index_scene(capture, scene)
        return scene

    def remove_scene(self, scene_id: str) -> None:
        """Withdraw a scene: from the listing, by id, and its objects from the store."""
        with self._lock:
            scene = self._scene_by_id[scene_id]
            capture = self._capture_of_scene[scene_id]
            capture.scenes = [other for other in capture.scenes if other is not scene]
            self._forget_scene(scene)

    def replace(
        self,
        scene_id: str,
        content: Content | bytes | None,
        attachment: str = DELIVERY_ZIP,
        *,
        moment: datetime | None = None,
    ) -> None:
        """Put other bytes behind a scene's attachment, under the same key.

        The scene's `last_modified` becomes *moment* when given, and else stays, since the vendor
        does not promise that a reprocessed product changes it. None removes the object only.
        """
        with self._lock:
            scene = self._scene_by_id[scene_id]
            held = scene.attachment(attachment)
            if held is None:
                raise KeyError((scene_id, attachment))
            held.content = BytesContent(content) if isinstance(content, bytes) else content
            held.last_modified_s += 1.0
            if moment is not None:
                held.last_modified_s = moment.timestamp()
                text = moment.isoformat(timespec="microseconds")
                scene.record = {**scene.record, "last_modified": text}

    # -- indexes ---------------------------------------------------------------------------------

    def _index_capture(self, task: Task, capture: Capture) -> None:
        self._capture_by_id.setdefault(capture.capture_id, capture)
        self._task_of_capture.setdefault(capture.capture_id, task)
        for scene in capture.scenes:
            self._index_scene(capture, scene)

    def _index_scene(self, capture: Capture, scene: Scene) -> None:
        self._scene_by_id.setdefault(scene.scene_id, scene)
        self._capture_of_scene.setdefault(scene.scene_id, capture)
        scene.record.setdefault("sceneset_id", capture.capture_id)
        label = _key_part(str(scene.record.get("productname") or "cube")).lower().replace("_", "-")
        for attachment in scene.attachments:
            if not attachment.key:
                parts = (capture.capture_id, scene.scene_id, attachment.name, attachment.file_name)
                attachment.key = "/".join((label, *map(_key_part, parts)))
            self._attachment_by_key[attachment.key] = attachment

    def _forget_capture(self, capture: Capture) -> None:
        self._capture_by_id.pop(capture.capture_id, None)
        self._task_of_capture.pop(capture.capture_id, None)
        for scene in capture.scenes:
            self._forget_scene(scene)

    def _forget_scene(self, scene: Scene) -> None:
        self._scene_by_id.pop(scene.scene_id, None)
        self._capture_of_scene.pop(scene.scene_id, None)
        for attachment in scene.attachments:
            self._attachment_by_key.pop(attachment.key, None)


def object_path(bucket: str, attachment: Attachment) -> str:
    """Return the path of an attachment's object at the store, quoted for a URL."""
    return f"/{bucket}/{quote(attachment.key, safe='/-_.~')}"
