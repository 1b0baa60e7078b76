"""Through the kernel: every way to read gives the bytes of the origin's objects."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.demo.sample import sample_catalogue
from satfs.demo.server import DemoOrigin

BIG = 12 * 2**20 + 4321


def catalogue_with_big() -> Catalogue:
    """Return the small catalogue and, in a task of its own, one larger zip."""
    catalogue = sample_catalogue()
    scene = make_scene("big-scene", [make_delivery("big-scene", RampContent(BIG, 7))])
    catalogue.add_task(make_task(1, [make_capture("big-capture", [scene])]))
    return catalogue


@pytest.fixture(scope="module")
def origin() -> Iterator[DemoOrigin]:
    """Return one origin for all of these tests: they only read."""
    with DemoOrigin(catalogue_with_big()) as origin:
        yield origin


@pytest.fixture(scope="module")
def mount(origin: DemoOrigin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMount]:
    """Return one mount for all of these tests."""
    directory = tmp_path_factory.mktemp("reading")
    environment = {**origin.environment(), "SATFS_CACHE_DIR": str(directory / "cache")}
    with RealMount(directory / "mnt", environment, directory / "log") as mount:
        yield mount


@pytest.fixture
def big(mount: RealMount) -> Path:
    return mount.path / "scenes/big-scene/big-scene.zip"


RAMP = bytes(RampContent(BIG, 7).read(0, BIG))


def objects(origin: DemoOrigin, mount: RealMount) -> Iterator[tuple[Path, bytes]]:
    """Yield the path of every attachment under tasks/, and its bytes at the origin."""
    for task in origin.catalogue.tasks:
        for capture in task.captures:
            for scene in capture.scenes if capture.is_published else ():
                for each in scene.attachments:
                    directory = mount.path / f"tasks/{task.task_id}/{capture.capture_id}"
                    content = each.content
                    if content is None:  # announced, not stored yet
                        continue
                    data = bytes(content.read(0, content.size_bytes))
                    yield directory / scene.scene_id / each.file_name, data


def run(*command: str | Path, cwd: Path | None = None, timeout_s: float = 60) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def test_every_object_reads_as_it_is(origin: DemoOrigin, mount: RealMount) -> None:
    """Each attachment has the origin's length and bytes."""
    n_seen = 0
    for path, data in objects(origin, mount):
        assert path.stat().st_size == len(data)
        assert path.read_bytes() == data
        n_seen += 1
    assert n_seen == 21


def test_cp_cat_and_sha256sum(mount: RealMount, big: Path, tmp_path: Path) -> None:
    """The everyday tools copy, print and sum up right."""
    run("cp", big, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == RAMP
    assert subprocess.run(["cat", str(big)], capture_output=True, check=True).stdout == RAMP
    assert run("sha256sum", big).split()[0] == hashlib.sha256(RAMP).hexdigest()


@pytest.mark.parametrize(
    ("block", "skip", "count"), [(1, 12345, 77), (4097, 3, 5), (65536, 11, 3), (2**20, 11, 9)]
)
def test_dd_at_odd_offsets(big: Path, block: int, skip: int, count: int) -> None:
    """Any offset and length, also across the end of the file."""
    command = ["dd", f"if={big}", f"bs={block}", f"skip={skip}", f"count={count}", "status=none"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == RAMP[block * skip : block * (skip + count)]


def test_random_reads_and_direct_reads(big: Path) -> None:
    """Random positions, through the page cache and around it."""
    draw = random.Random(3)
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT):
        descriptor = os.open(big, flags)
        buffer = mmap.mmap(-1, 64 * 1024)  # O_DIRECT wants aligned memory
        try:
            for _ in range(60):
                offset = draw.randrange(0, BIG) & ~4095
                n_read = os.preadv(descriptor, [buffer], offset)
                assert buffer[:n_read] == RAMP[offset : offset + 64 * 1024]
        finally:
            os.close(descriptor)


#: A page fault waits with the interpreter locked, and this process serves the origin.
_MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sys.stdout.buffer.write(mapped[:100] + mapped[5_000_000:5_100_000] + mapped[-100:])
    sys.stdout.buffer.write(b"%d" % len(mapped))
"""


def test_mmap(big: Path) -> None:
    """A mapped file has the bytes in it, at both ends and in the middle."""
    command = [sys.executable, "-c", _MAP, str(big)]
    seen = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert seen == RAMP[:100] + RAMP[5_000_000:5_100_000] + RAMP[-100:] + b"%d" % BIG


def test_twenty_parallel_readers(origin: DemoOrigin, mount: RealMount, big: Path) -> None:
    """Twenty at once read right, and what one fetches the others have."""
    files = [*((path, data) for path, data in objects(origin, mount)), *[(big, RAMP)] * 20]
    with ThreadPoolExecutor(20) as pool:
        for (path, data), seen in zip(
            files, pool.map(lambda f: f[0].read_bytes(), files), strict=True
        ):
            assert seen == data, path


def test_unzip(mount: RealMount, origin: DemoOrigin) -> None:
    """`unzip -t` finds every member in order, `unzip -l` lists them."""
    need("unzip")
    zips = [path for path, data in objects(origin, mount) if data.startswith(b"PK")]
    assert len(zips) == 10
    for path in zips:
        run("unzip", "-tqq", path)
        assert "rasters/" in run("unzip", "-l", path)


def test_rsync_twice_transfers_nothing(mount: RealMount, tmp_path: Path) -> None:
    """The second `rsync -a` finds every size and time unchanged, also after a look around."""
    need("rsync")
    source, target = f"{mount.path}/tasks", f"{tmp_path}/copy/"
    run("rsync", "-a", source, target)
    run("find", mount.path, "-ls")
    assert run("rsync", "-ai", source, target) == ""


def test_rsync_after_a_remount_transfers_nothing(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """Sizes, times and bytes are the same in the next mount."""
    need("rsync")
    first = mount_it(origin)
    run("rsync", "-a", f"{first.path}/tasks", f"{tmp_path}/copy/")
    first.stop()
    second = mount_it(origin)
    assert run("rsync", "-ai", f"{second.path}/tasks", f"{tmp_path}/copy/") == ""
    assert run("rsync", "-aic", f"{second.path}/tasks", f"{tmp_path}/copy/") == ""


def test_tar_find_and_du(origin: DemoOrigin, mount: RealMount, tmp_path: Path) -> None:
    """An archive of the mount has every byte; `find` and `du` see what is there."""
    run("tar", "cf", tmp_path / "all.tar", "-C", mount.path, "tasks")
    with tarfile.open(tmp_path / "all.tar") as archive:
        for path, data in objects(origin, mount):
            member = archive.extractfile(str(path.relative_to(mount.path)))
            assert member is not None
            assert member.read() == data
    wanted = sum(len(data) for _, data in objects(origin, mount))
    find = ["find", str(mount.path / "tasks"), "-name", "contents", "-prune", "-o"]
    found = run(*find, "-type", "f", "-name", "*_MS*", "-printf", "%s\n")
    assert sum(map(int, found.split())) == wanted - BIG
    assert int(run("du", "-sb", mount.path / "tasks/1").split()[0]) > BIG


def test_a_walk_through_both_doors_has_no_surprise(mount: RealMount) -> None:
    """`find` reads every directory and file without an error; inode numbers are not shared."""
    run("find", mount.path, "-type", "f", "-exec", "sha256sum", "{}", "+")
    inodes = run("find", mount.path, "-printf", "%i\n").split()
    assert len(inodes) == len(set(inodes))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "key", ["a/./b.zip", "a/../b.zip", "a//b.zip", "a b/c+d%2F~é.zip", "./x/..", "a/b/."]
)
def test_a_key_is_asked_for_as_it_was_signed(
    start_origin: StartOrigin, mount_it: MountIt, key: str, workers: int
) -> None:
    """Segments `.` and `..`, empty ones and escapes reach the store as they are in the link."""
    content = RampContent(12_000_000, 3)
    delivery = make_delivery("scene", content)
    delivery.key = key
    origin = start_origin(
        Catalogue([make_task(1, [make_capture("capture", [make_scene("scene", [delivery])])])])
    )
    path = mount_it(origin, workers=workers).path / "scenes/scene/scene.zip"
    assert path.read_bytes() == content.read(0, content.size_bytes)
