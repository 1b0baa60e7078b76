"""The scenes of an account by date, product and age: what links to them are made of. *Pure*.

An index holds for each task what its listings had, so that a task that was looked at again replaces
its own part. Kept on disk it is JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from heapq import nlargest
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from satfs.facts.record import facts_of_record
from satfs.model import Scene

#: Of what is kept: another form is not read.
FORM: Final = 1
#: How many scenes `latest/` has.
N_LATEST: Final = 50
#: The directory of scenes whose product is not known.
OTHER: Final = "other"


class IndexedScene(msgspec.Struct, frozen=True, array_like=True):
    """A scene: the names of its directory and of those above it, its product, and its time.

    `moment_s` is in seconds since the epoch, None where no time is known.
    """

    task: str
    capture: str
    scene: str
    product: str
    moment_s: float | None

    @property
    def moment(self) -> datetime | None:
        """When the scene was taken, in UTC."""
        return None if self.moment_s is None else datetime.fromtimestamp(self.moment_s, UTC)


class SavedIndex(msgspec.Struct, frozen=True):
    """An index as it is kept. `completed_at_s` is when all tasks had been looked at, if ever."""

    form: int
    completed_at_s: float | None
    tasks: dict[str, list[IndexedScene]]


#: A directory of links: further ones by name, or scenes.
Links: TypeAlias = "Mapping[str, Links | IndexedScene]"


class IndexState(Struct, frozen=True):
    """How complete an index is.

    `n_tasks` is None until the tasks were listed. `completed_at_s` is when all of them had been
    looked at, in this mount or an earlier one. `reason` is why that stopped, if it did.
    """

    n_tasks: int | None
    n_indexed: int
    n_scenes: int
    completed_at_s: float | None
    is_running: bool
    reason: str | None = None


def indexed(task: str, capture: str, name: str, scene: Scene) -> IndexedScene:
    """Return what the index holds of *scene*, whose directory is *name* in *capture* of *task*."""
    facts = facts_of_record(scene)
    moment_s = None if facts.moment is None else facts.moment.timestamp()
    return IndexedScene(task, capture, name, facts.product or OTHER, moment_s)


def saved(tasks: Mapping[str, list[IndexedScene]], completed_at_s: float | None) -> bytes:
    """Return an index in the form in which it is kept."""
    return msgspec.json.encode(SavedIndex(FORM, completed_at_s, dict(tasks)))


def read_saved(data: bytes) -> SavedIndex | None:
    """Return the index that was kept as *data*; None for another form, and for other bytes."""
    try:
        found = msgspec.json.decode(data, type=SavedIndex)
    except (ValueError, RecursionError):
        return None
    return found if found.form == FORM else None


def links_of(scenes: Iterable[IndexedScene]) -> dict[str, Links]:
    """Return the directories `by-date`, `by-product` and `latest`.

    A scene without a known time is in `by-product` alone. Of scenes with one name in one directory
    (an id that two captures list) the newest is shown.
    """
    by_date: dict[str, dict[str, dict[str, dict[str, IndexedScene]]]] = {}
    by_product: dict[str, dict[str, IndexedScene]] = {}
    timed: list[tuple[float, IndexedScene]] = []
    for scene in sorted(scenes, key=lambda each: (each.moment_s or 0.0, each.task, each.capture)):
        by_product.setdefault(scene.product, {})[scene.scene] = scene
        if scene.moment_s is not None and (day := scene.moment) is not None:
            timed.append((scene.moment_s, scene))
            month = by_date.setdefault(f"{day:%Y}", {}).setdefault(f"{day:%m}", {})
            month.setdefault(f"{day:%d}", {})[scene.scene] = scene
    newest = nlargest(N_LATEST, timed, key=lambda each: (each[0], each[1].scene))
    latest = {str(n): scene for n, (_, scene) in enumerate(newest, 1)}
    return {"by-date": by_date, "by-product": by_product, "latest": latest}
