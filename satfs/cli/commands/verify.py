"""`satfs verify`: compare what was delivered with its record: length, ETag, CRCs."""

from __future__ import annotations

from collections import Counter

import click

from satfs.cli.flags import OutputOptions, complete_paths, json_flag, verbosity_flags
from satfs.cli.progress import fetch
from satfs.cli.targets import where_flag
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

    The exit code is 8 if any file is damaged. Members that are encrypted, or compressed with a
    method that satfs does not support, are reported and are no failure.
    """
    return fetch(
        paths,
        "verify",
        {"where": where},
        as_json=as_json,
        output_options=output_options,
        verb="good:",
        summary=_summary,
    )


def _summary(sums: Counter[str]) -> str:
    failed = f"{format_count(sums['failed'], 'file')} failed" if sums["failed"] else "none failed"
    files = format_count(sums["files"] - sums["failed"], "file")
    return f"Verified: {files}, {format_bytes(sums['bytes_done'])}; {failed}."
