"""`scripts/setup`: what it says on machines that lack something, and what it does without."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
#: Programs that the functions of `scripts/setup` run, beside those that a test provides.
PROGRAMS = (
    *("bash", "cat", "dirname", "env", "grep", "mktemp", "readlink", "rm", "sleep", "sort", "stat"),
)


@dataclass(frozen=True)
class BareMachine:
    """A clone's scripts on a machine with few programs."""

    root: Path

    def program(self, name: str, body: str) -> None:
        """Install a program: a shell script."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def run(self, command: str, *, as_user: bool = True) -> subprocess.CompletedProcess[str]:
        """Run *command* after `scripts/setup`, as an ordinary user if need be, and merge output."""
        user = 65534 if as_user and os.geteuid() == 0 else None
        return subprocess.run(
            ["bash", "-c", f'source "{self.root}/scripts/setup"; {command}'],
            env={"PATH": str(self.root / "bin"), "NO_COLOR": "1", "TMPDIR": str(self.root / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            user=user,
            check=False,
            executable=shutil.which("bash"),
        )


@pytest.fixture
def machine() -> Iterator[BareMachine]:
    """Return a machine without sudo, which everybody may look at."""
    root = Path(tempfile.mkdtemp(prefix="satfs-bare-"))
    root.chmod(0o755)
    (root / "scripts").mkdir()
    shutil.copy(SCRIPTS / "setup", root / "scripts")
    (root / "bin").mkdir()
    for name in PROGRAMS:
        (root / "bin" / name).symlink_to(str(shutil.which(name)))
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    yield BareMachine(root)
    shutil.rmtree(root)


def test_without_sudo_the_way_out_is_told(machine: BareMachine) -> None:
    """The commands for root are on the terminal, not in a log."""
    machine.program("apt-get", "exit 1")

    done = machine.run("prepare_programs nosuch:its-package")

    assert done.returncode == 1
    assert "there is no sudo" in done.stdout
    assert "apt-get install its-package" in done.stdout


def test_what_is_optional_does_not_end_it(machine: BareMachine) -> None:
    machine.program("apt-get", "exit 1")

    done = machine.run('prepare_optional "the tour is shorter" nosuch:its-package; echo goes on')

    assert (done.returncode, done.stdout) == (
        0,
        "· without its-package: the tour is shorter\ngoes on\n",
    )


def test_what_apt_says_is_shown(machine: BareMachine) -> None:
    """Of the installation that failed, with our own last line."""
    machine.program("sudo", '"$@"')
    machine.program("apt-get", "echo E: no such package; exit 100")

    done = machine.run("prepare_programs nosuch:its-package")

    assert done.returncode == 1
    assert "E: no such package" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Error: could not install: its-package")


def test_a_python_that_is_too_old_is_the_last_word(machine: BareMachine) -> None:
    """As on Debian 11: apt does not know a newer one, and its lines say nothing about why."""
    machine.program("sudo", '"$@"')
    machine.program("apt-get", "exit 100")

    done = machine.run("is_python() { false; }; prepare_system")

    assert done.returncode == 1
    assert "satfs needs Python 3.11 or newer. Debian 12" in done.stdout.splitlines()[-1]


def test_a_python_that_pyenv_has_installed_is_found_by_its_name(machine: BareMachine) -> None:
    """The newest of its series, also where the shim in PATH fails since none is chosen."""
    machine.program("python3.12", "echo pyenv: python3.12: command not found >&2; exit 127")
    for version, code in (("3.12.9", 0), ("3.12.11", 0), ("3.12.12", 1), ("3.13.0", 0)):
        directory = machine.root / "pyenv/versions" / version / "bin"
        directory.mkdir(parents=True)
        python = directory / f"python{version.rpartition('.')[0]}"
        python.write_text(f"#!/bin/bash\nexit {code}\n")
        python.chmod(0o755)

    found = machine.run(f"PYENV_ROOT={machine.root}/pyenv; python_named python3.12")
    missing = machine.run(f"PYENV_ROOT={machine.root}/pyenv; python_named python3.14")

    assert found.stdout == f"{machine.root}/pyenv/versions/3.12.11/bin/python3.12\n"
    assert (missing.returncode, missing.stdout) == (1, "")


def test_a_held_lock_is_waited_for(machine: BareMachine, tmp_path: Path) -> None:
    """Unattended upgrades hold it for minutes on each new machine."""
    lock = machine.root / "lock"
    machine.program("sudo", '"$@"')
    machine.program("apt-get", f'echo "apt-get $*" >> {machine.root}/tmp/told')
    with lock.open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [
                *(sys.executable, "-c"),
                "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)",
                *("bash", "-c"),
                f'source "{machine.root}/scripts/setup"; apt_locks=("{lock}"); '
                "may_be_root() { true; }; apt_install some-package",
            ],
            env={"PATH": f"{machine.root}/bin", "NO_COLOR": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "· installing system packages: some-package\n"
        assert waiting.stderr.readline() == "· waiting until another apt or dpkg has ended\n"
        assert not (machine.root / "tmp" / "told").exists()
        fcntl.lockf(held, fcntl.LOCK_UN)
    assert waiting.wait(30) == 0
    waiting.stderr.close()
    told = (machine.root / "tmp" / "told").read_text()
    assert "DPkg::Lock::Timeout=" in told
    assert "some-package" in told


def test_a_script_runs_through_a_symbolic_link(tmp_path: Path) -> None:
    """Also from another directory; `--help` sets nothing up beyond what is there."""
    for name in ("demo", "test", "check", "docs", "bench", "soak"):
        script = (SCRIPTS / name).read_text()
        assert 'source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup"' in script, name
    (tmp_path / "setup-through-a-link").symlink_to(SCRIPTS / "setup")

    done = subprocess.run(
        ["bash", "-c", 'source ./setup-through-a-link; printf %s "$here"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout == str(SCRIPTS.parent.resolve())


@pytest.mark.parametrize("name", ["demo", "test", "bench", "soak"])
def test_fuse_is_looked_at_before_anything_is_installed(name: str) -> None:
    """No package brings it, and to install all the others takes more than a minute."""
    script = (SCRIPTS / name).read_text()

    assert script.index("\nprepare_fuse\n") < script.index("\nprepare ")


def test_a_device_that_the_user_may_not_open_is_told_at_once(machine: BareMachine) -> None:
    device = machine.root / "fuse"
    device.touch(0o000)  # a test by an ordinary user owns the file

    done = machine.run(f'fuse_device="{device}"; prepare_fuse')

    assert done.returncode == 1
    assert f"As root: chmod 666 {device}" in done.stdout


def test_a_device_that_only_root_may_open_is_given_the_usual_mode(machine: BareMachine) -> None:
    """Of a machine without udev, such as a container. The user has sudo."""
    device = machine.root / "fuse"
    device.touch(0o000)
    (machine.root / "bin" / "chmod").symlink_to(str(shutil.which("chmod")))
    machine.program("sudo", 'exec "$@"')
    if os.geteuid() == 0:
        os.chown(device, 65534, -1)

    done = machine.run(f'fuse_device="{device}"; prepare_fuse; echo opened')

    assert done.returncode == 0, done.stdout
    assert "letting every user open" in done.stdout
    assert done.stdout.endswith("opened\n")
