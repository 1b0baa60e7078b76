"""A scene as the renderers of a task's view see it. *Pure*."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from satfs.facts.scene import MemberKind, RasterFacts, SceneFacts

#: The name of each kind of raster in the names of files and layers: the vendor's own.
KIND_NAMES: Final = {
    MemberKind.VISUAL: "VISUAL",
    MemberKind.ANALYTIC: "TOA",
    MemberKind.CLOUD: "CLOUD",
}
#: The place in time of a scene without one: before all others.
_NO_MOMENT: Final = datetime.min.replace(tzinfo=UTC)


class SceneView(Struct, frozen=True):
    """A scene in the view of its task.

    `directory` is the path of the scene's directory, relative to `views/task/<task>/`, with slashes
    (`captures/<capture>/<scene>`). `preview`, `thumbnail` and `delivery` are the names of those
    attachments in it, None for an attachment that the scene lacks. `contents` is the name of the
    directory with the zip's members, None where the mount does not show it.
    """

    facts: SceneFacts
    directory: str
    preview: str | None = None
    thumbnail: str | None = None
    delivery: str | None = None
    contents: str | None = "contents"

    @property
    def name(self) -> str:
        """Return the name of the scene's directory."""
        return self.directory.rpartition("/")[2]

    @property
    def moment(self) -> datetime:
        """Return when the scene was taken, for an order; the year 1 when that is not known."""
        return self.facts.moment or _NO_MOMENT

    def path_of(self, raster: RasterFacts) -> str | None:
        """Return the path of a raster relative to the view; None where members have no files."""
        return None if self.contents is None else f"{self.directory}/{self.contents}/{raster.path}"


def newest_last(scenes: Iterable[SceneView]) -> list[SceneView]:
    """Return *scenes* by time and then by name."""
    return sorted(scenes, key=lambda scene: (scene.moment, scene.name))
