"""The origin in a process of its own starts, obeys, and ends with the one that started it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.asking import ask

from satfs.demo.process import DemoProcess
from satfs.demo.program import COMMANDS
from satfs.errors import Unreachable, Unsupported

pytestmark = pytest.mark.slow

SAMPLE = ("--catalogue=sample",)


@pytest.fixture(scope="module")
def process() -> Iterator[DemoProcess]:
    with DemoProcess(arguments=(*SAMPLE, "--extra-tasks=20")) as running:
        yield running


def test_it_answers_once_started(process: DemoProcess) -> None:
    """The environment is there, and leads to something that answers."""
    assert set(process.environment) == {
        "SATFS_API_URL",
        "SATFS_AUTH_URL",
        "SATFS_CLIENT_ID",
        "SATFS_CLIENT_SECRET",
        "SATFS_CONTRACT_ID",
    }
    assert ask(f"{process.environment['SATFS_API_URL']}/contracts").status == 401


def test_it_obeys(process: DemoProcess) -> None:
    """Faults, objects and counters are at hand over the pipe."""
    scene_id = process.call("scenes")[0]
    link = process.call("link", scene_id=scene_id)
    process.call("replace_by_ramp", scene_id=scene_id, size_bytes=1000, seed=3)
    assert len(ask(link).body) == 1000
    process.call("add_fault", name="not-found", endpoint="object", count=1)
    assert ask(link).status == 404
    assert process.call("counts")["object"] == 2
    assert [r["status"] for r in process.call("requests", endpoint="object")] == [200, 404]
    process.call("clear_journal")
    assert process.call("counts") == {}
    process.call("stop_listening", sides=["store"])
    with pytest.raises(ConnectionRefusedError):
        ask(link)
    process.call("resume_listening", sides=["store"])
    assert ask(link).status == 200
    process.call("set_line", side="store", latency_s=0.0, bytes_per_s=None)
    assert process.call("leaks") == []
    assert process.call("environment") == process.environment


def test_it_says_what_it_does_not_understand(process: DemoProcess) -> None:
    """A wrong order is an error for the one who gave it, and does no harm."""
    for order in ({"do": "dance"}, {"do": "add_fault"}, {"do": "link", "scene_id": "none"}):
        with pytest.raises(ValueError, match="Error"):
            process.call(**order)
    assert process.call("environment") == process.environment
    assert "dance" not in COMMANDS


def test_it_ends_on_stop() -> None:
    """After the context the process is gone, and a command to it fails with that reason."""
    with DemoProcess(arguments=SAMPLE) as process:
        pid = process.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unreachable):
        process.call("counts")
    process.stop()


def test_it_ends_when_its_parent_is_killed() -> None:
    """Nothing is left behind by a parent that had no chance to clean up."""
    code = (
        "from satfs.demo.process import DemoProcess\n"
        "import time\n"
        "p = DemoProcess(arguments=('--catalogue=sample',))\n"
        "p.start(); print(p.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # ended; the process that inherited it has not waited for it yet
        time.sleep(0.05)
    pytest.fail("the origin outlived its parent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_alone_it_ends_on_a_signal(number: signal.Signals) -> None:
    """As a program it prints one line, serves, and ends with status 0 upon a signal.

    A shell starts a program in the background with SIGINT ignored.
    """
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command += [sys.executable, "-m", "satfs.demo", *SAMPLE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as alone:
        assert alone.stdout is not None
        assert "SATFS_API_URL" in alone.stdout.readline()
        alone.send_signal(number)
        assert alone.wait(10) == 0


def test_drawing_ends_with_the_parent_and_leaves_nothing(tmp_path: Path) -> None:
    """Before the origin serves, too: whoever has started it may be ended while it draws."""
    command = [sys.executable, "-m", "satfs.demo", "--control", "--large-mb=1"]
    with subprocess.Popen(
        [*command, f"--data-dir={tmp_path}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        while not list(tmp_path.glob(".*/*")):
            assert child.poll() is None
            time.sleep(0.01)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 0
        assert child.stdout is not None
        assert child.stdout.read() == b"", "it ended before it served"
    assert list(tmp_path.iterdir()) == []


def test_failure_to_start_is_told() -> None:
    """The origin's errors reach the program that started it."""
    with (
        pytest.raises(Unreachable, match="invalid choice"),
        DemoProcess(arguments=("--catalogue=x",)),
    ):
        pass


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the demo's libraries the message says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"install satfs\[demo\]"):
        DemoProcess().start()
