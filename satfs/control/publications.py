"""Publications since the last look: the listings to request again, and the new entries.

*Pure*. Works on the records as the API sends them, from a mount or from the API itself.

The API has no request for new entries, so all is listed again: the tasks, the captures of each
task, the scenes of each published capture. Where there are very many, those that are most likely
finished take turns: tasks that are long over, captures that were published long ago.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct, field

from satfs.api.record_parsers import moment
from satfs.errors import BadSettings
from satfs.model import Json, is_published

#: A capture's scenes come within hours of its publication; further products within days.
SETTLED_S: Final = 3 * 86_400.0
#: A task is long over this long after its `end`, once its status is final.
OVER_S: Final = 14 * 86_400.0
#: Of what is settled or over, this many are looked at each time, first those that were not looked
#: at for longest. With the usual pauses this comes to a few requests a second at most.
TURNS: Final = 200
#: Statuses of a task after which nothing more is taken (those known; any other may go on).
_FINAL: Final = frozenset({"completed", "failed", "rejected", "canceled", "cancelled"})

_VERSION: Final = 1


class Event(Struct, frozen=True):
    """One thing that was published. *record* is the API's; a scene's id is None for a capture."""

    kind: str
    task_id: str
    capture_id: str
    scene_id: str | None
    record: Mapping[str, Json]

    def as_json(self) -> dict[str, Json]:
        """Return the event as JSON for programs."""
        return {
            "event": self.kind,
            "task_id": self.task_id,
            "capture_id": self.capture_id,
            "scene_id": self.scene_id,
            "record": dict(self.record.items()),
        }


class SeenCapture(Struct, rename={"task_id": "task", "requested_at_s": "asked_at_s"}):
    """A published capture: its scenes, when it was seen and when they were last requested."""

    task_id: str
    seen_at_s: float
    requested_at_s: float = 0.0
    scenes: set[str] | None = None


class SavedPublications(Struct, rename={"version": "satfs_watch"}):
    """`SeenPublications` on disk."""

    version: int
    is_begun: bool
    tasks: dict[str, float]
    captures: dict[str, SeenCapture]


class SeenPublications(Struct):
    """All that was seen so far; `is_begun` once a first look has been finished."""

    is_begun: bool = False
    #: When the captures of each task were last requested.
    tasks: dict[str, float] = field(default_factory=dict)
    captures: dict[str, SeenCapture] = field(default_factory=dict)

    def due_tasks(self, entries: Sequence[Mapping[str, Json]], now_s: float) -> list[str]:
        """Return the ids of the tasks among *entries* whose captures are to be requested now."""
        due: list[str] = []
        finished: list[str] = []
        for entry in entries:
            id = str(entry["id"])
            is_known = id in self.tasks
            is_finished = is_known and _is_over(entry.get("record") or {}, now_s)
            (finished if is_finished else due).append(id)
        finished.sort(key=lambda id: self.tasks[id])
        return due + finished[:TURNS]

    def due_captures(self, now_s: float) -> list[str]:
        """Return the ids of the captures whose scenes are to be requested now."""
        due: list[str] = []
        finished: list[str] = []
        for id, seen in self.captures.items():
            is_late = seen.scenes is not None and not 0 <= now_s - seen.seen_at_s < SETTLED_S
            (finished if is_late else due).append(id)
        finished.sort(key=lambda id: self.captures[id].requested_at_s)
        return due + finished[:TURNS]

    def note_captures(
        self, task_id: str, entries: Sequence[Mapping[str, Json]], now_s: float
    ) -> list[Event]:
        """Take in a task's captures; return those whose publication is news.

        They count as seen only after `note`.
        """
        published = []
        for entry in entries:
            record = entry.get("record") or {}
            id = str(entry["id"])
            status = record.get("status", record.get("state"))
            if id in self.captures or not is_published(status):
                continue
            event = Event("capture", task_id, id, None, record)
            if self.is_begun:
                published.append(event)
            else:
                self.captures[id] = SeenCapture(task_id, now_s)
        if not published:
            self.tasks[task_id] = now_s
        return published

    def note_scenes(
        self, capture_id: str, entries: Sequence[Mapping[str, Json]], now_s: float
    ) -> list[Event]:
        """Take in a capture's scenes; return those that are news (see `note_captures`)."""
        seen = self.captures[capture_id]
        ids = {str(entry["id"]) for entry in entries}
        if seen.scenes is None:  # what was there before the watch began
            seen.scenes, seen.requested_at_s = ids, now_s
            return []
        known = seen.scenes
        published = [
            Event("scene", seen.task_id, capture_id, str(entry["id"]), entry.get("record") or {})
            for entry in entries
            if str(entry["id"]) not in known
        ]
        if not published:
            seen.requested_at_s = now_s
        return published

    def note(self, event: Event, now_s: float) -> None:
        """Note that *event* was reported: it is not reported again."""
        if event.scene_id is None:
            self.captures[event.capture_id] = SeenCapture(event.task_id, now_s, scenes=set())
        elif (capture := self.captures.get(event.capture_id)) is not None:
            capture.scenes = (capture.scenes or set()) | {event.scene_id}

    # -- on disk ---------------------------------------------------------------------------------

    def as_text(self) -> str:
        """Return all of it as text."""
        saved = SavedPublications(_VERSION, self.is_begun, self.tasks, self.captures)
        return msgspec.json.encode(saved, order="sorted").decode()

    @classmethod
    def of_text(cls, text: str) -> SeenPublications:
        """Return the state that *text* holds.

        Raises:
            BadSettings: it is not what `as_text` makes. Taken for empty, it would have everything
                reported again.
        """
        try:
            saved = msgspec.json.decode(text, type=SavedPublications)
        except (ValueError, RecursionError):
            saved = None
        if saved is None or saved.version != _VERSION:
            raise BadSettings("it is not a record of what was seen")
        return cls(saved.is_begun, saved.tasks, saved.captures)


def _is_over(record: Mapping[str, Json], now_s: float) -> bool:
    """Return whether nothing more is to be expected of a task."""
    if record.get("status") not in _FINAL:
        return False
    end = moment(record.get("end"))
    return end is not None and now_s - end.timestamp() > OVER_S
