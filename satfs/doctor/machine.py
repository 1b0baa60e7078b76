"""The machine as the checks see it: paths, the user, and programs that may hang.

Nothing is changed on it. Each file is named from `root`, so that a made-up machine can be looked at
as well as this one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct, field

from satfs.mountpoints import Mounted, parse_mountinfo, probe_command

#: Time limit of a program, in seconds. Those used here take milliseconds.
PROGRAM_LIMIT_S: Final = 4.0
#: Most bytes of a file that is looked at: configuration, and files of /proc.
_MAX_BYTES: Final = 1024 * 1024


class ProgramResult(Struct, frozen=True):
    """How a program ended: its exit code and its output."""

    code: int
    output: str
    stderr: str = ""


#: The exit code of shells for a program that cannot be started.
_NOT_STARTED: Final = 127

#: Runs a program; returns None when it did not end in time.
Runner: TypeAlias = Callable[[Sequence[str]], ProgramResult | None]


def run_bounded(command: Sequence[str], limit_s: float = PROGRAM_LIMIT_S) -> ProgramResult | None:
    """Return how *command* ended, or None when it has not ended in *limit_s*.

    One that cannot be started ends with 127, as in a shell. One that hangs is killed, and left
    behind where even that does not help: a program that waits for a filesystem whose process is
    stuck cannot be killed, nor waited for.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - our own words, no shell
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as failure:
        return ProgramResult(_NOT_STARTED, "", os.strerror(failure.errno or 0))
    try:
        output, stderr = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        return None
    return ProgramResult(child.returncode, output, stderr)


def _home() -> Path:
    """Return the user's home; the root directory for a user without one, as in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


class Machine(Struct, frozen=True):
    """A machine and a user: this one and the one of this process by default."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    uid: int = field(default_factory=os.geteuid)
    home: Path = field(default_factory=_home)
    run: Runner = run_bounded

    @property
    def is_root(self) -> bool:
        """Return whether the user is the superuser."""
        return self.uid == 0

    def at(self, path: str) -> Path:
        """Return the path at which this process finds the file that is *path* on the machine."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        """Return what is in a small file, or None when it cannot be read."""
        try:
            with self.at(path).open("rb") as file:
                return file.read(_MAX_BYTES).decode("utf-8", "surrogateescape")
        except OSError:
            return None

    def program(self, name: str) -> Path | None:
        """Return the path of the program *name*, or None where it is not installed."""
        found = shutil.which(name, path=self.environment.get("PATH", os.defpath))
        return None if found is None else Path(found)

    def mounts(self) -> tuple[Mounted, ...]:
        """Return all mounts that the user can see, the lowermost first."""
        return parse_mountinfo(self.text("/proc/self/mountinfo") or "")

    def mount_of(self, path: Path) -> Mounted | None:
        """Return the mount that *path* is in, the upper one of two at the same place."""
        real = Path(os.path.realpath(path))
        above = [each for each in self.mounts() if real.is_relative_to(each.mountpoint)]
        return max(reversed(above), key=lambda each: len(each.mountpoint.parts), default=None)

    def errno_of(self, path: Path) -> int | None:
        """Return the errno of a stat of *path*: 0 for success, None if it took too long."""
        ran = self.run(probe_command(path))
        if ran is None:
            return None
        if ran.output.strip().isdecimal():
            return int(ran.output)
        try:  # Python cannot be started a second time: then there is no other way
            os.statvfs(path)
        except OSError as failure:
            return failure.errno
        return 0

    @property
    def is_container(self) -> bool:
        """Return whether this looks like a container."""
        marks = ("/.dockerenv", "/run/.containerenv")
        return "container" in self.environment or any(self.at(mark).exists() for mark in marks)
