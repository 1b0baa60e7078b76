"""Through the kernel: a mount's reports about itself, read by the programs that users read with."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount
from prometheus_client.parser import text_string_to_metric_families

from satfs.demo.server import DemoOrigin
from satfs.introspection.snapshots import GRACE_S

#: A busy machine stops `cp` between its two looks for longer than a moment is kept, now and then.
N_COPIES_TRIED = 5


@pytest.fixture
def mount(mount_it: MountIt, origin: DemoOrigin) -> RealMount:
    return mount_it(origin)


def scene_path(origin: DemoOrigin) -> str:
    task = origin.catalogue.task(341271)
    assert task is not None
    capture = task.captures[0]
    return f"tasks/341271/{capture.capture_id}/{capture.scenes[0].scene_id}"


def the_zip(mount: RealMount, scene: str) -> str:
    return next(name for name in os.listdir(mount.path / scene) if name.endswith(".zip"))


def status(mount: RealMount) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads((mount.path / ".satfs/status.json").read_bytes())
    return shown


def run(*command: object, cwd: Path | None = None) -> bytes:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, cwd=cwd, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def requests(origin: DemoOrigin) -> dict[str, int]:
    return {name: n for name, n in origin.journal.counts().items() if n}


def test_it_is_there_by_name_and_listed_nowhere(mount: RealMount, tmp_path: Path) -> None:
    """`.satfs` is reached by name, and ls, find, rsync and cp -r do not find it."""
    assert sorted(os.listdir(mount.path / ".satfs")) == ["explain", "log", "metrics", "status.json"]
    assert ".satfs" not in os.listdir(mount.path)
    assert b".satfs" not in run("ls", "-la", mount.path)
    found = run("find", mount.path, "-maxdepth", "2")
    assert b"tasks/341271" in found
    assert b".satfs" not in found
    run("cp", "-r", mount.path, tmp_path / "copy")
    assert not (tmp_path / "copy/.satfs").exists()
    if shutil.which("rsync"):
        assert b".satfs" not in run("rsync", "-r", "--list-only", f"{mount.path}/")
    assert not (mount.path / ".satfs/explain/.satfs").exists()
    assert not (mount.path / ".satfs/nothing").exists()


def test_looking_at_it_asks_nobody(origin: DemoOrigin, mount: RealMount) -> None:
    """A mount reports about itself from memory: the vendor gets no request."""
    origin.journal.clear()
    for name in ("status.json", "metrics", "log"):
        (mount.path / ".satfs" / name).read_bytes()
    os.listdir(mount.path / ".satfs/explain")
    assert not requests(origin)


PROGRAMS = (
    ("cat", "{}"),
    ("grep", "", "{}"),
    ("dd", "if={}", "bs=100", "status=none"),
    ("tail", "-c", "+1", "{}"),
    ("head", "-c", "1000000", "{}"),
    ("curl", "-s", "file://{}"),
    ("jq", "-c", ".", "{}"),
    ("cp", "{}", "/dev/stdout"),
)


@pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: command[0])
def test_programs_see_one_moment_as_a_whole(mount: RealMount, command: tuple[str, ...]) -> None:
    """Every program that reads the status gets one moment whole, and another one each time."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    path = mount.path / ".satfs/status.json"
    for _ in range(5):
        (mount.path / "tasks/341271/task.json").read_bytes()  # the record grows
        shown = json.loads(run(*(word.format(path) for word in command)))
        assert shown["mountpoint"] == str(mount.path)
        assert shown["pid"] == mount.process.pid


def copy(source: Path, target: Path, *options: str) -> None:
    """Copy by `cp`, which may find a file replaced only if it took longer than a moment is kept."""
    for _ in range(N_COPIES_TRIED):
        began_s = time.monotonic()
        done = subprocess.run(
            ["cp", *options, source, target],
            capture_output=True, check=False, timeout=60, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        took_s = time.monotonic() - began_s
        if done.returncode == 0:
            return
        assert b"as it was replaced while being copied" in done.stderr, done.stderr.decode()
        assert took_s > GRACE_S, f"torn within {took_s:.3f} s: {done.stderr.decode()}"
    raise AssertionError(f"torn each time: {done.stderr.decode()}")


def test_copies_never_tear(mount: RealMount, tmp_path: Path) -> None:
    """`cp` looks at a name twice, and takes one file for another if the inodes differ."""
    for number in range(60):
        copy(mount.path / ".satfs/status.json", tmp_path / f"{number}")
    for number in range(60):
        assert json.loads((tmp_path / f"{number}").read_bytes())["pid"] == mount.process.pid
    copy(mount.path / ".satfs", tmp_path / "all", "-rT")
    assert (tmp_path / "all/explain/tasks/341271/task.json").read_text()


def test_an_open_file_stays_what_it_was(mount: RealMount) -> None:
    """An open file shows one moment to its end, for as long as it is read."""
    path = mount.path / ".satfs/status.json"
    with path.open("rb", buffering=0) as file:
        beginning = file.read(50)
        size = os.fstat(file.fileno()).st_size
        for _ in range(30):
            json.loads(path.read_bytes())
            subprocess.run(["sleep", "0.1"], check=True)
        whole = beginning + file.read()
        while rest := file.read():
            whole += rest
    assert len(whole) == size
    assert json.loads(whole)["pid"] == mount.process.pid
    assert json.loads(path.read_bytes())["now"] > json.loads(whole)["now"]


def test_the_status_tells_what_is_so(origin: DemoOrigin, mount: RealMount) -> None:
    """Profile, listings, cache, counters and errors are in the status as they are."""
    scene = scene_path(origin)
    zip_path = mount.path / scene / the_zip(mount, scene)
    size = len(zip_path.read_bytes())
    shown = status(mount)
    assert shown["is_online"] is True
    assert shown["why_offline"] is None
    assert shown["profile"] == "default"
    assert shown["source"] == "satfs:default"
    assert 0 < shown["credential"]["token_left_s"] < 86400
    assert shown["links"]["n"] >= 1
    assert shown["links"]["items"][0]["left_s"] > 0
    listed = {(each["kind"], each["id"]) for each in shown["listings"]["items"]}
    assert ("captures", "341271") in listed or ("task", "341271") in listed
    assert shown["listings"]["n_stale"] == 0
    assert shown["cache"]["disk_bytes"] >= size
    assert shown["reading"]["served_bytes"] >= size
    assert shown["requests"]["received_bytes"] > 0
    assert shown["requests"]["api"]["status_200"] > 0
    assert shown["calls"]["asked"]["lookup"] > 0
    assert shown["kernel"]["is_tuned"] == (shown["kernel"]["read_ahead_kb"] is not None)


def test_metrics_are_prometheus_text(mount: RealMount) -> None:
    """The metrics are text that Prometheus' own parser takes."""
    text = (mount.path / ".satfs/metrics").read_text()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert found["satfs_online"].samples[0].value == 1
    assert found["satfs_calls"].type == "counter"
    assert found["satfs_connections_opened"].samples[0].value >= 1
    states = {each.labels["state"] for each in found["satfs_connections"].samples}
    assert states == {"in_use", "idle"}
    assert found["satfs_info"].samples[0].labels["mountpoint"] == str(mount.path)


def test_explaining_a_file_asks_for_nothing(origin: DemoOrigin, mount: RealMount) -> None:
    """An explanation is text in the place of the file, and costs no request for an object."""
    scene = scene_path(origin)
    name = the_zip(mount, scene)
    explained = mount.path / ".satfs/explain" / scene / name
    origin.journal.clear()
    assert "size and version" in explained.read_text()
    assert not requests(origin)
    size = len((mount.path / scene / name).read_bytes())
    subprocess.run(["sleep", "1.1"], check=True)
    text = run("cat", explained).decode()
    assert text.startswith(f"{scene}/{name}\n")
    assert "Opened once" in text
    words = " ".join(text.split())  # lines end before the 80th column
    assert "ranges of bytes" in words or "range of bytes" in words
    assert f"{size / 1e6:.1f} MB" in words or f"{size / 1e3:.1f} kB" in words
    assert "in all" in words


def test_what_a_file_is_made_of_is_explained(origin: DemoOrigin, mount: RealMount) -> None:
    """For each file made from records, STAC files among them, the listing that it is made from."""
    scene = Path(scene_path(origin))
    (mount.path / scene / "scene.json").read_bytes()
    task, capture = scene.parent.parent, scene.parent
    made_of: dict[str | Path, str] = {
        "README.txt": "Made by satfs itself, without a request.",
        "catalog.json": "Made by satfs itself, without a request.",
        "tasks/catalog.json": "Listing: tasks, ",
        task / "captures.json": f"Listing: captures of {task.name}, ",
        task / "collection.json": f"Listing: captures of {task.name}, ",
        capture / "catalog.json": f"Listing: scenes of {capture.name}, ",
        capture / "footprints.geojson": f"Listing: scenes of {capture.name}, ",
        scene / "item.json": f"Listing: scenes of {capture.name}, ",
    }
    for path, words in made_of.items():
        assert words in (mount.path / ".satfs/explain" / path).read_text(), path


def test_an_absolute_path_is_explained_as_well(origin: DemoOrigin, mount: RealMount) -> None:
    """The path of a file as a program has it, behind `.satfs/explain`."""
    scene = scene_path(origin)
    mirror = mount.path / ".satfs/explain"
    file = mount.path / scene / the_zip(mount, scene)
    by_absolute_path = Path(f"{mirror}{file}")

    assert by_absolute_path.read_text().startswith(f"{scene}/{file.name}\n")
    assert sorted(os.listdir(by_absolute_path.parent)) == sorted(os.listdir(mount.path / scene))
    assert mount.path.parts[1] not in os.listdir(mirror)
    assert os.listdir(f"{mirror}{mount.path.parent}") == []
    with pytest.raises(FileNotFoundError):
        Path(f"{mirror}{mount.path.parent}/nothing").stat()


def test_the_mirror_looks_like_the_tree(origin: DemoOrigin, mount: RealMount) -> None:
    """A walk of the mirror requests listings as one of the tree does, and no object."""
    mirror = mount.path / ".satfs/explain"
    origin.journal.clear()
    scene = scene_path(origin)
    names = sorted(os.listdir(mirror / scene))
    requested = requests(origin)
    assert "sign" not in requested
    assert "object" not in requested
    assert names == sorted(os.listdir(mount.path / scene))
    # A file in views/ is made of many objects: there is no one text about it.
    assert {*os.listdir(mirror), "views"} == set(os.listdir(mount.path))
    for name in names:
        if name != "contents":
            assert (mirror / scene / name).read_text().startswith(f"{scene}/{name}\n")
    record = (mirror / scene / "scene.json").read_text()
    assert "no request of its own" in record
    members = sorted(os.listdir(mirror / scene / "contents"))
    assert members == sorted(os.listdir(mount.path / scene / "contents"))


def test_stale_listings_are_marked(
    start_origin: StartOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """A listing that is served though it could not be renewed is marked stale in status.json."""
    origin = start_origin()
    mount = mount_it(
        origin,
        listing_ttl_s=0.2,
        entry_timeout_s=0.1,
        attr_timeout_s=0.1,
        negative_ttl_s=0.2,
        metadata_deadline_s=5,  # a fifth of it is left when the known listing is served
        read_deadline_s=5,
    )
    listed = sorted(os.listdir(mount.path / "tasks"))
    assert status(mount)["listings"]["n_stale"] == 0
    origin.stop_listening()
    deadline_s = time.monotonic() + 15
    while True:  # until the listing is no longer believed, and a response in flight has come
        time.sleep(0.4)
        assert sorted(os.listdir(mount.path / "tasks")) == listed
        shown = status(mount)
        if shown["listings"]["n_stale"] or time.monotonic() > deadline_s:
            break
    assert shown["listings"]["n_stale"] == 1
    (stale,) = (each for each in shown["listings"]["items"] if each["is_stale"])
    assert stale["kind"] == "tasks"
    assert stale["age_s"] > 0.3
    assert shown["is_online"] is False
    assert origin.api_url.removeprefix("http://") in shown["why_offline"]
    explained = (mount.path / ".satfs/explain/tasks/341271/task.json").read_text()
    assert "STALE" in explained
    origin.resume_listening()
    deadline_s = time.monotonic() + 15
    while status(mount)["listings"]["n_stale"] or not status(mount)["is_online"]:
        assert time.monotonic() < deadline_s
        os.listdir(mount.path / "tasks")
        time.sleep(0.3)
    assert status(mount)["why_offline"] is None


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def test_metrics_on_a_port_of_this_machine(
    mount_it: MountIt, origin: DemoOrigin, port: int
) -> None:
    """With `metrics_port` the same metrics are served at 127.0.0.1, and nowhere else."""
    mount = mount_it(origin, metrics_port=port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        assert b"satfs_online 1.0" in response.read()
    assert mount.stop() < 5
    assert mount.process.returncode == 0


def n_accepted(pid: int, port: int) -> int:
    """Return how many connections to *port* a process has accepted (proc(5): /proc/net/tcp)."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    connections = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] != "0A"}
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            name = os.readlink(descriptor)
            found += name.removeprefix("socket:[").removesuffix("]") in connections
    return found


def test_connections_to_the_metrics_port_take_nothing_from_readers(
    mount_it: MountIt, origin: DemoOrigin, port: int
) -> None:
    """A hundred that never finish their request take eight descriptors and no thread."""
    mount = mount_it(origin, metrics_port=port)
    connections = [socket.socket() for _ in range(100)]
    try:
        for each in connections:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        until_s = time.monotonic() + 20
        while n_accepted(mount.process.pid, port) < 8 and time.monotonic() < until_s:
            time.sleep(0.05)
        os.listdir(mount.path)
        assert n_accepted(mount.process.pid, port) == 8
    finally:
        for each in connections:
            each.close()
    foreign = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Host": "evil"})
    with pytest.raises(urllib.error.HTTPError, match="421") as caught:
        urllib.request.urlopen(foreign, timeout=20)
    caught.value.close()


#: The mount takes calls about itself and does not return: no signal can kill the callers.
SITS_ON_IT = """
import satfs.introspection.directory, trio
lookup = satfs.introspection.directory.IntrospectionDirectory.lookup
async def sit(self, name):
    with trio.CancelScope(shield=True):
        await trio.sleep(8)
    return await lookup(self, name)
satfs.introspection.directory.IntrospectionDirectory.lookup = sit
"""


def test_a_stuck_mount_without_a_socket_is_given_up(mount_it: MountIt, origin: DemoOrigin) -> None:
    """`satfs status` ends in seconds: over the socket with the status, through the mount without.

    The process that reads in the mount cannot end yet.
    """
    mount = mount_it(origin, sabotage=SITS_ON_IT)
    command = [str(Path(sys.executable).with_name("satfs")), "status", str(mount.path), "--json"]
    responded = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    assert responded["state"] == "works"
    Path(responded["status"]["control"]).unlink()
    began_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert time.monotonic() - began_s < 6
    assert done.returncode == 5
    assert json.loads(done.stdout)[0]["state"] == "does not answer"


#: Each look is another moment, and `df -i` shows how many nodes are known.
COUNTED = """
import satfs.introspection.snapshots, satfs.fuse.operations as fuse
satfs.introspection.snapshots.FRESH_S = satfs.introspection.snapshots.MAX_S = 0.0
statfs = fuse.Operations.statfs
async def counted(self, ctx):
    attributes = await statfs(self, ctx)
    attributes.f_files = len(self._inodes)
    return attributes
fuse.Operations.statfs = counted
"""


def test_moments_that_are_over_are_forgotten(mount_it: MountIt, origin: DemoOrigin) -> None:
    """After any number of reads, the kernel and satfs hold few moments."""
    mount = mount_it(origin, sabotage=COUNTED)
    before = os.statvfs(mount.path).f_files
    for _ in range(300):
        assert status(mount)["pid"] == mount.process.pid
    assert os.statvfs(mount.path).f_files < before + 20


def test_names_that_are_no_text_are_not_there(mount: RealMount) -> None:
    for name in (b"\xff", b"status.json\xff", b"explain/\xff", b"explain/tasks/\xff"):
        assert not os.path.exists(os.fsencode(mount.path) + b"/.satfs/" + name)
