"""Killed at any moment, with any disk: no wrong byte is ever served, and what was kept is kept."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import forking
from fakes.processes import wait_until
from reliability.conftest import MakeStand
from reliability.crashing import CrashLoop, workers_of
from reliability.stand import MIB, Stand

#: How often the loop kills; `scripts/soak` does it a hundred times and more.
N_ROUNDS = int(os.environ.get("SATFS_TEST_CRASHES", "7"))


@pytest.mark.timeout(60 + 20 * N_ROUNDS)
def test_a_mount_killed_at_any_moment_serves_no_wrong_byte(make_stand: MakeStand) -> None:
    """`kill -9` of the mount and of workers, again and again on one cache: every byte is right."""
    stand = make_stand(workers=2)
    stand.origin.store_line.bytes_per_s = 30e6  # so that there is something to interrupt
    loop = CrashLoop(stand, random.Random(5))
    for _ in range(N_ROUNDS):
        loop.round()
    loop.check_kept()


def test_a_stopped_worker_costs_time_and_nothing_else(make_stand: MakeStand) -> None:
    """A worker that stops is killed; its ranges are moved otherwise, and no host counts as away."""
    stand = make_stand(workers=2, progress_timeout_s=1, read_deadline_s=10, range_bytes="4MiB")
    stand.origin.store_line.bytes_per_s = 4e6
    stopped: list[int] = []
    while not stopped:
        # A worker that is not ready yet moves nothing, and is not missed when it stops.
        scene = stand.publish(24 * MIB)
        with stand.opened(scene) as file:
            stand.compare(file, stand.content(scene), stop=2 * MIB, limit_s=11)
            workers = workers_of(stand.current.process.pid)
            stopped = [pid for pid in workers if written_bytes(pid) > MIB]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            stand.compare(file, stand.content(scene), limit_s=11)
    wait_until(lambda: not set(stopped) & set(workers_of(stand.current.process.pid)))
    assert stand.current.events("worker process stands still")
    assert not stand.current.events("host counts as offline")


def written_bytes(pid: int) -> int:
    """Return how many bytes a process has written into files."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


def test_a_dead_mount_is_cleaned_by_the_next_one(make_stand: MakeStand) -> None:
    """`satfs mount` recognises what a killed mount left behind, removes it and reports that."""
    stand = make_stand(workers=0)
    stand.current.stop(signal.SIGKILL)
    assert stand.current.is_mounted()
    done = forking.satfs("mount", stand.root, environment=stand.environment())
    try:
        assert done.returncode == 0, done.stderr
        assert "had died was removed" in done.stderr
        assert sorted(stand.list(stand.root / "tasks")) == ["1", "catalog.json"]
    finally:
        done = forking.satfs("umount", "-z", stand.root, environment=stand.environment())
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a disk of a few megabytes at *directory*."""
    directory.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(directory)],
        check=True,
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_costs_speed_and_nothing_else(make_stand: MakeStand, tmp_path: Path,
                                                  workers: int) -> None:  # fmt: skip
    """The cache's disk is smaller than the limit it was given, and fills: reads go on."""
    with small_disk(tmp_path / "cache", "12m"):
        stand = make_stand(workers=workers, cache_bytes="1GB", cache_free_fraction=0)
        for _ in range(3):
            scene = stand.publish(8 * MIB)
            with stand.opened(scene) as file:
                stand.compare(file, stand.content(scene))
        _fill(tmp_path / "cache" / "somebody-else")
        scene = stand.publish(8 * MIB)
        with stand.opened(scene) as file:
            stand.compare(file, stand.content(scene))
        stand.list(stand.root / "tasks" / "1")
        stand.current.stop()


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb") as file:
        while True:
            file.write(bytes(64 * 1024))


def test_a_read_only_disk_costs_speed_and_nothing_else(
    make_stand: MakeStand, tmp_path: Path
) -> None:
    """A cache that cannot be written is done without; one that turns so in mid life as well."""
    with small_disk(tmp_path / "cache", "64m") as disk:
        stand = make_stand(workers=2)
        first, second = stand.publish(4 * MIB), stand.publish(4 * MIB)
        with stand.opened(first) as file:
            stand.compare(file, stand.content(first))
        time.sleep(1.2)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False)
        _read_right(stand, first, second)
        stand.remount()
        _read_right(stand, first, second)
        stand.current.stop()


def test_a_vanished_cache_costs_speed_and_nothing_else(make_stand: MakeStand) -> None:
    """Somebody removes the cache directory under a mount: what is open and what is new is right."""
    stand = make_stand(workers=2)
    first, second = stand.publish(4 * MIB), stand.publish(4 * MIB)
    with stand.opened(first) as file:
        stand.compare(file, stand.content(first), 0, 2 * MIB)
        shutil.rmtree(stand.cache_dir)
        stand.compare(file, stand.content(first))
    _read_right(stand, first, second)
    stand.list(stand.root / "tasks" / "1")
    stand.remount()
    _read_right(stand, first, second)


@pytest.mark.parametrize("workers", [0, 2])
def test_flipped_bits_in_the_cache_are_fetched_again(make_stand: MakeStand, workers: int) -> None:
    """A cache file rots between two mounts: bad blocks are fetched again, all bytes are right."""
    stand = make_stand(workers=workers)
    scene = stand.publish(8 * MIB)
    _read_right(stand, scene)
    stand.current.stop()
    dice = random.Random(7)
    n_flipped = 0
    for path in (stand.cache_dir / "objects").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            for _ in range(20):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
                n_flipped += 1
            path.write_bytes(data)
    assert n_flipped
    stand.origin.journal.clear()
    stand.mount()
    _read_right(stand, scene)
    assert 0 < stand.origin.bytes_sent() < 6 * MIB


@pytest.mark.parametrize("name", ["index.sqlite", "listings.sqlite"])
def test_a_ruined_index_costs_speed_and_nothing_else(make_stand: MakeStand, name: str) -> None:
    """Garbage in place of the cache's index: it is put away, and everything is right."""
    stand = make_stand(workers=0)
    scene = stand.publish(4 * MIB)
    _read_right(stand, scene)
    stand.current.stop()
    for path in stand.cache_dir.rglob(f"{name}*"):
        path.write_bytes(random.Random(1).randbytes(20_000))
    stand.mount()
    _read_right(stand, scene)


def test_two_mounts_share_a_cache(make_stand: MakeStand) -> None:
    """Two mounts share fetched blocks; one is killed, the other goes on."""
    stand = make_stand(workers=2)
    scene = stand.publish(8 * MIB)
    _read_right(stand, scene)
    time.sleep(1.2)
    first_root, first = stand.root, stand.current
    stand.root = stand.directory / "mnt2"
    stand.mount()
    stand.origin.journal.clear()
    _read_right(stand, scene)
    assert stand.origin.bytes_sent() == 0
    both = stand.publish(8 * MIB)
    content = stand.content(both)
    stand.root, second_root = first_root, stand.root
    with stand.opened(both) as file:
        stand.compare(file, content, 0, 4 * MIB)
        stand.root = second_root
        with stand.opened(both) as other:
            stand.compare(other, content, 2 * MIB)
            first.stop(signal.SIGKILL)
            stand.compare(other, content)


def _read_right(stand: Stand, *scenes: str) -> None:
    for scene in scenes:
        with stand.opened(scene) as file:
            stand.compare(file, stand.content(scene))
