"""`satfs log`, against real mounts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cli.conftest import Program, mount_processes
from fakes.processes import wait_until

pytestmark = pytest.mark.mounts


@pytest.fixture
def mounted(aleph: Program, place: Path) -> Path:
    """Return a mount in the background, which logs at the usual level."""
    done = aleph("mount", place)
    assert done.returncode == 0, done.stderr
    return place


def test_the_last_lines_are_shown_wherever_they_go(aleph: Program, mounted: Path) -> None:
    """Those of `.satfs/log`, of the mount that is named, or that a path lies in."""
    quiet = aleph("log", mounted)
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert "nothing has been logged" in quiet.stderr

    assert aleph("log", mounted, "--level", "info").returncode == 0
    assert aleph("refresh", mounted / "tasks").returncode == 0
    shown = aleph("log", mounted)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "log level changed" in shown.stdout
    assert shown.stdout in (mounted / ".satfs/log").read_text()
    assert aleph("log", mounted / "tasks").stdout.startswith(shown.stdout)


def test_the_level_is_changed_while_it_runs(aleph: Program, mounted: Path) -> None:
    """From then on more is logged, or less, and the log says so."""
    more = aleph("log", mounted, "--level", "debug")
    assert (more.returncode, more.stderr) == (0, "")
    assert more.stdout == f"{mounted} logs from level debug on.\n"
    list((mounted / "tasks").iterdir())
    loud = aleph("log", mounted).stdout

    assert aleph("log", mounted, "--level", "error", "-q").stdout == ""
    before = aleph("log", mounted).stdout
    list((mounted / "scenes").iterdir())

    assert "log level changed" in loud
    assert "debug" in loud
    assert aleph("log", mounted).stdout == before, "nothing more is said"


def test_a_level_that_there_is_not(aleph: Program, mounted: Path) -> None:
    refused = aleph("log", mounted, "--level", "chatty")
    assert refused.returncode == 2
    assert "'debug'" in refused.stderr


def test_where_nothing_is_mounted(aleph: Program, tmp_path: Path) -> None:
    refused = aleph("log", tmp_path)
    assert refused.returncode == 5, refused.stderr
    assert "not in a satfs mount" in refused.stderr


def test_a_mount_whose_process_stands_still(aleph: Program, mounted: Path) -> None:
    """No command waits for it: neither for its lines, nor for another level."""
    (pid,) = mount_processes(mounted)
    try:
        os.kill(pid, signal.SIGSTOP)
        shown = aleph("log", mounted)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert shown.returncode == 5
    assert "does not answer" in shown.stderr
    assert "satfs umount -z" in shown.stderr


def test_a_mount_whose_process_is_gone(aleph: Program, mounted: Path) -> None:
    (pid,) = mount_processes(mounted)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not mount_processes(mounted))

    shown = aleph("log", mounted)

    assert shown.returncode == 5
    assert "dead" in shown.stderr
    assert f"satfs umount {mounted}" in " ".join(shown.stderr.split())
