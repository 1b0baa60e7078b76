"""The real program as people start it, a vendor to lead it to, and a clean table afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import forking
from fakes.processes import is_running, wait_until

from satfs.demo.scratch import default_directory, home_of, is_drawn
from satfs.demo.server import DemoOrigin
from satfs.mountpoints import satfs_mounts

#: More than any command takes here; a command that hangs fails its test, in seconds.
TIMEOUT_S = 60


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Program:
    """The installed `satfs`, with an environment and a home of its own."""

    environment: Mapping[str, str]
    directory: Path

    def __call__(
        self, *arguments: object, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; keywords are changes of the environment, None takes one away."""
        return self.given("", *arguments, **environment)

    def given(
        self, text: str, *arguments: object, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run it likewise, with *text* on a pipe as its standard input."""
        changed = self.environ(**environment)
        if forking.takes(changed):
            command = Program.command(self, *arguments)
            seen = self.seen_mounts()
            return forking.run(
                command, changed, self.directory, TIMEOUT_S, text=text, seen_mounts=seen
            )
        with forking.standard_input(text) as given:
            return subprocess.run(
                self.command(*arguments),
                env=changed,
                cwd=self.directory,
                stdin=given,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )

    def seen_mounts(self) -> list[str] | None:
        """Return where the mounts of satfs are that it sees; None: it sees all of this machine."""
        return None

    def start(self, *arguments: object, **environment: str | None) -> subprocess.Popen[str]:
        """Start it, in a session of its own as a shell would."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environ(**environment),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A suite that runs in the background of a script ignores Ctrl-C, and programs that it
            # starts would, too.
            preexec_fn=_hear_ctrl_c,
        )

    def command(self, *arguments: object) -> list[str]:
        """Return the command line."""
        return [str(Path(sys.executable).with_name("satfs")), *map(str, arguments)]

    def environ(self, **changes: str | None) -> dict[str, str]:
        """Return the environment with changes."""
        changed = {**self.environment, **changes}
        return {name: value for name, value in changed.items() if value is not None}


@pytest.fixture
def satfs(tmp_path: Path) -> Program:
    """Return the program without any setting, at home in a temporary directory."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("SATFS_", "XDG_"))}
    home = tmp_path / "home"
    home.mkdir()
    return Program({**kept, "HOME": str(home), "COLUMNS": "80"}, tmp_path)


@pytest.fixture(scope="session")
def origin() -> Iterator[DemoOrigin]:
    """Return a vendor with a small catalogue."""
    with DemoOrigin() as origin:
        yield origin


@pytest.fixture
def aleph(satfs: Program, origin: DemoOrigin, tmp_path: Path) -> Program:
    """Return the program with the settings of an account."""
    settings = {**origin.environment(), "SATFS_CACHE_DIR": str(tmp_path / "cache")}
    return Program({**satfs.environment, **settings}, satfs.directory)


#: Draws the default imagery of a demo, unless that is done.
_DRAW = """
import pathlib, sys
from satfs.demo.showcase import built
built(pathlib.Path(sys.argv[1]), seed=1, large_mb=64)
"""


@pytest.fixture
def demo(satfs: Program) -> Program:
    """Return the program with the imagery that other tests have drawn."""
    drawn = os.environ["TESTS_DRAWN_IMAGERY"]
    kept = Path(drawn) / default_directory().name
    if importlib.util.find_spec("numpy") and not is_drawn(home_of(kept, seed=1, large_mb=64)):
        # Not by a command of a test, which may take `TIMEOUT_S`: on a busy machine it takes longer.
        words = [sys.executable, "-c", _DRAW, str(kept)]
        subprocess.run(words, env=satfs.environ(), check=True)
    return Program({**satfs.environment, "XDG_CACHE_HOME": drawn}, satfs.directory)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return an empty directory to mount on; a mount that is left there is removed."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("nothing can be mounted here: /dev/fuse or fusermount3 is missing")
    place = tmp_path / "mnt"
    place.mkdir()
    yield place
    pids = mount_processes(place)
    while is_mounted(place):
        subprocess.run(["fusermount3", "-uz", str(place)], check=True)
    # It writes its index to a disk that other tests keep busy.
    wait_until(
        lambda: not any(is_running(pid) for pid in pids), timeout_s=30, or_else=lambda: kill(pids)
    )


def is_fuse_for_others() -> bool:
    """Return whether users other than root may open /dev/fuse; in some containers they may not."""
    return Path("/dev/fuse").exists() and Path("/dev/fuse").stat().st_mode & 0o006 == 0o006


def require_fuse_for_others() -> None:
    """Skip the test where users other than root may not open /dev/fuse."""
    if not is_fuse_for_others():
        pytest.skip("only root may open /dev/fuse here")


def kill(pids: list[int]) -> None:
    """End processes of this test that did not end by themselves; print what they do."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                # Behind the name: state, and processor time of user and system in 10 ms.
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
                waits_in = (thread / "wchan").read_text()
                sys.stderr.write(f"{pid} {thread.name} {waits_in} {fields[0]} {fields[11:13]}\n")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_mounted(place: Path) -> bool:
    """Return whether the kernel lists a satfs mount there."""
    return any(mounted.mountpoint == place for mounted in satfs_mounts())


def mount_processes(place: Path) -> list[int]:
    """Return the processes that were started to mount there.

    Others name the place, too: a test beside this one unmounts it in a namespace of its own.
    """
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                is_ours = any(b"satfs" in os.path.basename(word) for word in words)
                if is_ours and os.fsencode(place) in words and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
    return found
