"""The scenes below a path that fulfil conditions, from listings alone; with a mount and without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import trio

from satfs.api.listings import Listings
from satfs.control.conditions import AnyCondition, holds_all, may_hold, parse_condition
from satfs.control.records import Found, resolve
from satfs.errors import NotThere, SatfsError
from satfs.model import Capture, Json, Scene, Task

T = TypeVar("T")
R = TypeVar("R")

#: Listings at once.
_AT_ONCE: Final = 8


async def selected(
    catalogue: Listings, path_names: Sequence[str], where: Sequence[str]
) -> dict[str, Json]:
    """Return the scenes below the target of *path_names* that fulfil *where*, as a listing.

    Raises:
        BadSettings: a condition cannot be read.
        SatfsError: a listing is not available.
    """
    conditions = [parse_condition(text) for text in where]
    records = await _records_below(catalogue, await resolve(catalogue, path_names), conditions)
    found = [Found("scene", scene) for scene in records]
    entries = [
        {"id": each.id, "path": each.path, "record": dict(each.record.record)}
        for each in found
        if each.record is not None
    ]
    return {"kind": "scenes", "entries": entries, "asked_at_s": None, "is_stale": False}


async def _records_below(
    catalogue: Listings, thing: Found, conditions: Sequence[AnyCondition]
) -> list[Scene]:
    if isinstance(thing.record, Scene):
        is_wanted = holds_all(conditions, {"scene": thing.record.record})
        return [thing.record] if is_wanted else []
    captures: list[tuple[Task | None, Capture]] = []
    if isinstance(thing.record, Capture):
        captures = [(None, thing.record)]
    else:
        tasks = [thing.record] if isinstance(thing.record, Task) else await catalogue.tasks()
        wanted = [task for task in tasks if may_hold(conditions, {"task": task.record})]

        async def captures_of(task: Task) -> list[tuple[Task | None, Capture]]:
            try:
                listing = await catalogue.captures(task.task_id)
            except NotThere:  # withdrawn since it was listed
                return []
            return [(task, capture) for capture in listing if capture.is_published]

        captures = [each for found in await results_in_order(captures_of, wanted) for each in found]

    async def scenes_of(place: tuple[Task | None, Capture]) -> list[Scene]:
        task, capture = place
        known: dict[str, Json] = {"capture": capture.record}
        if task is not None:
            known["task"] = task.record
        if not may_hold(conditions, known):
            return []
        scenes = await catalogue.scenes(capture.capture_id)
        return [s for s in scenes if holds_all(conditions, {**known, "scene": s.record})]

    return [each for found in await results_in_order(scenes_of, captures) for each in found]


async def results_in_order(work: Callable[[T], Awaitable[R]], subjects: Sequence[T]) -> list[R]:
    """Return what *work* returns for each of *subjects*, in order; some run at once.

    Raises:
        SatfsError: the first failure; not as a group.
    """
    results: dict[int, R] = {}
    failures: list[SatfsError] = []
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def one(index: int, subject: T, scope: trio.CancelScope) -> None:
        async with limit:
            try:
                results[index] = await work(subject)
            except SatfsError as failure:
                failures.append(failure)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, subject in enumerate(subjects):
            nursery.start_soon(one, index, subject, nursery.cancel_scope)
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(subjects))]
