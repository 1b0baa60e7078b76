"""`satfs ls` and `satfs info`: the vendor's records, with a mount and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Program
from cli.mounts import OTHER_TASK, TASK, Mounted, vendor

pytestmark = pytest.mark.mounts


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return an account that is not mounted."""
    with vendor(satfs, place, tmp_path / "cache") as mounted:
        yield mounted


def ids(listing: dict[str, list[dict[str, str]]]) -> list[str]:
    return [each["id"] for each in listing["entries"]]


def test_everything_can_be_walked_to_without_a_mount(aleph: Mounted) -> None:
    """From all tasks to the files of a scene, by nothing but the ids that were listed."""
    tasks = aleph.query("ls", "--json")
    captures = aleph.query("ls", "--json", TASK)
    capture = next(
        each["id"] for each in captures["entries"] if each["record"]["status"] == "published"
    )
    scenes = aleph.query("ls", "--json", capture)
    files = aleph.query("ls", "--json", ids(scenes)[0])

    assert ids(tasks) == [TASK, "341290", OTHER_TASK]
    assert len(ids(captures)) == 5
    assert len(ids(scenes)) == 3
    assert [each["attachment"] for each in files["entries"]] == ["delivery_zip", "preview"]
    assert files["entries"][0]["size_bytes"] is None, "nobody has asked the store"


def test_paths_of_the_tree_are_as_good_as_ids(aleph: Mounted) -> None:
    capture = aleph.query("ls", "--json", TASK)["entries"][0]["id"]

    by_path = aleph.query("ls", "--json", f"tasks/{TASK}/{capture}")

    assert by_path["entries"] == aleph.query("ls", "--json", capture)["entries"]
    assert by_path["entries"] == aleph.query("ls", "--json", f"captures/{capture}")["entries"]


def test_a_mount_answers_the_same_from_memory(aleph: Mounted) -> None:
    """And knows the sizes of what was looked at, and how much of it is kept."""
    without = aleph.query("ls", "--json", TASK)
    aleph.mount()
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))
    next(scene.glob("*.zip")).read_bytes()
    aleph.origin.journal.clear()

    assert aleph.query("ls", "--json", scene.parents[1])["entries"] == without["entries"]
    files = {each["attachment"]: each for each in aleph.query("ls", "--json", scene)["entries"]}

    assert files["delivery_zip"]["size_bytes"] == next(scene.glob("*.zip")).stat().st_size
    assert files["delivery_zip"]["held_bytes"] == files["delivery_zip"]["size_bytes"]
    assert aleph.origin.counts() == 0


def test_tables_are_for_people_and_fit_their_terminal(aleph: Mounted) -> None:
    tasks = aleph.program("ls").stdout
    capture = aleph.query("ls", "--json", TASK)["entries"][0]["id"]
    scenes = aleph.program("ls", capture).stdout

    assert "Harbour monitoring" in tasks
    assert "completed" in tasks
    assert "L1D_SR" in scenes
    assert max(map(len, (tasks + scenes).splitlines())) <= 80


def test_captures_have_the_dates_of_their_scenes_the_latest_last(aleph: Mounted) -> None:
    """As far as the scenes have been listed: a date costs no request."""
    captures = [
        each["id"]
        for each in aleph.query("ls", "--json", TASK)["entries"]
        if each["record"]["status"] == "published"
    ]
    assert "taken" not in aleph.program("ls", TASK).stdout
    for capture in captures:
        aleph.query("ls", "--json", capture)

    lines = aleph.program("ls", TASK).stdout.splitlines()

    dates = [line[48:].strip() for line in lines[1:]]
    known = [date for date in dates if date]
    assert lines[0].split() == ["id", "status", "taken"]
    assert len(known) == len(captures)
    assert dates[: len(known)] == sorted(known)


def test_a_record_is_shown_as_the_api_sends_it(aleph: Mounted) -> None:
    task = aleph.origin.catalogue.task(TASK)
    assert task is not None

    record = aleph.query("info", "--json", TASK)
    shown = aleph.program("info", TASK).stdout

    assert record == {
        "kind": "task",
        "id": TASK,
        "path": f"tasks/{TASK}",
        "record": task.record,
    }
    assert "Harbour monitoring" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_scene_is_shown_with_its_files_and_without_links(aleph: Mounted) -> None:
    aleph.mount()
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))

    record = aleph.query("info", "--json", scene)
    shown = aleph.program("info", scene.name).stdout

    assert record["path"] == str(aleph.place / "scenes" / scene.name)
    assert Path(record["path"]).is_dir()
    assert {each["name"] for each in record["files"]} == {
        name for name in os.listdir(scene) if name.endswith((".zip", ".png"))
    }
    assert "X-Amz" not in shown + str(record)
    assert f"{scene.name}.zip" in shown
    refused = aleph.program("ls", "--profile", "harbour", scene)
    assert refused.returncode == 2
    assert "a mount has its own" in refused.stderr


def test_without_network_what_mounts_have_kept_is_shown_with_its_age(aleph: Mounted) -> None:
    aleph.query("ls", "--json", TASK)
    aleph.origin.stop_listening()

    done = aleph.program("ls", TASK, SATFS_METADATA_DEADLINE_S="2")
    shown = aleph.program("ls", "--json", "tasks", SATFS_METADATA_DEADLINE_S="2")

    assert done.returncode == 0
    assert "The API could not be reached: this is the listing of" in done.stderr
    assert "published" in done.stdout
    assert shown.returncode == 4, "all tasks were never listed"


def test_an_id_of_nothing_is_told(aleph: Mounted) -> None:
    for command in ("ls", "info"):
        done = aleph.program(command, "no-such-thing")
        assert done.returncode == 1
        assert "no task, capture or scene has the id 'no-such-thing'" in done.stderr


def test_a_path_that_is_no_mount_is_not_taken_for_an_id(aleph: Mounted) -> None:
    done = aleph.program("ls", "/usr")

    assert done.returncode == 5
    assert "not on a satfs mount" in done.stderr

    (aleph.program.directory / "aleph").mkdir()
    below = aleph.program("ls", "aleph/tasks/341271")

    assert below.returncode == 5
    assert "aleph/tasks/341271 is not on a satfs mount" in below.stderr


def test_refused_credentials_are_told_without_them(aleph: Mounted) -> None:
    done = aleph.program("ls", SATFS_CLIENT_SECRET="5eedfeed-never-shown")

    assert done.returncode == 3
    assert "5eedfeed" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_an_empty_listing_is_no_silence(aleph: Mounted) -> None:
    """A mistaken field in a condition, for one: nothing has it."""
    none = aleph.program("ls", "--where", "status=completed")
    machine = aleph.program("ls", "--json", "--where", "status=completed")
    empty = aleph.program("ls", "341290")

    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr.endswith("Note: No scene fulfils the conditions.\n")
    assert "Note" not in machine.stderr
    assert empty.stdout == ""
    assert empty.stderr.endswith("Note: The vendor lists no captures here.\n")
