"""`.satfs/explain/`: the tree again, with a text about each file in the file's place.

A directory here looks at the directory that it mirrors when a program lists it, which may request a
listing as that one does. It sends no request about an object: a file's name is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import trio
from msgspec import Struct

from satfs.errors import NotThere
from satfs.introspection.snapshots import Snapshots
from satfs.model import DELIVERY_ZIP, AttachmentName, SceneId
from satfs.tree.nodes import Attributes, Directory, Entry, Node, not_there
from satfs.tree.scenes import SceneDirectory

if TYPE_CHECKING:
    from satfs.introspection.directory import Introspection

#: Entries made between two checkpoints: some ten milliseconds' worth.
_BATCH: Final = 500


class MirrorContext(Struct, frozen=True):
    """The parts that all directories of the mirror share."""

    snapshots: Snapshots
    explainer: Introspection


class ExplainDirectory(Directory):
    """One directory of the mirror; *scene* is the scene whose zip it is inside of, if it is."""

    __slots__ = ("_context", "_mirrored", "_scene")
    holds_polled_names: ClassVar[bool] = True

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        mirrored: Directory,
        context: MirrorContext,
        scene: SceneId | None = None,
    ) -> None:
        super().__init__(parent, name)
        self._mirrored = mirrored
        self._context = context
        self._scene = scene

    def attributes(self) -> Attributes:
        """Return the attributes of the directory that is mirrored."""
        return self._mirrored.attributes()

    async def lookup(self, name: bytes) -> Node:
        """Return the directory or the text called *name*; raises as the mirrored one does."""
        mirrored = self._mirrored
        if isinstance(mirrored, SceneDirectory):
            attachment = (await mirrored.attachments_by_name()).get(name)
            if attachment is not None:
                make = self._about_object(mirrored.scene_id, name, attachment)
                return self._snapshots.file(self, name, make)
        found = await mirrored.lookup(name)
        if isinstance(found, Directory) and not found.is_explained:
            raise not_there(self, name)
        if isinstance(found, Directory):
            return self._directory(name, found)
        return self._snapshots.file(self, name, self._about(name))

    async def children(self) -> Sequence[Entry]:
        """Return a directory for each directory, and a text for each other entry."""
        mirrored = self._mirrored
        entries: list[Entry] = []
        if isinstance(mirrored, SceneDirectory):
            for name, attachment in (await mirrored.attachments_by_name()).items():
                make = self._about_object(mirrored.scene_id, name, attachment)
                entries.append(Entry(name, self._snapshots.listed(self, name, make)))
            others: Sequence[Entry] = await mirrored.children_beside_attachments()
        else:
            others = await mirrored.children()
        for entry in others:
            if isinstance(entry.target, Directory):
                if not entry.target.is_explained:
                    continue
                entries.append(Entry(entry.name, self._directory(entry.name, entry.target)))
            else:
                make = self._about(entry.name)
                entries.append(Entry(entry.name, self._snapshots.listed(self, entry.name, make)))
            if len(entries) % _BATCH == 0:
                await trio.lowlevel.checkpoint()
        return entries

    @property
    def _snapshots(self) -> Snapshots:
        return self._context.snapshots

    def _directory(self, name: bytes, mirrored: Directory) -> ExplainDirectory:
        scene = self._scene
        if isinstance(self._mirrored, SceneDirectory):
            scene = self._mirrored.scene_id
        return ExplainDirectory(self, name, mirrored, self._context, scene)

    def _about_object(
        self, scene: SceneId, name: bytes, attachment: AttachmentName
    ) -> Callable[[], bytes]:
        explainer = self._context.explainer
        return self._titled(name, lambda: explainer.of_object(scene, attachment))

    def _about(self, name: bytes) -> Callable[[], bytes]:
        scene, explainer = self._scene, self._context.explainer
        if scene is None:
            path = (*self._mirrored.path, name.decode("utf-8", "replace"))
            return self._titled(name, lambda: explainer.of_record(path))
        return self._titled(
            name,
            lambda: (
                "A member of the zip, read from it; this is about the zip.\n\n"
                + explainer.of_object(scene, DELIVERY_ZIP)
            ),
        )

    def _titled(self, name: bytes, render: Callable[[], str]) -> Callable[[], bytes]:
        title = "/".join((*self._mirrored.path, name.decode("utf-8", "replace")))

        def make() -> bytes:
            return f"{title}\n\n{render()}".encode("utf-8", "backslashreplace")

        return make


class ExplainRoot(ExplainDirectory):
    """`.satfs/explain`: the mirror, by paths in the mount and by absolute paths.

    *mountpoint* has the names of the path of the mount. They lead to the mirror as well, without
    being listed, where the top of the mount has no such name.
    """

    __slots__ = ("_mountpoint",)

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        mirrored: Directory,
        context: MirrorContext,
        mountpoint: Sequence[bytes],
    ) -> None:
        super().__init__(parent, name, mirrored, context)
        self._mountpoint = tuple(mountpoint)

    async def lookup(self, name: bytes) -> Node:
        """Return the directory or the text called *name*, or the way to the mountpoint."""
        try:
            return await super().lookup(name)
        except NotThere:
            if self._mountpoint[:1] != (name,):
                raise
        return _towards_mountpoint(self, self._mountpoint, self._mirrored, self._context)


class _AboveMountpoint(ExplainDirectory):
    """A directory above the mountpoint in an absolute path below `.satfs/explain`."""

    __slots__ = ("_below",)

    def __init__(
        self, parent: Directory, names: Sequence[bytes], mirrored: Directory, context: MirrorContext
    ) -> None:
        super().__init__(parent, names[0], mirrored, context)
        self._below = names[1:]

    async def lookup(self, name: bytes) -> Node:
        """Return the next directory of the path; waits for nothing."""
        if name != self._below[0]:
            raise not_there(self, name)
        return _towards_mountpoint(self, self._below, self._mirrored, self._context)

    async def children(self) -> Sequence[Entry]:
        """Return nothing: files have paths in the mount, which are listed."""
        return ()


def _towards_mountpoint(
    parent: Directory, names: Sequence[bytes], mirrored: Directory, context: MirrorContext
) -> Directory:
    """Return the node of the first of *names*, of which the last is the mountpoint's."""
    if len(names) == 1:
        return ExplainDirectory(parent, names[0], mirrored, context)
    return _AboveMountpoint(parent, names, mirrored, context)
