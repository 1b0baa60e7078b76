"""Output on a terminal: errors, remarks and panels.

Standard output is for the result of a command, standard error for the rest. A terminal gets lines
of its own width and, unless `NO_COLOR` is set (no-color.org), colours; a pipe gets plain text, a
sentence a line, so that it can be searched.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import sys
import textwrap
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from satfs.humanize import CONTROLS, SURROGATES
from satfs.model import Json
from satfs.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Characters that `show` spells out: also marks of direction, and characters that no terminal
#: shows.
_UNSHOWN: Final = re.compile(f"[{CONTROLS}{SURROGATES}\u061c\u200e\u200f]")
#: The width of a table in a pipe: more than a path (4,096 bytes) and its record need, so that
#: each row stays one line, which `grep` finds and `awk` splits.
_PIPE_COLUMNS: Final = 16_384


def show(text: str) -> str:
    """Return *text* as one line that steers no terminal: control characters are spelt out."""
    return _UNSHOWN.sub(_spelt_out, text)


def _spelt_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def user_name(number: int) -> str:
    """Return the name of a user, or the *number* of one that this machine does not know."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def console() -> Console:
    """Return rich's console for standard output, 80 columns at most.

    It prints text as it is: without markup, names of emojis, or guessed colours.
    """
    from rich.console import Console  # takes as long to import as all that most commands need

    width = min(shutil.get_terminal_size().columns, 80) if sys.stdout.isatty() else 80
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def new_table(
    *columns: str, right: Collection[str] = (), whole: Collection[str] = (), **options: Any
) -> Table:
    """Return a table of these *columns* without frames; *options* are those of rich's `Table`.

    Long text is folded, but in the columns *right*, which are flush right, and *whole*.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, **options)
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        is_whole = name in right or name in whole
        table.add_column(name, justify=justify, no_wrap=is_whole, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print *table*: within the width of a terminal, and a row a line into a pipe."""
    if sys.stdout.isatty():
        console().print(table)
        return
    screen = console()
    screen.width = _PIPE_COLUMNS
    with screen.capture() as text:
        screen.print(table)
    for line in text.get().splitlines():
        # Columns are filled up with blanks. Not by click.echo, which ignores PYTHONIOENCODING.
        sys.stdout.write(f"{line.rstrip()}\n")


def print_json(document: Json, *, is_line: bool = False) -> None:
    """Print *document* as JSON, on one line or for people to read as well."""
    click.echo(json.dumps(document, indent=None if is_line else 2))


def print_sentence(sentence: str) -> None:
    """Print that something has been done."""
    click.echo(show(sentence), err=True)


def print_error(sentence: str, remedy: str | None = None, details: str | None = None) -> None:
    """Print what went wrong, the remedy, and *details* (a traceback) when given."""
    if details:
        click.echo(redact(details).rstrip(), err=True)
    _print_sentence("Error:", sentence, "red")
    if remedy:
        _print_sentence("", remedy, None)


def print_remark(sentence: str) -> None:
    """Print a note: something that users should know, and that stops nothing."""
    _print_sentence("Note:", sentence, "yellow")


def _print_sentence(label: str, text: str, color: str | None) -> None:
    text = show(redact(text.strip()))
    margin = "       "
    lead = f"{label} " if label else margin
    is_terminal = sys.stderr.isatty()
    if is_terminal:
        text = textwrap.fill(
            lead + text,
            width=max(shutil.get_terminal_size().columns - 1, 40),
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        )[len(lead) :]
    if label and is_terminal and "NO_COLOR" not in os.environ:
        lead = click.style(label, fg=color, bold=True) + " "
    click.echo(lead + text, err=True)
