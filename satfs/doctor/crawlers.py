"""Programs that walk every directory and would fetch files that no user reads: updatedb, indexers.

A mount refuses the programs it knows what would take a request (`satfs.fuse.crawlers`). It is
better to configure these programs to leave the mount out: then they send no call at all.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from satfs.doctor.findings import Area, Check, Finding, Severity
from satfs.doctor.machine import Machine
from satfs.doctor.mounts import satfs_mounts
from satfs.fuse.callers import Caller
from satfs.fuse.crawlers import CrawlerRules, ProgramBehaviour
from satfs.mountpoints import FS_TYPE

UPDATEDB_CONF: Final = "/etc/updatedb.conf"
_UPDATEDB_PROGRAMS: Final = ("updatedb", "updatedb.plocate", "updatedb.mlocate")

#: Indexers by the beginning of what /proc/PID/comm shows of them, which is 15 characters long.
INDEXERS: Final = {
    "tracker-miner-f": "Tracker",
    "tracker-extract": "Tracker",
    "localsearch": "LocalSearch",
    "baloo_file": "Baloo",
    "baloorunner": "Baloo",
    "recollindex": "Recoll",
}
_TRACKER_SCHEMA: Final = "org.freedesktop.Tracker3.Miner.Files"

UPDATEDB = Check(Area.CRAWLERS, "updatedb")
INDEXING = Check(Area.CRAWLERS, "indexers")


@dataclass(frozen=True, slots=True)
class UpdatedbExclusions:
    """The filesystem types, in lower case, and the paths that updatedb leaves out."""

    types: frozenset[str] = frozenset()
    paths: tuple[Path, ...] = ()

    def covers(self, place: Path) -> bool:
        """Return whether updatedb leaves *place* out because of its path."""
        return any(place.is_relative_to(path) for path in self.paths)


_ASSIGNMENT: Final = re.compile(r'^\s*(PRUNEFS|PRUNEPATHS)\s*=\s*"([^"]*)"', re.MULTILINE)


def parse_updatedb(text: str) -> UpdatedbExclusions:
    """Return what the *text* of an updatedb.conf leaves out (updatedb.conf(5)); the last counts."""
    values = dict(_ASSIGNMENT.findall(text))
    return UpdatedbExclusions(
        frozenset(values.get("PRUNEFS", "").lower().split()),
        tuple(Path(path) for path in values.get("PRUNEPATHS", "").split()),
    )


def updatedb(machine: Machine, places: Sequence[Path], guard: CrawlerRules) -> Iterator[Finding]:
    """Look whether updatedb leaves satfs mounts alone; *places* are or will be mountpoints."""
    text = machine.text(UPDATEDB_CONF)
    if text is None and not any(machine.program(name) for name in _UPDATEDB_PROGRAMS):
        yield UPDATEDB.fine("updatedb is not installed.")
        return
    pruned = parse_updatedb(text or "")
    if FS_TYPE in pruned.types:
        yield UPDATEDB.fine(f"updatedb leaves {FS_TYPE} out (PRUNEFS).")
        return
    if places and all(pruned.covers(place) for place in places):
        yield UPDATEDB.fine("updatedb leaves the mountpoints out (PRUNEPATHS).")
        return
    lets_root_in = any(
        {"allow_other", "allow_root"} & each.super_options or "user_id=0" in each.super_options
        for each in satfs_mounts(machine)
        if not pruned.covers(each.mountpoint)
    )
    # Appended also where the file sets the variable already: the last line counts.
    append = f's/^(\\s*PRUNEFS\\s*=\\s*"[^"]*)"/\\1 {FS_TYPE}"/'
    command = (
        f"sudo sed -i -E '{append}' {UPDATEDB_CONF}"
        if "PRUNEFS" in dict(_ASSIGNMENT.findall(text or ""))
        else f"echo 'PRUNEFS=\"{FS_TYPE}\"' | sudo tee -a {UPDATEDB_CONF}"
    )
    is_kept_out = _is_kept_out("updatedb", guard)
    if not lets_root_in:
        explanation = (
            "It runs as root each night, and reads mounts that let root in; none here does now."
        )
    elif is_kept_out:
        explanation = (
            "Each night it looks into a mount that lets root in, and the mount refuses the request."
        )
    else:
        explanation = (
            "Each night it lists every task, capture and scene of a mount that lets root in."
        )
    yield UPDATEDB.finding(
        Severity.WARNING if lets_root_in and not is_kept_out else Severity.NOTE,
        f"updatedb does not leave {FS_TYPE} out.",
        explanation,
        "Add the type to PRUNEFS:",
        command,
    )


def _is_kept_out(program: str, guard: CrawlerRules) -> bool:
    """Return whether a mount gives *program* only bytes that are cached."""
    return guard.behaviour(Caller(program[:15], program[:15])) is ProgramBehaviour.CRAWLS


def indexers(machine: Machine, places: Sequence[Path], guard: CrawlerRules) -> Iterator[Finding]:
    """Look whether a desktop's indexer runs or is set up, and would come upon *places*."""
    names = sorted({*_running(machine), *_configured(machine)})
    if not names:
        yield INDEXING.fine("No desktop indexer runs or is set up.")
        return
    indexers = " and ".join(names)
    inside = [place for place in places if place.is_relative_to(machine.home)]
    if not inside:
        yield INDEXING.fine(f"{indexers} indexes homes, and no mount lies in yours.")
        return
    commands: list[str] = []
    for place in inside:
        if "Baloo" in names:
            name = shlex.quote(os.fspath(place))
            commands.append(f"balooctl6 config add excludeFolders {name}")
    if {"Tracker", "LocalSearch"} & set(names):
        commands.append(_tracker_command(machine, inside))
    is_kept_out = all(
        _is_kept_out(program, guard) for program, name in INDEXERS.items() if name in names
    )
    yield INDEXING.finding(
        Severity.NOTE if is_kept_out else Severity.WARNING,
        f"{indexers} indexes your home, in which {inside[0]} lies.",
        "It opens each file that it finds; satfs gives it only bytes that are in the cache."
        if is_kept_out
        else "It opens each file that it finds, and satfs then fetches the file.",
        "Mount outside of your home, or leave the mountpoint out"
        + (":" if commands else f" in the settings of {indexers}."),
        *tuple(commands),
    )


def _running(machine: Machine) -> Iterator[str]:
    try:
        entries = list(machine.at("/proc").iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.name.isdecimal():
            continue
        try:
            if entry.stat().st_uid != machine.uid:
                continue
            comm = (entry / "comm").read_text("utf-8", "replace").strip()
        except OSError:  # ended since it was listed
            continue
        for beginning, name in INDEXERS.items():
            if comm.startswith(beginning):
                yield name


def _configured(machine: Machine) -> Iterator[str]:
    home = Path(machine.environment.get("XDG_CONFIG_HOME") or machine.home / ".config")
    baloo = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        baloo.read_string((home / "baloofilerc").read_text("utf-8", "replace"))
        if baloo.getboolean("Basic Settings", "Indexing-Enabled", fallback=True):
            yield "Baloo"
    except (OSError, configparser.Error, ValueError):
        pass
    if _tracker_setting(machine, "index-recursive-directories").strip("[] \n@as") != "":
        yield "Tracker"


def _tracker_setting(machine: Machine, key: str) -> str:
    """Return a list among Tracker's settings as GVariant text; empty for a setting it lacks."""
    gsettings = machine.program("gsettings")
    if gsettings is None:
        return ""
    ran = machine.run([os.fspath(gsettings), "get", _TRACKER_SCHEMA, key])
    return ran.output.strip() if ran is not None and ran.code == 0 else ""


def _tracker_command(machine: Machine, places: Sequence[Path]) -> str:
    """Return the command that makes Tracker skip directories called as *places* are."""
    held = re.findall(r"'([^']*)'", _tracker_setting(machine, "ignored-directories"))
    names = dict.fromkeys([*held, *(place.name for place in places)])
    value = "[" + ", ".join(f"'{name}'" for name in names) + "]"
    return f"gsettings set {_TRACKER_SCHEMA} ignored-directories {shlex.quote(value)}"
