"""Display the progress of work on many files: bars, lines or JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from satfs import errors
from satfs.cli.exit_codes import Exit, exit_code
from satfs.cli.flags import OutputOptions
from satfs.cli.output import print_json, print_remark, print_sentence, show
from satfs.cli.targets import missing_explained, on_mounts
from satfs.control.client import messages_of
from satfs.control.protocol import Done, Failed, Notice, error_of
from satfs.fuse.errnos import gravest_of
from satfs.humanize import format_bytes
from satfs.model import Json

#: Columns of a terminal that a file's name may take beside its bar.
_NAME_COLUMNS: Final = 34
#: How much of it is at its beginning, where a scene's name has the day and the time.
_HEAD_COLUMNS: Final = 15


def follow(
    messages: Iterable[Notice | Done], *, as_json: bool, is_quiet: bool, verb: str
) -> Mapping[str, Json]:
    """Show *messages* as they come, and return the result.

    On a terminal there is a bar for each file at work and one for all; elsewhere a line for each
    file that has ended, unless *is_quiet*; *as_json*, an object a line. *verb* is what is done to a
    file ("fetched").
    """
    shown = _Bars() if sys.stderr.isatty() and not as_json and not is_quiet else None
    result: Mapping[str, Json] = {}
    context: AbstractContextManager[Any] = nullcontext() if shown is None else shown.progress
    with context:
        for message in messages:
            if isinstance(message, Done):
                result = message.result
                if as_json:
                    print_json({"event": "done", **result}, is_line=True)
            elif as_json:
                print_json(dict(message.what), is_line=True)
            elif shown is not None:
                shown.take(message.what)
            else:
                _print_line(message.what, verb, is_quiet=is_quiet)
    return result


def outcome_of(result: Mapping[str, Json]) -> Exit:
    """Return the exit code for the results of many files: that of the most severe failure."""
    failures = [
        error_of(Failed(str(each.get("error")), str(each.get("message"))))
        for each in result.get("failed", ())
    ]
    if not failures:
        return Exit.DONE
    gravest = gravest_of(BaseExceptionGroup("failures", failures))
    if isinstance(gravest, errors.Damaged):
        return Exit.VENDOR
    if isinstance(gravest, errors.NotThere):
        return Exit.FAILED
    return exit_code(gravest)


def _print_line(what: Mapping[str, Json], verb: str, *, is_quiet: bool) -> None:
    if what.get("event") == "ended":
        if (remark := _remark_of(what)) is not None and not (is_quiet and what["error"] is None):
            print_remark(remark)
        if what["error"] is None and not is_quiet:
            print_sentence(f"{verb} {what['path']} ({format_bytes(what['bytes'])})")


def _remark_of(what: Mapping[str, Json]) -> str | None:
    """Return why a file has failed, or what of it could not be checked; None for neither."""
    if what["error"] is not None:
        return f"{what['path']}: {what['message']}"
    first, *others = what.get("unchecked") or [None]
    if first is None:
        return None
    more = f", and {len(others)} more" if others else ""
    return f"{what['path']}: not checked: {first}{more}"


class _Bars:
    """Bars on a terminal of 80 columns or more."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=10),
            TaskProgressColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(
                file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=False
            ),
            transient=True,
        )
        self._total: TaskID | None = None
        self._files: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._n_files = self._n_ended = 0

    def take(self, what: Mapping[str, Json]) -> None:
        """Show one event."""
        match what.get("event"):
            case "found":
                self._show_total(f"{what['files']:,} files found", None)
            case "planned":
                self._n_files = what["files"]
                self._show_total("", what["bytes"])
            case "begun":
                path, size = what["path"], what["bytes"]
                self._sizes[path] = size
                self._files[path] = self.progress.add_task(_short(path), total=size or 1)
            case "moved":
                self._move(what["path"], what["bytes_done"])
            case "ended":
                self._end(what)

    def _move(self, path: str, n_bytes: int) -> None:
        self._done[path] = n_bytes
        if path in self._files:
            self.progress.update(self._files[path], completed=n_bytes)
        self._show_total("", None)

    def _end(self, what: Mapping[str, Json]) -> None:
        path = what["path"]
        self._n_ended += 1
        self._move(path, what["bytes"])
        if path in self._files:
            self.progress.remove_task(self._files.pop(path))
        if (remark := _remark_of(what)) is not None:
            self.progress.console.print(Text.assemble(("Note:", "yellow"), show(f" {remark}")))

    def _show_total(self, text: str, n_bytes: int | None) -> None:
        text = text or f"{self._n_ended:,} of {self._n_files:,} files"
        if self._total is None:
            self._total = self.progress.add_task(text, total=n_bytes)
        self.progress.update(
            self._total, description=f"[bold]{text}[/bold]", completed=sum(self._done.values())
        )
        if n_bytes is not None:
            self.progress.update(self._total, total=n_bytes or 1)


def _short(path: str) -> str:
    """Return the file's name, cut in the middle where it is long: both of its ends identify it."""
    name = show(PurePosixPath(path).name)
    if len(name) > _NAME_COLUMNS:
        tail = _NAME_COLUMNS - 1 - _HEAD_COLUMNS
        name = f"{name[:_HEAD_COLUMNS]}…{name[-tail:]}"
    return escape(name)


jobs_flag = click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), metavar="N", help="Files at once [default: 4]."
)


def fetch(
    paths: Sequence[str],
    command: str,
    given: Mapping[str, Json],
    *,
    as_json: bool,
    output_options: OutputOptions,
    verb: str,
    summary: Callable[[Counter[str]], str],
) -> Exit:
    """Have each mount that *paths* are on do *command* as *given*, and show how far it has come.

    In the end *summary* makes a line of the sums over all mounts: `files`, `failed`, `bytes`,
    `bytes_done`. Returns the exit code.

    Raises:
        SatfsError: one could not begin.
    """
    is_quiet = output_options.verbosity < 0
    outcome, sums = Exit.DONE, Counter[str]()
    for mounted, below in on_mounts(paths):
        messages = messages_of(mounted, command, {**given, "paths": below})
        with missing_explained():
            result = follow(messages, as_json=as_json, is_quiet=is_quiet, verb=verb)
        sums.update({name: n for name, n in result.items() if isinstance(n, int)})
        sums["failed"] += len(result["failed"])
        outcome = outcome or outcome_of(result)
    if not as_json and not is_quiet:
        click.echo(summary(sums))
    return outcome
