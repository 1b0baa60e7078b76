"""The STAC items of all scenes below a path, many at a time."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from satfs.concurrent_map import concurrent_map
from satfs.control.mount_components import MountComponents
from satfs.control.progress import failure_record
from satfs.control.server import Given, Result, SendNotice
from satfs.control.walk import Selection, conditions_of, scenes, starts
from satfs.errors import SatfsError
from satfs.model import Json
from satfs.stac.items import relocated
from satfs.tree.scenes import SceneDirectory

#: Scenes at once. Each needs one round of reads; this many hide a far store's round trips.
SCENES_AT_ONCE: Final = 12


async def stac_items(mount: MountComponents, given: Given, send: SendNotice) -> Result:
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


async def _wanted(
    mount: MountComponents, given: Given
) -> tuple[list[SceneDirectory], list[dict[str, Json]]]:
    """Return the scenes, each once, and what could not be looked at."""
    wanted = Selection(mount.listings, conditions_of(given))
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
