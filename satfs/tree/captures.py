"""A capture directory: its record, the footprints of its scenes, and the scenes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from satfs.errors import NotThere
from satfs.json_bytes import json_bytes
from satfs.model import Capture, CaptureId, Scene, SceneId
from satfs.stac.catalogs import capture_catalog
from satfs.tree import names, sidecars
from satfs.tree.nodes import Entry, Node, xattr_values
from satfs.tree.record_entries import ListedEntries, find
from satfs.tree.rendered import Rendering, listed, rendered_from
from satfs.tree.scenes import SceneDirectory, SceneHolder, SourcedDirectory

if TYPE_CHECKING:
    from satfs.api.record_list import RecordList

CAPTURE_JSON: Final = "capture.json"
FOOTPRINTS: Final = "footprints.geojson"
CATALOG: Final = "catalog.json"
#: Names of a capture's own files, which no scene is shown under.
RESERVED_IN_CAPTURE: Final = frozenset({CAPTURE_JSON, FOOTPRINTS, CATALOG})
#: Names in the path of a capture below `tasks/`; below `captures/` there are two.
_DEPTH_IN_TASK: Final = 3


class CaptureHolder(SourcedDirectory):
    """A directory that captures are found in, which has their present records."""

    __slots__ = ()

    @abstractmethod
    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record as the listing has it now; raise NotThere when it is gone."""


class CaptureDirectory(SceneHolder):
    """One capture; shown only if it is published. Each call uses the present records.

    A capture's record has no date that the API promises, so its time is *time_ns*: that of its
    task, which is known wherever the capture is listed.
    """

    __slots__ = ("_holder", "_mtime_ns", "_status", "capture_id")

    def __init__(self, parent: CaptureHolder, name: bytes, capture: Capture, time_ns: int) -> None:
        super().__init__(parent, name, parent.sources)
        self.capture_id = capture.capture_id
        self._status = capture.status
        self._holder = parent
        self._mtime_ns = time_ns

    def xattrs(self) -> Mapping[str, bytes]:
        """Return id and status of the capture, over those of what it was found in."""
        own = xattr_values(capture_id=self.capture_id, status=self._status)
        return {**self._holder.xattrs(), **own}

    async def lookup(self, name: bytes) -> Node:
        """Return the scene or sidecar called *name*."""
        if (sidecar := self._sidecars().get(name)) is not None:
            return await sidecar.node(self, name)
        scenes = await self.sources.catalogue.scenes(self.capture_id)
        return self._make(name, find(self, name, scenes, RESERVED_IN_CAPTURE))

    async def children(self) -> Sequence[Entry]:
        """Return the sidecars and the scenes, for one listing of the capture's scenes."""
        scenes = await self.sources.catalogue.scenes(self.capture_id)
        beside = await listed(self, self._sidecars())
        return ListedEntries(scenes, self._make, RESERVED_IN_CAPTURE, beside)

    async def current_scene(self, scene_id: SceneId) -> Scene:
        """Return the record of a scene as the capture's listing has it now."""
        scene = (await self.sources.catalogue.scenes(self.capture_id)).find(scene_id)
        if scene is None:
            raise NotThere(f"capture {self.capture_id} has no scene {scene_id} any more")
        return scene

    def scene_id_of(self, name: bytes) -> SceneId | None:
        """See `SceneHolder.scene_id_of`."""
        text = names.plain_text_of(name, RESERVED_IN_CAPTURE)
        return None if text is None else SceneId(text)

    async def scenes_after(self, scene_id: SceneId) -> Sequence[Scene]:
        """Return the scenes that will probably be listed after this one, which is listed now."""
        scenes = await self.sources.catalogue.scenes(self.capture_id)
        return self.sources.ahead.after(self.capture_id, scenes, scene_id)

    def _make(self, name: bytes, scene: Scene) -> SceneDirectory:
        return SceneDirectory(self, name, scene, self._mtime_ns)

    def _sidecars(self) -> Mapping[bytes, Rendering]:
        async def capture_json() -> bytes:
            return sidecars.record_json(await self._holder.current_capture(self.capture_id))

        async def scenes() -> tuple[RecordList[Scene]]:
            return (await self.sources.catalogue.scenes(self.capture_id),)

        def catalog(scenes: RecordList[Scene]) -> bytes:
            pairs = ((id, names.name_of(id, RESERVED_IN_CAPTURE).decode()) for id in scenes.ids())
            is_in_task = len(self.path) == _DEPTH_IN_TASK
            return json_bytes(capture_catalog(self.capture_id, pairs, is_in_task=is_in_task))

        def of_scenes(
            name: str, render: Callable[[RecordList[Scene]], bytes | Iterator[bytes]]
        ) -> Rendering:
            return rendered_from(self, name.encode(), render, scenes, self.sources.rendered)

        found = {
            CAPTURE_JSON.encode(): Rendering(capture_json, capture_json),
            FOOTPRINTS.encode(): of_scenes(FOOTPRINTS, _footprints),
        }
        if self.sources.has_catalogs:
            found[CATALOG.encode()] = of_scenes(CATALOG, catalog)
        return found


def scene_name(scene: Scene) -> bytes:
    """Return the name of a scene's directory in that of its capture."""
    return names.name_of(scene.scene_id, RESERVED_IN_CAPTURE)


def _footprints(scenes: RecordList[Scene]) -> Iterator[bytes]:
    return sidecars.footprints_geojson((scene, scene_name(scene).decode()) for scene in scenes)
