"""Through the kernel: responses that cost more to read than to send delay no other program."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.processes import wait_until
from fakes.processor_waits import Stopwatch
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount

from satfs.demo.catalogue import capture_uuid, make_capture, make_scene, make_task
from satfs.demo.sample import many_tasks

MIB = 2**20
#: How long satfs may try for one listing, in seconds.
DEADLINE_S = 6
#: Longest delay of other programs: a tenth of the delay before costly responses were bounded.
PATIENCE_S = 1.5
#: A body of 31 MiB is received, decompressed and looked at; what it stands for is not built.
MAX_GROWTH_BYTES = 100 * MIB
#: Two bodies are received at once, and each is there twice for the moment in which it is copied;
#: one that is decompressed longer than that. What was freed before is not held.
MAX_GROWTH_OF_MANY_BYTES = {False: 100 * MIB, True: 150 * MIB}
#: The most that is there at any moment: two bodies twice, and a third one that is looked at, are
#: 155 MiB. Sixteen bodies at once would be 496 MiB.
MAX_PEAK_GROWTH_BYTES = 250 * MIB
#: The traceback of a read that was given up may hold its body until the next collection, which
#: comes every half a minute (`gc_tuning`).
COLLECTED_WITHIN_S = 60.0
#: Names that are looked up beside it, at most: 20 in a second.
N_OTHERS = 200


def resident_bytes(mount: RealMount, field: str = "RssAnon") -> int:
    """Return the anonymous memory of the mount's process, or another *field* (proc(5))."""
    text = Path(f"/proc/{mount.process.pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def listed(path: Path) -> int:
    """Return the errno of a listing; 0: it was listed."""
    try:
        os.listdir(path)
    except OSError as failure:
        return failure.errno or 0
    return 0


@pytest.mark.parametrize(
    ("shape", "is_packed"),
    [("lists", True), ("lists", False), ("objects", False), ("records", False),
     ("numbers", False), ("keys", False), ("depth", True), ("text", False)],
)  # fmt: skip
def test_a_costly_page_is_an_error_of_its_own_directory(
    start_origin: StartOrigin, mount_it: MountIt, shape: str, is_packed: bool
) -> None:
    """Nobody waits for it, its memory is bounded, and its listing ends in time."""
    origin = start_origin(many_tasks(3))
    # On a busy machine 31 MiB take longer than the deadline of a mount, 15 s.
    mount = mount_it(origin, may_be_forked=False, metadata_deadline_s=60)
    known = mount.path / "tasks" / "100000"
    known.stat()
    before = resident_bytes(mount)
    origin.faults.add("costly-page", "captures", shape=shape, gzip=is_packed)
    stopwatch, whole = Stopwatch(mount.process.pid), Stopwatch(mount.process.pid)

    def listed_captures() -> int:
        with whole.measuring():
            return listed(known)

    with ThreadPoolExecutor(1) as thread:
        listing = thread.submit(listed_captures)
        while not listing.done():
            with stopwatch.measuring():
                assert os.statvfs(mount.path).f_namemax
                assert os.stat(known)
            time.sleep(0.05)
        error = listing.result()
    assert error == errno.EIO  # not ETIMEDOUT: the page is refused before any deadline
    assert whole.took_s[0] < DEADLINE_S
    assert max(stopwatch.took_s) < PATIENCE_S
    assert resident_bytes(mount) < before + MAX_GROWTH_BYTES
    assert not mount.events("call failed by a bug in satfs")


@pytest.mark.parametrize("is_packed", [False, True])
def test_many_costly_pages_cost_no_more_than_a_few(
    start_origin: StartOrigin, mount_it: MountIt, is_packed: bool
) -> None:
    """Sixteen pages requested ahead are not held at once, and other names do not wait for them.

    The other names are new ones: each takes a request to the API and its response.
    """
    origin = start_origin(many_tasks(2000))
    others = [make_scene(f"other-{number}", []) for number in range(N_OTHERS)]
    origin.catalogue.add_task(make_task(9, [make_capture(capture_uuid("others", 1), others)]))
    mount = mount_it(origin, may_be_forked=False, metadata_deadline_s=DEADLINE_S)
    before, peak_before = resident_bytes(mount), resident_bytes(mount, "VmHWM")
    costly = origin.faults.add("costly-page", "tasks", skip=1, gzip=is_packed)
    stopwatch, whole = Stopwatch(mount.process.pid), Stopwatch(mount.process.pid)

    def listed_tasks() -> int:
        with whole.measuring():
            return listed(mount.path / "tasks")

    with ThreadPoolExecutor(1) as thread:
        listing = thread.submit(listed_tasks)
        for number in range(N_OTHERS):
            if listing.done():
                break
            with stopwatch.measuring():
                assert (mount.path / "scenes" / f"other-{number}").is_dir()
            time.sleep(0.05)
        error = listing.result()
    assert costly.hits > 1
    assert max(stopwatch.took_s) < PATIENCE_S
    assert error in (errno.EIO, errno.ETIMEDOUT)
    assert (
        whole.took_s[0] < DEADLINE_S + PATIENCE_S
    )  # it ends at the deadline, delayed as others are
    assert resident_bytes(mount, "VmHWM") < peak_before + MAX_PEAK_GROWTH_BYTES
    wait_until(
        lambda: resident_bytes(mount) < before + MAX_GROWTH_OF_MANY_BYTES[is_packed],
        COLLECTED_WITHIN_S,
    )
    assert not mount.events("call failed by a bug in satfs")
