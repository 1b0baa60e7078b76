"""`satfs stac`: the scenes of a mount as STAC items in one file."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from satfs.atomic_file import draft_of, mode_for_all, write_atomically
from satfs.cli.exit_codes import Exit
from satfs.cli.flags import Commands, OutputOptions, complete_paths, verbosity_flags
from satfs.cli.output import print_json, print_remark, print_sentence
from satfs.cli.progress import outcome_of
from satfs.cli.targets import missing_explained, on_mounts, where_flag
from satfs.control.client import messages_of
from satfs.control.protocol import Done, Notice
from satfs.errors import BadSettings
from satfs.humanize import format_count
from satfs.model import Json
from satfs.stac.items import item_collection

_NEEDS_RUSTAC: Final = (
    "--geoparquet needs the package rustac: run `pipx inject satfs rustac`, or install the extra"
    " `satfs[geoparquet]`"
)


@click.group(
    cls=Commands,
    epilog="""\b
Examples:
  satfs stac export ~/aleph/tasks/268095 -o harbour.json
""",
)
def stac() -> None:
    """Write STAC items of scenes, for GIS programs and data bases.

    A mount is a STAC catalogue itself: open catalog.json at its top, or collection.json of a task.
    """


@stac.command(
    epilog="""\b
Examples:
  satfs stac export --absolute ~/aleph/tasks/268095 -o harbour.json
                                         gdalinfo STACIT:harbour.json
  satfs stac export --ndjson --where 'cloud<20' ~/aleph/tasks
                                         an item a line
  satfs stac export --absolute --geoparquet ~/aleph -o scenes.parquet
"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=complete_paths)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE [default, or -: standard output].",
)
@click.option(
    "--absolute", is_flag=True, help="Paths of assets from the root, not from the mountpoint."
)
@click.option("--ndjson", is_flag=True, help="One item a line, as soon as it is known.")
@click.option(
    "--geoparquet", is_flag=True, help="GeoParquet, of scenes with a footprint; needs --output."
)
@where_flag
@verbosity_flags
@click.pass_obj
def export(
    output_options: OutputOptions,
    paths: tuple[str, ...],
    output: Path | None,
    absolute: bool,
    ndjson: bool,
    geoparquet: bool,
    where: tuple[str, ...],
) -> int:
    """Write the STAC item of each scene at and below PATH, on a mount.

    Without a format the output is one feature collection, in the order of the tree. Many scenes are
    read at once; of each zip a few kilobytes are fetched, once. A scene that cannot be read is
    omitted and named, and the exit code is then not 0.
    """
    if ndjson and geoparquet:
        raise BadSettings("--ndjson and --geoparquet are two formats: choose one")
    output = None if output == Path("-") else output
    if geoparquet and output is None:
        raise BadSettings("--geoparquet is not for a terminal or a pipe: name a file with --output")
    write = _geoparquet_writer() if geoparquet else None
    items: list[Json] = []
    outcome = Exit.DONE
    for mounted, below in on_mounts(paths):
        given = {"paths": below, "where": list(where), "absolute": absolute}
        found: dict[int, Json] = {}
        messages = messages_of(mounted, "stac", given)
        with missing_explained():
            for message in _shown(messages, is_quiet=output_options.verbosity < 0):
                if isinstance(message, Done):
                    outcome = outcome or outcome_of(message.result)
                elif message.what.get("event") == "item":
                    if ndjson and output is None:
                        print_json(message.what["item"], is_line=True)
                    else:
                        found[message.what["number"]] = message.what["item"]
        items += [found[number] for number in sorted(found)]
    if write is not None and output is not None:
        placed = [item for item in items if item["geometry"] is not None]
        if len(placed) < len(items):
            n_left_out = format_count(len(items) - len(placed), "scene")
            print_remark(f"{n_left_out} without a footprint left out: GeoParquet cannot hold it.")
        write(output, placed)
    elif not ndjson:
        _put(output, json.dumps(item_collection(items), indent=2) + "\n")
    elif output is not None:
        _put(output, "".join(json.dumps(item) + "\n" for item in items))
    return outcome


def _put(output: Path | None, text: str) -> None:
    """Write *text* to a file, as a whole or not at all; or to standard output, a pipe or a link."""
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        if _is_replaceable(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output.absolute(), text, mode=mode_for_all(output))
        else:
            output.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise BadSettings(f"{output} cannot be written: {failure.strerror}") from failure


def _is_replaceable(output: Path) -> bool:
    """Return whether a file may take the place of *output*.

    A link such as /dev/stdout, a pipe or a device leads to what reads there: it is written to.
    """
    try:
        return stat.S_ISREG(output.lstat().st_mode)
    except FileNotFoundError:
        return True


def _geoparquet_writer() -> Any:
    """Return a function that writes items to a file, as a whole or not at all.

    Raises:
        BadSettings: rustac is not installed.
    """
    try:
        import rustac
    except ImportError:
        raise BadSettings(_NEEDS_RUSTAC) from None

    def write(output: Path, items: list[Json]) -> None:
        if not _is_replaceable(output):
            raise BadSettings(f"{output} is not a file: GeoParquet cannot be written to it")
        draft = draft_of(output)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            rustac.write_sync(str(draft), items, format="geoparquet")
            draft.replace(output)
        except Exception as failure:
            raise BadSettings(f"{output} cannot be written as GeoParquet: {failure}") from failure
        finally:
            draft.unlink(missing_ok=True)

    return write


def _shown(messages: Iterator[Notice | Done], *, is_quiet: bool) -> Iterator[Notice | Done]:
    """Yield *messages*, with a bar on a terminal; name the scenes that failed."""
    console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    )
    has_bar = sys.stderr.isatty() and not is_quiet
    remarks: list[str] = []
    n_items: int | None = None
    with progress if has_bar else nullcontext():
        bar = progress.add_task("scenes", total=None) if has_bar else None
        for message in messages:
            what: Mapping[str, Json] = message.what if isinstance(message, Notice) else {}
            if bar is not None and what.get("event") == "planned":
                progress.update(bar, total=what["scenes"])
            elif bar is not None and what.get("event") == "item":
                progress.advance(bar)
            elif what.get("event") == "failed":
                remarks.append(f"{what['path']}: {what['message']}")
            if isinstance(message, Done):
                n_items = message.result["scenes"] - len(message.result["failed"])
            yield message
    # Not before the bar has left the terminal: both write to it.
    for remark in remarks:
        print_remark(remark)
    if n_items is not None and not is_quiet:
        print_sentence(f"{format_count(n_items, 'item')}.")
