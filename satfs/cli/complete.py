"""What a shell offers for an argument: directories to mount on, mountpoints to unmount."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from satfs.mountpoints import satfs_mounts


def directories(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what the shell itself finds: directories."""
    return [CompletionItem(incomplete, type="dir")]


def mountpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the mountpoints of satfs that are there, or any directory where none fits.

    Looks at the kernel's table of mounts only: a mount that does not answer holds up no shell.
    """
    given = set(context.params.get(parameter.name or "") or ())
    places = {str(each.mountpoint) for each in satfs_mounts()} - given
    fitting = sorted(place for place in places if place.startswith(incomplete))
    if not fitting:
        return directories(context, parameter, incomplete)
    return [CompletionItem(place, help="satfs") for place in fitting]
