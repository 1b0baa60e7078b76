"""`satfs pin`: protect scenes or whole tasks from eviction, list the pinned files, and unpin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, complete_paths, json_flag, verbosity_flags
from satfs.cli.mount_status import on_each
from satfs.cli.output import new_table, print_json, print_remark, print_table, show
from satfs.cli.progress import fetch, jobs_flag
from satfs.cli.targets import missing_explained, on_mounts, where_flag
from satfs.content.cache import maintenance
from satfs.content.cache.pins import unpin
from satfs.control.client import result_of
from satfs.errors import NotThere, SatfsError
from satfs.humanize import format_bytes, format_count
from satfs.model import Json
from satfs.mountpoints import Mounted, satfs_mounts
from satfs.settings import load_settings


@click.command(
    epilog="""\b
Examples:
  satfs pin ~/aleph/tasks/268095         keep a task; fetches what is missing
  satfs pin                              list what is pinned
  satfs pin --remove ~/aleph/tasks/268095    keep it no longer than it is used
  satfs pin --remove --all               … everything, also without a mount
"""
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, shell_complete=complete_paths)
@where_flag
@jobs_flag
@click.option(
    "--no-fetch",
    is_flag=True,
    help="Fetch nothing now; keep cached bytes, and those that programs will read.",
)
@click.option("-r", "--remove", is_flag=True, help="Unpin. No bytes are removed from the cache.")
@click.option("--all", "is_all", is_flag=True, help="With --remove: unpin all files.")
@json_flag
@verbosity_flags
@click.pass_obj
def pin(
    output_options: OutputOptions,
    paths: tuple[str, ...],
    where: tuple[str, ...],
    jobs: int | None,
    no_fetch: bool,
    remove: bool,
    is_all: bool,
    as_json: bool,
) -> int:
    """Keep the files at each PATH on a mount from eviction, and fetch them as `prefetch` does.

    Only existing files are pinned, each in its present version: pin again for scenes that are
    published later, or files that are replaced. Without PATH, list the pinned files.
    """
    if remove:
        if no_fetch or jobs is not None:
            raise click.UsageError("--remove fetches nothing: leave out --no-fetch and --jobs")
        return _unpin(paths, where, is_all=is_all, as_json=as_json, output_options=output_options)
    if is_all:
        raise click.UsageError("--all goes with --remove")
    if not paths:
        if where or no_fetch or jobs is not None:
            raise click.UsageError("give a PATH on a mount with --where, --no-fetch or --jobs")
        return _list(as_json=as_json)
    return fetch(
        paths,
        "prefetch",
        {"where": where, "jobs": jobs, "pin": True, "is_for_later": no_fetch},
        as_json=as_json,
        output_options=output_options,
        verb="fetched",
        summary=_summary,
    )


def _summary(sums: Counter[str]) -> str:
    failed = f" {format_count(sums['failed'], 'file')} failed." if sums["failed"] else ""
    return f"Pinned: {format_count(sums['files'], 'file')}, {format_bytes(sums['bytes'])}.{failed}"


def _list(*, as_json: bool) -> int:
    found = pinned_anywhere()
    if as_json:
        print_json({"caches": found})
        return Exit.DONE
    pinned = sorted(
        (each for cache in found for each in cache["pinned"]), key=lambda each: str(each["label"])
    )
    if not pinned:
        click.echo("Nothing is pinned.")
        return Exit.DONE
    table = new_table("size", "kept", "what", right=("size", "kept"))
    for each in pinned:
        share = each["held_bytes"] / each["size_bytes"] if each["size_bytes"] else 1.0
        table.add_row(format_bytes(each["size_bytes"]), f"{share:.0%}", show(each["label"]))
    print_table(table)
    total = sum(each["held_bytes"] for each in pinned)
    click.echo(f"{format_count(len(pinned), 'file')}, {format_bytes(total)} on disk.")
    return Exit.DONE


def pinned_anywhere() -> list[Mapping[str, Json]]:
    """Return what is pinned in the cache of each mount, and in that of the settings.

    All mounts are queried at once: a silent one costs its own time limit, and no more.
    """
    found: dict[str, Mapping[str, Json]] = {}
    for pins in on_each(satfs_mounts(), _pins_of):
        if isinstance(pins, SatfsError):
            print_remark(str(pins))
        else:
            found[str(pins["cache_dir"])] = pins
    ours = load_settings().cache_dir
    if str(ours) not in found:
        try:
            kept = [each for each in maintenance.info(ours).objects if each.is_pinned]
        except NotThere:
            kept = []
        found[str(ours)] = {"cache_dir": str(ours), "pinned": maintenance.records_of(kept)}
    return list(found.values())


def _pins_of(mounted: Mounted) -> Mapping[str, Json] | SatfsError:
    """Return what a mount reports as pinned, or why it does not."""
    try:
        return result_of(mounted, "pins", {})
    except SatfsError as failure:
        return failure


def _unpin(
    paths: tuple[str, ...],
    where: tuple[str, ...],
    *,
    is_all: bool,
    as_json: bool,
    output_options: OutputOptions,
) -> int:
    if is_all == bool(paths):
        raise click.UsageError("give a PATH on a mount, or --all")
    found: list[Json] = _unpin_all() if is_all else []
    for mounted, below in on_mounts(paths):
        given = {"paths": below, "where": list(where)}
        with missing_explained():
            found += result_of(mounted, "unpin", given)["unpinned"]
    if as_json:
        print_json({"unpinned": found})
    elif output_options.verbosity >= 0:
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
        with maintenance.index_of(Path(str(cache["cache_dir"]))) as index:
            found += maintenance.records_of(unpin(index, None))
    return found
