"""A capture directory: its record, the footprints of its scenes, and the scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from satfs.errors import NotThere, SatfsError
from satfs.model import Capture, CaptureId, Scene, SceneId
from satfs.tree import names, sidecars
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
from satfs.tree.scenes import SceneDirectory, Sources
from satfs.tree.times import FALLBACK_NS

CAPTURE_JSON: Final = "capture.json"
FOOTPRINTS: Final = "footprints.geojson"
_RESERVED: Final = frozenset({CAPTURE_JSON, FOOTPRINTS})


class CaptureHolder(Protocol):
    """Whatever can tell what a capture's record is now: the directory it was found in."""

    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record as the listing has it now; raise NotThere when it is gone."""
        ...


class CaptureDirectory(Directory):
    """One published capture.

    A capture's record has no date that the API promises, so its time is *time_ns*: that of its
    task, which is known wherever the capture is listed.
    """

    __slots__ = ("_holder", "_offspring", "_sources", "_time_ns", "capture")

    def __init__(
        self,
        parent: Directory,
        name: bytes,
        capture: Capture,
        *,
        sources: Sources,
        holder: CaptureHolder,
        time_ns: int,
    ) -> None:
        super().__init__(parent, name)
        self.capture = capture
        self._sources = sources
        self._holder = holder
        self._time_ns = time_ns
        self._offspring = Offspring(self._make, _scene_name)

    def attributes(self) -> Attributes:
        """Return what `stat` tells."""
        return Attributes(Kind.DIRECTORY, 0o555, 0, self._time_ns, self._time_ns)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return id and status of the capture, over those of what it was found in."""
        inherited = self.parent.xattrs() if self.parent is not None else {}
        own = xattr_values(capture_id=self.capture.capture_id, status=self.capture.status)
        return {**inherited, **own}

    async def lookup(self, name: bytes) -> Node:
        """Return the scene or sidecar called *name*."""
        if name == CAPTURE_JSON.encode():
            capture = await self._holder.current_capture(self.capture.capture_id)
            return self._file(name, sidecars.capture_json(capture))
        scenes = await self._sources.catalogue.scenes(self.capture.capture_id)
        if name == FOOTPRINTS.encode():
            return self._file(name, _footprints(scenes))
        known = await self._offspring.of(scenes)
        if name not in known:
            raise not_there(self, name)
        return known[name]

    async def children(self) -> Sequence[Entry]:
        """Return the sidecars and the scenes, for one listing of the capture's scenes."""
        scenes = await self._sources.catalogue.scenes(self.capture.capture_id)
        entries = []
        for sidecar in (CAPTURE_JSON, FOOTPRINTS):
            name = sidecar.encode()
            try:
                entries.append(Entry(name, await self.lookup(name)))
            except SatfsError as error:
                entries.append(Entry(name, error))
        known = await self._offspring.of(scenes)
        entries.extend(Entry(name, node) for name, node in known.items())
        return entries

    async def current_scene(self, scene_id: SceneId) -> Scene:
        """Return the record of a scene as the capture's listing has it now."""
        for scene in await self._sources.catalogue.scenes(self.capture.capture_id):
            if scene.scene_id == scene_id:
                return scene
        raise NotThere(f"capture {self.capture.capture_id} has no scene {scene_id} any more")

    def _make(self, name: bytes, scene: Scene) -> SceneDirectory:
        return SceneDirectory(
            self,
            name,
            scene,
            sources=self._sources,
            holder=self,
            fallback_ns=self._time_ns,
        )

    def _file(self, name: bytes, content: bytes) -> BytesFile:
        return BytesFile(self, name, content, mtime_ns=self._time_ns, xattrs=self.xattrs())


class Captures(Directory):
    """`captures/`: every published capture that was seen, and any other by its id."""

    __slots__ = ("_offspring", "_sources")

    def __init__(self, parent: Directory, name: bytes, sources: Sources) -> None:
        super().__init__(parent, name)
        self._sources = sources
        self._offspring = Offspring(self._make, _capture_name)

    async def lookup(self, name: bytes) -> Node:
        """Return the published capture with that id, known or not."""
        text = names.text_of(name)
        if text is None and names.is_cut(name):  # only what is known can be compared
            known = await self._offspring.of(self._known())
            if name in known:
                return known[name]
        if text is None:
            raise not_there(self, name)
        return self._offspring.one(name, await self.current_capture(CaptureId(text)))

    async def children(self) -> Sequence[Entry]:
        """Return the published captures that are known; asks for none."""
        known = await self._offspring.of(self._known())
        return [Entry(name, node) for name, node in known.items()]

    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record of a published capture, as far as it is known."""
        capture = await self._sources.catalogue.capture(capture_id)
        if not capture.is_published:
            raise NotThere(f"capture {capture_id} is not published")
        return capture

    def _known(self) -> tuple[Capture, ...]:
        known = self._sources.catalogue.known_captures()
        return tuple(capture for capture in known if capture.is_published)

    def _make(self, name: bytes, capture: Capture) -> CaptureDirectory:
        return CaptureDirectory(
            self, name, capture, sources=self._sources, holder=self, time_ns=FALLBACK_NS
        )


def _scene_name(scene: Scene) -> bytes:
    return names.name_of(scene.scene_id, _RESERVED)


def _capture_name(capture: Capture) -> bytes:
    return names.name_of(capture.capture_id)


def _footprints(scenes: Sequence[Scene]) -> bytes:
    return sidecars.footprints_geojson((scene, _scene_name(scene).decode()) for scene in scenes)
