"""systemd: the unit of a mount (its name, text and parser), and the user manager that runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from configparser import Error, RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from satfs.cli.exit_codes import Exit
from satfs.cli.output import show
from satfs.errors import BadSettings

#: How the units that are ours begin; others are left alone.
MARK: Final = "# Written by `satfs service install`, and replaced by it."
_PREFIX: Final = "satfs-"
_SUFFIX: Final = ".service"
#: A unit's name may hold these, and with its suffix be 255 characters long (systemd.unit(5)).
_PLAIN: Final = re.compile(r"[A-Za-z0-9:_.-]")
#: Another attempt would fail like the first: a person has to change something.
_HOPELESS: Final = (Exit.USAGE, Exit.CREDENTIALS, Exit.FUSE, Exit.CACHE)
#: systemctl(1) responds at once, or its manager does not respond at all.
_TIMEOUT_S: Final = 30

#: The part that all units of ours have in common.
_REST: Final = f"""\
Documentation=man:satfs(1) man:satfs-mount(1)

[Service]
# Started once the mount works: credentials accepted, first page listed.
Type=notify
NotifyAccess=main
{{commands}}
TimeoutStartSec=90
# An event loop that stands still for 30 s is ended, and another mount takes its place.
WatchdogSec=30
Restart=on-failure
RestartSec=10
# Wrong settings, refused credentials, no FUSE, no cache: trying again would not help.
RestartPreventExitStatus={" ".join(str(int(code)) for code in _HOPELESS)}
# Stopped before the mount worked.
SuccessExitStatus={int(Exit.INTERRUPTED)}
# The mount ends its own helpers.
KillMode=mixed
TimeoutStopSec=20
# A file that is open takes descriptors; what is written is for its owner; memory holds secrets.
LimitNOFILE=65536
UMask=0077
LimitCORE=0
# Sandboxing that implies NoNewPrivileges= or a mount namespace of its own is left out: fusermount3
# is set-user-ID, and the mount is for everybody to see.
KeyringMode=private
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """The profile that a unit mounts, and the mountpoint."""

    profile: str
    mountpoint: Path

    @property
    def name(self) -> str:
        """The unit's name, by which systemctl(1) knows it: one for each profile."""
        return unit_name(self.profile)


def unit_name(profile: str) -> str:
    """Return the name of the unit that mounts *profile*; two profiles never share one."""
    escaped = "".join(
        letter
        if _PLAIN.fullmatch(letter)
        else "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
        for letter in profile
    )
    return f"{_PREFIX}{escaped}{_SUFFIX}"


def is_unit_name(name: str) -> bool:
    """Return whether a file called *name* may be a unit of ours."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def unit_text(unit: Unit, program: Sequence[str], options: Iterable[str] = ()) -> str:
    """Return the text of *unit*, which runs *program* with the mount *options* of `-o`.

    Raises:
        BadSettings: a word holds a control character; a line break would begin a directive.
    """
    options = list(options)
    require_plain([*program, unit.profile, *options, str(unit.mountpoint)])
    given = [word for option in options for word in ("-o", option)]
    command = [
        *program,
        "mount",
        "--foreground",
        "--profile",
        unit.profile,
        *given,
        "--",
        str(unit.mountpoint),
    ]
    return f"""{MARK}
# Changes of your own: systemctl --user edit {unit.name}

[Unit]
Description=Satellite imagery deliveries ({_percent(unit.profile)})
{_REST.format(commands=f"ExecStart={quoted_command(command)}")}
[X-satfs]
Profile={json.dumps(unit.profile)}
Mountpoint={json.dumps(str(unit.mountpoint))}
"""


def template_unit_text() -> str:
    """Return the text of the unit that packages bring, `satfs@.service`.

    Its instance is a profile, which it mounts at ~/satfs/PROFILE. `satfs` is looked for where
    systemd looks for programs: /usr/local/bin, /usr/bin (systemd.service(5)).
    """
    # mkdir fails at a mount that a dead process has left behind; satfs mount takes that away.
    commands = """\
ExecStartPre=-mkdir -p -- %h/satfs/%I
ExecStart=satfs mount --foreground --profile %I -- %h/satfs/%I"""
    return f"""\
# Mount a profile at ~/satfs/PROFILE: systemctl --user enable --now satfs@PROFILE
# At another place, or with options of its own: satfs service install

[Unit]
Description=Satellite imagery deliveries (%I)
{_REST.format(commands=commands)}"""


def require_plain(words: Iterable[str]) -> None:
    """Raise BadSettings if one of *words* holds a control character."""
    for word in words:
        if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in word):
            raise BadSettings(
                "a service takes no option, profile or path with a control character:"
                f" {word.encode('unicode_escape').decode()}"
            )


def read_unit(text: str) -> Unit | None:
    """Return what the unit with that *text* mounts; None if it is not one of ours."""
    if not text.startswith(MARK):
        return None
    parser = RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=False)
    try:
        parser.read_string(text)
        ours = parser["X-satfs"]
        return Unit(json.loads(ours["Profile"]), Path(json.loads(ours["Mountpoint"])))
    except (Error, KeyError, ValueError, TypeError):
        return None


def quoted_command(words: Iterable[str]) -> str:
    """Return *words* as a command line of systemd.service(5): nothing in them is expanded."""
    first, *rest = words
    # Variables are not expanded in the path of the program, so that its `$` stays a single one.
    return " ".join([_quoted(_percent(first)), *(_quoted(_percent(w, dollar="$$")) for w in rest)])


def _percent(text: object, dollar: str = "$") -> str:
    return str(text).replace("%", "%%").replace("$", dollar)


def _quoted(word: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


class UserManager:
    """The user's systemd, reached through systemctl(1); `is_there` is false where it does not run.

    Each method waits for systemctl, thirty seconds at most.
    """

    def __init__(self) -> None:
        found = shutil.which("systemctl")
        self._systemctl = found or ""
        self.is_there = found is not None and self._call("show-environment").returncode == 0

    def run(self, *words: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Run `systemctl --user` with *words*.

        Raises:
            BadSettings: it failed; the message has what systemctl printed.
        """
        done = self._call(*words, timeout_s=timeout_s)
        if done.returncode != 0:
            printed = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise BadSettings(
                f"systemctl --user {' '.join(words)} failed: {show(printed)}; "
                "the reason is in: satfs service status; journalctl --user -u 'satfs-*'"
            )

    def properties(self, name: str) -> dict[str, str]:
        """Return state, enablement and status text of the unit *name*, as systemd shows them."""
        shown = self._call("show", "-p", "ActiveState,UnitFileState,StatusText", name).stdout
        pairs = (line.partition("=") for line in shown.splitlines())
        return {key: value for key, _, value in pairs}

    def _call(self, *words: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        command = [self._systemctl, "--user", *words]
        try:
            return subprocess.run(  # noqa: S603 - found in PATH, no shell
                command, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except (subprocess.TimeoutExpired, OSError) as failure:
            reason = "cannot be run" if isinstance(failure, OSError) else "did not respond in time"
            return subprocess.CompletedProcess(command, 1, "", reason)
