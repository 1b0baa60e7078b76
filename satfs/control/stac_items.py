"""The STAC items of all scenes below a path, many at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import trio

from satfs.control.components import MountComponents
from satfs.control.conditions import parse_condition
from satfs.control.progress import failure_record
from satfs.control.server import SendNotice
from satfs.control.walk import Selection, find, lineage, paths_of, scenes
from satfs.errors import SatfsError
from satfs.model import Json
from satfs.stac.items import relocated
from satfs.tree.scenes import SceneDirectory

#: Scenes at once. Each needs one round of reads; this many hide a far store's round trips.
SCENES_AT_ONCE: Final = 12


async def stac_items(
    mount: MountComponents, given: Mapping[str, Json], send: SendNotice
) -> dict[str, Json]:
    """Send the item of each scene that *given* (`paths`, `where`, `absolute`) names.

    Sends `{"event": "planned", "scenes": n}`, then for each scene `{"event": "item", "number": k,
    "item": {…}}`, or `{"event": "failed", "path": …, "error": …, "message": …}`. Numbers count from
    0 in the order of the tree, in which the items need not come. Returns how many there were of
    each, and the failures.

    Raises:
        BadSettings: a condition cannot be read, or no path was given.
    """
    mountpoint = str(mount.mountpoint) if given.get("absolute") else None
    wanted, failures = await _wanted(mount, given)
    await send({"event": "planned", "scenes": len(wanted)})
    left = iter(enumerate(wanted))

    async def work() -> None:
        for number, scene in left:
            try:
                item = await mount.items.item(scene)
            except SatfsError as failure:
                failures.append({"path": "/".join(scene.path), **failure_record(failure)})
                continue
            moved = relocated(item, scene.path, mountpoint)
            await send({"event": "item", "number": number, "item": moved})

    async with trio.open_nursery() as nursery:
        for _ in range(SCENES_AT_ONCE):
            nursery.start_soon(work)
    for each in failures:
        await send({"event": "failed", **each})
    return {"scenes": len(wanted), "failed": failures}


async def _wanted(
    mount: MountComponents, given: Mapping[str, Json]
) -> tuple[list[SceneDirectory], list[dict[str, Json]]]:
    """Return the scenes, each once, and what could not be looked at."""
    where = given.get("where")
    texts = [str(each) for each in where] if isinstance(where, list) else []
    wanted = Selection(mount.listings, [parse_condition(text) for text in texts])
    found: dict[str, SceneDirectory] = {}
    failures: list[dict[str, Json]] = []
    for path_names in paths_of(given.get("paths")):
        node = await find(mount.root, path_names)
        known = await lineage(node, wanted)
        if known is None:
            continue
        below: AsyncGenerator[SceneDirectory | tuple[str, SatfsError], None] = scenes(node, known)
        async with aclosing(below):
            async for each in below:
                if isinstance(each, SceneDirectory):
                    found.setdefault(each.scene_id, each)
                else:
                    failures.append({"path": each[0], **failure_record(each[1])})
    return list(found.values()), failures
