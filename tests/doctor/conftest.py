"""A made-up machine: its files below a temporary directory, its programs in a table."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from satfs.doctor.findings import Finding
from satfs.doctor.machine import Machine, ProgramResult

#: An ordinary user's, for every user that runs the tests.
UID = 1000


@dataclass
class MadeUp:
    """A machine to be made wrong, file by file, and looked at."""

    root: Path
    uid: int = UID
    environment: dict[str, str] = field(default_factory=dict)
    #: The result of a program, by its name; one that is not here never ends.
    responses: dict[str, ProgramResult] = field(default_factory=dict)
    #: The errno of a stat of a path, or None where it never returns.
    errnos: dict[Path, int | None] = field(default_factory=dict)

    def write(self, path: str, text: str = "") -> Path:
        """Write a file, and return where it lies."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def program(self, name: str, *, is_setuid: bool = False) -> Path:
        """Install a program, and return where it lies."""
        file = self.write(f"/usr/bin/{name}", "#!/bin/sh\n")
        file.chmod(0o755 | (stat.S_ISUID if is_setuid else 0))
        self.environment["PATH"] = os.fspath(file.parent)
        return file

    def mount(self, *lines: str) -> None:
        """Let the kernel list mounts."""
        self.write("/proc/self/mountinfo", "".join(f"{line}\n" for line in lines))

    @property
    def machine(self) -> Machine:
        """Return it as it is seen by a check."""
        return Machine(self.root, self.environment, self.uid, self.root / "home/me", self._run)

    def _run(self, command: Sequence[str]) -> ProgramResult | None:
        if command[0] != sys.executable or "-S" not in command:
            return self.responses.get(Path(command[0]).name)
        place = Path(command[-1])  # a query for its filesystem
        response = self.errnos[place] if place in self.errnos else _real_errno(place)
        return None if response is None else ProgramResult(0, f"{response}\n")


def _real_errno(path: Path) -> int:
    try:
        os.statvfs(path)
    except OSError as failure:
        return failure.errno or 0
    return 0


@pytest.fixture
def made(tmp_path: Path) -> MadeUp:
    """Return a machine without anything."""
    root = tmp_path / "root"
    root.mkdir()
    return MadeUp(root, environment={"PATH": os.fspath(root / "usr/bin")})


def only(findings: Iterable[Finding]) -> Finding:
    """Return the only finding there is."""
    (finding,) = findings
    return finding
