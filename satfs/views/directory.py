"""`views/` at the top of a mount: nothing in it is requested before a program looks further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from satfs.tree.nodes import Directory, Entry, Node, not_there
from satfs.tree.root import Root
from satfs.tree.sources import Catalogue
from satfs.views.index import Links
from satfs.views.indexer import SceneIndexer
from satfs.views.links import ByName, IndexDirectory
from satfs.views.task_scenes import ScenesOfTasks, ScenesTerms
from satfs.views.task_view import TaskViews

DIRECTORY_NAME: Final = b"views"
#: The directories that need the index.
_INDEXED: Final = ("by-date", "by-product", "latest")


def views_of(
    root: Root, catalogue: Catalogue, indexer: SceneIndexer, terms: ScenesTerms
) -> dict[bytes, Node]:
    """Return `views/`, to be added at the top of the mount that *root* is; sends no request."""
    return {DIRECTORY_NAME: Views(root, catalogue, indexer, terms)}


class Views(Directory):
    """`views/`."""

    __slots__ = ("_nodes",)
    is_explained: ClassVar[bool] = False

    def __init__(
        self,
        root: Root,
        catalogue: Catalogue,
        indexer: SceneIndexer,
        terms: ScenesTerms,
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
