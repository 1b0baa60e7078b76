"""`satfs service`: mounts that systemd starts at login, and the program that mount(8) runs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import platformdirs
from rich.table import Table

from satfs.cli.complete import directories
from satfs.cli.flags import Manner, verbosity_flags
from satfs.cli.logs import show
from satfs.cli.mount8 import PROGRAMS
from satfs.cli.options import parse_options
from satfs.cli.speech import console, tell, tell_remark
from satfs.cli.units import MARK, Unit, is_unit_name, read_unit, unit_name, unit_text
from satfs.errors import BadMountpoint, BadSettings
from satfs.mountpoints import absolute, mount_at
from satfs.settings import Settings, resolve_settings, variable_of

#: Where mount(8) looks for programs of its filesystems, and no package installs any of ours.
HELPER_DIRECTORY: Final = Path("/sbin")
#: systemctl(1) answers at once, or its manager is stuck, in seconds.
_SYSTEMCTL_TIMEOUT_S: Final = 30
#: Starting waits for the first listing, in seconds; the unit's own limit is 90.
_START_TIMEOUT_S: Final = 100


@click.group(
    epilog="""\b
Examples:
  satfs service install harbour ~/aleph      mount it now, and at each login
  satfs service status
  satfs service remove harbour
  sudo satfs service install-helper          for fstab, and mount -t satfs
"""
)
def service() -> None:
    """Let systemd mount a profile at each login, or mount(8) and fstab."""


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
@click.argument("mountpoint", shell_complete=directories)
@click.option(
    "-o", "options", metavar="OPTION,...", multiple=True, help="Mount options, as of satfs mount."
)
@click.option("--no-start", is_flag=True, help="Only write the unit.")
@verbosity_flags
@click.pass_obj
def install(
    manner: Manner, profile: str, mountpoint: str, options: tuple[str, ...], no_start: bool
) -> int:
    """Mount PROFILE at MOUNTPOINT at each login, and now.

    Writes a unit for systemd's user manager, which starts the mount again should it ever fail.
    MOUNTPOINT is made if there is no such directory. Without a manager (in a container, over ssh
    without a session) the unit is written all the same.
    """
    given = parse_options(options)
    resolve_settings({**given.settings, "profile": profile})
    unit = Unit(profile, _place(mountpoint))
    _remark_on_environment()
    path = _units() / unit.name
    _write_unit(path, unit_text(unit, _program(), options))
    if manner.verbosity >= 0:
        tell(f"{show(str(path))} mounts satfs:{show(profile)} at {show(str(unit.mountpoint))}")
    manager = _Manager()
    if no_start or not manager.is_there:
        why = "Start it" if no_start else "No user manager of systemd answers here. Where one does"
        tell(f"{why}: systemctl --user daemon-reload; systemctl --user enable --now {unit.name}")
        return 0
    manager.run("daemon-reload")
    manager.run("enable", unit.name)
    manager.run("restart", unit.name, timeout_s=_START_TIMEOUT_S)
    if manner.verbosity >= 0:
        tell(f"It runs, and starts at each login; at boot after: loginctl enable-linger {_user()}")
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
def remove(manner: Manner, profile: str) -> int:
    """Unmount PROFILE, and mount it no more at login."""
    path = _units() / unit_name(profile)
    unit = _unit_in(path)
    if unit is None:
        raise BadSettings(
            f"there is no service for the profile {show(profile)}; satfs service status lists them"
        )
    manager = _Manager()
    if manager.is_there:
        manager.run("disable", "--now", unit.name, timeout_s=_START_TIMEOUT_S)
    path.unlink()
    if manager.is_there:
        manager.run("daemon-reload")
    elif (wanted := _wanted(path)).is_symlink():
        wanted.unlink()
    if manner.verbosity >= 0:
        tell(f"{show(str(path))} was removed.")
        if mount_at(unit.mountpoint) is not None:
            place = show(str(unit.mountpoint))
            tell(f"It is mounted at {place} still; to unmount it: satfs umount {place}")
    return 0


@service.command(
    epilog="""\b
Examples:
  satfs service status
  satfs service status --json harbour
"""
)
@click.argument("profile", required=False)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts.")
@verbosity_flags
@click.pass_obj
def status(_manner: Manner, profile: str | None, as_json: bool) -> int:
    """Show the services there are, or that of PROFILE: where it mounts, and how it is doing."""
    wanted = None if profile is None else unit_name(profile)
    found = [(path, unit) for path, unit in _installed() if wanted in (None, unit.name)]
    if wanted and not found:
        raise BadSettings(
            f"there is no service for the profile {show(profile or '')}; "
            "make one: satfs service install PROFILE MOUNTPOINT"
        )
    manager = _Manager()
    states = [_state(manager, path, unit) for path, unit in found]
    if as_json:
        click.echo(json.dumps([state.as_json() for state in states], indent=2))
        return 0
    if not states:
        tell("There are no services; make one: satfs service install PROFILE MOUNTPOINT")
        return 0
    table = Table(box=None, pad_edge=False)
    for name in ("profile", "mountpoint", "mounted", "systemd"):
        table.add_column(name, overflow="fold")
    for state in states:
        said = f"{state.active}: {state.said}" if state.said else state.active
        table.add_row(
            show(state.unit.profile),
            show(str(state.unit.mountpoint)),
            "yes" if state.is_mounted else "no",
            show(said or "not asked"),
        )
    console().print(table)
    if not manager.is_there:
        tell_remark("No user manager of systemd answers here.")
    return 0


@dataclass(frozen=True, slots=True)
class _State:
    path: Path
    unit: Unit
    is_mounted: bool
    active: str = ""
    enabled: str = ""
    said: str = ""

    def as_json(self) -> dict[str, object]:
        return {
            "profile": self.unit.profile,
            "mountpoint": str(self.unit.mountpoint),
            "unit": self.unit.name,
            "file": str(self.path),
            "is_mounted": self.is_mounted,
            "active": self.active or None,
            "enabled": self.enabled or None,
            "status": self.said or None,
        }


def _state(manager: _Manager, path: Path, unit: Unit) -> _State:
    is_mounted = mount_at(unit.mountpoint) is not None
    shown = manager.properties(unit.name) if manager.is_there else {}
    return _State(
        path,
        unit,
        is_mounted,
        shown.get("ActiveState", ""),
        shown.get("UnitFileState", ""),
        shown.get("StatusText", ""),
    )


class _Manager:
    """systemd's manager of our user, if there is one."""

    def __init__(self) -> None:
        found = shutil.which("systemctl")
        self._systemctl = found or ""
        self.is_there = found is not None and self._call("show-environment").returncode == 0

    def run(self, *words: str, timeout_s: float = _SYSTEMCTL_TIMEOUT_S) -> None:
        """Run `systemctl --user` with *words*.

        Raises:
            BadSettings: it failed; says what it says.
        """
        done = self._call(*words, timeout_s=timeout_s)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise BadSettings(
                f"systemctl --user {' '.join(words)} failed: {show(said)}; "
                "the reason is in: satfs service status; journalctl --user -u 'satfs-*'"
            )

    def properties(self, name: str) -> dict[str, str]:
        """Return what systemd says of the unit *name*."""
        shown = self._call("show", "-p", "ActiveState,UnitFileState,StatusText", name).stdout
        pairs = (line.partition("=") for line in shown.splitlines())
        return {key: value for key, _, value in pairs}

    def _call(
        self, *words: str, timeout_s: float = _SYSTEMCTL_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        command = [self._systemctl, "--user", *words]
        try:
            return subprocess.run(  # noqa: S603 - found in PATH, no shell
                command, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except (subprocess.TimeoutExpired, OSError) as failure:
            said = "cannot be run" if isinstance(failure, OSError) else "did not answer in time"
            return subprocess.CompletedProcess(command, 1, "", said)


def _units() -> Path:
    """Return the directory of the user's own units (systemd.unit(5))."""
    return Path(platformdirs.user_config_path("systemd")) / "user"


def _wanted(path: Path) -> Path:
    return path.parent / "default.target.wants" / path.name


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
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.read_text("utf-8", "replace").startswith(MARK):
            raise BadSettings(f"{show(str(path))} is not ours; move it away first")
        partial = path.with_name(path.name + ".new")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as failure:
        raise BadSettings(f"{show(str(path))} cannot be written: {failure.strerror}") from failure


def _place(mountpoint: str) -> Path:
    place = absolute(Path(mountpoint).expanduser())
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
    names = sorted(v for v in map(variable_of, Settings.model_fields) if os.environ.get(v))
    if names:
        tell_remark(
            f"The service does not see {', '.join(names)} of this shell; "
            "keep in the profile what it needs: satfs login, satfs config."
        )


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())


def _program() -> list[str]:
    """Return the command that runs this very program again, from anywhere."""
    ours = Path(sys.argv[0]).absolute()
    if ours.name == "satfs" and os.access(ours, os.X_OK):
        return [str(ours)]
    return [sys.executable, "-m", "satfs"]


# -- the program that mount(8) runs ----------------------------------------------------------------


@service.command(
    epilog="""\b
Examples:
  sudo satfs service install-helper
  sudo mount -t satfs satfs:harbour /mnt/aleph
"""
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=HELPER_DIRECTORY,
    show_default=True,
    help="Where mount(8) looks for it.",
)
@verbosity_flags
@click.pass_obj
def install_helper(manner: Manner, directory: Path) -> int:
    """Let mount(8) and fstab mount satfs: `mount -t satfs satfs:PROFILE DIR`. For root.

    Links the program mount.satfs, which is installed beside satfs, into /sbin.
    """
    program = _helper()
    for name in PROGRAMS:
        _link(directory / name, program)
    for path in writable_by_others(program)[:1]:
        tell_remark(
            f"{show(str(path))} can be changed by others than root, and is run when root mounts: "
            "they could act as root. Better install satfs for all users."
        )
    if manner.verbosity >= 0:
        tell("mount -t satfs satfs:PROFILE DIR works now, and so does a line in /etc/fstab.")
    return 0


@service.command(
    epilog="""\b
Examples:
  sudo satfs service remove-helper
"""
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=HELPER_DIRECTORY,
    show_default=True,
    help="Where it was installed.",
)
@verbosity_flags
@click.pass_obj
def remove_helper(manner: Manner, directory: Path) -> int:
    """Take away what install-helper has linked. For root."""
    for name in PROGRAMS:
        path = directory / name
        if _is_ours(path):
            try:
                path.unlink()
            except OSError as failure:
                raise _refused(path, failure) from failure
            if manner.verbosity >= 0:
                tell(f"{show(str(path))} was removed.")
    return 0


def _helper() -> Path:
    for beside in (Path(sys.argv[0]).absolute(), Path(sys.executable)):
        program = beside.with_name(PROGRAMS[0])
        if os.access(program, os.X_OK):
            return program
    raise BadSettings(
        f"{PROGRAMS[0]} is not installed beside {show(sys.argv[0])}; install satfs anew, with pip"
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
    again = f"sudo {' '.join(_program())} service {click.get_current_context().info_name}"
    return BadSettings(
        f"{show(str(path))} cannot be changed: {failure.strerror}; as root: {show(again)}"
        if isinstance(failure, PermissionError)
        else f"{show(str(path))} cannot be changed: {failure.strerror}"
    )


def writable_by_others(program: Path) -> tuple[Path, ...]:
    """Return what of the way to *program*, and to its interpreter, not only root can change."""
    ways = [program.resolve(), Path(sys.executable), Path(sys.executable).resolve()]
    places = dict.fromkeys(place for way in ways for place in (*reversed(way.parents), way))
    return tuple(place for place in places if not _is_roots(os.stat(place)))


def _is_roots(status: os.stat_result) -> bool:
    by_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_guarded = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    return status.st_uid == 0 and (not by_others or bool(is_guarded))
