"""`satfs mount`: mount what an account was delivered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import click
from msgspec.structs import replace

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import (
    OutputOptions,
    complete_directories,
    log_flags,
    setting_flags,
    verbosity_flags,
)
from satfs.cli.hints import hint, program_name, shell_path
from satfs.cli.mount_options import GivenOptions, parse_options
from satfs.cli.mount_process import launch
from satfs.cli.output import print_remark, print_sentence, show, user_name
from satfs.doctor import fuse
from satfs.doctor.machine import Machine
from satfs.doctor.mountpoint import require_mountpoint
from satfs.errors import BadMountpoint, BadSettings
from satfs.mount import MountOptions
from satfs.mountpoint_hold import MountpointHold
from satfs.mountpoints import absolute, detach, is_dead_mount, mount_at
from satfs.settings import resolve_settings


@click.command(
    epilog="""\b
Examples:
  satfs login                            once; see satfs login --help
  satfs mount ~/aleph                    in the background, once it works
  satfs mount -f -v ~/aleph              in the foreground; Ctrl-C unmounts
  satfs mount -o allow_other,uid=1000,umask=022 /srv/aleph
  satfs mount --contract ID --cache-size 100GB ~/aleph

\b
Mount options (-o):
  allow_other, allow_root    let other users in (needs user_allow_other)
  uid=N, gid=N, umask=OCTAL  owner and group of files, permissions to remove
  default_permissions        the kernel checks permissions; always on
  auto_unmount               unmount when satfs dies
  nonempty, fsname=NAME      mount over files; the name in /proc/mounts
  exec                       let programs in the mount be run
  nosuid, nodev, noatime     as in mount(8); always on, except the last
  any setting, as SETTING=VALUE     `satfs config show` lists them

Options that fstab and systemd add (_netdev, nofail, noauto, user, x-…) are accepted and ignored; rw
is refused, since satfs only reads. `satfs login` keeps secrets; they can come from the environment
(SATFS_CLIENT_SECRET, SATFS_TOKEN) or from a file, too; never from a command line, which ps shows
to all users.

`satfs --help` lists the exit codes.
"""
)
@click.argument("mountpoint", metavar="MOUNTPOINT", shell_complete=complete_directories)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
@click.option(
    "-o", "options", metavar="OPTION,...", multiple=True, help="Mount options, as in mount(8)."
)
@click.option("--nonempty", is_flag=True, help="Mount over a directory that is not empty.")
@click.option(
    "--offline",
    is_flag=True,
    help="Mount without a request to the API; show cached listings and files.",
)
@setting_flags
@log_flags
@verbosity_flags
@click.pass_obj
def mount(
    output_options: OutputOptions,
    /,
    mountpoint: str,
    foreground: bool,
    options: tuple[str, ...],
    nonempty: bool,
    offline: bool,
    **flags: str | None,
) -> int:
    """Mount the deliveries of your account at MOUNTPOINT, an empty directory.

    Returns when the mount works: the API has accepted the credential and sent the first page of
    tasks. Errors before that are printed on the terminal.
    """
    given = parse_options(options)
    return mount_as(
        mountpoint,
        replace(given, nonempty=nonempty or given.nonempty),
        {name: value for name, value in flags.items() if value is not None},
        output_options,
        foreground=foreground,
        is_offline=offline,
        on_ready=lambda: print_mounted(mountpoint, output_options, foreground=foreground),
    )


def mount_as(
    mountpoint: str,
    given: GivenOptions,
    flags: Mapping[str, str],
    output_options: OutputOptions,
    *,
    foreground: bool = False,
    is_offline: bool = False,
    is_fake: bool = False,
    leaves_late: bool = False,
    on_ready: Callable[[], None],
) -> int:
    """Mount at *mountpoint* as *given* by `-o` and by *flags* for settings; return the exit code.

    With *is_fake* everything is looked at, and nothing mounted. *leaves_late* is as of `launch`.

    Raises:
        SatfsError: it cannot be, or, in the foreground, broke.
        SystemExit: in the background process, when the mount has ended.
    """
    resolved = resolve_settings({**given.settings, **flags})
    settings = resolved.settings
    for remark in resolved.remarks:
        print_remark(remark)
    with MountpointHold(absolute(Path(mountpoint))) as hold:
        place = prepare_mountpoint(hold, Path(mountpoint), given)
        if output_options.log_file and output_options.log_file.is_relative_to(place):
            raise BadSettings("the log file is inside the mountpoint; choose another place")
        if settings.token_file and settings.token_file.is_relative_to(place):
            raise BadSettings(
                "token_file is inside the mountpoint, which cannot be read without it"
            )
        if is_fake:
            return Exit.DONE
        return launch(
            lambda: nullcontext(settings),
            mount_options(hold, given, source=f"satfs:{settings.profile}", is_offline=is_offline),
            output_options,
            foreground=foreground,
            leaves_late=leaves_late,
            on_ready=on_ready,
        )


def prepare_mountpoint(hold: MountpointHold, path: Path, given: GivenOptions) -> Path:
    """Return *path* as the kernel names it, fit to be mounted on as *given*, and held by *hold*.

    A satfs mount whose process has died is removed first. Looks at the directory, and so may wait
    for what is mounted there.

    Raises:
        BadMountpoint: it cannot be mounted on; the message has the reason and the remedy.
        FuseMissing: the user cannot mount here.
    """
    mountpoint, name = hold.mountpoint, show(str(path))
    while mount_at(mountpoint) is not None:
        if not is_dead_mount(mountpoint):
            raise BadMountpoint(
                f"satfs is mounted at {name} already; "
                f"unmount it first: {hint(f'satfs umount {shell_path(path)}')}"
            )
        detach(mountpoint, is_lazy=True)
        print_remark(f"A satfs mount that had died was removed from {name}.")
    require_mountpoint(hold.open_directory, name, shell_path(path), is_nonempty_fine=given.nonempty)
    owner = foreign_owner_above(mountpoint, os.geteuid())
    if owner is not None:
        print_remark(
            f"{name} lies in a directory of {owner}, who can move or replace it; "
            f"as root, mount with mount(8) and -o setuid={owner} instead."
        )
    fuse.require(
        Machine(), for_others=given.allow_other or given.allow_root, auto_unmount=given.auto_unmount
    )
    return mountpoint


def foreign_owner_above(mountpoint: Path, user: int) -> str | None:
    """Return whose a directory above *mountpoint* is, if neither root's nor *user*'s.

    Only for root, who could be led elsewhere by another user; None for all others.
    """
    if user != 0:
        return None
    for directory in mountpoint.parents:
        if (owner := directory.lstat().st_uid) != 0:
            return user_name(owner)
    return None


def print_mounted(mountpoint: str, output_options: OutputOptions, *, foreground: bool) -> None:
    """Print that the mount works, and how it ends, unless less is wanted."""
    if output_options.verbosity >= 0:
        command = hint(f"satfs umount {shell_path(mountpoint)}")
        end = "Ctrl-C unmounts it" if foreground else f"to unmount it: {command}"
        print_sentence(f"satfs is mounted at {mountpoint}; {end}")


def mount_options(
    hold: MountpointHold,
    given: GivenOptions,
    *,
    source: str = "satfs:default",
    is_offline: bool = False,
) -> MountOptions:
    """Return how to mount at the mountpoint of *hold* what `-o` has *given*."""
    extra = [name for name in ("allow_root", "auto_unmount") if getattr(given, name)]
    return MountOptions(
        hold.mountpoint,
        allow_other=given.allow_other,
        uid=given.uid,
        gid=given.gid,
        umask=given.umask or 0,
        source=given.fsname or source,
        extra=(*extra, *given.kernel_flags),
        program=program_name(),
        is_offline=is_offline,
        hold=hold,
    )
