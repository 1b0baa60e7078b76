"""Completions of arguments and flags in a shell: directories, mountpoints, profiles, choices."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import click
from click.shell_completion import CompletionItem

from satfs.cli.output import show
from satfs.errors import BadSettings
from satfs.mountpoints import satfs_mounts

Offer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def directories(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what the shell itself finds: directories."""
    return [CompletionItem(incomplete, type="dir")]


def mountpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the mountpoints of satfs that are there, or any directory where none fits.

    Only mountpoints of this user and of root: another user may have chosen a misleading name. None
    with a control character, which a shell or a terminal might act on. Reads the kernel's table of
    mounts only: a mount that does not respond blocks no shell.
    """
    given = set(context.params.get(parameter.name or "") or ())
    owners = (os.getuid(), 0, None)
    mounted = (str(each.mountpoint) for each in satfs_mounts() if each.user in owners)
    places = {place for place in mounted if show(place) == place} - given
    fitting = sorted(place for place in places if place.startswith(incomplete))
    if not fitting:
        return directories(context, parameter, incomplete)
    return [CompletionItem(place, help="satfs") for place in fitting]


def profiles(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the profiles of config.toml; none where it cannot be read."""
    from satfs.settings import resolve_settings  # a tenth of a second that flags need not wait for

    try:
        names = resolve_settings({}).profiles
    except BadSettings:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def values_for(metavar: str) -> Offer | None:
    """Return what to offer for a flag whose help shows *metavar* for its value; None: nothing."""
    if "|" in metavar:
        choices = metavar.split("|")
        return lambda _context, _parameter, incomplete: [
            CompletionItem(choice) for choice in choices if choice.startswith(incomplete)
        ]
    return {"DIR": directories, "FILE": paths, "NAME": profiles}.get(metavar)


def paths(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what the shell itself finds: files and directories."""
    return [CompletionItem(incomplete, type="file")]
