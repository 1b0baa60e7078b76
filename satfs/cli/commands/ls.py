"""`satfs ls`: what the vendor lists, with or without a mount."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, complete_paths, json_flag, profile_flag, verbosity_flags
from satfs.cli.log_setup import logging_quietly
from satfs.cli.output import new_table, print_json, print_remark, print_table, show
from satfs.cli.targets import OnMount, anywhere, missing_explained, query, where_flag
from satfs.humanize import format_age, format_bytes, format_count
from satfs.model import Json

Entry = Mapping[str, Json]


@click.command(
    epilog="""\b
Examples:
  satfs ls                               all tasks, from the API
  satfs ls 268095                        the captures of a task
  satfs ls a0ab38b2-8cca-4a1c-8c18-4c79c6f91cbe
                                         the scenes of a capture
  satfs ls ~/aleph/tasks/268095          the same through a mount
"""
)
@click.argument("path", metavar="[PATH-OR-ID]", required=False, shell_complete=complete_paths)
@where_flag
@profile_flag
@json_flag
@verbosity_flags
@click.pass_obj
def ls(
    output_options: OutputOptions,
    path: str | None,
    where: tuple[str, ...],
    profile: str | None,
    as_json: bool,
) -> int:
    """List tasks, the captures of a task, the scenes of a capture, or the files of a scene.

    For a PATH on a mount, the listing comes from the mount, from memory where possible. For an id,
    or a path of the tree such as tasks/268095, it comes from the API; if the API does not respond,
    a listing that a mount has kept is shown.

    With --where, all scenes at and below it that fulfil the conditions are listed.
    """
    target = anywhere(path, profile)
    with missing_explained(), logging_quietly(output_options):
        listing = query(target, "list", where)
    if as_json:
        print_json(dict(listing))
    else:
        _show(listing)
        if not listing["entries"]:
            print_remark(
                "No scene fulfils the conditions."
                if where
                else f"The vendor lists no {listing['kind']} here."
            )
    if n_undecided := listing.get("undecided"):
        print_remark(
            f"{format_count(n_undecided, 'scene')} left out: the records do not state what the"
            " condition is about"
            + (
                ", and the deliveries cannot be read now."
                if isinstance(target, OnMount)
                else "; on a mount, the deliveries are looked into."
            )
        )
    if listing.get("is_stale"):
        requested = listing.get("asked_at_s")
        since = (
            f" of {format_age(time.time() - requested)}"
            if isinstance(requested, int | float)
            else ""
        )
        print_remark(f"The API could not be reached: this is the listing{since}.")
    return Exit.DONE


def _show(listing: Mapping[str, Json]) -> None:
    dates = listing.get("taken", {})
    entries = [{**each, "taken": dates.get(each.get("id"))} for each in listing["entries"]]
    entries.sort(key=_order)
    columns = [
        (name, of)
        for name, of in _COLUMNS[listing["kind"]]
        if name != "taken" or any(of(entry) for entry in entries)
    ]
    table = new_table(*(name for name, _ in columns), right=("size",), whole=("id",))
    for entry in entries:
        table.add_row(*(show(of(entry)) for _, of in columns))
    if entries:
        print_table(table)


def _field(*names: str) -> Callable[[Entry], str]:
    def of(entry: Entry) -> str:
        record = entry.get("record")
        for name in names:
            value = record.get(name) if isinstance(record, Mapping) else None
            if value is not None and not isinstance(value, Mapping | list):
                return str(value)
        return ""

    return of


def _day(*names: str) -> Callable[[Entry], str]:
    field = _field(*names)
    return lambda entry: (field(entry) or str(entry.get("taken") or ""))[:16].replace("T", " ")


def _order(entry: Entry) -> tuple[bool, str]:
    """Return where *entry* is listed: the latest last, behind those the ones without a date."""
    date = _DATE(entry)
    return (not date, date)


def _id(entry: Entry) -> str:
    return str(entry["id"])


def _size(entry: Entry) -> str:
    size = entry["size_bytes"]
    return "not known" if size is None else format_bytes(size)


def _cached(entry: Entry) -> str:
    if not entry["held_bytes"]:
        return ""
    share = f"{entry['held_bytes'] / entry['size_bytes']:.0%}"
    return f"{share}, pinned" if entry["is_pinned"] else share


#: When a scene or capture was taken, or a task was created; empty where that is not known.
_DATE: Final = _day("timestamp", "created_time", "created_at")

#: By what is listed: the heading of each column, and the function that returns its text.
_COLUMNS: Final[Mapping[str, tuple[tuple[str, Callable[[Any], str]], ...]]] = {
    "tasks": (
        ("id", _id),
        ("name", _field("task_name", "name")),
        ("status", _field("status")),
        ("created", _DATE),
    ),
    "captures": (("id", _id), ("status", _field("status")), ("taken", _DATE)),
    "scenes": (("id", _id), ("product", _field("productname", "product_name")), ("taken", _DATE)),
    "files": (("name", lambda entry: str(entry["name"])), ("size", _size), ("cached", _cached)),
}
