"""`captures/` and `scenes/` at the top: what was seen, and anything else by its id."""

from __future__ import annotations

from collections.abc import Sequence

from satfs.errors import Garbled, NotThere
from satfs.model import Capture, CaptureId, Scene, SceneId
from satfs.tree import names
from satfs.tree.captures import CaptureDirectory
from satfs.tree.listed import ListedEntries, entries_of, find
from satfs.tree.nodes import Directory, Entry, Node
from satfs.tree.scenes import SceneDirectory, TreeSources
from satfs.tree.times import FALLBACK_NS


class Captures(Directory):
    """`captures/`: every published capture that was seen, and any other by its id."""

    __slots__ = ("_sources",)

    def __init__(self, parent: Directory, name: bytes, sources: TreeSources) -> None:
        super().__init__(parent, name)
        self._sources = sources

    async def lookup(self, name: bytes) -> Node:
        """Return the published capture with that id, known or not."""
        text = names.text_of(name)
        if text is None:  # only what is known can be compared
            text = find(self, name, self._sources.catalogue.known_captures()).capture_id
        return self._make(name, await self.current_capture(CaptureId(text)))

    async def children(self) -> Sequence[Entry]:
        """Return the published captures that are known, without a request."""
        known = self._sources.catalogue.known_captures()
        published = (capture for capture in known if capture.is_published)
        return await entries_of(published, _capture_name, self._make)

    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record of a published capture, as far as it is known."""
        capture = await self._sources.catalogue.capture(capture_id)
        if capture.problem:
            raise Garbled(f"capture {capture_id}: {capture.problem}")
        if not capture.is_published:
            raise NotThere(f"capture {capture_id} is not published")
        return capture

    def _make(self, name: bytes, capture: Capture) -> CaptureDirectory:
        return CaptureDirectory(
            self, name, capture, sources=self._sources, holder=self, time_ns=FALLBACK_NS
        )


class Scenes(Directory):
    """`scenes/`: every scene that was seen, and any other by its id."""

    __slots__ = ("_sources",)

    def __init__(self, parent: Directory, name: bytes, sources: TreeSources) -> None:
        super().__init__(parent, name)
        self._sources = sources

    async def lookup(self, name: bytes) -> Node:
        """Return the scene with that id, known or not."""
        text = names.text_of(name)
        if text is None:  # only what is known can be compared
            return self._make(name, find(self, name, self._sources.catalogue.known_scenes()))
        scene = await self.current_scene(SceneId(text))
        if scene.problem:
            raise Garbled(f"scene {text}: {scene.problem}")
        return self._make(name, scene)

    async def children(self) -> Sequence[Entry]:
        """Return the scenes that are known, without a request."""
        return ListedEntries(self._sources.catalogue.known_scenes(), self._make)

    async def current_scene(self, scene_id: SceneId) -> Scene:
        """Return the record of a scene as it is now."""
        return await self._sources.catalogue.scene(scene_id)

    async def scenes_after(self, scene_id: SceneId) -> Sequence[Scene]:
        """Return none: the known scenes are no sign of what this program reads next."""
        return ()

    def _make(self, name: bytes, scene: Scene) -> SceneDirectory:
        return SceneDirectory(self, name, scene, sources=self._sources, holder=self)


def _capture_name(capture: Capture) -> bytes:
    return names.name_of(capture.capture_id)
