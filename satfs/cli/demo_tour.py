"""Show people around a mounted demo: what is there, what to try, how to end it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from satfs.cli.hints import program_name, shell_path
from satfs.cli.output import console, show
from satfs.humanize import format_count

#: Commands to run in the mountpoint, as a user would type them, with the number of lines to show.
_AT_THE_TOP: Final = (("ls", 6), ("ls -gG tasks", 9))
#: The same in a scene. A command whose program or file is not there is left out.
_IN_A_SCENE: Final = (
    ("ls -hgG", 9),
    ("cat scene.json", 9),
    ("unzip -l *.zip", 20),
    ("ls -hgG contents", 12),
    ("gdalinfo contents/rasters/*_VISUAL*.tif", 12),
)
_FIRST_SCENE: Final = "$(ls -d tasks/*/*/*/ | head -n 1)"
#: Time limit of a command, in seconds. A demo responds in milliseconds; a longer wait is a fault.
_STEP_TIMEOUT_S: Final = 30


def show_around(mountpoint: Path) -> None:
    """Run some commands in the mounted demo, print their output, and what else to try."""
    _show_command(f"cd {shell_path(mountpoint)}")
    for command, n_lines in _AT_THE_TOP:
        _step(command, n_lines, mountpoint)
    scene = mountpoint / _run(f"printf %s {_FIRST_SCENE}", mountpoint)
    _show_command(f"cd {_FIRST_SCENE}")
    for command, n_lines in _IN_A_SCENE:
        words = command.split()
        if shutil.which(words[0]) and ("contents" not in command or (scene / "contents").is_dir()):
            _step(command, n_lines, scene)
    print_demo(mountpoint)


def print_demo(mountpoint: Path, *, ends_with_us: bool = False) -> None:
    """Print what to try in the demo at *mountpoint*, and how it ends."""
    name = shell_path(mountpoint)
    end = "Ctrl-C" if ends_with_us else f"{program_name()} umount {name}"
    rows = (
        ("look around", f"cd {name}"),
        ("copy a scene", f"cp -rL {name}/views/latest/1 /tmp/scene"),
        ("find rasters", f"find {name}/tasks -name '*_VISUAL_0.tif'"),
        ("find maps", f"ls {name}/views/task/*/index.html"),
        ("end the demo", end),
    )
    if not sys.stdout.isatty():
        click.echo(f"\nThe demo is mounted at {name}. What to try:")
        for label, command in rows:
            click.echo(f"  {label + ':':<15} {command}")
        return
    table = Table.grid(padding=(0, 2))
    for label, command in rows:
        table.add_row(Text(label, "dim"), Text(show(command), "bold"))
    title = Text(show(f"The demo is mounted at {name}"))
    click.echo()
    console().print(Panel(Padding(table, (0, 1)), title=title, title_align="left"))


def is_colorful() -> bool:
    """Return whether standard output shows colours, and they are wanted (no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def shortened(line: str, columns: int) -> str:
    """Return *line* cut to *columns* in its middle.

    Names of deliveries begin alike and differ at their end, where the kind of the file is.
    """
    if len(line) <= columns:
        return line
    n_last = (columns - 1) // 2
    return line[: columns - 1 - n_last] + "…" + line[len(line) - n_last :]


def _step(command: str, n_lines: int, directory: Path) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    _show_command(command)
    lines = _run(command, directory).splitlines()
    for line in lines[:n_lines]:
        click.echo(shortened(line, columns))
    if len(lines) > n_lines:
        rest = format_count(len(lines) - n_lines, "more line")
        click.secho(f"… {rest}", dim=is_colorful())


def _show_command(command: str) -> None:
    click.secho(f"\n$ {command}", bold=is_colorful(), fg="cyan" if is_colorful() else None)


def _run(command: str, directory: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and a shell to expand the patterns
            ["/bin/sh", "-c", command],
            cwd=directory,
            env=os.environ | {"LC_ALL": "C.UTF-8", "TIME_STYLE": "long-iso"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_STEP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"(no response within {_STEP_TIMEOUT_S} s)"
    return done.stdout
