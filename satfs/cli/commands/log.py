"""`satfs log`: what a mount has logged lately, and how much it is to log from now on."""

from __future__ import annotations

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, mounted_argument, verbosity_flags
from satfs.cli.mount_status import read_log, the_mount
from satfs.cli.output import print_remark, show
from satfs.control.client import result_of
from satfs.log_level import LEVELS


@click.command(
    epilog="""\b
Examples:
  satfs log                              the last lines of the only mount
  satfs log ~/aleph --level debug        log everything from now on
  tail -f ~/aleph/.satfs/log             … and watch it
"""
)
@mounted_argument
@click.option(
    "--level",
    type=click.Choice(tuple(LEVELS)),
    help="From now on log this level and the more severe ones; print nothing.",
)
@verbosity_flags
@click.pass_obj
def log(output_options: OutputOptions, mountpoint: str | None, level: str | None) -> int:
    """Show the last lines of a mount's log, or change its level.

    The level holds until the mount ends. MOUNTPOINT may be omitted if there is only one mount.
    """
    mounted = the_mount(mountpoint)
    if level is None:
        lines = read_log(mounted)
        click.echo(lines, nl=False)
        if not lines and output_options.verbosity >= 0:
            print_remark("nothing has been logged so far; `--level info` logs more")
        return Exit.DONE
    result_of(mounted, "log-level", {"level": level})
    if output_options.verbosity >= 0:
        click.echo(f"{show(str(mounted.mountpoint))} logs from level {level} on.")
    return Exit.DONE
