"""Through the kernel: what each look at the tree costs at the vendor."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from fakes.processes import wait_until
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount

from satfs.content.fetch.first_reads import BEGINNING_BYTES
from satfs.content.fetch.tails import TAIL_BYTES
from satfs.demo.sample import many_scenes, many_tasks
from satfs.demo.server import DemoOrigin
from satfs.tree.sizes_ahead import MAX_SCENES_AHEAD

#: For a mount's process: no connection counts as silent. That is judged by the clock: on a busy
#: machine, or while the origin holds responses back, requests would be sent again and be counted.
WITHOUT_SILENCE = """
from satfs.net import host_limit
host_limit.MIN_SILENCE_S = host_limit.UNKNOWN_SILENCE_S = 600.0
"""


@pytest.fixture
def mount_it(mount_it: MountIt) -> MountIt:
    return partial(mount_it, sabotage=WITHOUT_SILENCE)


@pytest.fixture
def mount(mount_it: MountIt, origin: DemoOrigin) -> RealMount:
    """Return a mount without `contents/`, whose costs have tests of their own."""
    return mount_it(origin, contents="off")


def all_requests(origin: DemoOrigin) -> dict[str, int]:
    return {name: n for name, n in origin.journal.counts().items() if n}


def test_listing_a_thousand_tasks(start_origin: StartOrigin, mount_it: MountIt) -> None:
    """`ls tasks` is one request per page; again within the TTL none; `stat` of the listed none."""
    origin = start_origin(many_tasks(1000))
    mount = mount_it(origin, page_limit=100)
    origin.journal.clear()
    names = os.listdir(mount.path / "tasks")
    assert len(names) == 1001  # and catalog.json
    assert all_requests(origin) == {"tasks": 10}
    origin.journal.clear()
    assert sorted(os.listdir(mount.path / "tasks")) == sorted(names)
    for name in names[:50]:
        assert os.stat(mount.path / "tasks" / name).st_nlink == 1
    assert not all_requests(origin)


def test_one_path_does_not_cost_a_listing(start_origin: StartOrigin, mount_it: MountIt) -> None:
    """A look-up of one task requests that task, not all of them."""
    origin = start_origin(many_tasks(1000))
    mount = mount_it(origin, page_limit=100)
    origin.journal.clear()
    assert (mount.path / "tasks/100500").is_dir()
    assert sum(all_requests(origin).values()) == 1


def scene_path(origin: DemoOrigin, mount: RealMount) -> Path:
    task = origin.catalogue.task(341271)
    assert task is not None
    capture = task.captures[0]
    return mount.path / f"tasks/341271/{capture.capture_id}/{capture.scenes[0].scene_id}"


def test_reading_one_scene(origin: DemoOrigin, mount: RealMount) -> None:
    """Each level is one listing; each object one link and its bytes once; then nothing more."""
    scene = scene_path(origin, mount)
    origin.journal.clear()
    names = os.listdir(scene)
    assert len(names) == 5
    seen = all_requests(origin)
    assert seen.pop("object") == 2  # the tails of the zip and of the preview
    assert seen.pop("sign") == 2
    assert seen == {"task": 1, "captures": 1, "scenes": 1}
    origin.journal.clear()
    for name in names:
        (scene / name).read_bytes()
    read = all_requests(origin)
    assert set(read) <= {"object"}
    origin.journal.clear()
    os.listdir(scene)
    for name in names:
        (scene / name).read_bytes()
        (scene / name).stat()
    assert not all_requests(origin)


def zips(origin: DemoOrigin, mount: RealMount) -> list[Path]:
    """Return the deliveries of the first capture."""
    (task,) = origin.catalogue.tasks
    scenes = [scene.scene_id for scene in task.captures[0].scenes]
    place = mount.path / f"tasks/{task.task_id}/{task.captures[0].capture_id}"
    return [place / scene_id / f"{scene_id}.zip" for scene_id in scenes]


def ranges_of_a_look(
    origin: DemoOrigin, path: Path, n_bytes: int, n_ranges: int
) -> list[str | None]:
    """Return the ranges that a `stat` of *path*, or a read of its beginning, requests.

    Waits for *n_ranges* of them, since the tail may come after what was read.
    """
    origin.journal.clear()
    if n_bytes:
        with path.open("rb", buffering=0) as file:
            assert len(file.read(n_bytes)) == n_bytes
    else:
        path.stat()
    deadline_s = time.monotonic() + 10
    while len(origin.journal.of("object")) < n_ranges and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert origin.journal.wait_until_idle()
    return [request.range for request in origin.journal.of("object")]


@pytest.mark.parametrize("n_bytes", [0, 1])
def test_the_first_bytes_of_a_store_of_which_nothing_is_known_take_one_request(
    start_origin: StartOrigin, mount_it: MountIt, n_bytes: int
) -> None:
    """It may refuse a second connection, so the tail comes when the beginning has come."""
    origin = start_origin(many_scenes(1), store_latency_s=0.1)
    (path,) = zips(origin, mount_it(origin))
    ranges = ranges_of_a_look(origin, path, n_bytes, 2)
    assert ranges[0] == f"bytes=0-{BEGINNING_BYTES - 1}"
    assert f"bytes=-{TAIL_BYTES}" in ranges[1:]  # beside what the kernel reads ahead
    first, second = origin.journal.of("object")[:2]
    assert first.ended_s is not None
    assert first.ended_s <= second.started_s


def test_the_first_bytes_of_a_mount_whose_store_is_known_take_one_round_trip(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """The first block comes in two halves side by side; the tail follows."""
    origin = start_origin(many_scenes(9), store_latency_s=0.1)
    earlier = mount_it(origin)
    with ThreadPoolExecutor(8) as readers:
        list(readers.map(Path.read_bytes, zips(origin, earlier)[1:]))
    earlier.stop()
    ranges = ranges_of_a_look(origin, zips(origin, mount_it(origin))[0], 1, 3)
    assert set(ranges[:2]) == {"bytes=0-8191", "bytes=8192-16383"}
    assert f"bytes=-{TAIL_BYTES}" in ranges[2:]
    first, second = origin.journal.of("object")[:2]
    assert first.ended_s is not None
    assert second.started_s < first.ended_s


@pytest.mark.parametrize("has_listed", [False, True])
def test_the_first_file_of_a_mount_has_its_link_while_its_scene_is_looked_up(
    start_origin: StartOrigin, mount_it: MountIt, has_listed: bool
) -> None:
    """The link does not depend on the record. After a listing a walk may only look."""
    origin = start_origin(many_scenes(1), latency_s=0.1)
    mount = mount_it(origin)
    scene_id = origin.catalogue.tasks[0].captures[0].scenes[0].scene_id
    if has_listed:
        os.listdir(mount.path)
    origin.journal.clear()
    (mount.path / f"scenes/{scene_id}/{scene_id}.zip").stat()
    assert origin.journal.wait_until_idle()
    (scene,), (link,) = origin.journal.of("scene"), origin.journal.of("sign")
    assert scene.ended_s is not None
    assert (link.started_s >= scene.ended_s) == has_listed


def test_what_desktops_poll_costs_nothing(origin: DemoOrigin, mount: RealMount) -> None:
    """A file manager looks up a dozen names per directory, and none causes a request."""
    scene = scene_path(origin, mount)
    os.listdir(scene)
    origin.journal.clear()
    for directory in (mount.path, mount.path / "tasks", scene):
        for name in (".Trash", ".Trash-0", "autorun.inf", ".hidden", ".directory", ".git", "._x"):
            assert not (directory / name).exists()
    os.statvfs(mount.path)
    os.listdir(mount.path)
    assert not all_requests(origin)


def test_a_missing_name_is_asked_for_once(origin: DemoOrigin, mount: RealMount) -> None:
    """The kernel remembers for a while that a name is not there."""
    os.listdir(mount.path / "tasks/341271")
    origin.journal.clear()
    for _ in range(20):
        assert not (mount.path / "scenes/nothing").exists()
    assert sum(all_requests(origin).values()) <= 2


@pytest.mark.parametrize("command", ["ls -lR", "find . -size +1M"])
def test_sizes_of_a_capture_are_learnt_side_by_side(
    start_origin: StartOrigin, mount_it: MountIt, command: str
) -> None:
    """A walk of fifty scenes waits for the links of sixteen together, and requests each once."""
    origin = start_origin(many_scenes(50))
    # Without items: `ls -l` has one made, which reads. The links are held for as long as it takes.
    mount = mount_it(
        origin, contents="off", stac="off", metadata_deadline_s=90, progress_timeout_s=90
    )
    capture = mount.path / "tasks" / "500000" / "many-scenes"
    os.listdir(capture)
    origin.journal.clear()
    # The first two scenes, of two objects each, show that it is a walk.
    held = origin.faults.add("held", "sign", skip=4)
    with subprocess.Popen(command, shell=True, cwd=capture, stdout=subprocess.DEVNULL) as walk:
        wait_until(lambda: held.hits >= 2 * MAX_SCENES_AHEAD, 60)
        origin.faults.remove(held)
    assert walk.returncode == 0
    assert origin.journal.wait_until_idle()
    assert origin.counts("sign") == origin.counts("object") == 100


def test_a_single_scene_causes_no_request_for_another(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """Only who walks from one scene to the next gets sizes ahead."""
    origin = start_origin(many_scenes(50))
    mount = mount_it(origin)
    capture = mount.path / "tasks" / "500000" / "many-scenes"
    scene = sorted(path for path in capture.iterdir() if path.is_dir())[7]
    for _ in range(3):
        os.listdir(scene)
    assert origin.counts("sign") == origin.counts("object") == 2
