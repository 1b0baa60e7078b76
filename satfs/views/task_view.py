"""`views/task/<task>/`: the gallery, outlines, QGIS files and mosaics of one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from satfs.model import TaskId
from satfs.tree.nodes import (
    Attributes,
    Directory,
    Entry,
    MadeFile,
    Node,
    Symlink,
    not_there,
)
from satfs.tree.rendered import Rendering
from satfs.tree.sources import Catalogue
from satfs.tree.tasks import TaskDirectory, Tasks
from satfs.tree.times import TREE_NS
from satfs.views.footprints import footprints_of
from satfs.views.gallery import map_script, page
from satfs.views.mosaic import mosaics_of, true_colour_of
from satfs.views.qgis import FOOTPRINTS, layers_of, project_of
from satfs.views.task_scenes import ScenesOfTasks, TaskScenes

INDEX: Final = "index.html"
CAPTURES: Final = "captures"
TRUE_COLOUR: Final = "truecolor"


def _title(found: TaskScenes) -> str:
    task = found.task
    return f"{task.name} ({task.task_id})" if task.name else str(task.task_id)


def _map(found: TaskScenes) -> bytes:
    return map_script(found.task.task_id, found.task.name, found.scenes, found.n_unknown)


#: The files with names that are the same in every view, and how each is rendered.
_RENDERED: Final[Mapping[str, Callable[[TaskScenes], bytes]]] = {
    "map.js": _map,
    FOOTPRINTS: lambda found: footprints_of(found.scenes),
    "project.qgz": lambda found: project_of(_title(found), found.scenes),
    "layers.qlr": lambda found: layers_of(_title(found), found.scenes),
}


class TaskViews(Directory):
    """`views/task/`: the view of each task, by the name that the task has in `tasks/`."""

    __slots__ = ("_catalogue", "_scenes", "_tasks")

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        tasks: Tasks,
        catalogue: Catalogue,
        scenes: ScenesOfTasks,
    ) -> None:
        super().__init__(parent, name)
        self._tasks = tasks
        self._catalogue = catalogue
        self._scenes = scenes

    async def lookup(self, name: bytes) -> Node:
        """Return the view of a task; requests that one task at most."""
        return self._view(name, await self._tasks.lookup(name))

    async def children(self) -> Sequence[Entry]:
        """Return the views of all tasks, for one listing of tasks."""
        entries = await self._tasks.children()
        return [
            Entry(entry.name, self._view(entry.name, entry.target))
            for entry in entries
            if isinstance(entry.target, TaskDirectory)
        ]

    def _view(self, name: bytes, task: Node) -> TaskView:
        if not isinstance(task, TaskDirectory):
            raise not_there(self, name)
        return TaskView(self, name, task, self._catalogue, self._scenes)


class TaskView(Directory):
    """The view of one task. Its files are listed by name, and rendered when they are looked up."""

    __slots__ = ("_catalogue", "_scenes", "_task")

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        task: TaskDirectory,
        catalogue: Catalogue,
        scenes: ScenesOfTasks,
    ) -> None:
        super().__init__(parent, name)
        self._task = task
        self._catalogue = catalogue
        self._scenes = scenes

    def attributes(self) -> Attributes:
        """Return the attributes of the task."""
        return self._task.attributes()

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the extended attributes of the task."""
        return self._task.xattrs()

    async def lookup(self, name: bytes) -> Node:
        """Return the file, link or directory called *name*, rendered.

        Raises:
            NotThere: the view has none of that name.
            SatfsError: the task cannot be listed now.
        """
        if name == INDEX.encode():
            return MadeFile(self, name, page(), _page, mtime_ns=TREE_NS)
        if name == CAPTURES.encode():
            return self._captures()
        if name == TRUE_COLOUR.encode():
            return TrueColour(self, name)
        text = name.decode("utf-8", "replace")
        if text in _RENDERED:
            return await self._rendering(text).node(self, name, mtime_ns=self._mtime_ns)
        if text.startswith("mosaic_") and text in await self._mosaics():
            return await self._mosaic(text).node(self, name, mtime_ns=self._mtime_ns)
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return all of it. The names of mosaics take a look at the zips of all scenes."""
        entries = [
            Entry(INDEX.encode(), await self.lookup(INDEX.encode())),
            Entry(CAPTURES.encode(), self._captures()),
            Entry(TRUE_COLOUR.encode(), TrueColour(self, TRUE_COLOUR.encode())),
        ]
        renderings = {text: self._rendering(text) for text in _RENDERED}
        renderings |= {text: self._mosaic(text) for text in await self._mosaics()}
        for text, rendering in renderings.items():
            entries.append(await rendering.entry(self, text.encode(), mtime_ns=self._mtime_ns))
        return entries

    async def load(self) -> TaskScenes:
        """Return what is known of the task's scenes."""
        task = await self._catalogue.task(TaskId(self._task.task_id))
        return await self._scenes.load(self._task, task)

    def peek(self) -> TaskScenes | None:
        """Return what is known of the task's scenes if it is still believed. Never waits."""
        return self._scenes.peek(self._task)

    @property
    def _mtime_ns(self) -> int:
        return self._task.attributes().mtime_ns

    def _captures(self) -> Symlink:
        up = "../" * len(self.path)
        return Symlink(self, CAPTURES.encode(), (up + "/".join(self._task.path)).encode())

    def _rendering(self, text: str) -> Rendering:
        render = _RENDERED[text]

        async def make() -> bytes:
            return await (await self.load()).once(text, render)

        async def known() -> bytes | None:
            found = self.peek()
            return None if found is None else found.before(text)

        return Rendering(make, known)

    async def _mosaics(self) -> Mapping[str, bytes]:
        return await (await self.load()).once("mosaics", lambda found: mosaics_of(found.scenes))

    def _mosaic(self, text: str) -> Rendering:
        async def make() -> bytes:
            return _of(await self._mosaics(), self, text)

        return Rendering(make, make)


class TrueColour(Directory):
    """`truecolor/`: a VRT of each scene whose delivery names its bands."""

    __slots__ = ("_view",)

    def __init__(self, parent: TaskView, name: bytes) -> None:
        super().__init__(parent, name)
        self._view = parent

    def attributes(self) -> Attributes:
        """Return the attributes of the task."""
        return self._view.attributes()

    async def lookup(self, name: bytes) -> Node:
        """Return the VRT called *name*."""
        return await self._file(name.decode("utf-8", "replace"))

    async def children(self) -> Sequence[Entry]:
        """Return the VRTs; takes a look at the zips of all scenes."""
        return [Entry(text.encode(), await self._file(text)) for text in await self._true_colours()]

    async def _file(self, text: str) -> Node:
        async def make() -> bytes:
            return _of(await self._true_colours(), self, text)

        mtime_ns = self.attributes().mtime_ns
        return await Rendering(make, make).node(self, text.encode(), mtime_ns=mtime_ns)

    async def _true_colours(self) -> Mapping[str, bytes]:
        return await (await self._view.load()).once(TRUE_COLOUR, _true_colours)


def _true_colours(found: TaskScenes) -> dict[str, bytes]:
    made = {f"{scene.name}.vrt": true_colour_of(scene) for scene in found.scenes}
    return {name: content for name, content in made.items() if content is not None}


def _of(files: Mapping[str, bytes], directory: Directory, text: str) -> bytes:
    if text not in files:
        raise not_there(directory, text.encode("utf-8", "replace"))
    return files[text]


async def _page() -> bytes:
    return page()
