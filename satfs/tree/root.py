"""The top of the mount: tasks, `captures/` and `scenes/` by id, a README, and files for desktops.

`.xdg-volume-info` is what GVfs reads from the top of a volume (GNOME's and other GTK desktops); it
names an icon beside it. Both are made here, without a request to the vendor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from satfs.errors import Garbled, NotThere
from satfs.json_bytes import json_bytes
from satfs.model import Capture, CaptureId, Scene, SceneId
from satfs.stac.catalogs import account_catalog
from satfs.tree import names
from satfs.tree.captures import CaptureDirectory, CaptureHolder
from satfs.tree.nodes import BytesFile, Directory, Entry, Node, not_there
from satfs.tree.record_entries import ListedEntries, entries_of, find
from satfs.tree.scenes import SceneDirectory, SceneHolder, TreeSources
from satfs.tree.tasks import Tasks
from satfs.tree.times import FALLBACK_NS


class Captures(CaptureHolder):
    """`captures/`: every published capture that was seen, and any other by its id."""

    __slots__ = ()

    async def lookup(self, name: bytes) -> Node:
        """Return the published capture with that id, known or not."""
        text = names.text_of(name)
        if text is None:  # only what is known can be compared
            text = find(self, name, self.sources.catalogue.known_captures()).capture_id
        return self._make(name, await self.current_capture(CaptureId(text)))

    async def children(self) -> Sequence[Entry]:
        """Return the published captures that are known, without a request."""
        known = self.sources.catalogue.known_captures()
        published = (capture for capture in known if capture.is_published)
        return await entries_of(
            published, lambda capture: names.name_of(capture.capture_id), self._make
        )

    async def current_capture(self, capture_id: CaptureId) -> Capture:
        """Return the record of a published capture, as far as it is known."""
        capture = await self.sources.catalogue.capture(capture_id)
        if capture.problem:
            raise Garbled(f"capture {capture_id}: {capture.problem}")
        if not capture.is_published:
            raise NotThere(f"capture {capture_id} is not published")
        return capture

    def _make(self, name: bytes, capture: Capture) -> CaptureDirectory:
        return CaptureDirectory(self, name, capture, FALLBACK_NS)


class Scenes(SceneHolder):
    """`scenes/`: every scene that was seen, and any other by its id."""

    __slots__ = ()

    async def lookup(self, name: bytes) -> Node:
        """Return the scene with that id, known or not."""
        text = names.text_of(name)
        if text is None:  # only what is known can be compared
            return self._make(name, find(self, name, self.sources.catalogue.known_scenes()))
        scene = await self.current_scene(SceneId(text))
        if scene.problem:
            raise Garbled(f"scene {text}: {scene.problem}")
        return self._make(name, scene)

    async def children(self) -> Sequence[Entry]:
        """Return the scenes that are known, without a request."""
        return ListedEntries(self.sources.catalogue.known_scenes(), self._make)

    async def current_scene(self, scene_id: SceneId) -> Scene:
        """Return the record of a scene as it is now."""
        return await self.sources.catalogue.scene(scene_id)

    def scene_id_of(self, name: bytes) -> SceneId | None:
        """See `SceneHolder.scene_id_of`."""
        text = names.plain_text_of(name)
        return None if text is None else SceneId(text)

    async def scenes_after(self, scene_id: SceneId) -> Sequence[Scene]:
        """Return none: the known scenes are no sign of what this program reads next."""
        return ()

    def _make(self, name: bytes, scene: Scene) -> SceneDirectory:
        return SceneDirectory(self, name, scene)


_README: Final = """\
Satellite imagery deliveries, mounted read-only by satfs.

tasks/<task>/<capture>/<scene>/   what was ordered, taken and delivered, with
                                  a JSON record of each
captures/<capture>/               a capture by its id alone; lists those seen
                                  so far
scenes/<scene>/                   a scene by its id alone; lists those seen
                                  so far
views/                            links by name, date and product; for each
                                  task a map, mosaics and a QGIS project

docs/SEMANTICS.md of satfs explains what a listing, a read and an error mean here.
The commands, and the one that unmounts this directory:

  {program} --help
  {program} umount DIRECTORY
"""

VOLUME_INFO: Final = ".xdg-volume-info"
ICON: Final = ".volume-icon.svg"

#: A satellite between two panels, above a horizon.
_ICON: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 64 64">
<rect width="64" height="64" rx="14" fill="#16324f"/>
<path d="M0 50 Q32 34 64 50 V50 A14 14 0 0 1 50 64 H14 A14 14 0 0 1 0 50 Z" fill="#3f8f6b"/>
<g transform="rotate(-30 32 26)" fill="#9cc3e6">
<rect x="8" y="20" width="15" height="12" rx="1"/>
<rect x="41" y="20" width="15" height="12" rx="1"/>
<rect x="23" y="24.5" width="18" height="3"/>
<rect x="26" y="18" width="12" height="16" rx="2" fill="#f4f1e6"/>
</g>
</svg>
"""


class Root(Directory):
    """The top directory: always the same, without a request."""

    __slots__ = ("_hidden", "_listed", "tasks")

    def __init__(self, sources: TreeSources, program: str = "satfs") -> None:
        """Make the top of a mount; *program* is what to type in a shell to run satfs."""
        super().__init__(None, b"")
        readme = _README.format(program=program).encode("utf-8", "surrogateescape")
        self.tasks = Tasks(self, b"tasks", sources)
        self._listed: dict[bytes, Node] = {
            b"README.txt": BytesFile(self, b"README.txt", readme),
            b"tasks": self.tasks,
            b"captures": Captures(self, b"captures", sources),
            b"scenes": Scenes(self, b"scenes", sources),
        }
        if sources.has_catalogs:
            self._listed[b"catalog.json"] = BytesFile(self, b"catalog.json", _CATALOG)
        self._hidden: dict[bytes, Node] = {}

    def show(self, nodes: Mapping[bytes, Node]) -> None:
        """Add *nodes* to the listing."""
        self._listed.update(nodes)

    def hide(self, nodes: Mapping[bytes, Node]) -> None:
        """Add *nodes* that are reachable by name and listed nowhere."""
        self._hidden.update(nodes)

    def may_hold(self, polled: str) -> bool:
        """Return whether *polled* was hidden here."""
        return polled.encode() in self._hidden

    async def lookup(self, name: bytes) -> Node:
        """Return what *name* leads to; waits for nothing."""
        node = self._listed.get(name) or self._hidden.get(name)
        if node is None:
            raise not_there(self, name)
        return node

    async def children(self) -> Sequence[Entry]:
        """Return what is to be listed; waits for nothing."""
        return [Entry(name, node) for name, node in self._listed.items()]


def volume_files(top: Directory, source: str) -> Mapping[bytes, Node]:
    """Return the files that name the mount of *source* (`satfs:default`), to be hidden in *top*."""
    profile = "".join(each for each in source.removeprefix("satfs:") if each.isprintable())
    name = "Satellite imagery" if profile in ("", "default") else f"Satellite imagery ({profile})"
    escaped = name.replace("\\", "\\\\")  # as a desktop entry has it
    info = f"[Volume Info]\nName={escaped}\nIconFile={ICON}\n"
    return {
        name.encode(): BytesFile(top, name.encode(), content.encode())
        for name, content in ((VOLUME_INFO, info), (ICON, _ICON))
    }


_CATALOG: Final = json_bytes(account_catalog())
