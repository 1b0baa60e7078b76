"""`satfs settings`: every setting, what it is now, and how to change it."""

from __future__ import annotations

import os

import click
from rich.table import Table
from rich.text import Text

from satfs.cli.flags import Manner, verbosity_flags
from satfs.cli.speech import console, tell_remark
from satfs.settings import Settings, is_secret, load_settings, unknown_variables, variable_of


@click.command(
    epilog="""\b
Examples:
  satfs settings                         what a mount would use now
  SATFS_WORKERS=0 satfs settings         … with a variable changed
"""
)
@verbosity_flags
@click.pass_obj
def settings(_manner: Manner) -> None:
    """Show every setting: its variable, its value now, and what it does.

    Each is set by its environment variable, or by `satfs mount -o setting=value`. Secrets are set
    by environment only, and are not shown.
    """
    now = load_settings()
    defaults = load_settings({})
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 0, 1, 0))
    table.add_column()
    for name, field in Settings.model_fields.items():
        value = _shown(now, name)
        is_changed = getattr(now, name) != getattr(defaults, name)
        line = Text.assemble(
            (variable_of(name), "bold"), " = ", (value, "green" if is_changed else "")
        )
        table.add_row(Text("\n").join([line, Text(f"  {field.description or ''}", "dim")]))
    console().print(table)
    for name in unknown_variables(os.environ):
        tell_remark(f"{name} is set, and is not a setting of satfs.")


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if value is None:
        return "(not set)"
    return "(set, not shown)" if is_secret(name) else str(value)
