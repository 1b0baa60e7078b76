"""The commands of the control socket, by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from satfs.content.cache.index import CachedVersion
from satfs.control import records
from satfs.control.mount_components import MountComponents
from satfs.control.pinning import pins, unpin
from satfs.control.prefetching import prefetch
from satfs.control.raster_prefetch import block_choice_of, prefetch_blocks
from satfs.control.rasters import described_rasters
from satfs.control.records import selected
from satfs.control.refreshing import refresh
from satfs.control.server import Command, Given, Result, SendNotice
from satfs.control.stac_items import stac_items
from satfs.control.verifying import verify
from satfs.control.walk import paths_of, record_path
from satfs.errors import BadSettings
from satfs.log_level import set_level


def commands_on(mount: MountComponents) -> dict[str, Command]:
    """Return the commands of *mount*, by name."""
    return {
        "describe": partial(_describe, mount),
        "list": partial(_list, mount),
        "log": partial(_log, mount),
        "log-level": _set_log_level,
        "pins": partial(pins, mount),
        "prefetch": partial(_prefetch, mount),
        "refresh": partial(refresh, mount),
        "stac": partial(stac_items, mount),
        "status": partial(_status, mount),
        "unpin": partial(unpin, mount),
        "verify": partial(verify, mount),
    }


async def _list(mount: MountComponents, given: Given, _send: SendNotice) -> Result:
    (given_names,) = paths_of(given.get("paths"))
    path_names = await record_path(mount.root, given_names)
    where = given.get("where")
    if isinstance(where, list) and where:
        return await selected(mount.listings, path_names, [str(each) for each in where])
    return await records.listed(mount.listings, path_names, partial(_cached_versions, mount))


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
