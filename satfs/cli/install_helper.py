"""The program that mount(8) runs: linked into its directory, and removed again."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from typing import Final

import click

from satfs.cli.flags import OutputOptions, verbosity_flags
from satfs.cli.mount_helper import PROGRAMS
from satfs.cli.output import print_remark, print_sentence, show
from satfs.errors import BadSettings

#: Where mount(8) looks for programs of its filesystems, and no package installs any of ours.
HELPER_DIRECTORY: Final = Path("/sbin")
_directory_flag = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=HELPER_DIRECTORY,
    show_default=True,
    help="Where mount(8) looks for it.",
)


@click.command(
    short_help="Let mount(8) and fstab mount satfs.",
    epilog="""\b
Examples:
  sudo satfs service install-helper
  sudo mount -t satfs satfs:harbour /mnt/aleph
""",
)
@_directory_flag
@verbosity_flags
@click.pass_obj
def install_helper(output_options: OutputOptions, directory: Path) -> int:
    """Let mount(8) and fstab mount satfs: `mount -t satfs satfs:PROFILE DIR`. For root.

    Links the program mount.satfs, which is installed beside satfs, into /sbin.
    """
    program = _helper()
    for name in PROGRAMS:
        _link(directory / name, program)
    for path in writable_by_others(program)[:1]:
        print_remark(
            f"{show(str(path))} can be changed by others than root, and is run when root mounts: "
            "they could act as root. Better install satfs for all users."
        )
    if output_options.verbosity >= 0:
        print_sentence(
            "mount -t satfs satfs:PROFILE DIR works now, and so does a line in /etc/fstab."
        )
    return 0


@click.command(
    epilog="""\b
Examples:
  sudo satfs service remove-helper
"""
)
@_directory_flag
@verbosity_flags
@click.pass_obj
def remove_helper(output_options: OutputOptions, directory: Path) -> int:
    """Remove the links of install-helper. For root."""
    for name in PROGRAMS:
        path = directory / name
        if _is_ours(path):
            try:
                path.unlink()
            except OSError as failure:
                raise _refused(path, failure) from failure
            if output_options.verbosity >= 0:
                print_sentence(f"{show(str(path))} was removed.")
    return 0


def _helper() -> Path:
    for beside in (Path(sys.argv[0]).absolute(), Path(sys.executable)):
        program = beside.with_name(PROGRAMS[0])
        if os.access(program, os.X_OK):
            return program
    raise BadSettings(
        f"{PROGRAMS[0]} is not installed beside {show(sys.argv[0])}; install satfs again, with pip"
    )


def _link(path: Path, program: Path) -> None:
    if os.path.lexists(path) and not _is_ours(path):
        raise BadSettings(f"{show(str(path))} is not ours; move it away first")
    try:
        path.unlink(missing_ok=True)
        path.symlink_to(program)
    except OSError as failure:
        raise _refused(path, failure) from failure


def _is_ours(path: Path) -> bool:
    return path.is_symlink() and os.readlink(path).endswith("/" + PROGRAMS[0])


def _refused(path: Path, failure: OSError) -> BadSettings:
    message = f"{show(str(path))} cannot be changed: {failure.strerror}"
    if isinstance(failure, PermissionError):
        command = click.get_current_context().info_name or ""
        where = [] if path.parent == HELPER_DIRECTORY else ["--directory", str(path.parent)]
        again = shlex.join(["sudo", *this_program(), "service", command, *where])
        message += f"; as root: {show(again)}"
    return BadSettings(message)


def writable_by_others(program: Path) -> tuple[Path, ...]:
    """Return what of the way to *program*, and to its interpreter, not only root can change."""
    ways = [program.resolve(), Path(sys.executable), Path(sys.executable).resolve()]
    places = dict.fromkeys(place for way in ways for place in (*reversed(way.parents), way))
    return tuple(place for place in places if not _is_roots(os.stat(place)))


def _is_roots(status: os.stat_result) -> bool:
    by_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_guarded = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    return status.st_uid == 0 and (not by_others or bool(is_guarded))


def this_program() -> list[str]:
    """Return the command that runs this very program again, from anywhere."""
    ours = Path(sys.argv[0]).absolute()
    if ours.name == "satfs" and os.access(ours, os.X_OK):
        return [str(ours)]
    return [sys.executable, "-m", "satfs"]
