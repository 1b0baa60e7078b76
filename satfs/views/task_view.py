"""`views/task/<task>/`: the gallery, outlines, QGIS files and mosaics of one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from satfs.errors import Unreachable
from satfs.model import TaskId
from satfs.tree.nodes import Attributes, Directory, Entry, MadeFile, Node, Symlink, not_there
from satfs.tree.rendered import Rendering
from satfs.tree.tasks import TaskDirectory, Tasks
from satfs.tree.times import TREE_NS
from satfs.views.gallery import footprints_of, map_script, page
from satfs.views.mosaic import (
    expected_mosaics,
    expected_true_colours,
    mosaics_of,
    nothing_of,
    true_colour_of,
)
from satfs.views.qgis import FOOTPRINTS, layers_of, project_of
from satfs.views.scene_view import SceneView
from satfs.views.task_scenes import ScenesOfTasks, TaskScenes

if TYPE_CHECKING:
    from satfs.api.listings import Listings

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

    __slots__ = ("_tasks", "catalogue", "scenes")

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        tasks: Tasks,
        catalogue: Listings,
        scenes: ScenesOfTasks,
    ) -> None:
        super().__init__(parent, name)
        self._tasks = tasks
        self.catalogue = catalogue
        self.scenes = scenes

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
        return TaskView(self, name, task)


class TaskView(Directory):
    """The view of one task. Its files are listed by name, and rendered when they are looked up."""

    __slots__ = ("_task", "_views")

    def __init__(self, parent: TaskViews, name: bytes, task: TaskDirectory) -> None:
        super().__init__(parent, name)
        self._task = task
        self._views = parent

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
            return await self._rendering(text).node(self, name)
        if text.startswith("mosaic_"):
            return await self._mosaic(text).node(self, name)
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return all of it, for the listings of the task.

        The zips decide which mosaics there are. Until they were read, the names are those that the
        records let expect.
        """
        entries = [
            Entry(INDEX.encode(), await self.lookup(INDEX.encode())),
            Entry(CAPTURES.encode(), self._captures()),
            Entry(TRUE_COLOUR.encode(), TrueColour(self, TRUE_COLOUR.encode())),
        ]
        renderings = {text: self._rendering(text) for text in _RENDERED}
        renderings |= {text: self._mosaic(text) for text in sorted(await self._mosaic_names())}
        for text, rendering in renderings.items():
            entries.append(await rendering.entry(self, text.encode()))
        return entries

    async def load(self) -> TaskScenes:
        """Return what is known of the task's scenes."""
        task = await self._views.catalogue.task(TaskId(self._task.task_id))
        return await self._views.scenes.load(self._task, task)

    def peek(self) -> TaskScenes | None:
        """Return what is known of the task's scenes if it is still believed. Never waits."""
        return self._views.scenes.peek(self._task)

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

    async def expected(
        self, name: str, names_of: Callable[[Sequence[SceneView]], frozenset[str]]
    ) -> frozenset[str]:
        """Return names that the records of the scenes let expect, under that *name* made once."""
        task = await self._views.catalogue.task(TaskId(self._task.task_id))
        found = await self._views.scenes.load_records(self._task, task)
        return await found.once(name, lambda known: names_of(known.scenes))

    async def scene(self, name: str) -> SceneView | None:
        """Return what is known of one scene, its zip included; None when the task has none."""
        found = self.peek()
        if found is not None and not found.n_unknown:
            return next((scene for scene in found.scenes if scene.name == name), None)
        return await self._views.scenes.load_one(self._task, name.encode())

    async def _mosaic_names(self) -> frozenset[str]:
        found = self.peek()
        known = frozenset() if found is None else frozenset(await self._mosaics_in(found))
        if found is not None and not found.n_unknown:
            return known
        return known | await self.expected("mosaics", expected_mosaics)

    async def _mosaics_in(self, found: TaskScenes) -> Mapping[str, bytes]:
        return await found.once("mosaics", lambda known: mosaics_of(known.scenes))

    def _mosaic(self, text: str) -> Rendering:
        async def make() -> bytes:
            found = await self.load()
            mosaics = await self._mosaics_in(found)
            if text in mosaics:
                return mosaics[text]
            if found.n_unknown:
                raise Unreachable(f"{found.n_unknown} scenes have a zip that cannot be read now")
            if text in await self.expected("mosaics", expected_mosaics):
                others = ", ".join(sorted(mosaics)) or "there is no other mosaic"
                return nothing_of(f"no raster belongs here; see {others}")
            raise not_there(self, text.encode("utf-8", "replace"))

        async def known() -> bytes | None:
            found = self.peek()
            return None if found is None else (await self._mosaics_in(found)).get(text)

        return Rendering(make, known)


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
        """Return the VRT called *name*; of the zips, that of its scene is read.

        Raises:
            NotThere: no scene has a file of that name.
            SatfsError: the scene's zip cannot be read now.
        """
        return await self._rendering(name.decode("utf-8", "replace")).node(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return the VRTs, for the listings of the task.

        The zips decide which scenes have one. Until they were read, the names are those that the
        records let expect.
        """
        return [
            await self._rendering(text).entry(self, text.encode())
            for text in sorted(await self._names())
        ]

    async def _names(self) -> frozenset[str]:
        found = self._view.peek()
        if found is not None and not found.n_unknown:
            return frozenset(await _true_colours_in(found))
        return await self._view.expected(TRUE_COLOUR, expected_true_colours)

    def _rendering(self, text: str) -> Rendering:
        async def make() -> bytes:
            name, extension = text[:-4], text[-4:]
            scene = await self._view.scene(name) if extension == ".vrt" else None
            made = None if scene is None else true_colour_of(scene)
            if made is not None:
                return made
            if text in await self._view.expected(TRUE_COLOUR, expected_true_colours):
                return nothing_of("the delivery has no raster that names red, green and blue")
            raise not_there(self, text.encode("utf-8", "replace"))

        async def known() -> bytes | None:
            found = self._view.peek()
            return None if found is None else (await _true_colours_in(found)).get(text)

        return Rendering(make, known)


async def _true_colours_in(found: TaskScenes) -> Mapping[str, bytes]:
    return await found.once(TRUE_COLOUR, _true_colours)


def _true_colours(found: TaskScenes) -> dict[str, bytes]:
    made = {f"{scene.name}.vrt": true_colour_of(scene) for scene in found.scenes}
    return {name: content for name, content in made.items() if content is not None}


async def _page() -> bytes:
    return page()
