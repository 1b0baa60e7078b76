"""Through the kernel: a capture of very many scenes.

`SATFS_TEST_SCENES=100000 scripts/test tests/mounted/test_mounted_large.py -s` measures another
number of scenes, and prints what docs/PERFORMANCE.md holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from fakes.processor_waits import Stopwatch
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount

from satfs.demo.sample import many_scenes

N_SCENES = int(os.environ.get("SATFS_TEST_SCENES", "20000"))
CAPTURE = Path("tasks") / "500000" / "many-scenes"
#: The limit that RELIABILITY.md promises for all processes of a mount.
MAX_MEMORY_MIB = 200
#: Longest delay of other programs while a listing is read, in seconds.
PATIENCE_S = 1.5


def peak_mib(mount: RealMount) -> int:
    """Return the most memory that the mount's process has had, in MiB."""
    text = Path(f"/proc/{mount.process.pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def cpu_s(mount: RealMount) -> float:
    """Return the processor time of the mount's process so far, in seconds."""
    fields = Path(f"/proc/{mount.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bystander:
    """Another program that looks at a name which is known and at names which are not."""

    def __init__(self, mount: RealMount) -> None:
        self._stopwatch = Stopwatch(mount.process.pid)
        self._path = mount.path
        self._ended = Event()
        self._thread = Thread(target=self._look)

    def _look(self) -> None:
        number = 0
        while not self._ended.wait(0.05):
            number += 1
            with self._stopwatch.measuring():
                assert (self._path / "tasks" / "500000").is_dir()
                assert not (self._path / f"no such name {number}").exists()

    @property
    def longest_s(self) -> float:
        """Return the longest delay, in seconds, but for the time without a processor."""
        return max(self._stopwatch.took_s, default=0.0)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look on as long as the body lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()


def ran(mount: RealMount, what: str, command: str) -> list[str]:
    """Return the lines that *command*, run in the capture's directory, wrote; report its cost."""
    began_s, cpu_before_s = time.monotonic(), cpu_s(mount)
    bystander = Bystander(mount)
    with bystander.looking():
        # Not `cwd`: the new process would look the directory up while this one, where the origin
        # runs, is stopped (vfork(2)).
        done = subprocess.run(
            f"cd {mount.path / CAPTURE} && {command}", shell=True, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert bystander.longest_s < PATIENCE_S
    sys.stdout.write(
        f"\n| {what} | {time.monotonic() - began_s:.1f} s | {cpu_s(mount) - cpu_before_s:.1f} s"
        f" | {bystander.longest_s:.2f} s | {peak_mib(mount)} MiB |"
    )
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_capture_of_very_many_scenes_is_listed_at_the_first_try(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """Each program gets all of it; other programs are served beside it; memory is bounded."""
    origin = start_origin(many_scenes(N_SCENES))
    n_pages = -(-N_SCENES // 100)
    mount = mount_it(origin, listing_ttl_s=3600)
    listed = ran(mount, "`ls`, the first", "ls")
    assert len(listed) == len(set(listed)) == N_SCENES + 3
    assert ran(mount, "`ls -U \\| head`", "ls -U | head -3; true")
    assert len(ran(mount, "`find -maxdepth 1`", "find . -maxdepth 1")) == N_SCENES + 4
    scene = next(name for name in listed if name.endswith("_500000"))
    assert ran(mount, "`stat` of one name", f"stat -c %F {scene}") == ["directory"]
    assert f"{scene}.zip" in ran(mount, "`ls` of one scene", f"ls {scene}")
    assert len(ran(mount, "`ls -l`", "ls -l")) == N_SCENES + 4
    assert len(ran(mount, "`ls ../../../scenes`", "ls ../../../scenes")) == N_SCENES
    # Once each, except those in flight when a call of the kernel ended before the listing did.
    n_requests = origin.counts("scenes")
    assert n_pages <= n_requests <= n_pages + 2 * 16
    assert peak_mib(mount) < MAX_MEMORY_MIB
    mount.stop()
    again = mount_it(origin, listing_ttl_s=3600)
    assert ran(again, "`ls` after a remount", "ls") == listed
    assert origin.counts("scenes") == n_requests, "served from disk"
    assert peak_mib(again) < MAX_MEMORY_MIB
