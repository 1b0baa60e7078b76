"""The vendor's records for a path or an id, the same with a mount and without.

A path is that of the tree (`tasks/268095/…`, `captures/…`, `scenes/…`), a lone id that of a task, a
capture or a scene. Records come from the listings, and so from memory or disk while those may be
believed, or when the API cannot be reached; scenes are selected by conditions on them.
"""

from __future__ import annotations

import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import trio
from msgspec import Struct, field

from satfs.api.client import Aleph, http_for
from satfs.api.credential import account_key
from satfs.api.listing_store import ListingStore
from satfs.api.listings import CAPTURES, SCENES, TASKS, Listings
from satfs.api.record_list import RecordList
from satfs.content.cache import maintenance
from satfs.content.cache.index import CachedVersion
from satfs.control.conditions import AnyCondition, holds_with, may_hold, parse_condition, verdict
from satfs.errors import BadCache, NeedsContract, NeedsLogin, NotAllowed, NotThere, SatfsError
from satfs.facts.scene import SceneFacts
from satfs.model import Capture, CaptureId, Json, Scene, SceneId, Task, TaskId
from satfs.request_slots import concurrent_map
from satfs.settings import Settings
from satfs.tree import names
from satfs.tree.captures import RESERVED_IN_CAPTURE
from satfs.tree.record_entries import record_called
from satfs.tree.tasks import RESERVED_BESIDE_TASKS, RESERVED_IN_TASK

#: Returns what the cache on disk holds.
CachedVersionsOf = Callable[[], Awaitable[Iterable[CachedVersion]]]
#: Returns what is known of a scene, its zip included; raises SatfsError when that cannot be read.
FactsOfScene = Callable[[Scene], Awaitable[SceneFacts]]

#: Longest wait for the disk in the end, in seconds.
_CLOSING_S: Final = 2.0
#: Listings at once, and deliveries looked into at once.
LISTINGS_AT_ONCE: Final = 8
_SCENES_AT_ONCE: Final = 12
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

R = TypeVar("R", Task, Capture, Scene)


class Found(Struct, frozen=True):
    """The target of a path or an id: its kind, and its record where it has one.

    *above* has the records of the task and the capture in the path, by level.
    """

    kind: str
    record: Task | Capture | Scene | None = None
    above: Mapping[str, Json] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id; empty for the top directories (`tasks`, `captures`, `scenes`)."""
        match self.record:
            case Task():
                return self.record.task_id
            case Capture():
                return self.record.capture_id
            case Scene():
                return self.record.scene_id
            case _:
                return ""

    @property
    def path(self) -> str:
        """Its place in the tree, from its id alone."""
        reserved = RESERVED_BESIDE_TASKS if self.kind == "task" else ()
        return f"{self.kind}s/{names.name_of(self.id, reserved).decode()}" if self.id else self.kind


async def resolve(catalogue: Listings, path_names: Sequence[str]) -> Found:
    """Return what *path_names*, the names of a path or one lone id, mean.

    Raises:
        NotThere: nothing.
        SatfsError: that is not known now.
    """
    try:
        return await _resolved(catalogue, path_names)
    except NotThere as absence:
        if len(path_names) == 1:
            raise
        raise NotThere(f"there is no {'/'.join(path_names)}") from absence


async def _resolved(catalogue: Listings, path_names: Sequence[str]) -> Found:
    match list(path_names):
        case [] | ["tasks"]:
            return Found("tasks")
        case ["captures"]:
            return Found("captures")
        case ["scenes"]:
            return Found("scenes")
        case ["tasks", task]:
            return await _task(catalogue, task)
        case ["tasks", task, name] if name in RESERVED_IN_TASK:
            return await _task(catalogue, task)
        case ["tasks", task, capture, *rest]:
            found = await _capture_of(catalogue, await _task(catalogue, task), capture)
            return await _in_capture(catalogue, found, rest)
        case ["captures", capture, *rest]:
            known = await catalogue.capture(CaptureId(_text(capture)))
            return await _in_capture(catalogue, Found("capture", known), rest)
        case ["scenes", scene, *_]:
            return Found("scene", await catalogue.scene(SceneId(_text(scene))))
        case [id]:
            return await _by_id(catalogue, id)
        case _:
            raise NotThere(
                f"there is no {'/'.join(path_names)}: paths begin with tasks/, captures/ or scenes/"
            )


async def listed(
    catalogue: Listings, path_names: Sequence[str], cached_versions: CachedVersionsOf
) -> dict[str, Json]:
    """Return the entries of the target of *path_names*, and the age of the listing."""
    thing = await resolve(catalogue, path_names)
    match thing.record:
        case Task(task_id):
            captures = await catalogue.captures(task_id)
            listing = listing_of(catalogue, "captures", captures, (CAPTURES, task_id))
            return {**listing, "taken": _dates(catalogue, captures)}
        case Capture(capture_id):
            scenes = await catalogue.scenes(capture_id)
            return listing_of(catalogue, "scenes", scenes, (SCENES, capture_id))
        case Scene():
            return {"kind": "files", "entries": _files(thing.record, await cached_versions())}
    if thing.kind == "captures":
        published = [each for each in catalogue.known_captures() if each.is_published]
        listing = listing_of(catalogue, "captures", published)
        return {**listing, "taken": _dates(catalogue, published)}
    if thing.kind == "scenes":
        return listing_of(catalogue, "scenes", tuple(catalogue.known_scenes()))
    return listing_of(catalogue, "tasks", await catalogue.tasks(), (TASKS, ""))


async def described(
    catalogue: Listings, path_names: Sequence[str], cached_versions: CachedVersionsOf
) -> dict[str, Json]:
    """Return all that is known of the thing that *path_names* mean."""
    thing = await resolve(catalogue, path_names)
    fields: dict[str, Json] = {"kind": thing.kind, "id": thing.id, "path": thing.path}
    if thing.record is not None:
        fields["record"] = dict(thing.record.record.items())
    if isinstance(thing.record, Scene):
        fields["files"] = _files(thing.record, await cached_versions())
    if thing.record is None:
        fields["entries"] = len((await listed(catalogue, path_names, cached_versions))["entries"])
    return fields


def listing_of(
    catalogue: Listings,
    kind: str,
    records: Sequence[Task | Capture | Scene],
    key: tuple[str, str] | None = None,
) -> dict[str, Json]:
    """Return *records* as entries, with the age of the listing *key* that they are from."""
    state = None if key is None else catalogue.state(*key)
    things = [Found(kind.removesuffix("s"), record) for record in records]
    return {
        "kind": kind,
        "entries": [
            {"id": each.id, "path": each.path, "record": dict(each.record.record.items())}
            for each in things
            if each.record is not None
        ],
        "asked_at_s": None if state is None else state.requested_at_s,
        "is_stale": state is not None and state.is_stale,
    }


def _dates(catalogue: Listings, captures: Iterable[Capture]) -> dict[str, Json]:
    """Return when captures were taken, by their ids, as far as their scenes are known.

    The API promises no date in the record of a capture. The scenes of one differ by a second.
    """
    dates: dict[str, Json] = {}
    for capture in captures:
        scenes = catalogue.last_scenes(capture.capture_id)
        if scenes and (taken := scenes[0].timestamp) is not None:
            dates[capture.capture_id] = taken.isoformat()
    return dates


def _files(scene: Scene, kept: Iterable[CachedVersion]) -> list[Json]:
    # The version used last, should the cache have several.
    newest: dict[str, CachedVersion] = {}
    for each in kept:
        if each.label not in newest or each.used_at_s > newest[each.label].used_at_s:
            newest[each.label] = each
    files: list[Mapping[str, Json]] = []
    for attachment in scene.attachments:
        held = newest.get(f"{scene.scene_id}/{attachment.name}")
        files.append(
            {
                "name": attachment.file_name or attachment.name,
                "attachment": attachment.name,
                "size_bytes": None if held is None else held.size_bytes,
                "held_bytes": 0 if held is None else min(held.held_bytes, held.size_bytes),
                "is_pinned": held is not None and held.is_pinned,
            }
        )
    return list(files)


# -- without a mount -----------------------------------------------------------------------------


@asynccontextmanager
async def open_listings(settings: Settings, *, with_all: bool) -> AsyncIterator[Listings]:
    """Hand out the listings of the account that *settings* name.

    *with_all* reads back all listings that mounts have kept; an id is looked up in these first.
    """
    store = ListingStore(settings.cache_dir / account_key(settings))
    try:
        async with http_for(settings) as http, trio.open_nursery() as nursery:
            # Between two looks it closes connections that another process may wait for.
            nursery.start_soon(http.permits.watch)
            listings = Listings(Aleph(http, settings), settings, store)
            if with_all:
                await listings.recall()
            yield listings
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_S):
            await store.aclose()


async def cached_versions_of(settings: Settings) -> Iterable[CachedVersion]:
    """Return the versions in the cache on disk; none where there is no cache."""
    try:
        return (await trio.to_thread.run_sync(maintenance.info, settings.cache_dir)).objects
    except (NotThere, BadCache):
        return ()


# -- paths and ids -------------------------------------------------------------------------------


async def _task(catalogue: Listings, name: str) -> Found:
    text = names.text_of(_bytes(name), RESERVED_BESIDE_TASKS)
    if text is not None:
        return Found("task", await catalogue.task(TaskId(text)))
    return Found("task", _called(name, await catalogue.tasks(), RESERVED_BESIDE_TASKS))


async def _capture_of(catalogue: Listings, task: Found, name: str) -> Found:
    captures = await catalogue.captures(TaskId(task.id))
    return Found("capture", _called(name, captures, RESERVED_IN_TASK), _with_record(task))


async def _in_capture(catalogue: Listings, capture: Found, rest: Sequence[str]) -> Found:
    if not rest or rest[0] in RESERVED_IN_CAPTURE:
        return capture
    scenes = await catalogue.scenes(CaptureId(capture.id))
    return Found("scene", _called(rest[0], scenes, RESERVED_IN_CAPTURE), _with_record(capture))


def _called(name: str, records: RecordList[R], reserved: Collection[str]) -> R:
    if (record := record_called(_bytes(name), records, reserved)) is None:
        raise NotThere(f"nothing is called {name!r}")
    return record


def _with_record(found: Found) -> dict[str, Json]:
    """Return the records above what lies in the target *found*."""
    record = {} if found.record is None else {found.kind: found.record.record}
    return {**found.above, **record}


async def _by_id(catalogue: Listings, id: str) -> Found:
    """Find the task, capture or scene with this id, first the kind whose ids look like it."""
    lookups: Mapping[str, Callable[[Any], Awaitable[Task | Capture | Scene]]] = {
        "task": catalogue.task,
        "capture": catalogue.capture,
        "scene": catalogue.scene,
    }
    if id.isdecimal():
        kinds = ("task", "scene", "capture")
    elif _UUID.fullmatch(id):
        kinds = ("capture", "scene", "task")
    else:
        kinds = ("scene", "task", "capture")
    for kind in kinds:
        try:
            return Found(kind, await lookups[kind](id))
        except (NeedsLogin, NeedsContract):
            raise
        except (NotThere, NotAllowed):
            pass  # a gateway may refuse a path that does not exist
    raise NotThere(f"no task, capture or scene has the id {id!r}")


def _text(name: str) -> str:
    text = names.text_of(_bytes(name))
    if text is None:
        raise NotThere(f"nothing is called {name!r}")
    return text


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


async def selected(
    catalogue: Listings,
    path_names: Sequence[str],
    where: Sequence[str],
    facts_of: FactsOfScene | None = None,
) -> dict[str, Json]:
    """Return the scenes below the target of *path_names* that fulfil *where*, as a listing.

    *facts_of* decides about scenes whose records do not state a fact that a condition is about.
    Those that it cannot decide about now, or all of them without it, are left out; `undecided` is
    how many that are.

    Raises:
        BadSettings: a condition cannot be read.
        SatfsError: a listing is not available.
    """
    conditions = [parse_condition(text) for text in where]
    below = await _records_below(catalogue, await resolve(catalogue, path_names), conditions)

    async def is_wanted(candidate: tuple[Mapping[str, Json], Scene]) -> bool | None:
        known, scene = candidate
        decision = verdict(conditions, known)
        if decision is None and facts_of is not None:
            with suppress(SatfsError):
                decision = holds_with(conditions, known, await facts_of(scene))
        return decision

    decisions = await concurrent_map(is_wanted, below, _SCENES_AT_ONCE)
    scenes = [scene for (_, scene), decision in zip(below, decisions, strict=True) if decision]
    return {**listing_of(catalogue, "scenes", scenes), "undecided": decisions.count(None)}


async def _records_below(
    catalogue: Listings, thing: Found, conditions: Sequence[AnyCondition]
) -> list[tuple[Mapping[str, Json], Scene]]:
    """Return the scenes whose records break no condition, each with the records down to it."""
    if isinstance(thing.record, Scene):
        known = {**thing.above, "scene": thing.record.record}
        return [] if verdict(conditions, known) is False else [(known, thing.record)]
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

    async def scenes_of(
        place: tuple[Mapping[str, Json], Capture],
    ) -> list[tuple[Mapping[str, Json], Scene]]:
        above, capture = place
        known = {**above, "capture": capture.record}
        if may_hold(conditions, known):
            with suppress(NotThere):
                scenes = await catalogue.scenes(capture.capture_id)
                below = [({**known, "scene": scene.record}, scene) for scene in scenes]
                return [each for each in below if verdict(conditions, each[0]) is not False]
        return []

    found = await concurrent_map(scenes_of, captures, LISTINGS_AT_ONCE)
    return [each for scenes in found for each in scenes]
