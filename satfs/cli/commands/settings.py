"""`satfs settings`: every setting, what it is now, and how to change it."""

from __future__ import annotations

import os
import shlex

import click
from rich.table import Table
from rich.text import Text

from satfs.cli.flags import Manner, profile_flag, verbosity_flags
from satfs.cli.output import console, print_remark
from satfs.settings import (
    Settings,
    is_secret,
    load_settings,
    resolve_settings,
    unknown_remarks,
    variable_of,
)


@click.command(
    epilog="""\b
Examples:
  satfs settings                         what a mount would use now
  SATFS_WORKERS=0 satfs settings         … with a variable changed
  satfs config show --origin             where each value comes from
"""
)
@profile_flag
@verbosity_flags
@click.pass_obj
def settings(_manner: Manner, profile: str | None) -> None:
    """Show every setting: its variable, its value now, and what it does.

    Each is set by its environment variable, in config.toml, or by `satfs mount -o setting=value`.
    Secrets are never taken from a command line, and are not shown.
    """
    resolved = resolve_settings({"profile": profile})
    now = resolved.settings
    defaults = load_settings({})
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 0, 1, 0))
    table.add_column()
    for name, field in Settings.model_fields.items():
        value = shown_value(now, name)
        is_changed = getattr(now, name) != getattr(defaults, name)
        line = Text.assemble(
            (variable_of(name), "bold"), " = ", (value, "green" if is_changed else "")
        )
        table.add_row(Text("\n").join([line, Text(f"  {field.description or ''}", "dim")]))
    console().print(table)
    for remark in (*unknown_remarks(os.environ), *resolved.remarks):
        print_remark(remark)


def shown_value(settings: Settings, name: str) -> str:
    """Return the value of a setting as it may be shown: no secret, and no command's arguments."""
    value = getattr(settings, name)
    if value is None:
        return "(not set)"
    if name == "token_command":
        program, *arguments = shlex.split(value)
        return f"{program} …" if arguments else program
    return "(set, not shown)" if is_secret(name) else str(value)
