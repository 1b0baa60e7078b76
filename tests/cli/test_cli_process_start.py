"""Commands in processes that were given less than a shell gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Program
from cli.mounts import Mounted, vendor

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import BytesContent

pytestmark = pytest.mark.mounts

NAME = "Zürich 日本 Ω"
#: A locale whose encoding holds no more than ASCII, with Python's own remedies for it switched off:
#: what any locale but UTF-8 is, with characters outside it.
NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return an account whose task and scene have names outside of ASCII; it is not mounted."""
    scene = make_scene("scène Ω", [make_delivery("scène Ω", BytesContent(b"bytes"))])
    task = make_task(1, [make_capture("capture", [scene])], task_name=NAME)
    with vendor(satfs, place, tmp_path / "cache", Catalogue([task])) as mounted:
        yield mounted


def run(aleph: Mounted, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        aleph.program.command(*arguments),
        env=aleph.program.environ(**environment),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def test_commands_work_in_a_locale_that_lacks_the_names(aleph: Mounted) -> None:
    """`ls`, `info` and `refresh` name, find and print what the locale has no characters for."""
    aleph.mount()
    scene = next(aleph.place.glob("tasks/*/*/*/*.zip")).parent
    commands: list[tuple[object, ...]] = [
        ("ls",), ("info", "1"), ("ls", scene), ("info", scene),
    ]  # fmt: skip
    wanted = [aleph.program(*command).stdout for command in commands]
    assert NAME in wanted[0] + wanted[1]
    assert [run(aleph, *command, **NARROW) for command in commands] == wanted
    run(aleph, "refresh", scene, **NARROW)


def test_a_stream_of_another_encoding_shows_escapes(aleph: Mounted) -> None:
    """Where `PYTHONIOENCODING` lacks a character, an escape stands for it, and nothing breaks."""
    assert "Z\\xfcrich \\u65e5" in run(aleph, "info", "1", PYTHONIOENCODING="ascii")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_mount_is_made_without_standard_streams(aleph: Mounted, closed: str) -> None:
    """Whichever of descriptors 0 to 2 is closed, the mount comes up and gives right bytes."""
    command = aleph.program.command("mount", aleph.place)
    script = f'exec "$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        env=aleph.program.environ(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert next(aleph.place.glob("tasks/*/*/*/*.zip")).read_bytes() == b"bytes"
    aleph.unmount()


def test_bytes_of_a_path_that_are_no_utf_8_are_printed_as_they_are() -> None:
    """So that a reader of the pipe finds the path; also where Python was told to be strict."""
    code = "from satfs.cli import process_start as p; p.settle_encoding(); print('/mnt/\\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"/mnt/\xff\n", b"")


def test_ctrl_c_during_the_first_imports_is_no_traceback(tmp_path: Path) -> None:
    """They take some tenths of a second, more on a busy machine."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "satfs", "status"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
