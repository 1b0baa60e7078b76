"""`satfs cache`: what is kept on disk, whether it is whole, and how to remove it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import Commands, directory_argument, json_flag, verbosity_flags
from satfs.cli.hints import hint, shell_path
from satfs.cli.mount_status import mount_of
from satfs.cli.output import new_table, print_json, print_remark, print_sentence, print_table, show
from satfs.content.cache import maintenance
from satfs.control.client import result_of
from satfs.errors import NotThere
from satfs.humanize import format_age, format_bytes
from satfs.mountpoints import DEMO_SOURCE, satfs_mounts
from satfs.settings import load_settings

_directory_flag = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The cache directory, if it is not the one that mounts use.",
)


@click.group(
    cls=Commands,
    epilog="""\b
Examples:
  satfs cache info                       what is kept, and how much of each
  satfs cache verify                     read it all, and drop what is damaged
  satfs cache clear                      give the space back
""",
)
def cache() -> None:
    """Show, check and clear what mounts have kept on disk. Mounts may go on meanwhile."""


@cache.command(
    epilog="""\b
Examples:
  satfs cache info                       what mounts of the settings keep
  satfs cache info ~/satfs-demo          what the demo keeps
  satfs cache info --json | jq .held_bytes
"""
)
@directory_argument
@_directory_flag
@json_flag
@verbosity_flags
def info(mountpoint: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """Show the objects in the cache, the most recently used first.

    With MOUNTPOINT, in the cache of the mount there; without, in that of the settings.
    """
    directory = _directory(mountpoint, cache_dir)
    try:
        found = maintenance.info(directory)
    except NotThere:
        found = maintenance.CacheInfo(directory, [], 0, 0)
    if as_json:
        print_json(
            {
                "directory": str(directory),
                "held_bytes": found.held_bytes,
                "disk_bytes": found.disk_bytes,
                "objects": maintenance.records_of(found.objects),
            }
        )
        return
    if mountpoint is None and cache_dir is None:
        _notify_mounts()
    click.echo(f"{show(str(directory))} holds {format_bytes(found.held_bytes)} of content.")
    if not found.objects:
        return
    table = new_table("kept", "share", "used", "what", right=("kept", "share", "used"))
    for each in found.objects:
        held_bytes = min(each.held_bytes, each.size_bytes)  # the last block counts as a whole one
        table.add_row(
            format_bytes(held_bytes),
            f"{held_bytes / each.size_bytes:.0%}" if each.size_bytes else "100%",
            format_age(time.time() - each.used_at_s) if each.used_at_s else "",
            show(each.label) + (" (pinned)" if each.is_pinned else ""),
        )
    print_table(table)


@cache.command(
    epilog="""\b
Examples:
  satfs cache clear                      all but what is pinned
  satfs cache clear --pinned             all
"""
)
@click.option("--pinned", is_flag=True, help="Remove pinned files, too.")
@directory_argument
@_directory_flag
@verbosity_flags
def clear(mountpoint: str | None, cache_dir: Path | None, pinned: bool) -> None:
    """Clear the cache. Listings stay; content is fetched again when a program reads it.

    With MOUNTPOINT, from the cache of the mount there; without, from that of the settings.
    """
    directory = _directory(mountpoint, cache_dir)
    try:
        freed = maintenance.clear(directory, with_pinned=pinned)
    except NotThere:
        freed = 0
    print_sentence(f"{format_bytes(freed)} removed from {show(str(directory))}.")


@cache.command(
    short_help="Check the whole cache, and drop damaged blocks.",
    epilog="""\b
Examples:
  satfs cache verify                     after a crash of the machine, say
  satfs cache verify --json
""",
)
@directory_argument
@_directory_flag
@json_flag
@verbosity_flags
def verify(mountpoint: str | None, cache_dir: Path | None, as_json: bool) -> int:
    """Read the whole cache, and drop damaged blocks; exits with 7 if there were any.

    With MOUNTPOINT, in the cache of the mount there; without, in that of the settings.
    """
    directory = _directory(mountpoint, cache_dir)
    good = damaged = 0
    broken: list[str] = []
    try:
        for checked in maintenance.verify(directory):
            good += checked.good_bytes
            damaged += checked.damaged_bytes
            if checked.damaged_bytes:
                broken.append(checked.kept.label)
    except NotThere:
        pass
    if as_json:
        print_json({"good_bytes": good, "damaged_bytes": damaged, "damaged": broken})
    else:
        for label in broken:
            print_remark(f"{show(label)} was damaged; the damaged part is fetched again when read.")
        print_sentence(
            f"{format_bytes(good)} checked and whole, {format_bytes(damaged)} damaged and dropped."
        )
    return Exit.CACHE if damaged else Exit.DONE


def _directory(mountpoint: str | None, given: Path | None) -> Path:
    """Return the cache directory of the mount at *mountpoint*, or the one *given*, or ours.

    Raises:
        BadMountpoint: there is no satfs mount, or it does not respond.
    """
    if mountpoint is None:
        return load_settings(cache_dir=given).cache_dir
    if given is not None:
        raise click.UsageError("give a MOUNTPOINT or --cache-dir, not both")
    return Path(str(result_of(mount_of(mountpoint), "pins", {})["cache_dir"]))


def _notify_mounts() -> None:
    """Print where content is that is not in the cache of the settings: a demo keeps its own."""
    for each in satfs_mounts():
        if each.source == DEMO_SOURCE:
            place = shell_path(each.mountpoint)
            print_remark(f"The demo has a cache of its own: {hint(f'satfs cache info {place}')}")
