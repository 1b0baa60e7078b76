"""`satfs prefetch`, `pin` and `unpin` through the real program, a real mount and a vendor."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Program
from cli.mounts import OTHER_TASK, TASK, Mounted, read_all, vendor
from fakes.processes import wait_until

from satfs.cli.commands import pin
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.errors import BadMountpoint
from satfs.mountpoints import Mounted as KernelMount

pytestmark = pytest.mark.mounts

MIB = 1024 * 1024


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return a mounted account with the small catalogue."""
    with vendor(satfs, place, tmp_path / "cache") as mounted:
        mounted.mount()
        yield mounted


def large(*sizes_mib: int) -> Catalogue:
    """Return a task with a scene for each size, whose zip (no zip at all) has that size."""
    scenes = [
        make_scene(f"scene-{n}", [make_delivery(f"scene-{n}", RampContent(size * MIB, n))])
        for n, size in enumerate(sizes_mib)
    ]
    return Catalogue([make_task("1", [make_capture("cap", scenes)])])


@pytest.mark.slow
def test_a_task_that_was_prefetched_is_there_without_network(aleph: Mounted) -> None:
    """Prefetched listings, sidecars, files and members of zips are read without network."""
    task = aleph.place / "tasks" / TASK
    done = aleph.program("prefetch", task)
    assert (done.returncode, done.stdout) == (0, "Available offline: 10 files, 228.1 kB.\n")

    aleph.origin.stop_listening()
    here = read_all(task)
    aleph.unmount()
    aleph.mount("--offline", "-o", "metadata_deadline_s=5")
    again = read_all(task)
    names = os.listdir(aleph.place / "tasks")

    assert again == here
    assert sorted(names) == [OTHER_TASK, TASK, "341290", "catalog.json"]
    zips = {name: data for name, data in again.items() if name.endswith(".zip")}
    assert len(zips) == 5
    for name, data in zips.items():
        assert data == bytes(aleph.origin.catalogue.content(Path(name).parent.name).read(0, 10**9))
    assert sum("contents/rasters" in name for name in again) == 15


def test_what_is_there_is_not_fetched_again(aleph: Mounted) -> None:
    """A prefetch that was ended goes on where it was; one that is done costs no bytes."""
    task = aleph.place / "tasks" / TASK
    aleph.program("prefetch", task)
    aleph.origin.journal.clear()

    done = aleph.program("prefetch", task)

    assert done.returncode == 0
    assert aleph.origin.bytes_sent("object") == 0


def test_progress_is_told_as_json_a_line_for_each_event(aleph: Mounted) -> None:
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))

    messages = aleph.lines("prefetch", "--json", scene)

    assert messages[0]["event"] == "found"
    ended = [each for each in messages if each["event"] == "ended"]
    assert {Path(each["path"]).suffix for each in ended} == {".zip", ".png"}
    assert all(each["error"] is None for each in ended)
    assert messages[-1]["event"] == "done"
    assert messages[-1]["bytes_done"] == sum(each["bytes"] for each in ended)
    assert messages[-1]["failed"] == []


def test_only_scenes_that_fulfil_all_conditions_are_fetched(aleph: Mounted) -> None:
    """And of tasks that break one of their own, not even the captures are requested."""
    aleph.origin.journal.clear()
    messages = aleph.lines(
        *("prefetch", "--json", aleph.place),
        *("--where", "task.status=completed", "--where", "productname=L1D"),
        *("--where", "timestamp>=2026-02-01"),
    )

    paths = [each["path"] for each in messages if each["event"] == "ended"]
    assert len(paths) == 4
    assert all(f"tasks/{OTHER_TASK}/" in path and "_L1D_MS_" in path for path in paths)
    assert aleph.origin.counts("captures") == 2
    requested = {Path(request.path).name for request in aleph.origin.journal.of("object")}
    assert requested == {Path(path).name for path in paths}, "of no other scene"


def test_links_in_views_lead_each_command_to_what_they_name(aleph: Mounted) -> None:
    """A view that is prefetched is there offline; "0 files" would read as if it were."""
    views = aleph.place / "views"
    (link,) = (each for each in (views / "by-name").iterdir() if f"({TASK})" in each.name)
    task = aleph.place / "tasks" / TASK

    below = aleph.lines("prefetch", "--json", link)[-1]
    conditions = ("--where", "productname=L1D", "--where", "task.status=completed")
    chosen = aleph.lines("prefetch", "--json", *conditions, views / "by-name")[-1]
    listing = aleph.query("ls", "--json", link)
    refreshed = aleph.program("refresh", link)
    verified = aleph.program("verify", link)

    assert below["files"] == 10
    assert chosen == aleph.lines("prefetch", "--json", *conditions, aleph.place / "tasks")[-1]
    assert chosen["files"] > 0
    assert listing["entries"] == aleph.query("ls", "--json", task)["entries"]
    selected, expected = (
        {entry["id"] for entry in aleph.query("ls", "--json", *conditions, path)["entries"]}
        for path in (views / "by-name", task.parent)
    )
    assert selected == expected
    assert selected
    assert refreshed.stdout.startswith(f"{task}: up to date")
    assert verified.stdout.startswith("Verified: 10 files")


def test_what_satfs_makes_is_no_id_of_the_vendors(aleph: Mounted) -> None:
    aleph.origin.journal.clear()
    for name in ("README.txt", "views", "views/by-name"):
        done = aleph.program("info", aleph.place / name)
        assert done.returncode == 1
        assert f"{name} is made by satfs" in done.stderr
    assert not [each for each in aleph.origin.journal.of() if "README" in each.path]


def test_members_of_a_zip_alone_can_be_fetched(aleph: Mounted) -> None:
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))
    rasters = scene / "contents" / "rasters"

    messages = aleph.lines("prefetch", "--json", rasters)
    aleph.origin.stop_listening()

    paths = [each["path"] for each in messages if each["event"] == "ended"]
    assert sorted(Path(path).name for path in paths) == sorted(os.listdir(rasters))
    assert read_all(rasters)


def test_what_would_not_fit_is_not_begun(satfs: Program, place: Path, tmp_path: Path) -> None:
    """Files that would not fit into the cache are not begun; the message names the remedy."""
    with vendor(satfs, place, tmp_path / "cache", large(6, 6)) as aleph:
        aleph.mount(SATFS_CACHE_BYTES="10MB")
        done = aleph.program("prefetch", place / "tasks")
        assert done.returncode == 7
        assert "do not fit" in done.stderr
        assert "--cache-size" in done.stderr
        assert aleph.origin.bytes_sent("object") < MIB


def test_without_a_disk_nothing_can_be_kept(satfs: Program, place: Path, tmp_path: Path) -> None:
    with vendor(satfs, place, tmp_path / "cache") as aleph:
        aleph.mount(SATFS_CACHE_BYTES="0")
        for command in ("prefetch", "pin"):
            done = aleph.program(command, place / "tasks" / TASK)
            assert done.returncode == 7
            assert "no cache on disk" in done.stderr


def test_a_store_out_of_reach_is_a_matter_of_the_network(
    satfs: Program, place: Path, tmp_path: Path
) -> None:
    """Each file that failed is named, and the exit code says why; what has come stays."""
    with vendor(satfs, place, tmp_path / "cache") as aleph:
        aleph.mount("-o", "read_deadline_s=1")
        scene = next((place / "tasks" / TASK).glob("*/*_L1C_*"))
        os.listdir(scene)
        aleph.origin.stop_listening("store")

        done = aleph.program("prefetch", scene)

        assert done.returncode == 4
        # The preview came as a whole when its size was learnt.
        assert done.stderr.count("Note: tasks/") == 1
        assert done.stdout == "Available offline: 1 file, 78 B. 1 file failed.\n"
        aleph.origin.resume_listening("store")
        # It is requested again when it has been away for a moment.
        wait_until(lambda: aleph.program("prefetch", scene).returncode == 0, 30)


def test_a_path_that_is_not_there_is_told(aleph: Mounted) -> None:
    done = aleph.program("prefetch", aleph.place / "tasks" / "7")

    assert done.returncode == 1
    assert "there is no tasks/7" in done.stderr
    assert "satfs ls" in done.stderr


@pytest.mark.parametrize("command", ["prefetch", "pin", "unpin", "verify", "refresh"])
def test_a_path_elsewhere_is_told_with_where_mounts_are(aleph: Mounted, command: str) -> None:
    done = aleph.program(command, "/usr")

    assert done.returncode == 5
    assert "/usr is not on a satfs mount" in done.stderr
    assert str(aleph.place) in done.stderr


def test_a_condition_that_is_none_is_refused_with_an_example(aleph: Mounted) -> None:
    done = aleph.program("prefetch", aleph.place, "--where", "cloudless")

    assert done.returncode == 2
    assert "productname=L1D" in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_it_and_keeps_what_has_come(
    satfs: Program, place: Path, tmp_path: Path
) -> None:
    with vendor(satfs, place, tmp_path / "cache", large(40)) as aleph:
        aleph.mount(SATFS_WORKERS="0")
        aleph.origin.store_line.bytes_per_s = 4 * MIB
        process = aleph.program.start("prefetch", "--json", place / "tasks")
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "moved":
                break
        os.killpg(process.pid, 2)
        process.communicate(timeout=10)
        assert process.returncode == 130
        aleph.origin.store_line.bytes_per_s = None
        assert aleph.origin.journal.wait_until_idle()
        aleph.origin.journal.clear()
        assert aleph.program("prefetch", place / "tasks").returncode == 0
        assert aleph.origin.bytes_sent("object") < 40 * MIB


# -- pins ------------------------------------------------------------------------------------------


def test_what_is_pinned_stays_when_the_cache_is_full(
    satfs: Program, place: Path, tmp_path: Path
) -> None:
    """Pinned files stay when reads of more than fits evict the rest."""
    with vendor(satfs, place, tmp_path / "cache", large(4, 4, 4, 4)) as aleph:
        aleph.mount(SATFS_CACHE_BYTES="12MB")
        done = aleph.program("pin", place / "scenes" / "scene-0")
        assert (done.returncode, done.stdout) == (0, "Pinned: 1 file, 4.2 MB.\n")
        for n in (1, 2, 3):
            (place / "scenes" / f"scene-{n}" / f"scene-{n}.zip").read_bytes()
        held = {
            each["label"]: each["held_bytes"]
            for each in aleph.query("cache", "info", "--json")["objects"]
        }
        assert held["scene-0/delivery_zip"] == 4 * MIB
        assert held.get("scene-1/delivery_zip", 0) < 4 * MIB


def test_pins_are_listed_with_a_mount_and_without(aleph: Mounted) -> None:
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))
    assert "Nothing is pinned." in aleph.program("pin").stdout
    aleph.program("pin", scene)

    shown = aleph.program("pin").stdout
    (with_mount,) = (
        each
        for each in aleph.query("pin", "--json")["caches"]
        if each["cache_dir"] == aleph.program.environment["SATFS_CACHE_DIR"]
    )
    aleph.unmount()
    (without,) = (
        each
        for each in aleph.query("pin", "--json")["caches"]
        if each["cache_dir"] == aleph.program.environment["SATFS_CACHE_DIR"]
    )

    assert f"{scene.name}/delivery_zip" in shown
    assert "2 files" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert {each["label"] for each in with_mount["pinned"]} == {
        f"{scene.name}/delivery_zip",
        f"{scene.name}/preview",
    }
    assert without["pinned"] == with_mount["pinned"]


def test_a_pin_can_wait_for_its_content(aleph: Mounted) -> None:
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))

    done = aleph.program("pin", "--no-fetch", scene)

    assert done.returncode == 0
    pinned = [each for cache in aleph.query("pin", "--json")["caches"] for each in cache["pinned"]]
    (zip_,) = (each for each in pinned if each["label"].endswith("delivery_zip"))
    assert zip_["held_bytes"] < zip_["size_bytes"]


def test_what_is_unpinned_is_named(aleph: Mounted) -> None:
    task = aleph.place / "tasks" / TASK
    scene = next(task.glob("*/*_L1C_*"))
    aleph.program("pin", task)

    one = aleph.query("unpin", "--json", scene)
    rest = aleph.program("unpin", task)

    assert {each["label"].partition("/")[0] for each in one["unpinned"]} == {scene.name}
    assert rest.stdout.startswith("No longer pinned: 8 files")
    assert "Nothing is pinned." in aleph.program("pin").stdout


def test_all_can_be_unpinned_without_a_mount(aleph: Mounted) -> None:
    aleph.program("pin", aleph.place / "tasks" / TASK)
    aleph.unmount()

    done = aleph.program("unpin", "--all")

    assert (done.returncode, done.stdout.partition(",")[0]) == (0, "No longer pinned: 10 files")
    assert aleph.program("unpin", "--all", SATFS_CACHE_DIR="none").returncode == 0
    assert aleph.program("unpin").returncode == 2


def test_a_replaced_file_is_pinned_in_its_new_version_only(aleph: Mounted) -> None:
    """Blocks that no program can read any more must not fill the cache for ever."""
    scene = next((aleph.place / "tasks" / TASK).glob("*/*_L1C_*"))
    aleph.program("pin", scene)
    aleph.origin.catalogue.replace(scene.name, b"x" * 300_000)
    aleph.program("refresh", scene)

    done = aleph.program("pin", scene)

    assert done.returncode == 0, done.stderr
    pinned = [each for cache in aleph.query("pin", "--json")["caches"] for each in cache["pinned"]]
    sizes = [each["size_bytes"] for each in pinned if each["label"].endswith("/delivery_zip")]
    assert sizes == [300_000]


def test_nothing_is_written_that_a_terminal_of_80_columns_breaks(aleph: Mounted) -> None:
    """Bars, a total, and in the end one line; control sequences only."""
    front, back = os.openpty()
    process = subprocess.Popen(
        aleph.program.command("prefetch", aleph.place / "tasks" / TASK),
        env=aleph.program.environ(TERM="xterm", COLUMNS="80"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=back,
        text=True,
    )
    os.close(back)
    shown = b""
    try:
        while piece := os.read(front, 65536):
            shown += piece
    except OSError:  # the other side is closed (pty(7))
        pass
    os.close(front)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out == "Available offline: 10 files, 228.1 kB.\n"
    text = shown.decode()
    assert "of 10 files" in text
    assert ".zip" in text


def test_the_pins_of_all_mounts_are_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One mount that does not answer costs its own time limit, and the others report theirs."""
    everybody_is_asked = threading.Barrier(3)

    def result_of(mounted: KernelMount, do: str, given: object) -> dict[str, object]:
        everybody_is_asked.wait(10)
        if mounted.mountpoint == Path("/silent"):
            raise BadMountpoint("the mount at /silent does not answer")
        return {"cache_dir": str(mounted.mountpoint), "pinned": []}

    places = [Path("/one"), Path("/silent"), Path("/two")]
    mounts = [KernelMount(place, "fuse.satfs", "x:", (0, 1), frozenset()) for place in places]
    monkeypatch.setattr(pin, "satfs_mounts", lambda: mounts)
    monkeypatch.setattr(pin, "result_of", result_of)
    monkeypatch.setenv("SATFS_CACHE_DIR", str(tmp_path))

    found = [cache["cache_dir"] for cache in pin.pinned_anywhere()]

    assert found == ["/one", "/two", str(tmp_path)]
    assert "/silent does not answer" in capsys.readouterr().err
