"""The commands of the control socket, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from satfs.content.cache.index import CachedVersion
from satfs.control import records
from satfs.control.components import MountComponents
from satfs.control.pinning import pins, unpin
from satfs.control.prefetching import prefetch
from satfs.control.refreshing import refresh
from satfs.control.server import Command, Tell
from satfs.control.verifying import verify
from satfs.control.walk import words_of
from satfs.errors import BadSettings
from satfs.log_level import set_level
from satfs.model import Json


def commands_on(floors: MountComponents) -> dict[str, Command]:
    """Return what can be asked of a mount that consists of *floors*."""
    return {
        "describe": partial(_describe, floors),
        "list": partial(_list, floors),
        "log": partial(_log, floors),
        "log-level": _set_log_level,
        "pins": partial(pins, floors),
        "prefetch": partial(prefetch, floors),
        "refresh": partial(refresh, floors),
        "status": partial(_status, floors),
        "unpin": partial(unpin, floors),
        "verify": partial(verify, floors),
    }


async def _list(floors: MountComponents, given: Mapping[str, Json], _tell: Tell) -> dict[str, Json]:
    (words,) = words_of(given.get("paths"))
    return await records.listed(floors.listings, words, partial(_shelf, floors))


async def _describe(
    floors: MountComponents, given: Mapping[str, Json], _tell: Tell
) -> dict[str, Json]:
    (words,) = words_of(given.get("paths"))
    return await records.described(floors.listings, words, partial(_shelf, floors))


async def _status(
    floors: MountComponents, _given: Mapping[str, Json], _tell: Tell
) -> dict[str, Json]:
    return floors.introspection.status()


async def _log(floors: MountComponents, _given: Mapping[str, Json], _tell: Tell) -> dict[str, Json]:
    return {"text": floors.introspection.log_text()}


async def _shelf(floors: MountComponents) -> Iterable[CachedVersion]:
    return (await floors.keeping.kept()).values()


async def _set_log_level(given: Mapping[str, Json], _tell: Tell) -> dict[str, Json]:
    level = given.get("level")
    if not isinstance(level, str):
        raise BadSettings("no log level was given")
    set_level(level)
    return {"level": level}
