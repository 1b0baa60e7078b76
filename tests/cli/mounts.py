"""A vendor of one's own, mounted with the real program: for tests that break or change it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.conftest import Program, is_mounted
from fakes.processes import wait_until

from satfs.demo.catalogue import Catalogue
from satfs.demo.server import DemoOrigin

#: The demo's small catalogue has these: a task with two captures of three and two scenes.
TASK, OTHER_TASK = "341271", "268095"


@dataclass(frozen=True)
class Mounted:
    """The program, what it is mounted on, and the vendor behind it."""

    program: Program
    place: Path
    origin: DemoOrigin

    def mount(self, *arguments: object, **environment: str) -> None:
        done = self.program("mount", *arguments, self.place, **environment)
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        done = self.program("umount", self.place)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: not is_mounted(self.place))

    def lines(self, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
        """Run a command that answers with an object a line."""
        done = self.program(*arguments)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def query(self, *arguments: object, code: int = 0) -> Any:
        """Run a command that answers with one JSON document."""
        done = self.program(*arguments)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)


@contextmanager
def programs_of_mount8() -> Iterator[None]:
    """Be alone with what is in /sbin: there is one for all tests that run beside each other."""
    lock = Path(tempfile.gettempdir()) / f"satfs-tests-sbin-{os.geteuid()}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def vendor(
    program: Program, place: Path, cache: Path, catalogue: Catalogue | None = None
) -> Iterator[Mounted]:
    """Run a vendor, and yield the program with an account there and a runtime directory."""
    # A socket's address is short (unix(7)), and a test's own directory has a long name.
    runtime = Path(tempfile.mkdtemp(prefix="satfs-"))
    try:
        with DemoOrigin(catalogue) as origin:
            settings = {
                **origin.environment(),
                "SATFS_CACHE_DIR": str(cache),
                "XDG_RUNTIME_DIR": str(runtime),
            }
            account = Program({**program.environment, **settings}, program.directory)
            yield Mounted(account, place, origin)
    finally:
        shutil.rmtree(runtime)


def read_all(top: Path) -> dict[str, bytes]:
    """Return every file below *top*, by its path from there."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }
