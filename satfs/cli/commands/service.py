"""`satfs service`: mounts that systemd starts at login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import platformdirs

from satfs.atomic_file import make_directory, write_atomically
from satfs.cli.flags import (
    Commands,
    OutputOptions,
    complete_directories,
    json_flag,
    verbosity_flags,
)
from satfs.cli.hints import hint, shell_path
from satfs.cli.install_helper import install_helper, remove_helper, this_program
from satfs.cli.mount_options import parse_options
from satfs.cli.output import new_table, print_json, print_remark, print_sentence, print_table, show
from satfs.cli.systemd import (
    MARK,
    Unit,
    UserManager,
    is_unit_name,
    read_unit,
    require_plain,
    unit_name,
    unit_text,
)
from satfs.errors import BadMountpoint, BadSettings
from satfs.mountpoints import absolute, mount_at
from satfs.settings import Settings, resolve_settings, variable_of

#: Starting waits for the first listing, in seconds; the unit's own limit is 90.
_START_TIMEOUT_S: Final = 100


@click.group(
    cls=Commands,
    epilog="""\b
Examples:
  satfs service install harbour ~/aleph      mount it now, and at each login
  satfs service status
  satfs service remove harbour
  sudo satfs service install-helper          for fstab, and mount -t satfs
""",
)
def service() -> None:
    """Let systemd mount a profile at each login, or mount(8) and fstab."""


service.add_command(install_helper)
service.add_command(remove_helper)


# -- units -----------------------------------------------------------------------------------------


@service.command(
    epilog="""\b
Examples:
  satfs service install harbour ~/aleph
  satfs service install -o contents=hidden harbour ~/aleph
  satfs service install --no-start harbour ~/aleph
"""
)
@click.argument("profile")
@click.argument("mountpoint", shell_complete=complete_directories)
@click.option(
    "-o", "options", metavar="OPTION,...", multiple=True, help="Mount options, as for `mount`."
)
@click.option("--no-start", is_flag=True, help="Only write the unit.")
@verbosity_flags
@click.pass_obj
def install(
    output_options: OutputOptions,
    profile: str,
    mountpoint: str,
    options: tuple[str, ...],
    no_start: bool,
) -> int:
    """Mount PROFILE at MOUNTPOINT at each login, and now.

    Writes a unit for systemd's user manager, which starts the mount again if it fails. MOUNTPOINT
    is made if there is no such directory. Without a manager (in a container, over ssh without a
    session) the unit is written all the same.
    """
    require_plain([profile, *options])
    given = parse_options(options)
    resolve_settings({**given.settings, "profile": profile})
    unit = Unit(profile, _place(mountpoint))
    _remark_on_environment()
    path = _units() / unit.name
    _write_unit(path, unit_text(unit, this_program(), options))
    if output_options.verbosity >= 0:
        print_sentence(
            f"{show(str(path))} mounts satfs:{show(profile)} at {show(str(unit.mountpoint))}"
        )
    manager = UserManager()
    if no_start or not manager.is_there:
        why = "Start it" if no_start else "No user manager of systemd runs here. Where one runs"
        print_sentence(
            f"{why}: systemctl --user daemon-reload; systemctl --user enable --now {unit.name}"
        )
        return 0
    manager.run("daemon-reload")
    manager.run("enable", unit.name)
    manager.run("restart", unit.name, timeout_s=_START_TIMEOUT_S)
    if output_options.verbosity >= 0:
        user = os.environ.get("USER") or os.getuid()
        print_sentence(
            f"It runs, and starts at each login; at boot after: loginctl enable-linger {user}"
        )
    return 0


@service.command(
    epilog="""\b
Examples:
  satfs service remove harbour
"""
)
@click.argument("profile")
@verbosity_flags
@click.pass_obj
def remove(output_options: OutputOptions, profile: str) -> int:
    """Unmount PROFILE, and do not mount it at login any more."""
    path = _units() / unit_name(profile)
    unit = _unit_in(path)
    if unit is None:
        raise BadSettings(
            f"there is no service for the profile {show(profile)}; satfs service status lists them"
        )
    manager = UserManager()
    if manager.is_there:
        manager.run("disable", "--now", unit.name, timeout_s=_START_TIMEOUT_S)
    path.unlink()
    if manager.is_there:
        manager.run("daemon-reload")
    elif (wanted := path.parent / "default.target.wants" / path.name).is_symlink():
        wanted.unlink()
    if output_options.verbosity >= 0:
        print_sentence(f"{show(str(path))} was removed.")
        if mount_at(unit.mountpoint) is not None:
            command = hint(f"satfs umount {shell_path(unit.mountpoint)}")
            place = show(str(unit.mountpoint))
            print_sentence(f"It is mounted at {place} still; to unmount it: {show(command)}")
    return 0


@service.command(
    short_help="Show the mountpoints of services, and their states.",
    epilog="""\b
Examples:
  satfs service status
  satfs service status --json harbour
""",
)
@click.argument("profile", required=False)
@json_flag
@verbosity_flags
def status(profile: str | None, as_json: bool) -> int:
    """Show the services there are, or that of PROFILE: where it mounts, and its state."""
    wanted = None if profile is None else unit_name(profile)
    found = [(path, unit) for path, unit in _installed() if wanted in (None, unit.name)]
    if wanted and not found:
        raise BadSettings(
            f"there is no service for the profile {show(profile or '')}; "
            "make one: satfs service install PROFILE MOUNTPOINT"
        )
    manager = UserManager()
    states = [_state(manager, path, unit) for path, unit in found]
    if as_json:
        print_json(states)
        return 0
    if not states:
        print_sentence("There are no services; make one: satfs service install PROFILE MOUNTPOINT")
        return 0
    table = new_table("profile", "mountpoint", "mounted", "systemd")
    for state in states:
        detail = ": ".join(str(state[name]) for name in ("active", "status") if state[name])
        table.add_row(
            show(str(state["profile"])),
            show(str(state["mountpoint"])),
            "yes" if state["is_mounted"] else "no",
            show(detail or "not known"),
        )
    print_table(table)
    if not manager.is_there:
        print_remark("No user manager of systemd runs here.")
    return 0


def _state(manager: UserManager, path: Path, unit: Unit) -> dict[str, object]:
    shown = manager.properties(unit.name) if manager.is_there else {}
    return {
        "profile": unit.profile,
        "mountpoint": str(unit.mountpoint),
        "unit": unit.name,
        "file": str(path),
        "is_mounted": mount_at(unit.mountpoint) is not None,
        "active": shown.get("ActiveState") or None,
        "enabled": shown.get("UnitFileState") or None,
        "status": shown.get("StatusText") or None,
    }


def _units() -> Path:
    """Return the directory of the user's own units (systemd.unit(5))."""
    return Path(platformdirs.user_config_path("systemd")) / "user"


def _installed() -> Iterator[tuple[Path, Unit]]:
    directory = _units()
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            if is_unit_name(path.name) and (unit := _unit_in(path)) is not None:
                yield path, unit


def _unit_in(path: Path) -> Unit | None:
    try:
        return read_unit(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _write_unit(path: Path, text: str) -> None:
    try:
        make_directory(path.parent)
        if path.exists() and not path.read_text("utf-8", "replace").startswith(MARK):
            raise BadSettings(f"{show(str(path))} is not ours; move it away first")
        write_atomically(path, text, mode=0o644)
    except OSError as failure:
        raise BadSettings(f"{show(str(path))} cannot be written: {failure.strerror}") from failure


def _place(mountpoint: str) -> Path:
    place = absolute(Path(os.path.expanduser(mountpoint)))
    try:
        str(place).encode("utf-8")
    except UnicodeEncodeError:
        raise BadMountpoint("a service needs a mountpoint whose name is UTF-8") from None
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in str(place)):
        raise BadMountpoint("a service needs a mountpoint without control characters in its name")
    if mount_at(place) is None:  # else it is there, and may be busy or dead
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise BadMountpoint(
                f"{show(str(place))} cannot be made: {failure.strerror}"
            ) from failure
    return place


def _remark_on_environment() -> None:
    names = sorted(v for v in map(variable_of, Settings.__struct_fields__) if os.environ.get(v))
    if names:
        print_remark(
            f"The service does not see {', '.join(names)} of this shell; "
            "keep in the profile what it needs: satfs login, satfs config."
        )
