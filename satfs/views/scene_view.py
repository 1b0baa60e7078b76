"""A scene as the renderers of a task's view see it, and text as they write it. *Pure*."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape

from msgspec import Struct

from satfs.facts.scene import MemberKind, RasterFacts, SceneFacts

#: The name of each kind of raster in the names of files and layers: the vendor's own.
KIND_NAMES: Final = {
    MemberKind.VISUAL: "VISUAL",
    MemberKind.ANALYTIC: "TOA",
    MemberKind.CLOUD: "CLOUD",
}
#: Characters that XML 1.0 §2.2 cannot hold: controls, surrogates, and two non-characters.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
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

    def picture(self, *kinds: MemberKind) -> str | None:
        """Return the path of a picture relative to the view: of the first kind that there is.

        *kinds* are PREVIEW and THUMBNAIL. An attachment is preferred to the file in the zip: the
        vendor promises neither.
        """
        attached = {MemberKind.PREVIEW: self.preview, MemberKind.THUMBNAIL: self.thumbnail}
        for kind in kinds:
            if (name := attached[kind]) is not None:
                return f"{self.directory}/{name}"
            members = self.facts.members_of(kind)
            if members and self.contents is not None:
                return f"{self.directory}/{self.contents}/{members[0].path}"
        return None


def newest_last(scenes: Iterable[SceneView]) -> list[SceneView]:
    """Return *scenes* by time and then by name."""
    return sorted(scenes, key=lambda scene: (scene.moment, scene.name))


def time_text(moment: datetime | None) -> str | None:
    """Return a moment in UTC as ISO 8601 has it, to the millisecond, with a Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def xml_text(text: str) -> str:
    """Return *text* as XML character data, fit for an attribute in double quotes, too.

    A character that XML cannot hold is shown as U+FFFD.
    """
    return escape(
        _NOT_XML.sub("\ufffd", text), {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    )
