"""The scenes below a path that fulfil conditions, from listings alone; with a mount and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from satfs.api.listings import Listings
from satfs.concurrent_map import concurrent_map
from satfs.control.conditions import AnyCondition, holds_all, may_hold, parse_condition
from satfs.control.records import Found, listing_of, resolve
from satfs.errors import NotThere
from satfs.model import Capture, Json, Scene, Task

#: Listings at once.
LISTINGS_AT_ONCE: Final = 8


async def selected(
    catalogue: Listings, path_names: Sequence[str], where: Sequence[str]
) -> dict[str, Json]:
    """Return the scenes below the target of *path_names* that fulfil *where*, as a listing.

    Raises:
        BadSettings: a condition cannot be read.
        SatfsError: a listing is not available.
    """
    conditions = [parse_condition(text) for text in where]
    scenes = await _records_below(catalogue, await resolve(catalogue, path_names), conditions)
    return listing_of(catalogue, "scenes", scenes)


async def _records_below(
    catalogue: Listings, thing: Found, conditions: Sequence[AnyCondition]
) -> list[Scene]:
    if isinstance(thing.record, Scene):
        known = {**thing.above, "scene": thing.record.record}
        return [thing.record] if holds_all(conditions, known) else []
    captures: list[tuple[Mapping[str, Json], Capture]] = []
    if isinstance(thing.record, Capture):
        captures = [(thing.above, thing.record)]
    else:
        tasks = [thing.record] if isinstance(thing.record, Task) else await catalogue.tasks()
        wanted = [task for task in tasks if may_hold(conditions, {"task": task.record})]

        async def captures_of(task: Task) -> list[tuple[Mapping[str, Json], Capture]]:
            with suppress(NotThere):  # withdrawn since it was listed
                listing = await catalogue.captures(task.task_id)
                return [({"task": task.record}, each) for each in listing if each.is_published]
            return []

        listings = await concurrent_map(captures_of, wanted, LISTINGS_AT_ONCE)
        captures = [each for listing in listings for each in listing]

    async def scenes_of(place: tuple[Mapping[str, Json], Capture]) -> list[Scene]:
        above, capture = place
        known = {**above, "capture": capture.record}
        if may_hold(conditions, known):
            with suppress(NotThere):
                scenes = await catalogue.scenes(capture.capture_id)
                return [s for s in scenes if holds_all(conditions, {**known, "scene": s.record})]
        return []

    found = await concurrent_map(scenes_of, captures, LISTINGS_AT_ONCE)
    return [scene for scenes in found for scene in scenes]
