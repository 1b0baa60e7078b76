"""`satfs info`: all that is known of one task, capture or scene, with or without a mount."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import click

from satfs.cli.completion_values import paths as complete_paths
from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, json_flag, profile_flag, verbosity_flags
from satfs.cli.log_setup import logging_quietly
from satfs.cli.output import new_table, print_json, print_table, show
from satfs.cli.raster_rows import list_rows, raster_rows
from satfs.cli.targets import OnMount, anywhere, missing_explained, query, settings_for
from satfs.humanize import format_bytes, format_count
from satfs.model import Json

#: A nested value is cut to this number of characters; `--json` shows all of it.
_NESTED = 120


@click.command(
    epilog="""\b
Examples:
  satfs info 268095                      a task, from the API
  satfs info 20241206_081221_SN49_L1C_MS_268095
                                         a scene: its record and its files
  satfs info --json ~/aleph/tasks/268095 | jq .record.target
  satfs info ~/aleph/scenes/SCENE_ID/contents/rasters/SCENE_ID_TOA_0.tif
                                         a raster: its blocks, overviews,
                                         and what a window of it costs
"""
)
@click.argument("path", metavar="PATH-OR-ID", shell_complete=complete_paths)
@profile_flag
@json_flag
@verbosity_flags
@click.pass_obj
def info(output_options: OutputOptions, path: str, profile: str | None, as_json: bool) -> int:
    """Show the record of a task, capture or scene, what is kept of a scene's files, or a raster.

    PATH-OR-ID is what `satfs ls` takes: a path on a mount, an id, or a path of the tree. Of a
    GeoTIFF on a mount it shows the layout: size, bands, blocks, compression, overviews, and what a
    window of 512 by 512 pixels costs; of the zip, or of `contents/`, the rasters in it.
    """
    target = anywhere(path)
    settings = settings_for(target, profile)
    with missing_explained(), logging_quietly(output_options):
        found = dict(query(target, "describe", settings))
    if isinstance(target, OnMount):
        is_inside = "raster" in found or "rasters" in found
        place = "/".join(target.words) if is_inside else str(found["path"])
        found["path"] = str(target.mounted.mountpoint / place)
    if as_json:
        print_json(found)
        return Exit.DONE
    table = new_table("", "what", whole=("",), show_header=False)
    for name, value in _rows(found):
        table.add_row(show(name), show(value))
    print_table(table)
    return Exit.DONE


def _rows(found: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    yield str(found["kind"]), str(found["id"])
    yield "path", str(found["path"])
    if "raster" in found:
        yield from raster_rows(found)
        return
    if "rasters" in found:
        yield from list_rows(found["rasters"])
        return
    if "entries" in found:
        yield "holds", format_count(int(found["entries"]), "entry", "entries")
    record = found.get("record")
    for name, value in record.items() if isinstance(record, Mapping) else ():
        if value is None or (name == "attachments" and "files" in found):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        is_cut = not isinstance(value, str) and len(text) > _NESTED
        yield str(name), f"{text[:_NESTED]}…" if is_cut else text
    for file in found.get("files", ()):
        size = "size not known" if file["size_bytes"] is None else format_bytes(file["size_bytes"])
        held = f", {format_bytes(file['held_bytes'])} cached" if file["held_bytes"] else ""
        pinned = ", pinned" if file["is_pinned"] else ""
        yield "file", f"{file['name']} ({size}{held}{pinned})"
