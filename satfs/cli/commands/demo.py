"""`satfs demo`: a vendor in small, mounted, for looking around without an account."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from satfs.cli.commands.mount import mount_options
from satfs.cli.completion_values import directories
from satfs.cli.demo_tour import print_demo, show_around
from satfs.cli.flags import OutputOptions, log_flags, verbosity_flags
from satfs.cli.launch import launch
from satfs.cli.mountpoint import prepare_mountpoint
from satfs.cli.options import GivenOptions, parse_options
from satfs.cli.output import print_sentence
from satfs.demo.process import DemoProcess
from satfs.demo.scratch import remove_abandoned, scratch_directory
from satfs.doctor import fuse
from satfs.doctor.machine import Machine
from satfs.errors import BadMountpoint
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
@click.argument(
    "mountpoint",
    metavar="[MOUNTPOINT]",
    required=False,
    shell_complete=directories,
)
@click.option("-f", "--foreground", is_flag=True, help="Stay until Ctrl-C, which ends the demo.")
@click.option("--serve-only", is_flag=True, help="Mount nothing; print the environment.")
@click.option(
    "--large-mb",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="Size of the one large zip, in MB.",
)
@click.option("--seed", default=1, show_default=True, help="Another seed, other imagery.")
@click.option(
    "-o", "options", metavar="OPTION,...", multiple=True, help="Mount options, as for `mount`."
)
@click.option("--nonempty", is_flag=True, help="Mount over what the directory holds.")
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
    """Start a small imitation of the vendor on this machine, and mount what it delivers.

    Needs no account and no network. The demo is mounted at MOUNTPOINT [default: ~/satfs-demo] and
    stays in the background; unmounting it ends it. One that is there already is replaced.
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
        place = _prepare(hold, path, nonempty=nonempty or given.nonempty)
        fuse.require(
            Machine(),
            for_others=given.allow_other or given.allow_root,
            auto_unmount=given.auto_unmount,
        )
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


def _prepare(hold: MountpointHold, path: Path, *, nonempty: bool) -> Path:
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
    return prepare_mountpoint(hold, path, nonempty=nonempty)
