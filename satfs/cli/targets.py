"""The target of a command: a path on a mount, or an id that the API knows; and conditions on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import click

from satfs.cli.output import print_error, show
from satfs.cli.waiting import hurried, run_alone, waiting_shown
from satfs.control import records
from satfs.control.client import result_of
from satfs.control.records import selected
from satfs.errors import BadMountpoint, NotThere
from satfs.facts.selection import MAX_AREA_BYTES, plain_condition
from satfs.model import Json
from satfs.mountpoints import Mounted, locate, satfs_mounts
from satfs.settings import Settings, load_settings
from satfs.tree.names import RECORD_DIRECTORIES


@dataclass(frozen=True, slots=True)
class OnMount:
    """A path on a mount, as the names below its top."""

    mounted: Mounted
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InApi:
    """An id, or a path of the tree, as words for the API of *settings*."""

    settings: Settings
    words: tuple[str, ...]


Target: TypeAlias = OnMount | InApi


def on_mounts(paths: Sequence[str]) -> list[tuple[Mounted, list[list[str]]]]:
    """Return the mount and the names below it for each of *paths*, grouped by mount.

    Raises:
        BadMountpoint: a path is on no satfs mount; the message names the mounts.
    """
    found: dict[Path, tuple[Mounted, list[list[str]]]] = {}
    for path in paths:
        target = _located(path)
        if target is None:
            raise _not_on_a_mount(path)
        _, below = found.setdefault(target.mounted.mountpoint, (target.mounted, []))
        below.append(list(target.words))
    return list(found.values())


def anywhere(text: str | None, profile: str | None) -> Target:
    """Return the target that *text* is: a path on a mount, an id, or a path of the tree.

    None is all tasks, in any working directory. *profile* leads to the API; a mount has its own.

    Raises:
        BadMountpoint: it is a path of the file system, and on no satfs mount.
        BadSettings: the settings of the profile cannot be used.
        click.UsageError: a profile is given beside a path on a mount.
    """
    target = None if text is None else _located(text)
    if target is not None:
        if profile is not None:
            raise click.UsageError(
                "--profile is for an id or a path of the tree; a mount has its own"
            )
        return target
    words = tuple(word for word in (text or "").split("/") if word)
    if text is not None and (text.startswith(("/", ".", "~")) or _is_file_path(words)):
        raise _not_on_a_mount(text)
    return InApi(load_settings(profile=profile), ("tasks",) if text is None else words)


def query(target: Target, command: str, where: Sequence[str] = ()) -> Mapping[str, Json]:
    """Return the result of *command* (`list` or `describe`) for *target*.

    From a mount over its socket, else from the API, with what mounts have kept.

    Raises:
        SatfsError: the request failed.
    """
    if isinstance(target, OnMount):
        given = {"paths": [list(target.words)], "where": list(where)}
        return result_of(target.mounted, command, given)
    with waiting_shown(target.settings):
        return run_alone(_query_api, hurried(target.settings), command, target.words, where)


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
        print_error(
            self.message, "`satfs ls` lists what there is; `satfs refresh` requests it again."
        )


def _located(text: str) -> OnMount | None:
    try:
        found = locate(Path(os.path.expanduser(text)))
    except OSError:  # the working directory is gone
        return None
    return None if found is None else OnMount(*found)


def _is_file_path(words: Sequence[str]) -> bool:
    """Return whether *words* are a path of the file system, such as `aleph/tasks`, unmounted.

    A word alone is an id: a copy of a task is called like the task.
    """
    return len(words) > 1 and words[0] not in RECORD_DIRECTORIES and os.path.lexists(words[0])


def _not_on_a_mount(path: str) -> BadMountpoint:
    mounts = ", ".join(show(str(each.mountpoint)) for each in satfs_mounts())
    where = f"; satfs is mounted at {mounts}" if mounts else "; satfs is not mounted anywhere"
    return BadMountpoint(f"{show(path)} is not on a satfs mount{where}")


where_flag = click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Only scenes that fulfil it; given several times, all of them: bbox=W,S,E,N,"
    " intersects=FILE.geojson, 'cloud<20', 'off-nadir<25', 'since 7 days', from=DATE, to=DATE,"
    " product=L1D_SR; or a field of the scene's record, or of its capture's or task's"
    " (capture.FIELD, task.FIELD). Operators: = != < <= > >= ~ (contains).",
    callback=lambda _context, _parameter, given: plain_conditions(given),
)


def plain_conditions(texts: Sequence[str]) -> tuple[str, ...]:
    """Return conditions for a mount, which knows neither the user's files nor the present moment.

    Raises:
        BadSettings: a file cannot be read, or holds no area.
    """
    now = datetime.now(UTC)
    return tuple(plain_condition(text, now, read_area) for text in texts)


def read_area(path: Path) -> bytes:
    """Return the bytes of a file of an area, one more than may be at most."""
    with path.open("rb") as file:
        return file.read(MAX_AREA_BYTES + 1)
