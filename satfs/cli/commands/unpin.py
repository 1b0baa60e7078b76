"""`satfs unpin`: let the cache have back what was pinned."""

from __future__ import annotations

from pathlib import Path

import click

from satfs.cli.commands.pin import pinned_anywhere
from satfs.cli.exit_codes import Exit
from satfs.cli.flags import Manner, verbosity_flags
from satfs.cli.progress import where_flag
from satfs.cli.targets import json_flag, missing, offer_paths, on_mounts, print_json
from satfs.content.cache.directory import open_index
from satfs.content.cache.pins import unpin as unpin_in
from satfs.control.client import result_of
from satfs.control.pinning import as_json as records_of
from satfs.errors import NotThere
from satfs.humanize import format_bytes, format_count
from satfs.model import Json


@click.command(
    epilog="""\b
Examples:
  satfs unpin ~/aleph/tasks/268095       what is in this task
  satfs unpin --all                      everything, also without a mount
"""
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, shell_complete=offer_paths)
@where_flag
@click.option("--all", "is_all", is_flag=True, help="All that `satfs pin` lists.")
@json_flag
@verbosity_flags
@click.pass_obj
def unpin(
    manner: Manner, paths: tuple[str, ...], where: tuple[str, ...], is_all: bool, as_json: bool
) -> int:
    """Keep what each PATH holds no longer than it is used. Removes nothing by itself."""
    if is_all == bool(paths):
        raise click.UsageError("give a PATH on a mount, or --all")
    found: list[Json] = _unpin_all() if is_all else []
    for mounted, targets in on_mounts(paths):
        given = {"paths": [list(each.words) for each in targets], "where": list(where)}
        try:
            found += result_of(mounted, "unpin", given)["unpinned"]
        except NotThere as failure:
            raise missing(failure) from failure
    if as_json:
        print_json({"unpinned": found})
    elif manner.verbosity >= 0:
        n_bytes = sum(each["held_bytes"] for each in found)
        click.echo(
            f"No longer pinned: {format_count(len(found), 'file')}, {format_bytes(n_bytes)}."
        )
    return Exit.DONE


def _unpin_all() -> list[Json]:
    found: list[Json] = []
    for cache in pinned_anywhere():
        if not cache["pinned"]:
            continue
        index = open_index(Path(str(cache["cache_dir"])))
        try:
            found += records_of(unpin_in(index, None))
        finally:
            index.close()
    return found
