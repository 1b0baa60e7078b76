"""`satfs config`: what the settings come to, where each is from, and which profiles there are."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from satfs.cli.flags import Commands, OutputOptions, account_flags, json_flag, verbosity_flags
from satfs.cli.hints import home_name
from satfs.cli.output import new_table, print_json, print_remark, print_sentence, print_table, show
from satfs.profiles import Origin, OriginKind, read_files, system_file, user_file
from satfs.settings import (
    Resolved,
    Settings,
    is_secret,
    load_settings,
    meanings,
    resolve_settings,
    variable_of,
)


@click.group(
    cls=Commands,
    epilog="""\b
Examples:
  satfs config show --describe           every setting, and what it does
  satfs config show --origin             … and where it is from
  satfs config show --profile harbour    … for another profile
  satfs config profiles                  which profiles there are
  ${EDITOR:-vi} "$(satfs config path)"   change them
""",
)
def config() -> None:
    """Show the settings that result from flags, environment and config.toml.

    The first that sets a value wins: a flag, the environment, a systemd credential, your own
    config.toml, the one in /etc/satfs, the default. In a file the table of the profile comes before
    what is set for all.
    """


@config.command(
    "show",
    epilog="""\b
Examples:
  satfs config show                      what a mount would use now
  satfs config show --describe           … with what each setting does
  satfs config show --origin --profile harbour
  satfs config show --json | jq .cache_bytes
""",
)
@click.option("--origin", "with_origin", is_flag=True, help="Show the origin of each value.")
@click.option("--describe", is_flag=True, help="Show the variable of each, and what it does.")
@json_flag
@account_flags
@verbosity_flags
@click.pass_obj
def show_settings(
    output_options: OutputOptions,
    /,
    with_origin: bool,
    describe: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Show every setting as a mount would use it now.

    Each is set by its environment variable, in config.toml, or by `satfs mount -o setting=value`.
    Secrets are never taken from a command line, and are not shown.
    """
    resolved = resolve_settings(flags)
    if as_json:
        print_json(_record(resolved))
    elif describe:
        _print_descriptions(resolved)
    elif sys.stdout.isatty() and with_origin:
        _print_table(resolved)
    else:
        _print_lines(resolved, with_origin=with_origin)
    if output_options.verbosity >= 0:
        for remark in resolved.remarks:
            print_remark(remark)


@config.command(
    short_help="List the profiles of config.toml.",
    epilog="\b\nExamples:\n  satfs config profiles\n  satfs config profiles --json\n",
)
@json_flag
@verbosity_flags
def profiles(as_json: bool) -> None:
    """List the profiles of config.toml, with the client id and the contract of each."""
    chosen = resolve_settings({}, may_be_new=True)
    rows = [_profile(name, is_chosen=name == chosen.settings.profile) for name in chosen.profiles]
    if as_json:
        print_json(rows)
        return
    if not rows:
        print_sentence("There are no profiles yet; `satfs login` makes one.")
        return
    table = new_table("", "profile", "client id", "contract", "secret", header_style="dim")
    for row in rows:
        table.add_row(
            Text("*" if row["is_chosen"] else ""),
            *(Text(show(row[key] or "-")) for key in ("profile", "client_id", "contract_id")),
            Text(row["secret_store"] or "-"),
        )
    print_table(table)


@config.command(epilog="\b\nExamples:\n  satfs config path\n  satfs config path --system\n")
@click.option("--system", "is_system", is_flag=True, help="The one for all users.")
@verbosity_flags
def path(is_system: bool) -> None:
    """Print where config.toml is, or would be."""
    click.echo(system_file(os.environ) if is_system else user_file(os.environ))


def _profile(name: str, *, is_chosen: bool) -> dict[str, Any]:
    """Return the values of a profile in the files, without flags and environment."""
    values: dict[str, Any] = {}
    for file in read_files(os.environ, private=(), paths=()):
        for layer in file.layers(name):
            values = {**layer.values, **values}
    return {
        "profile": name,
        "is_chosen": is_chosen,
        **{
            key: None if values.get(key) is None else str(values[key])
            for key in ("api_url", "client_id", "contract_id", "secret_store")
        },
    }


def _record(resolved: Resolved) -> dict[str, Any]:
    record = {}
    for name in Settings.__struct_fields__:
        origin = resolved.origins.get(name, Origin(OriginKind.DEFAULT, ""))
        value = getattr(resolved.settings, name)
        is_plain = isinstance(value, bool | int | float) and not is_secret(name)
        text = shown_value(resolved.settings, name)
        record[name] = {
            "value": None if value is None else value if is_plain else text,
            "origin": str(origin.kind),
            "place": origin.place or None,
        }
    return record


def shown_value(settings: Settings, name: str) -> str:
    """Return the value of a setting as it may be shown: no secret, and no command's arguments."""
    value = getattr(settings, name)
    if value is None:
        return "(not set)"
    if name == "token_command":
        program, *arguments = shlex.split(value)
        return f"{program} …" if arguments else program
    return "(set, not shown)" if is_secret(name) else str(value)


def _print_descriptions(resolved: Resolved) -> None:
    defaults, meaning_of = load_settings({}), meanings()
    table = new_table("", show_header=False, padding=(0, 0, 1, 0))
    for name in Settings.__struct_fields__:
        is_changed = getattr(resolved.settings, name) != getattr(defaults, name)
        value = Text(show(shown_value(resolved.settings, name)), "green" if is_changed else "")
        line = Text.assemble((variable_of(name), "bold"), " = ", value)
        # Every line of a long description stands under the setting's name.
        description = Padding(Text(meaning_of[name], "dim"), (0, 0, 0, 2))
        table.add_row(Group(line, description))
    print_table(table)


def _print_lines(resolved: Resolved, *, with_origin: bool) -> None:
    for name in Settings.__struct_fields__:
        line = f"{name} = {show(shown_value(resolved.settings, name))}"
        click.echo(f"{line}  # {_origin(resolved, name)}" if with_origin else line)


def _print_table(resolved: Resolved) -> None:
    table = new_table("setting", "value", "from", whole=("setting",), header_style="dim")
    for name in Settings.__struct_fields__:
        is_default = name not in resolved.origins
        style = "dim" if is_default else ""
        value = Text(show(shown_value(resolved.settings, name)), style)
        table.add_row(Text(name, style), value, Text(_origin(resolved, name), style))
    print_table(table)


def _origin(resolved: Resolved, name: str) -> str:
    origin = resolved.origins.get(name, Origin(OriginKind.DEFAULT, ""))
    match origin.kind:
        case OriginKind.ENVIRONMENT:
            return f"environment {variable_of(name)}"
        case OriginKind.UNIT:
            return f"systemd credential satfs.{name.removesuffix('_file')}"
        case OriginKind.USER | OriginKind.SYSTEM:
            place, _, table = origin.place.partition(" [")
            return f"{origin.kind} {home_name(Path(place))}" + (f" [{table}" if table else "")
        case _:
            return str(origin.kind)
