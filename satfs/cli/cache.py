"""`satfs cache`: what is kept on disk, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import click
from rich.table import Table

from satfs.cli.exits import Exit
from satfs.cli.flags import Manner, verbosity_flags
from satfs.cli.logs import show
from satfs.cli.speech import console, tell, tell_remark
from satfs.content import upkeep
from satfs.errors import NotThere
from satfs.settings import load_settings

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")

_directory_flag = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The cache directory, if it is not the one that mounts use.",
)
_json_flag = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts.")


@click.group(
    epilog="""\b
Examples:
  satfs cache info                       what is kept, and how much of each
  satfs cache verify                     read it all, and drop what is damaged
  satfs cache clear                      give the space back
"""
)
def cache() -> None:
    """Look after what mounts have kept on disk. Mounts may go on meanwhile."""


@cache.command(
    epilog="""\b
Examples:
  satfs cache info                       people's units
  satfs cache info --json | jq .held_bytes
"""
)
@_directory_flag
@_json_flag
@verbosity_flags
@click.pass_obj
def info(_manner: Manner, cache_dir: Path | None, as_json: bool) -> None:
    """Show what is kept, the most recently used first."""
    directory = _directory(cache_dir)
    try:
        found = upkeep.info(directory)
    except NotThere:
        found = upkeep.CacheInfo(directory, [], 0, 0)
    if as_json:
        _print_json(
            {
                "directory": str(directory),
                "held_bytes": found.held_bytes,
                "disk_bytes": found.disk_bytes,
                "objects": [
                    {
                        "label": each.label,
                        "size_bytes": each.size_bytes,
                        "held_bytes": each.held_bytes,
                        "is_pinned": each.is_pinned,
                        "used_at_s": each.used_at_s,
                    }
                    for each in found.objects
                ],
            }
        )
        return
    screen = console()
    screen.print(f"{show(str(directory))} holds {_amount(found.held_bytes)} of content.")
    if not found.objects:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("kept", "share", "used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for each in found.objects:
        held_bytes = min(each.held_bytes, each.size_bytes)  # the last block counts as a whole one
        table.add_row(
            _amount(held_bytes),
            f"{held_bytes / each.size_bytes:.0%}" if each.size_bytes else "100%",
            _age(time.time() - each.used_at_s) if each.used_at_s else "",
            show(each.label) + (" (pinned)" if each.is_pinned else ""),
        )
    screen.print(table)


@cache.command(
    epilog="""\b
Examples:
  satfs cache clear                      all but what is pinned
  satfs cache clear --pinned             all
"""
)
@click.option("--pinned", is_flag=True, help="Remove what is pinned, too.")
@_directory_flag
@verbosity_flags
@click.pass_obj
def clear(_manner: Manner, cache_dir: Path | None, pinned: bool) -> None:
    """Remove what is kept. Listings stay; content is fetched again when somebody reads it."""
    directory = _directory(cache_dir)
    try:
        freed = upkeep.clear(directory, with_pinned=pinned)
    except NotThere:
        freed = 0
    tell(f"{_amount(freed)} removed from {show(str(directory))}.")


@cache.command(
    epilog="""\b
Examples:
  satfs cache verify                     after a crash of the machine, say
  satfs cache verify --json
"""
)
@_directory_flag
@_json_flag
@verbosity_flags
@click.pass_obj
def verify(_manner: Manner, cache_dir: Path | None, as_json: bool) -> int:
    """Read all that is kept, and drop what is damaged; exits with 7 if anything was."""
    directory = _directory(cache_dir)
    good = damaged = 0
    broken: list[str] = []
    try:
        for checked in upkeep.verify(directory):
            good += checked.good_bytes
            damaged += checked.damaged_bytes
            if checked.damaged_bytes:
                broken.append(checked.kept.label)
    except NotThere:
        pass
    if as_json:
        _print_json({"good_bytes": good, "damaged_bytes": damaged, "damaged": broken})
    else:
        for label in broken:
            tell_remark(f"{show(label)} was damaged; the damaged part is fetched again when read.")
        tell(f"{_amount(good)} checked and whole, {_amount(damaged)} damaged and dropped.")
    return Exit.CACHE if damaged else Exit.DONE


def _directory(given: Path | None) -> Path:
    return load_settings(cache_dir=given).cache_dir


def _print_json(answer: object) -> None:
    click.echo(json.dumps(answer, indent=2))


def _amount(n_bytes: float) -> str:
    for unit in _UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {_UNITS[-1]}"


def _age(seconds: float) -> str:
    for length_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return "now"
