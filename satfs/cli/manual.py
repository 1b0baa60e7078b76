r"""The help of each command as data: one source for man pages and the site's reference.

Help is written once, where the command is (docstring, options, epilog), and read here through
click's own interface. An epilog is a row of blocks between blank lines: one that opens with `\b`
keeps its lines, and its first line is a title when it ends with a colon ("Examples:"); any other is
prose.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from satfs.settings import Settings, is_secret, load_settings, meanings, variable_of

#: Marks a block whose lines click leaves alone.
_KEEP = "\b"
_TITLE = re.compile(r"^(?P<title>\S.*):$")


@dataclass(frozen=True, slots=True)
class Term:
    """Something that is explained: a flag, a command, a variable."""

    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the epilog: *lines* as they stand when it is *verbatim*, else one line of prose."""

    title: str
    lines: tuple[str, ...]
    verbatim: bool


@dataclass(frozen=True, slots=True)
class Manual:
    """One command as its help describes it.

    `name` is what the user types ("satfs cache info"), `usage` what follows it, `paragraphs` prose
    whose first paragraph states what the command does. `children` are the commands of a group.
    """

    name: str
    summary: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[Term, ...]
    sections: tuple[Section, ...]
    children: tuple[Manual, ...]

    @property
    def examples(self) -> tuple[str, ...]:
        """The lines under "Examples:", without their indentation."""
        return next((each.lines for each in self.sections if each.title == "Examples"), ())

    def walk(self) -> Iterator[Manual]:
        """Yield this command and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def manual_of(
    command: click.Command, name: str, parent: click.Context | None = None, summary: str = ""
) -> Manual:
    """Return the manual of *command*, called *name* in *parent*, and of all commands below it.

    *summary* is its line in a list of commands; by default the first sentence of its help. Hidden
    commands and options are left out. Imports the module of each command.
    """
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
    paragraphs = tuple(_paragraphs(command.help or ""))
    summaries = getattr(command, "summaries", {})  # a group may have some of its own
    return Manual(
        name=context.command_path,
        summary=summary or _first_sentence(paragraphs),
        usage=" ".join(command.collect_usage_pieces(context)),
        paragraphs=paragraphs,
        options=tuple(_options(command, context)),
        sections=tuple(_sections(command.epilog or "")),
        children=tuple(
            manual_of(child, child_name, context, summaries.get(child_name, ""))
            for child_name, child in _children(command, context)
            if not child.hidden
        ),
    )


def settings_listed() -> tuple[tuple[str, str, str], ...]:
    """Return each setting as it is documented: name, default ("" for none), meaning."""
    defaults, meaning_of = load_settings({}), meanings()
    return tuple(
        (name, _default(name, getattr(defaults, name)), " ".join(meaning_of[name].split()))
        for name in Settings.__struct_fields__
    )


def variables() -> tuple[Term, ...]:
    """Return the environment variable of each setting, with its meaning and its default."""
    return tuple(
        Term(variable_of(name), f"{meaning} [default: {default}]" if default else meaning)
        for name, default, meaning in settings_listed()
    )


def _default(name: str, value: object) -> str:
    if value is None or is_secret(name):
        return ""
    # Where the home is differs from one machine to the next; a document is for all of them.
    return "~/.cache/satfs" if name == "cache_dir" else str(value)


def _children(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield name, child


def _options(command: click.Command, context: click.Context) -> Iterator[Term]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and (isinstance(parameter, click.Option) or record[1]):
            yield Term(record[0], " ".join(record[1].split()))


def _first_sentence(paragraphs: tuple[str, ...]) -> str:
    return re.split(r"(?<=[.;])\s", paragraphs[0])[0].rstrip(";.") + "." if paragraphs else ""


def _paragraphs(text: str) -> Iterator[str]:
    for block in _blocks(text):
        yield " ".join(line.strip() for line in block if line != _KEEP)


def _sections(text: str) -> Iterator[Section]:
    for block in _blocks(text):
        if block[0] != _KEEP:
            yield Section("Notes", (" ".join(line.strip() for line in block),), verbatim=False)
            continue
        lines = block[1:]
        titled = _TITLE.match(lines[0])
        body = inspect.cleandoc("\n".join(lines[1:] if titled else lines)).splitlines()
        yield Section(titled["title"] if titled else "Notes", tuple(body), verbatim=True)


def _blocks(text: str) -> Iterator[list[str]]:
    for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(text)):
        lines = block.splitlines()
        if any(line.strip() for line in lines):
            yield lines
