"""Metadata never queues behind data, and nothing waits longer than it may."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import pytest
from reliability.conftest import MakeStand
from reliability.stand import AT_ONCE_S, KIB, MIB, QUICK_DEADLINES, Stand, refused

from satfs.demo.catalogue import make_task

#: More than the requests that pyfuse3 serves at once by default, 99.
N_READERS = 150


def block(stand: Stand) -> list[Callable[[], bytes]]:
    """Return calls that read a file each; all of them are open, and the store hangs from now on."""
    scenes = [stand.publish(2 * MIB) for _ in range(N_READERS)]
    descriptors = [stand.open(scene) for scene in scenes]
    stand.origin.faults.add("hang", "object")
    # Not at the beginning, which may have come beside the size.
    return [lambda fd=fd: os.pread(fd, 4 * KIB, MIB) for fd in descriptors]  # type: ignore[misc]


def test_metadata_is_answered_while_a_hundred_and_fifty_reads_wait(make_stand: MakeStand) -> None:
    """`ls` and `stat` are quick, of known names and of names that take a request; SIGTERM ends."""
    stand = make_stand(workers=2, read_deadline_s=60, progress_timeout_s=60)
    started = [stand.calls.start("blocked read", 70, read) for read in block(stand)]
    time.sleep(0.5)
    assert not any(call.done() for call in started)
    for task_id in ("1", "2"):
        took = time.monotonic()
        if task_id == "2":
            stand.origin.catalogue.add_task(make_task(2))
            time.sleep(0.6)
        stand.stat(stand.root / "tasks" / task_id, AT_ONCE_S)
        assert task_id in stand.list(stand.root / "tasks", AT_ONCE_S)
        assert time.monotonic() - took < 3
    slowest = 0.0
    for _ in range(50):
        began = time.monotonic()
        stand.stat(stand.root / "tasks", AT_ONCE_S)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 0.25
    ended_s = stand.current.stop(signal.SIGTERM, timeout_s=15)
    assert ended_s < 5
    done, waiting = wait(started, 5)
    assert not waiting
    assert {call.exception().errno for call in done} <= {errno.ENOTCONN, errno.ECONNABORTED}  # type: ignore[union-attr]


def test_every_one_of_many_reads_is_answered_in_time(make_stand: MakeStand) -> None:
    """A hundred and fifty readers of a store that hangs: each fails by its deadline."""
    stand = make_stand(workers=2, **QUICK_DEADLINES)
    started = [stand.calls.start("blocked read", stand.read_call_s, read) for read in block(stand)]
    for call in started:
        with refused(errno.EIO, errno.ETIMEDOUT):
            stand.calls.end("blocked read", stand.read_call_s, call)
    stand.settle()


def test_an_episode_is_one_line_in_the_log(make_stand: MakeStand) -> None:
    """A program that retries a hundred times makes one line, with the reason, not a hundred."""
    stand = make_stand(workers=0)
    scene = stand.publish(MIB)
    with stand.opened(scene) as descriptor:
        stand.origin.faults.add("forbidden", "object")
        for _ in range(100):
            with pytest.raises(PermissionError):
                stand.pread(descriptor, MIB // 2, 4 * KIB)
    lines = [line for line in stand.current.events("call failed") if line["operation"] == "read"]
    assert len(lines) == 1
    assert lines[0]["errno"] == "EACCES"
    assert scene in str(lines[0]["path"])
    assert "AccessDenied" in str(lines[0]["reason"])


@pytest.mark.parametrize("endpoint", ["captures", "object"])
def test_one_that_hangs_costs_a_walk_one_error(make_stand: MakeStand, endpoint: str) -> None:
    """`find` and `cp -r` send one request after the other: none proves the host's health."""
    stand = make_stand(workers=0, **QUICK_DEADLINES)
    tasks = range(101, 109)
    for task_id in tasks:
        stand.origin.catalogue.add_task(make_task(task_id))
    scenes = [stand.publish(64 * KIB, task_id=task_id) for task_id in tasks]
    stuck = scenes[3]
    stuck_path = stuck if endpoint == "object" else "/104/"
    failed: list[OSError] = []
    read: set[str] = set()
    with stand.origin_breaks("hang", endpoint, path_contains=stuck_path):
        for task_id in tasks:
            place = stand.root / "tasks" / str(task_id)
            for directory, _, names in os.walk(place, onerror=failed.append):
                scene = Path(directory).name
                if f"{scene}.zip" not in names:
                    continue
                try:
                    content = (Path(directory) / f"{scene}.zip").read_bytes()
                except OSError as failure:
                    failed.append(failure)
                else:
                    assert content == stand.content(scene).read(0, 64 * KIB)
                    read.add(scene)
    assert read == set(scenes) - {stuck}
    assert failed
    assert all(stuck in str(each.filename) or "104" in str(each.filename) for each in failed)
