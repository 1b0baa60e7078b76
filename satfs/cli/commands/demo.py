"""`satfs demo`: a vendor in small, mounted, for looking around without an account."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from msgspec.structs import replace
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from satfs.cli.commands.mount import mount_options, prepare_mountpoint
from satfs.cli.flags import OutputOptions, directory_argument, log_flags, verbosity_flags
from satfs.cli.hints import program_name, shell_path
from satfs.cli.mount_options import GivenOptions, parse_options
from satfs.cli.mount_process import launch
from satfs.cli.output import console, print_sentence, show
from satfs.demo.process import DemoProcess
from satfs.demo.scratch import remove_abandoned, scratch_directory
from satfs.errors import BadMountpoint
from satfs.humanize import format_count
from satfs.mountpoint_hold import MountpointHold
from satfs.mountpoints import DEMO_SOURCE, absolute, detach, mount_at
from satfs.settings import Settings, load_settings

DEFAULT_MOUNTPOINT = "~/satfs-demo"


@click.command(
    epilog="""\b
Examples:
  satfs demo                             at ~/satfs-demo, in the background
  satfs demo -f /mnt/demo                … there, and stay until Ctrl-C
  satfs demo --large-mb 2000             with one zip of 2 GB
  satfs demo --serve-only                for a mount of your own
"""
)
@directory_argument
@click.option("-f", "--foreground", is_flag=True, help="Stay until Ctrl-C, which ends the demo.")
@click.option("--serve-only", is_flag=True, help="Mount nothing; print the environment.")
@click.option(
    "--large-mb",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="Size of the one large zip, in MB.",
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    help="Seed of the imagery: another one makes other imagery.",
)
@click.option(
    "-o", "options", metavar="OPTION,...", multiple=True, help="Mount options, as for `mount`."
)
@click.option("--nonempty", is_flag=True, help="Mount over a directory that is not empty.")
@log_flags
@verbosity_flags
@click.pass_obj
def demo(
    output_options: OutputOptions,
    mountpoint: str | None,
    foreground: bool,
    serve_only: bool,
    large_mb: int,
    seed: int,
    options: tuple[str, ...],
    nonempty: bool,
) -> int:
    """Start a small imitation of the vendor on this machine, and mount its deliveries.

    Needs no account and no network. The demo is mounted at MOUNTPOINT [default: ~/satfs-demo] and
    stays in the background; it ends when it is unmounted. An existing demo there is replaced.
    """
    origin = DemoProcess(seed=seed, large_mb=large_mb)
    origin.require_extras()
    if serve_only:
        if mountpoint is not None or foreground or nonempty or options:
            raise click.UsageError("--serve-only mounts nothing: leave out what is for a mount")
        return _serve_only(origin)
    given = parse_options(options)
    path = Path(os.path.expanduser(mountpoint or DEFAULT_MOUNTPOINT))
    with MountpointHold(absolute(path)) as hold:
        place = _prepare(hold, path, replace(given, nonempty=nonempty or given.nonempty))
        remove_abandoned()
        drawing = (
            "" if origin.has_drawings else " It draws its imagery first, for about ten seconds."
        )
        print_sentence(f"Starting the demo.{drawing}")
        return launch(
            lambda: _origin_for(origin, given),
            mount_options(hold, given, source=DEMO_SOURCE),
            output_options,
            foreground=foreground,
            on_ready=lambda: (
                print_demo(place, ends_with_us=True) if foreground else show_around(place)
            ),
        )


@contextmanager
def _origin_for(origin: DemoProcess, given: GivenOptions) -> Iterator[Settings]:
    """Run *origin*, and yield settings that lead to it and to no other vendor.

    The environment of the user is not looked at: it may hold real credentials, and a real cache.
    """
    with origin, scratch_directory() as cache_dir:
        environment = {"SATFS_CACHE_DIR": str(cache_dir)} | origin.environment
        yield load_settings(environment, **given.settings)


def _serve_only(origin: DemoProcess) -> int:
    with origin:
        for name, value in origin.environment.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        print_sentence(
            "The demo serves until Ctrl-C. In another shell, set what is printed above, and:"
        )
        print_sentence("  satfs mount DIRECTORY")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print_sentence("Stopped.")
    return 0


def _prepare(hold: MountpointHold, path: Path, given: GivenOptions) -> Path:
    """Return *path*, made if need be, fit to be mounted on; a demo that is there is removed."""
    mounted = mount_at(path)
    while mounted is not None and mounted.source == DEMO_SOURCE:
        # Lazily: a program that still uses the old demo does not prevent a new one.
        detach(path, is_lazy=True)
        mounted = mount_at(path)
    try:
        if mounted is None:
            path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        pass  # a file, for example: the check below reports it
    except OSError as failure:
        raise BadMountpoint(f"{path} cannot be made: {failure.strerror}") from failure
    return prepare_mountpoint(hold, path, given)


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
