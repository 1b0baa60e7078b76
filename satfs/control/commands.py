"""The commands of the control socket, by name, and the short ones of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from functools import partial

from satfs.content.cache.index import CachedVersion
from satfs.content.cache.maintenance import records_of
from satfs.content.open_fetchers import label_of
from satfs.control import records
from satfs.control.mount_components import MountComponents
from satfs.control.prefetching import collect, prefetch
from satfs.control.progress import CommandProgress, failure_record
from satfs.control.raster_prefetch import block_choice_of, prefetch_blocks
from satfs.control.rasters import described_rasters
from satfs.control.records import selected
from satfs.control.refreshing import refresh
from satfs.control.server import Command, Given, Result, SendNotice
from satfs.control.verifying import verify
from satfs.control.walk import (
    SCENES_AT_ONCE,
    Selection,
    conditions_of,
    find,
    paths_of,
    record_path,
    scenes,
    starts,
)
from satfs.errors import BadSettings, NotThere, SatfsError
from satfs.facts.scene import SceneFacts
from satfs.log_level import set_level
from satfs.model import Json, Scene
from satfs.request_slots import concurrent_map
from satfs.stac.items import relocated
from satfs.tree.names import name_of
from satfs.tree.scenes import AttachmentFile, SceneDirectory


def commands_on(mount: MountComponents) -> dict[str, Command]:
    """Return the commands of *mount*, by name."""
    return {
        "describe": partial(_describe, mount),
        "list": partial(_list, mount),
        "log": partial(_log, mount),
        "log-level": _set_log_level,
        "pins": partial(_pins, mount),
        "prefetch": partial(_prefetch, mount),
        "refresh": partial(refresh, mount),
        "stac": partial(_stac_items, mount),
        "status": partial(_status, mount),
        "unpin": partial(_unpin, mount),
        "verify": partial(verify, mount),
    }


async def _list(mount: MountComponents, given: Given, _send: SendNotice) -> Result:
    (given_names,) = paths_of(given.get("paths"))
    where = given.get("where")
    conditions = [str(each) for each in where] if isinstance(where, list) else []
    try:
        path_names = await record_path(mount.root, given_names)
    except NotThere:
        if not conditions:
            raise
        return await _selected_in_view(mount, given)
    if conditions:
        return await selected(mount.listings, path_names, conditions, partial(_facts, mount))
    return await records.listed(mount.listings, path_names, partial(_cached_versions, mount))


async def _selected_in_view(mount: MountComponents, given: Given) -> Result:
    """Return the scenes that the links of a view lead to and that fulfil the conditions.

    Raises:
        NotThere: there is no such view.
    """
    found, failures = await _wanted_scenes(mount, given)
    listing = records.listing_of(mount.listings, "scenes", [await s.record() for s in found])
    return {**listing, "undecided": len(failures)}


async def _facts(mount: MountComponents, scene: Scene) -> SceneFacts:
    """Return what is known of *scene*, its zip included.

    Raises:
        SatfsError: the zip cannot be read now.
    """
    node = await find(mount.root, ("scenes", name_of(scene.scene_id).decode()))
    if not isinstance(node, SceneDirectory):
        raise NotThere(f"there is no scene {scene.scene_id!r}")
    return await mount.items.facts(node)


async def _describe(mount: MountComponents, given: Given, _send: SendNotice) -> Result:
    (given_names,) = paths_of(given.get("paths"))
    path_names = await record_path(mount.root, given_names)
    found = await records.described(mount.listings, path_names, partial(_cached_versions, mount))
    return {**found, **await described_rasters(mount, path_names)}


async def _prefetch(mount: MountComponents, given: Given, send: SendNotice) -> Result:
    choice = block_choice_of(given)
    if choice is None:
        return await prefetch(mount, given, send)
    return await prefetch_blocks(mount, given, choice, send)


async def _status(mount: MountComponents, _given: Given, _send: SendNotice) -> Result:
    return mount.introspection.status()


async def _log(mount: MountComponents, _given: Given, _send: SendNotice) -> Result:
    return {"text": mount.introspection.log_text()}


async def _cached_versions(mount: MountComponents) -> Iterable[CachedVersion]:
    return (await mount.pins.kept()).values()


async def _set_log_level(given: Given, _send: SendNotice) -> Result:
    level = given.get("level")
    if not isinstance(level, str):
        raise BadSettings("no log level was given")
    set_level(level)
    return {"level": level}


async def _unpin(mount: MountComponents, given: Given, send: SendNotice) -> Result:
    """Take the pins from all versions of what the `paths` hold; return what had one.

    A scene or attachment is named by its path also when the vendor has it no more.

    Raises:
        BadCache: nothing is kept on disk.
    """
    labels: set[str] = set()
    for path_names in paths_of(given.get("paths")):
        try:
            found = await collect(
                mount, {**given, "paths": [list(path_names)]}, CommandProgress(send)
            )
            labels |= {
                label_of(*each.node.key) for each in found if isinstance(each.node, AttachmentFile)
            }
            node = await find(mount.root, path_names)
        except NotThere:
            node = None
        # Also objects that the store has no longer, or whose version is not known now.
        if node is None or isinstance(node, SceneDirectory):
            scene_id = path_names[-1] if node is None else node.scene_id
            kept = await _cached_versions(mount)
            labels.update(each.label for each in kept if each.label.rpartition("/")[0] == scene_id)
    return {"unpinned": records_of(await mount.pins.unpin(labels))}


async def _pins(mount: MountComponents, _given: Given, _send: SendNotice) -> Result:
    """Return what is pinned, and where it is kept."""
    kept = await _cached_versions(mount)
    return {
        "cache_dir": str(mount.cache_dir),
        "pinned": records_of(each for each in kept if each.is_pinned),
    }


async def _stac_items(mount: MountComponents, given: Given, send: SendNotice) -> Result:
    """Send the item of each scene that *given* (`paths`, `where`, `absolute`) names.

    Sends `{"event": "planned", "scenes": n}`, then for each scene `{"event": "item", "number": k,
    "item": {…}}`, or `{"event": "failed", "path": …, "error": …, "message": …}`. Numbers count from
    0 in the order of the tree, in which the items need not come. Returns how many there were of
    each, and the failures.

    Raises:
        BadSettings: a condition cannot be read, or no path was given.
    """
    mountpoint = str(mount.mountpoint) if given.get("absolute") else None
    wanted, failures = await _wanted_scenes(mount, given)
    await send({"event": "planned", "scenes": len(wanted)})

    async def send_item(numbered: tuple[int, SceneDirectory]) -> None:
        number, scene = numbered
        try:
            item = await mount.items.item(scene)
        except SatfsError as failure:
            failures.append({"path": "/".join(scene.path), **failure_record(failure)})
            return
        moved = relocated(item, scene.path, mountpoint)
        await send({"event": "item", "number": number, "item": moved})

    await concurrent_map(send_item, list(enumerate(wanted)), SCENES_AT_ONCE)
    for each in failures:
        await send({"event": "failed", **each})
    return {"scenes": len(wanted), "failed": failures}


async def _wanted_scenes(
    mount: MountComponents, given: Given
) -> tuple[list[SceneDirectory], list[dict[str, Json]]]:
    """Return the scenes, each once, and what could not be looked at."""
    wanted = Selection(mount.listings, mount.items.facts, conditions_of(given))
    found: dict[str, SceneDirectory] = {}
    failures: list[dict[str, Json]] = []
    for node, known in await starts(mount.root, given, wanted):
        async with aclosing(scenes(node, known)) as below:
            async for each in below:
                if isinstance(each, SceneDirectory):
                    found.setdefault(each.scene_id, each)
                else:
                    failures.append({"path": each[0], **failure_record(each[1])})
    return list(found.values()), failures
