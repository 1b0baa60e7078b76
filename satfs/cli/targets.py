"""The target of a command: a path on a mount, or an id that the API knows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from satfs.cli.output import show
from satfs.cli.waiting import hurried, run_alone, waiting_shown
from satfs.control import records
from satfs.control.client import result_of
from satfs.control.selecting import selected
from satfs.errors import BadMountpoint, NotThere
from satfs.model import Json
from satfs.mountpoints import Mounted, locate, satfs_mounts
from satfs.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class OnMount:
    """A path on a mount, as the names below its top."""

    mounted: Mounted
    words: tuple[str, ...]


def on_mounts(paths: Sequence[str]) -> list[tuple[Mounted, list[OnMount]]]:
    """Return the mount and the names below it for each of *paths*, grouped by mount.

    Raises:
        BadMountpoint: a path is on no satfs mount; the message names the mounts.
    """
    found: dict[Path, tuple[Mounted, list[OnMount]]] = {}
    for path in paths:
        target = _located(path)
        if target is None:
            raise _not_on_a_mount(path)
        found.setdefault(target.mounted.mountpoint, (target.mounted, []))[1].append(target)
    return list(found.values())


def anywhere(text: str | None) -> OnMount | tuple[str, ...]:
    """Return *text* as a path on a mount, or as words for the API: an id, or a path of the tree.

    None is all tasks, in any working directory.

    Raises:
        BadMountpoint: it is a path of the file system, and on no satfs mount.
    """
    if text is None:
        return ("tasks",)
    target = _located(text)
    if target is not None:
        return target
    if text.startswith(("/", ".", "~")):
        raise _not_on_a_mount(text)
    return tuple(word for word in text.split("/") if word)


def query(
    target: OnMount | tuple[str, ...],
    command: str,
    settings: Settings | None,
    where: Sequence[str] = (),
) -> Mapping[str, Json]:
    """Return the result of *command* (`list` or `describe`) for *target*.

    From a mount over its socket, else from the API of *settings*, with what mounts have kept.

    Raises:
        SatfsError: the request failed.
    """
    if isinstance(target, OnMount):
        given = {"paths": [list(target.words)], "where": list(where)}
        return result_of(target.mounted, command, given)
    assert settings is not None  # noqa: S101 - the caller's promise: only a mount needs none
    with waiting_shown(settings):
        return run_alone(_query_api, hurried(settings), command, target, where)


async def _query_api(
    settings: Settings, command: str, words: tuple[str, ...], where: Sequence[str]
) -> dict[str, Json]:
    call = {"list": records.listed, "describe": records.described}[command]
    knows_all = (len(words) == 1 and words[0] != "tasks") or words[:1] in (
        ("captures",),
        ("scenes",),
    )
    async with records.open_listings(settings, with_all=knows_all) as listings:
        if where:
            return await selected(listings, words, where)
        return await call(listings, words, lambda: records.cached_versions_of(settings))


def settings_for(target: OnMount | tuple[str, ...], profile: str | None) -> Settings | None:
    """Return the settings that lead to the API; None for a path on a mount, which has its own.

    Raises:
        click.UsageError: a profile is given beside a path on a mount.
        BadSettings: the settings cannot be used.
    """
    if not isinstance(target, OnMount):
        return load_settings(profile=profile)
    if profile is not None:
        raise click.UsageError("--profile is for an id or a path of the tree; a mount has its own")
    return None


@contextmanager
def missing_explained() -> Iterator[None]:
    """End the command with exit code 1, and what to do, where the body finds nothing."""
    try:
        yield
    except NotThere as failure:
        raise Missing(str(failure)) from failure


class Missing(click.ClickException):
    """The target of a command does not exist."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print the message, and what to do."""
        from satfs.cli.output import print_error

        print_error(
            self.message, "`satfs ls` lists what there is; `satfs refresh` requests it again."
        )


def _located(text: str) -> OnMount | None:
    try:
        found = locate(Path(os.path.expanduser(text)))
    except OSError:  # the working directory is gone
        return None
    return None if found is None else OnMount(*found)


def _not_on_a_mount(path: str) -> BadMountpoint:
    mounts = ", ".join(show(str(each.mountpoint)) for each in satfs_mounts())
    where = f"; satfs is mounted at {mounts}" if mounts else "; satfs is not mounted anywhere"
    return BadMountpoint(f"{show(path)} is not on a satfs mount{where}")
