"""`satfs watch`: each publication is reported once, to people and to programs."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Program
from cli.mounts import TASK, Mounted, vendor

from satfs.demo.catalogue import make_capture, make_scene
from satfs.demo.sample import sample_scene

pytestmark = pytest.mark.mounts

HOOK = """\
import json, os, sys
event = json.load(sys.stdin)
facts = {name: value for name, value in os.environ.items() if name.startswith("WATCH_")}
with open(sys.argv[1], "a") as file:
    print(json.dumps([event, facts, sys.argv[2:]]), file=file)
sys.exit(os.path.exists(sys.argv[1] + ".fail"))
"""


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return an account that is not mounted."""
    with vendor(satfs, place, tmp_path / "cache") as mounted:
        yield mounted


@pytest.fixture
def hook(tmp_path: Path) -> tuple[str, Path]:
    """Return a command that writes the events it gets into a file, and the file."""
    (tmp_path / "hook.py").write_text(HOOK)
    written = tmp_path / "written by $(a watch)"
    return (
        f"{sys.executable} {tmp_path}/hook.py '{written}' 'with; $(blanks) `and` \"quotes\"'",
        written,
    )


def publish(aleph: Mounted, capture: str, *scenes: Any) -> None:
    aleph.origin.catalogue.add_capture(TASK, make_capture(capture, scenes))


def events_in(written: Path) -> list[Any]:
    return (
        [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    )


@pytest.mark.parametrize("is_mounted", [False, True])
def test_what_is_published_is_told_once(aleph: Mounted, is_mounted: bool) -> None:
    """`satfs watch` reports each publication once, over all runs; the first run only remembers."""
    target: tuple[object, ...] = ()
    if is_mounted:
        aleph.mount("-o", "listing_ttl_s=0.1")
        target = (aleph.place,)
    watch = ("watch", "--once", "--json", *target)
    assert aleph.lines(*watch) == []
    publish(aleph, "cap-new", sample_scene(1, 1))
    time.sleep(0.2)

    events = aleph.lines(*watch)

    assert [(each["event"], each["capture_id"]) for each in events] == [
        ("capture", "cap-new"),
        ("scene", "cap-new"),
    ]
    assert {each["task_id"] for each in events} == {TASK}
    assert events[1]["record"]["productname"] == "L1D"
    if is_mounted:
        assert (Path(events[1]["path"]) / "scene.json").exists()
    else:
        assert "path" not in events[1]
    assert aleph.lines(*watch) == []


def test_a_scene_that_comes_later_and_a_status_that_changes_are_told(aleph: Mounted) -> None:
    task = aleph.origin.catalogue.task(TASK)
    assert task is not None
    published, planned = task.captures[0], task.captures[2]
    assert not planned.is_published
    aleph.program("watch", "--once", TASK)
    aleph.origin.catalogue.add_scene(published.capture_id, make_scene("late"))
    aleph.origin.catalogue.set_status(planned.capture_id, "published")

    shown = aleph.program("watch", "--once", TASK).stdout

    assert f"capture  {planned.capture_id}  (task {TASK})" in shown
    assert f"scene    late  (task {TASK})" in shown
    assert len(shown.splitlines()) == 2


def test_a_single_capture_can_be_watched(aleph: Mounted) -> None:
    task = aleph.origin.catalogue.task(TASK)
    assert task is not None
    capture = task.captures[0].capture_id
    assert aleph.lines("watch", "--once", "--json", capture) == []
    aleph.origin.catalogue.add_scene(capture, make_scene("late"))

    (event,) = aleph.lines("watch", "--once", "--json", capture)

    assert (event["event"], event["scene_id"]) == ("scene", "late")


def test_a_capture_can_be_watched_before_it_is_published(aleph: Mounted) -> None:
    """Its publication is reported, and then each of its scenes."""
    path = f"tasks/{TASK}/cap-planned"
    aleph.origin.catalogue.add_capture(
        TASK, make_capture("cap-planned", [sample_scene(1, 1)], status="planned")
    )
    assert aleph.lines("watch", "--once", "--json", path) == []
    aleph.origin.catalogue.set_status("cap-planned", "published")

    events = aleph.lines("watch", "--once", "--json", path)

    assert [each["event"] for each in events] == ["capture", "scene"]
    assert aleph.lines("watch", "--once", "--json", path) == []


def test_a_command_is_told_by_variables_and_json_and_never_by_a_shell(
    aleph: Mounted, hook: tuple[str, Path]
) -> None:
    """An id may hold anything; words of the command stay as they are."""
    command, written = hook
    hostile = "cap; $(touch pwned) `touch pwned`\n'\""
    aleph.program("watch", "--once", "--exec", command)
    publish(aleph, hostile)

    done = aleph.program("watch", "--once", "--exec", command)

    assert done.returncode == 0, done.stderr
    ((record, facts, words),) = events_in(written)
    assert facts == {"WATCH_EVENT": "capture", "WATCH_TASK_ID": TASK, "WATCH_CAPTURE_ID": hostile}
    assert record["capture_id"] == hostile
    assert words == ['with; $(blanks) `and` "quotes"']
    assert not list(aleph.program.directory.rglob("pwned"))


def test_a_command_is_given_no_secret(aleph: Mounted, tmp_path: Path) -> None:
    """Neither secrets nor settings of satfs; the rest of the environment stays."""
    written = tmp_path / "environment"
    command = f"sh -c 'env > {written}'"
    aleph.program("watch", "--once", "--exec", command)
    publish(aleph, "capture-1")

    done = aleph.program("watch", "--once", "--exec", command, MINE="stays")

    assert done.returncode == 0, done.stderr
    given = written.read_text()
    assert "SATFS_" not in given
    assert aleph.origin.environment()["SATFS_CLIENT_SECRET"] not in given
    assert {"MINE=stays", "WATCH_CAPTURE_ID=capture-1"} <= set(given.splitlines())


def test_a_state_file_is_not_written_through_a_link(aleph: Mounted, tmp_path: Path) -> None:
    """A user who may write to its directory cannot lead it to another file."""
    target = tmp_path / "target"
    target.write_text("precious")
    state = tmp_path / "shared" / "state.json"
    state.parent.mkdir(mode=0o777)
    for name in ("state.json.new", f".state.json.{os.getpid()}"):
        (state.parent / name).symlink_to(target)

    done = aleph.program("watch", "--once", "--state", state)

    assert done.returncode == 0, done.stderr
    assert target.read_text() == "precious"
    assert state.is_file()
    assert not state.is_symlink()
    (state.parent / "state.json.lock").unlink()
    (state.parent / "state.json.lock").symlink_to(tmp_path / "made by a link")
    assert aleph.program("watch", "--once", "--state", state).returncode == 2
    assert not (tmp_path / "made by a link").exists()


def test_what_a_command_failed_for_is_told_it_again(aleph: Mounted, hook: tuple[str, Path]) -> None:
    command, written = hook
    aleph.program("watch", "--once", "--exec", command)
    publish(aleph, "cap-new")
    refuse = written.with_name(f"{written.name}.fail")
    refuse.touch()

    failed = aleph.program("watch", "--once", "--exec", command)
    refuse.unlink()
    done = aleph.program("watch", "--once", "--exec", command)
    aleph.program("watch", "--once", "--exec", command)

    assert failed.returncode == 1
    assert "failed with 1" in failed.stderr
    assert done.returncode == 0
    assert len(events_in(written)) == 2


def test_a_watch_goes_on_until_it_is_ended(aleph: Mounted) -> None:
    """Over a network that goes and comes back."""
    process = aleph.program.start(
        *("watch", "--json", "--interval", "1"), SATFS_METADATA_DEADLINE_S="2"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert "later ones are reported" in process.stderr.readline()
    aleph.origin.stop_listening()
    assert "The watch continues." in process.stderr.readline()
    publish(aleph, "cap-new")
    aleph.origin.resume_listening()
    assert json.loads(process.stdout.readline())["capture_id"] == "cap-new"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_two_watches_of_the_same_are_told_apart(aleph: Mounted, tmp_path: Path) -> None:
    """Each event would be reported by one of them only."""
    first = aleph.program.start("watch", "--interval", "60")
    assert first.stderr is not None
    assert "later ones are reported" in first.stderr.readline()

    refused = aleph.program("watch", "--once")
    beside = aleph.program("watch", "--once", "--state", tmp_path / "mine")
    first.terminate()
    first.communicate(timeout=10)

    assert refused.returncode == 2
    assert "--state" in refused.stderr
    assert beside.returncode == 0
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600


def test_a_state_that_is_none_is_not_overwritten(aleph: Mounted, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes")

    done = aleph.program("watch", "--once", "--state", tmp_path / "notes")

    assert done.returncode == 2
    assert "no record of what" in done.stderr
    assert (tmp_path / "notes").read_text() == "my notes"


@pytest.mark.parametrize("command", ["'", "", "no-such-program-anywhere"])
def test_a_command_that_cannot_be_is_told(aleph: Mounted, command: str) -> None:
    aleph.program("watch", "--once")
    publish(aleph, "cap-new")
    done = aleph.program("watch", "--once", "--exec", command)
    assert done.returncode == 2
    assert "--exec" in done.stderr


def test_nobody_to_ask_fails_a_single_look(aleph: Mounted) -> None:
    aleph.program("watch", "--once")
    aleph.origin.stop_listening()
    done = aleph.program("watch", "--once", SATFS_METADATA_DEADLINE_S="2")
    assert done.returncode == 4
