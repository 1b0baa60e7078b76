"""`views/` at the top of a mount, and its directories of links into `tasks/`.

The links are by the names of tasks, and by what an index has of scenes. Nothing is requested before
a program looks further than `views/` itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from satfs.errors import NotThere
from satfs.model import Task, TaskId
from satfs.tree import names
from satfs.tree.nodes import Directory, Entry, Node, Symlink, not_there
from satfs.tree.root import Root
from satfs.tree.tasks import task_name
from satfs.tree.times import time_ns
from satfs.views.indexer import IndexedScene, Links, SceneIndexer
from satfs.views.task_scenes import ScenesOfTasks, ScenesTerms
from satfs.views.task_view import TaskViews

if TYPE_CHECKING:
    from satfs.api.listings import Listings


class ByName(Directory):
    """`by-name/`: a link for each task, called `<name> (<id>)`; one without a name `(<id>)`."""

    __slots__ = ("_catalogue",)

    def __init__(self, parent: Directory, name: bytes, catalogue: Listings) -> None:
        super().__init__(parent, name)
        self._catalogue = catalogue

    async def lookup(self, name: bytes) -> Node:
        """Return the link called *name*; requests one task, or all tasks for an unusual name."""
        text = names.text_of(name)
        task_id = None if text is None else _id_in(text)
        if task_id is not None:
            with suppress(NotThere):
                task = await self._catalogue.task(task_id)
                if _label(task) == text:
                    return self._link(task)
        # Of a name that was cut, or an id that holds a bracket, only the listing has the rest.
        if names.is_cut(name) or (text is not None and text.count("(") > 1):
            for task in await self._catalogue.tasks():
                if names.name_of(_label(task)) == name:
                    return self._link(task)
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return a link for each task, for one listing of tasks."""
        links: dict[bytes, Symlink] = {}
        for task in await self._catalogue.tasks():
            link = self._link(task)
            links.setdefault(link.path[-1].encode(), link)
        return [Entry(name, link) for name, link in links.items()]

    def _link(self, task: Task) -> Symlink:
        target = _to_top(self) + b"tasks/" + task_name(task)
        return Symlink(self, names.name_of(_label(task)), target, time_ns(task.created_at))


def _label(task: Task) -> str:
    return f"{task.name} ({task.task_id})" if task.name else f"({task.task_id})"


def _id_in(label: str) -> TaskId | None:
    """Return the text between the last brackets of a label; None when it ends with none."""
    head, bracket, tail = label.rpartition("(")
    if not bracket or not tail.endswith(")") or (head and not head.endswith(" ")):
        return None
    return TaskId(tail[:-1])


class IndexDirectory(Directory):
    """A directory of links to scenes, or of directories of links; *load* returns its entries.

    The entries may change from one listing to the next, as the index does.
    """

    __slots__ = ("_load",)

    def __init__(
        self, parent: Directory, name: bytes, load: Callable[[], Awaitable[Links]]
    ) -> None:
        super().__init__(parent, name)
        self._load = load

    async def lookup(self, name: bytes) -> Node:
        """Return the link or directory called *name*."""
        for own, found in (await self._load()).items():
            if _name(own, found) == name:
                return self._node(own, found)
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return what the index has here."""
        nodes = [self._node(own, found) for own, found in (await self._load()).items()]
        return [Entry(node.path[-1].encode(), node) for node in nodes]

    def _node(self, own: str, found: Links | IndexedScene) -> Node:
        name = _name(own, found)
        if isinstance(found, IndexedScene):
            path = f"tasks/{found.task}/{found.capture}/{found.scene}"
            return Symlink(self, name, _to_top(self) + path.encode(), time_ns(found.moment))

        async def load() -> Links:
            inner = (await self._load()).get(own)
            if not isinstance(inner, Mapping):
                raise NotThere(f"/{'/'.join(self.path)} holds no {own!r} any more")
            return inner

        return IndexDirectory(self, name, load)


def _name(own: str, found: Links | IndexedScene) -> bytes:
    # Names of scenes are names of directories already; those of products are the vendor's.
    return own.encode() if isinstance(found, IndexedScene) else names.name_of(own)


def _to_top(directory: Directory) -> bytes:
    """Return the path from a link in *directory* to the top of the mount."""
    return b"../" * len(directory.path)


DIRECTORY_NAME: Final = b"views"
#: The directories that need the index.
_INDEXED: Final = ("by-date", "by-product", "latest")


def views_of(
    root: Root, catalogue: Listings, indexer: SceneIndexer, terms: ScenesTerms
) -> dict[bytes, Node]:
    """Return `views/`, to be added at the top of the mount that *root* is; sends no request."""
    return {DIRECTORY_NAME: Views(root, catalogue, indexer, terms)}


class Views(Directory):
    """`views/`."""

    __slots__ = ("_nodes",)
    is_explained: ClassVar[bool] = False

    def __init__(
        self, root: Root, catalogue: Listings, indexer: SceneIndexer, terms: ScenesTerms
    ) -> None:
        super().__init__(root, DIRECTORY_NAME)
        self._nodes: dict[bytes, Node] = {
            b"by-name": ByName(self, b"by-name", catalogue),
            b"task": TaskViews(self, b"task", root.tasks, catalogue, ScenesOfTasks(terms)),
        }
        for text in _INDEXED:
            self._nodes[text.encode()] = self._indexed(text, indexer)

    async def lookup(self, name: bytes) -> Node:
        """Return the directory called *name*; sends no request."""
        if name not in self._nodes:
            raise not_there(self, name)
        return self._nodes[name]

    async def children(self) -> Sequence[Entry]:
        """Return the kinds of views; sends no request."""
        return [Entry(name, node) for name, node in self._nodes.items()]

    def _indexed(self, text: str, indexer: SceneIndexer) -> IndexDirectory:
        async def load() -> Links:
            found = (await indexer.links())[text]
            return found if isinstance(found, Mapping) else {}

        return IndexDirectory(self, text.encode(), load)
