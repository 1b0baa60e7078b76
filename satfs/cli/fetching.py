"""What commands have in common that have a mount work on files below paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import Manner
from satfs.cli.progress import follow, outcome_of
from satfs.cli.targets import missing, on_mounts
from satfs.control.client import ask
from satfs.errors import NotThere
from satfs.model import Json

where_flag = click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Only scenes that fulfil it, such as productname=L1D or 'timestamp>=2026-01-15'; given"
    " several times, all of them. Operators: = != < <= > >= ~ (contains). The field is one of the"
    " scene's record, or of its capture's or task's (capture.FIELD, task.FIELD).",
)
jobs_flag = click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), metavar="N", help="Files at once [default: 4]."
)


def fetch(
    paths: Sequence[str],
    command: str,
    *,
    where: Sequence[str] = (),
    jobs: int | None = None,
    more: Mapping[str, Json] | None = None,
    as_json: bool,
    manner: Manner,
    verb: str,
) -> tuple[Exit, list[Mapping[str, Json]]]:
    """Have each mount that *paths* are on do *command*, and show how far it has come.

    Returns the exit code and each mount's result.

    Raises:
        SatfsError: one could not begin.
    """
    outcome, results = Exit.DONE, []
    for mounted, targets in on_mounts(paths):
        given = {
            "paths": [list(each.words) for each in targets],
            "where": list(where),
            "jobs": jobs,
            **(more or {}),
        }
        try:
            result = follow(
                ask(mounted, command, given),
                as_json=as_json,
                is_quiet=manner.verbosity < 0,
                verb=verb,
            )
        except NotThere as failure:
            raise missing(failure) from failure
        results.append(result)
        outcome = outcome or outcome_of(result)
    return outcome, results
