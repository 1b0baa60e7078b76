"""`satfs prefetch`: make scenes or whole tasks available offline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import click

from satfs.cli.flags import OutputOptions, complete_paths, json_flag, verbosity_flags
from satfs.cli.progress import fetch, jobs_flag
from satfs.cli.targets import where_flag
from satfs.facts.scene import RASTER_KINDS
from satfs.humanize import format_bytes, format_count


def _four_numbers(kind: type[int] | type[float], form: str) -> Callable[..., list[float] | None]:
    """Return a callback of an option whose value is four numbers with commas between them."""

    def numbers_of(_context: object, _parameter: object, given: str | None) -> list[float] | None:
        if given is None:
            return None
        try:
            numbers = [kind(part) for part in given.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            raise click.BadParameter(f"{given!r} is not of the form {form}")
        return numbers

    return numbers_of


@click.command(
    epilog="""\b
Examples:
  satfs prefetch ~/aleph/tasks/268095    a task, with all that is in it
  satfs prefetch ~/aleph/tasks --where task.status=completed \\
      --where 'since 7 days' --where product=L1D_SR
  satfs prefetch ~/aleph/tasks --bands visual --where 'cloud<20' \\
      --where intersects=harbour.geojson  the visual rasters of an area
  satfs prefetch ~/aleph/scenes/SCENE_ID/contents/rasters
                                         some members of a zip
  satfs prefetch ~/aleph/tasks/268095 --bands visual \\
      --bbox 4.7,52.3,5.0,52.5 --overviews
                                         of each visual raster what shows
                                         an area, and the overviews
"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=complete_paths)
@where_flag
@click.option(
    "--bands",
    type=click.Choice([kind.value for kind in RASTER_KINDS]),
    multiple=True,
    help="Only rasters of this kind, and no other byte of the deliveries; may be given several"
    " times.",
)
@click.option(
    "--window",
    callback=_four_numbers(int, "COLUMN,ROW,WIDTH,HEIGHT"),
    metavar="COL,ROW,WIDTH,HEIGHT",
    help="Of each raster only the blocks of this window, in pixels from its upper left corner.",
)
@click.option(
    "--bbox",
    callback=_four_numbers(float, "WEST,SOUTH,EAST,NORTH"),
    metavar="W,S,E,N",
    help="Of each raster only the blocks of this box, in degrees (WGS 84), by the projection that"
    " its header states.",
)
@click.option(
    "--overviews",
    is_flag=True,
    help="Of each raster only the overviews; with --window or --bbox, these besides.",
)
@jobs_flag
@json_flag
@verbosity_flags
@click.pass_obj
def prefetch(
    output_options: OutputOptions,
    paths: tuple[str, ...],
    where: tuple[str, ...],
    bands: tuple[str, ...],
    window: list[float] | None,
    bbox: list[float] | None,
    overviews: bool,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Fetch the content of each PATH into the cache of its mount.

    Listings, records and files can then be read without network, also after a remount (with `satfs
    mount --offline`), until the cache evicts them; `satfs pin` keeps them permanently.

    The exit code is 0 only if every file is completely cached. The command may be interrupted and
    run again at any time: cached blocks are checked, and not fetched again. Files that would not
    fit are not begun.

    With --window, --bbox or --overviews, only rasters are fetched, and of each raster only the
    header and the chosen blocks.
    """
    return fetch(
        paths,
        "prefetch",
        {
            "where": where,
            "bands": bands,
            "jobs": jobs,
            "window": window,
            "bbox": bbox,
            "overviews": overviews,
        },
        as_json=as_json,
        output_options=output_options,
        verb="fetched",
        summary=_summary,
    )


def _summary(sums: Counter[str]) -> str:
    files = format_count(sums["files"] - sums["failed"], "file")
    what = f"{'blocks of ' if 'outside' in sums else ''}{files}, {format_bytes(sums['bytes_done'])}"
    if sums["outside"]:
        what += f" ({format_count(sums['outside'], 'raster')} outside of it)"
    failed = f" {format_count(sums['failed'], 'file')} failed." if sums["failed"] else ""
    return f"Available offline: {what}.{failed}"
