"""`satfs refresh`: list a directory at the vendor again, now."""

from __future__ import annotations

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, complete_paths, json_flag, verbosity_flags
from satfs.cli.output import print_json, print_remark, show
from satfs.cli.targets import missing_explained, on_mounts
from satfs.control.client import result_of
from satfs.humanize import format_count


@click.command(
    epilog="""\b
Examples:
  satfs refresh ~/aleph/tasks            are there new tasks?
  satfs refresh ~/aleph/tasks/268095     … new captures, or scenes in them?
"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=complete_paths)
@json_flag
@verbosity_flags
@click.pass_obj
def refresh(output_options: OutputOptions, paths: tuple[str, ...], as_json: bool) -> int:
    """Request the listing of each PATH on a mount again.

    A mount uses a listing for a minute, and the kernel a name; this command is for a program that
    cannot wait. Listings below PATH are requested again as well, when a program reads them. For a
    scene, the store is queried for the versions of its files.

    Exits with 4 if the API cannot be reached; then the earlier listing stays.
    """
    done: list[dict[str, object]] = []
    for mounted, below in on_mounts(paths):
        with missing_explained():
            result = result_of(mounted, "refresh", {"paths": below})
        for each in result["refreshed"]:
            path = str(mounted.mountpoint / each["path"])
            done.append({**each, "path": path})
    if as_json:
        print_json({"refreshed": done})
    for each in done:
        if each["is_stale"]:
            print_remark(
                f"{each['path']}: the API could not be reached; it shows what was known before"
            )
        elif not as_json and output_options.verbosity >= 0:
            entries = each["entries"]
            held = f", {format_count(entries, 'name')}" if isinstance(entries, int) else ""
            click.echo(f"{show(str(each['path']))}: up to date{held}")
    return Exit.NETWORK if any(each["is_stale"] for each in done) else Exit.DONE
