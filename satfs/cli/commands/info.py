"""`satfs info`: all that is known of one task, capture or scene, with or without a mount."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, complete_paths, json_flag, profile_flag, verbosity_flags
from satfs.cli.log_setup import logging_quietly
from satfs.cli.output import new_table, print_json, print_table, show
from satfs.cli.targets import OnMount, anywhere, missing_explained, query
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
    """Show the record of a task, capture or scene, the files of a scene, or a raster.

    PATH-OR-ID is a path on a mount, an id, or a path of the tree, as for `satfs ls`. For a GeoTIFF
    on a mount it shows the layout: size, bands, blocks, compression, overviews, and the cost of a
    window of 512 by 512 pixels; for the zip, or `contents/`, the rasters in it.
    """
    target = anywhere(path, profile)
    with missing_explained(), logging_quietly(output_options):
        found = dict(query(target, "describe"))
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


Row = tuple[str, str]

#: The name of a predictor, by its number in TIFF (TIFF 6.0, page 64; libtiff's tiff.h).
_PREDICTORS: Final = {2: "horizontal differences", 3: "floating point differences"}


def raster_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of one raster: *found* has `raster`, `packing` and `size_bytes`."""
    raster = found["raster"]
    packing = found["packing"]
    how = "" if packing == "stored" else f", packed in the zip ({packing})"
    yield "file", f"{format_bytes(found['size_bytes'])}{how}"
    if raster is None:
        yield "layout", str(found["reason"])
        return
    yield "size", _size(raster, "pixels")
    yield "data type", str(raster["data_type"])
    yield "bands", _bands(raster)
    yield "position", _position(raster)
    if raster["no_data"] is not None:
        yield "no data", str(raster["no_data"])
    yield "blocks", _blocks(raster)
    is_band = raster["interleave"] == "band"
    yield "interleave", "band (a block holds one band)" if is_band else "pixel (a block holds all)"
    predictor = _PREDICTORS.get(raster["predictor"])
    yield "compression", raster["compression"] + (f", {predictor}" if predictor else "")
    yield "overviews", "; ".join(_size(each, "") for each in raster["overviews"]) or "none"
    if raster["has_mask"]:
        yield "mask", "in the file"
    if raster["pages"] > 1:
        yield "pages", f"{raster['pages']:,}; this is of the first"
    yield "format", _format(raster)
    if (window := raster.get("window")) is not None:
        yield "a window", _window(window, packing)


def list_rows(rasters: list[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield a row for each raster of a zip."""
    for raster in rasters:
        parts = [format_bytes(raster["size_bytes"])]
        if raster["width"] is not None:
            parts.append(_size(raster, "pixels"))
        if raster["bands"] and raster["data_type"] is not None:
            parts.append(f"{format_count(raster['bands'], 'band')} of {raster['data_type']}")
        if raster["block_width"] is not None:
            parts.append(f"blocks of {_block_size(raster)}")
        if raster["is_cog"]:
            parts.append("COG")
        yield "raster", f"{raster['path']} ({', '.join(parts)})"


def _size(image: Mapping[str, Any], unit: str) -> str:
    return f"{image['width']:,} by {image['height']:,} {unit}".rstrip()


def _block_size(image: Mapping[str, Any]) -> str:
    return f"{image['block_width']:,} by {image['block_height']:,}"


def _bands(raster: Mapping[str, Any]) -> str:
    names = ", ".join(name or "?" for name in raster["band_names"])
    return f"{raster['bands']:,}" + (f": {names}" if names else "")


def _position(raster: Mapping[str, Any]) -> str:
    if raster["transform"] is None:
        return "no map projection" + (", RPC instead" if raster["has_rpc"] else "")
    a, b, c, d, e, f = raster["transform"]
    system = "no known system" if raster["epsg"] is None else f"EPSG:{raster['epsg']}"
    pixel = f"pixels of {a:g} by {-e:g}" if b == d == 0 else "rotated pixels"
    return f"{system}, corner at {c:.10g}, {f:.10g}, {pixel}"


def _blocks(image: Mapping[str, Any]) -> str:
    kind = "tiles" if image["is_tiled"] else "strips"
    return f"{kind} of {_block_size(image)}, {image['blocks']:,} of them"


def _format(raster: Mapping[str, Any]) -> str:
    kind = "BigTIFF" if raster["is_bigtiff"] else "TIFF"
    is_cog = raster["is_cog"]
    if is_cog is None:
        return kind
    return f"{kind}, {'a' if is_cog else 'not a'} cloud-optimised GeoTIFF"


def _window(window: Mapping[str, Any], packing: str) -> str:
    """Return what the window in the middle costs, beside the header."""
    cost = f"{format_count(window['blocks'], 'block')}, {format_bytes(window['bytes'])}"
    where = f"{window['width']} by {window['height']} in the middle: {cost}"
    if packing != "stored":
        return where + ", unpacked"
    return f"{where}, {format_count(window['ranges'], 'request')}"
