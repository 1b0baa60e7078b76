"""Through the kernel: a mount's life, and its end, with calls in flight."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import MountFailed, RealMount

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.demo.sample import many_tasks
from satfs.demo.server import DemoOrigin
from satfs.mountpoints import is_dead_mount, mount_at

#: Time limit for the end of a mount, in seconds.
SOON_S = 5.0
SIZE = 40 * 2**20


def catalogue_of_one(n_scenes: int = 1) -> Catalogue:
    scenes = [
        make_scene(f"scene-{n}", [make_delivery(f"scene-{n}", RampContent(SIZE, n))])
        for n in range(n_scenes)
    ]
    return Catalogue([make_task(1, [make_capture("capture", scenes)])])


@pytest.fixture
def origin(start_origin: StartOrigin) -> DemoOrigin:
    return start_origin(catalogue_of_one())


FILE = "tasks/1/capture/scene-0/scene-0.zip"

_READER = """
import errno, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
try:
    while os.read(descriptor, 65536):
        pass
    print("whole")
except OSError as failure:
    print(errno.errorcode[failure.errno])
"""


@contextlib.contextmanager
def readers(path: Path, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Run *n* readers of *path*, each a process that can be killed; all have opened it."""
    command = [sys.executable, "-S", "-c", _READER, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == "open\n"
        yield running
    finally:
        for each in running:
            each.kill()
            each.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(mount: RealMount, number: int) -> None:
    """SIGTERM, SIGINT and SIGHUP unmount, and the process ends with success."""
    assert mount.is_mounted()
    assert mount.stop(number) < SOON_S
    assert mount.process.returncode == 0
    assert not mount.is_mounted()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_does_not_cut_the_end_short(mount: RealMount, number: int) -> None:
    """As from Ctrl-C twice, or from a terminal that is closed during a shutdown."""
    mount.process.send_signal(signal.SIGTERM)
    for _ in range(50):
        if mount.process.poll() is not None:
            break
        mount.process.send_signal(number)
        time.sleep(0.002)
    mount.process.wait(SOON_S)
    assert mount.process.returncode == 0
    assert not mount.is_mounted()
    assert mount.events("unmounted")


def test_a_signal_unmounts_with_reads_in_flight(origin: DemoOrigin, mount: RealMount) -> None:
    """Any number of waiting calls end with an error, and the mount is gone within seconds."""
    (mount.path / FILE).stat()
    origin.faults.add("stall", "object")
    with readers(mount.path / FILE, 20) as running:
        time.sleep(0.5)
        assert mount.stop() < SOON_S
        assert mount.process.returncode == 0
        assert not mount.is_mounted()
        for each in running:
            printed = each.communicate(timeout=SOON_S)[0].strip()
            assert printed in ("ENOTCONN", "ECONNABORTED", "EIO")


def test_a_signal_unmounts_a_busy_mount(mount: RealMount) -> None:
    """A shell whose working directory is in the mount does not delay the unmount."""
    with subprocess.Popen(["sleep", "60"], cwd=mount.path / "tasks") as standing:
        assert mount.stop() < SOON_S
        assert not mount.is_mounted()
        standing.kill()


def test_an_unmount_from_outside_ends_the_process(mount: RealMount) -> None:
    """`fusermount3 -u` or `umount` is as good as a signal."""
    subprocess.run(["umount", str(mount.path)], check=True)
    assert mount.process.wait(SOON_S) == 0


def test_an_aborted_connection_leaves_no_dead_mount(mount: RealMount) -> None:
    """When an operator aborts the connection, process and mountpoint are cleaned up."""
    found = mount_at(mount.path)
    assert found is not None
    with fuse_control() as control:
        (control / str(found.device[1]) / "abort").write_text("1")
    mount.process.wait(SOON_S)
    assert not mount.is_mounted()


@contextlib.contextmanager
def fuse_control() -> Iterator[Path]:
    """Yield the directory of the kernel's FUSE connections; mount it for a moment if need be."""
    path = Path("/sys/fs/fuse/connections")
    if any(path.iterdir()):
        yield path
        return
    command = ["mount", "-t", "fusectl", "fusectl", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("the fuse control filesystem cannot be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_killed_mount_is_recognised_and_replaced(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """After `kill -9` the mountpoint is known to be dead; the next mount reads right."""
    first = mount_it(origin)
    with (first.path / FILE).open("rb") as file:
        head = file.read(1000)
    assert not is_dead_mount(first.path)
    first.stop(signal.SIGKILL)
    assert is_dead_mount(first.path)
    assert mount_at(first.path) is not None
    with pytest.raises(OSError, match="not connected"):
        os.listdir(first.path)
    second = mount_it(origin)
    with (second.path / FILE).open("rb") as file:
        assert file.read(1000) == head
    assert not is_dead_mount(second.path)


def test_metadata_never_queues_behind_data(start_origin: StartOrigin, mount_it: MountIt) -> None:
    """150 reads that wait for the store do not delay `ls` and `stat`."""
    origin = start_origin(catalogue_of_one(30))
    mount = mount_it(origin)
    files = sorted((mount.path / "tasks/1/capture").glob("*/*.zip"))
    assert len(files) == 30
    os.listdir(mount.path / "tasks")
    origin.faults.add("stall", "object")
    with contextlib.ExitStack() as stack:
        for path in files:
            stack.enter_context(readers(path, 5))
        time.sleep(0.5)
        started_s = time.monotonic()
        subprocess.run(["ls", "-l", str(mount.path / "tasks/1")], check=True, capture_output=True)
        subprocess.run(["stat", str(files[7])], check=True, capture_output=True)
        subprocess.run(["df", str(mount.path)], check=True, capture_output=True)
        assert time.monotonic() - started_s < 2.0
        stack.callback(mount.stop)


def test_a_read_is_answered_within_its_deadline(origin: DemoOrigin, mount_it: MountIt) -> None:
    """A store that falls silent costs a read its deadline and no more; then there is an errno."""
    mount = mount_it(origin, read_deadline_s=3, metadata_deadline_s=2, progress_timeout_s=1)
    (mount.path / FILE).stat()
    origin.faults.add("stall", "object")
    started_s = time.monotonic()
    with readers(mount.path / FILE, 1) as (reader,):
        assert reader.communicate(timeout=10)[0].strip() in ("EIO", "ETIMEDOUT")
    assert time.monotonic() - started_s < 3 + 2
    assert len(mount.events("call failed")) <= 3


#: Keeps the loop from reading requests that the kernel has announced, for a while at a time, so
#: that the calling programs can be killed in between; prints the loop's longest stop.
_DAWDLE = """
import sys, time, trio

def after_ready():
    trio.lowlevel.spawn_system_task(dawdle)

async def dawdle():
    last_s = time.monotonic()
    while True:
        await trio.lowlevel.checkpoint()
        time.sleep(0.03)
        now_s = time.monotonic()
        if now_s - last_s > 0.6:
            print("stuck for", now_s - last_s, file=sys.stderr, flush=True)
        last_s = now_s
"""


def test_programs_killed_at_any_moment_do_not_stop_the_mount(
    origin: DemoOrigin, mount_it: MountIt
) -> None:
    """A request whose program is gone before it was read delays no other, not even for a second."""
    mount = mount_it(origin, sabotage=_DAWDLE)
    for n in range(8):
        # No other request comes: it would make the loop run again.
        caller = subprocess.Popen(["stat", "-f", str(mount.path)], stderr=-3, stdout=-3)
        time.sleep(0.012 + 0.002 * n)
        caller.kill()
        caller.wait()
        time.sleep(0.8)
    assert "stuck for" not in mount.log()
    assert not mount.events("event loop stalled")


def test_a_loop_that_does_not_turn_is_told_with_where(
    origin: DemoOrigin, mount_it: MountIt
) -> None:
    """Code that blocks the event loop for over a second is in the log, with its line."""
    sabotage = """
import time, trio
def after_ready():
    trio.lowlevel.spawn_system_task(block_for_two_seconds)
async def block_for_two_seconds():
    await trio.sleep(0.5)
    time.sleep(2)
"""
    mount = mount_it(origin, sabotage=sabotage)
    time.sleep(3)
    (event,) = mount.events("event loop stalled")
    assert "block_for_two_seconds" in str(event["stack"])
    assert os.listdir(mount.path)


class StaleFile(Exception):
    """A read failed with ESTALE."""


def pread(descriptor: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    except OSError as failure:
        if failure.errno == errno.ESTALE:
            raise StaleFile from failure
        raise


def test_a_replaced_object_is_read_whole_or_not_at_all(
    origin: DemoOrigin, mount_it: MountIt
) -> None:
    """Opened again, the name leads to the new object; no reader gets a mixture."""
    mount = mount_it(origin, listing_ttl_s=1, entry_timeout_s=60)
    path = mount.path / FILE
    old, new = RampContent(SIZE, 0), RampContent(SIZE - 7, 99)
    with path.open("rb", buffering=0) as before:
        assert before.read(4096) == bytes(old.read(0, 4096))
        inode = os.fstat(before.fileno()).st_ino
        origin.catalogue.replace("scene-0", new)
        time.sleep(1.5)
        seen = path.read_bytes()
        assert seen == bytes(new.read(0, new.size_bytes))
        assert path.stat().st_ino != inode
        assert path.stat().st_size == new.size_bytes
        # Nothing of this part was read before, so it comes from the cache or not at all.
        with contextlib.suppress(StaleFile):
            assert pread(before.fileno(), 4096, SIZE - 4096) == bytes(old.read(SIZE - 4096, SIZE))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lets others in, wherever it runs")
def test_everything_belongs_to_whom_it_should(origin: DemoOrigin, mount_it: MountIt) -> None:
    """uid, gid and umask are as requested; type and source as `findmnt` users expect."""
    mount = mount_it(
        origin,
        options={
            "uid": 1234,
            "gid": 567,
            "umask": 0o027,
            "source": "satfs:a,b",
            "allow_other": True,
            "extra": ["noatime", "nodiratime", "noexec"],
        },
    )
    found = (mount.path / "README.txt").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 567, 0o640)
    listed = mount_at(mount.path)
    assert listed is not None
    assert (listed.fs_type, listed.source) == ("fuse.satfs", "satfs:a,b")
    assert "ro" in listed.options


def test_nothing_can_be_written(mount: RealMount) -> None:
    """Every call that would write fails with EROFS."""
    file, directory = str(mount.path / "README.txt"), str(mount.path / "tasks")
    for attempt in (
        lambda: os.open(file, os.O_WRONLY),
        lambda: os.open(f"{directory}/new", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(f"{directory}/new"),
        lambda: os.unlink(file),
        lambda: os.rename(file, f"{file}2"),
        lambda: os.truncate(file, 0),
        lambda: os.chmod(file, 0o777),
        lambda: os.utime(file),
        lambda: os.symlink("x", f"{directory}/x"),
        lambda: os.link(file, f"{directory}/x"),
        lambda: os.setxattr(file, "user.x", b"x"),
        lambda: os.removexattr(file, "user.satfs.x"),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is what matters
            attempt()
        assert caught.value.errno == errno.EROFS
    assert not os.access(file, os.W_OK)


def test_extended_attributes(mount: RealMount) -> None:
    """Ids and versions are attributes; a missing one is ENODATA."""
    path = mount.path / FILE
    assert os.getxattr(path, "user.satfs.scene_id") == b"scene-0"
    assert "user.satfs.etag" in os.listxattr(path)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is what matters
        os.getxattr(path, "user.satfs.nothing")
    assert caught.value.errno == errno.ENODATA


def test_what_hinders_a_mount_is_told_and_nothing_is_mounted(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """Refused credentials, an absent vendor, a bad directory: an error of its own class each."""
    with pytest.raises(MountFailed, match=r"^NeedsLogin"):
        mount_it(origin, client_secret="wrong")
    with pytest.raises(MountFailed, match=r"^(Unreachable|DeadlineReached)"):
        mount_it(origin, api_url="http://127.0.0.1:1", metadata_deadline_s=2)
    with pytest.raises(MountFailed, match=r"^BadCache"):
        mount_it(origin, cache=tmp_path / "mnt3" / "cache")
    with pytest.raises(MountFailed, match=r"^FuseMissing.*unheard"):
        mount_it(origin, options={"extra": ["unheard_of"]})
    with pytest.raises(MountFailed, match=r"^BadMountpoint"):
        mount_it(origin, options={"mountpoint": str(tmp_path / "nowhere")})
    for n in range(1, 6):
        assert mount_at(tmp_path / f"mnt{n}") is None


def test_without_network_what_was_known_is_shown(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """An offline mount shows all that earlier mounts have listed and read."""
    origin = start_origin(many_tasks(3))
    first = mount_it(origin)
    names = sorted(os.listdir(first.path / "tasks"))
    first.stop()
    origin.stop_listening("api")
    second = mount_it(origin, options={"is_offline": True}, metadata_deadline_s=2)
    assert sorted(os.listdir(second.path / "tasks")) == names


def test_many_mounts_and_unmounts_leave_nothing(origin: DemoOrigin, mount_it: MountIt) -> None:
    """Again and again, with a walk each: quick to come, quick to go, and no process left."""
    for _ in range(3):
        mount = mount_it(origin)
        walker = threading.Thread(
            target=subprocess.run,
            args=(["find", str(mount.path)],),
            kwargs={"capture_output": True, "check": False},
        )
        walker.start()
        assert mount.stop() < SOON_S
        walker.join(SOON_S)
        assert not walker.is_alive()
        assert not mount.is_mounted()


@pytest.mark.parametrize("missing", ["the descriptor", "the request"])
def test_a_mount_works_without_parallel_lookups(
    origin: DemoOrigin, mount_it: MountIt, missing: str
) -> None:
    """Where the handshake cannot be completed, the mount is as before, and the log has a line."""
    nobody = "satfs.fuse.handshake._REQUEST_S = 0"  # as if libfuse had taken the request
    none = "satfs.fuse_session.fuse_descriptors = frozenset"
    line = none if missing == "the descriptor" else nobody
    mount = mount_it(origin, sabotage=f"import satfs.mount, satfs.fuse.handshake\n{line}")
    assert os.listdir(mount.path / "tasks")
    assert mount.events("lookups of one directory are answered one after the other")
