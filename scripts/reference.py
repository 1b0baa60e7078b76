"""The pages of the site that the program writes itself: settings and commands, as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, get_args, get_type_hints

from msgspec import Meta

from satfs.cli.flags import SETTING_FLAGS
from satfs.cli.main import satfs
from satfs.cli.manual import Manual, Section, manual_of, settings_listed
from satfs.setting_values import BOUNDS
from satfs.settings import Settings, is_secret, variable_of

#: How settings.py divides the settings, and a field that follows.
_DIVISION = re.compile(r"^    (?:# -- (?P<title>.+?) -+|(?P<field>\w+): )", re.MULTILINE)


def settings_page() -> str:
    """Return every setting, under the headings that `satfs/settings.py` has."""
    listed = {name: (default, meaning) for name, default, meaning in settings_listed()}
    flags = {setting: flag for flag, setting, *_ in SETTING_FLAGS}
    lines = [
        "# Settings",
        "",
        "This page is written by the program: what it says is what the code does.",
        "`satfs config show` prints what a mount on this machine would use. Sizes may carry a",
        "unit: `20GB` is 20·10⁹ bytes, `512MiB` is 512·2²⁰. In `config.toml` each has the name",
        "of its heading; which of flag, variable and file wins is in",
        "[Credentials and profiles](../credentials.md#profiles).",
    ]
    for title, names in settings_groups():
        lines += ["", f"## {title}"]
        for name in names:
            default, meaning = listed[name]
            lines += ["", f"### `{name}`", "", meaning, ""]
            lines += [f"- Environment: `{variable_of(name)}`"]
            if not is_secret(name):
                lines += [f"- Mount option: `-o {name}=…`"]
            if name in flags:
                lines += [f"- Flag of `satfs mount`: `{flags[name]}`"]
            lines += [f"- Default: `{default}`"] if default else []
            lines += [f"- Values: {values}"] if (values := _values(name)) else []
    return "\n".join(lines) + "\n"


def settings_groups() -> list[tuple[str, list[str]]]:
    """Return the names of all settings, in the order and under the titles of settings.py."""
    groups: list[tuple[str, list[str]]] = []
    for found in _DIVISION.finditer(inspect.getsource(Settings)):
        if found["title"]:
            groups.append((found["title"][:1].upper() + found["title"][1:], []))
        elif found["field"] in Settings.__struct_fields__:
            if not groups:
                groups.append(("General", []))
            groups[-1][1].append(found["field"])
    return groups


def _values(name: str) -> str:
    parts = list(_parts(get_type_hints(Settings, include_extras=True)[name]))
    for kind in parts:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return ", ".join(f"`{choice}`" for choice in kind)
        if kind is bool:
            return "`true`, `false`"
    bounds = [
        f"{word} {_number(limit)}"
        for meta in parts
        if isinstance(meta, Meta)
        for bound, word in BOUNDS.items()
        if (limit := getattr(meta, bound)) is not None
    ]
    return ", ".join(bounds)


def _parts(kind: Any) -> Iterator[Any]:
    """Return *kind*, what it is made of, and what stands beside it in an `Annotated`."""
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


def _number(value: Any) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def commands_page() -> str:
    """Return every command with what its `--help` says."""
    root = manual_of(satfs, "satfs")
    lines = [
        "# Commands",
        "",
        "This page is what `satfs --help` and `satfs COMMAND --help` say; so do the man pages that",
        "[`satfs man`](#satfs-man) writes.",
        "",
        *(
            f"- [`{each.name}`](#{each.name.replace(' ', '-')}): {each.summary}"
            for each in root.children
        ),
    ]
    for command in root.children:
        lines += _command(command, 2)
    lines += ["", "## Exit codes", ""]
    for section in root.sections:
        if section.title == "Exit codes":
            lines += ["| Code | Meaning |", "| ---: | --- |"]
            lines += [f"| {' | '.join(line.split(None, 1))} |" for line in section.lines]
    return "\n".join(lines) + "\n"


def _command(manual: Manual, level: int) -> Iterator[str]:
    yield from ("", f"{'#' * level} {manual.name}", "")
    yield from ("```text", f"{manual.name} {manual.usage}".strip(), "```", "")
    for paragraph in manual.paragraphs:
        yield from (_plain(paragraph), "")
    options = [option for option in manual.options if option.name not in ("--help", "-h, --help")]
    if options:
        yield from ("| Option | Meaning |", "| --- | --- |")
        for option in options:
            # A bar between backticks parts no cells (Python-Markdown, "Tables").
            yield f"| `{option.name}` | {_plain(option.meaning).replace('|', '&#124;')} |"
    for section in manual.sections:
        yield from _section(section)
    for child in manual.children:
        yield from _command(child, level + 1)


def _section(section: Section) -> Iterator[str]:
    if section.verbatim:
        yield from ("", f"**{section.title}**", "", "```text", *section.lines, "```")
    else:
        yield from ("", *map(_plain, section.lines))


def _plain(text: str) -> str:
    """Return text of a terminal as Markdown that shows the same; backticks mean code in both."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_<>\[\]~])", r"\\\1", part)
        for part in parts
    )
