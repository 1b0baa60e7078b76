"""`satfs verify`: compare what was delivered with its record: length, ETag, CRCs."""

from __future__ import annotations

import click

from satfs.cli.completion_values import paths as complete_paths
from satfs.cli.flags import OutputOptions, json_flag, verbosity_flags
from satfs.cli.progress import fetch
from satfs.cli.selection_flags import where_flag
from satfs.humanize import format_bytes, format_count


@click.command(
    epilog="""\b
Examples:
  satfs verify ~/aleph/scenes/SCENE_ID   one scene
  satfs verify --json ~/aleph/tasks/268095 | jq 'select(.error)'
"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=complete_paths)
@where_flag
@json_flag
@verbosity_flags
@click.pass_obj
def verify(
    output_options: OutputOptions, paths: tuple[str, ...], where: tuple[str, ...], as_json: bool
) -> int:
    """Read every file below each PATH on a mount, and compare it with its record.

    ETag and length are requested from the store; where the ETag is an MD5, it is compared; each
    member of a zip is inflated and its CRC compared. Fetches the bytes that are not in the cache.

    Exits with 8 if anything is damaged. Members that are encrypted, or packed in a way that satfs
    does not know, are reported and are no failure.
    """
    outcome, results = fetch(
        paths, "verify", where=where, as_json=as_json, output_options=output_options, verb="good:"
    )
    if not as_json and output_options.verbosity >= 0:
        n_files = sum(each["files"] for each in results)
        n_failed = sum(len(each["failed"]) for each in results)
        n_bytes = sum(each["bytes_done"] for each in results)
        summary = f"{format_count(n_failed, 'file')} failed" if n_failed else "none failed"
        click.echo(
            f"Verified: {format_count(n_files - n_failed, 'file')}, "
            f"{format_bytes(n_bytes)}; {summary}."
        )
    return outcome
