"""The cost of the STAC items of many scenes: time, requests, bytes and memory, as a table.

    scripts/bench stac-export --scenes 1000 --latency-ms 30

A task with that number of scenes, in captures of 20, is mounted from the demo's origin. Measured
are a listing (`ls -R`), the export with an empty cache, the same again and after a remount, and a
listing with sizes (`ls -lR`) by a mount that has never read a zip.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from satfs.demo.catalogue import (
    Catalogue,
    Scene,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import FileContent
from satfs.demo.georeference import Place
from satfs.demo.products import Product, write_product
from satfs.demo.server import DemoOrigin
from satfs.demo.terrain import draw

TASK = 341271
#: Scenes of a capture: as many as QGIS shows of one catalogue.
_PER_CAPTURE = 20
#: Deliveries that are drawn; the scenes share their bytes, and no version of a zip.
_DRAWN = ("stored", "deflated", "mixed")
_PIXELS = 256
#: Pause between two looks at a command's memory, in seconds. (What wait4(2) reports counts this
#: process, too, which the command was forked from.)
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one command; requests of the API and of the store."""

    what: str
    seconds: float
    api: int
    store: int
    sent_bytes: int
    #: Highest resident set size of the command and of the mount so far, in bytes.
    command_bytes: int
    mount_bytes: int

    def row(self) -> str:
        """Return a row of the table."""
        return (
            f"| {self.what} | {self.seconds:.1f} s | {self.api:,} | {self.store:,} "
            f"| {self.sent_bytes / 1e6:,.1f} MB | {self.command_bytes / 1e6:.0f} MB "
            f"| {self.mount_bytes / 1e6:.0f} MB |"
        )


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 0."""
    parser = argparse.ArgumentParser("scripts/bench stac-export", description=__doc__)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--latency-ms", type=float, default=30)
    wanted = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="satfs-stac-"))
    try:
        catalogue = _catalogue(work, wanted.scenes)
        with DemoOrigin(catalogue, latency_s=wanted.latency_ms / 1000) as origin:
            costs = list(_measured(origin, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{wanted.scenes:,} scenes, {wanted.latency_ms:g} ms to the first byte:\n")
    print("| Command | Time | Requests to the API | to the store | Bytes | Command | Mount |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for cost in costs:
        print(cost.row())
    return 0


def _catalogue(work: Path, n_scenes: int) -> Catalogue:
    first = datetime(2026, 1, 28, 15, 57, 47, 636000, UTC)
    drawn = [_draw(work / packing, packing, first) for packing in _DRAWN]

    def scene(number: int) -> Scene:
        moment = first + timedelta(seconds=number)
        scene_id = f"{moment:%Y%m%d_%H%M%S}_636_SN33_L1D_SR_MS_{TASK}"
        content, footprint = drawn[number % len(drawn)]
        delivery = make_delivery(scene_id, content)
        return make_scene(scene_id, [delivery], moment=moment, footprint=footprint)

    captures = [
        make_capture(f"capture-{start:05}", [scene(n) for n in range(start, stop)])
        for start in range(0, n_scenes, _PER_CAPTURE)
        for stop in (min(start + _PER_CAPTURE, n_scenes),)
    ]
    return Catalogue([make_task(TASK, captures)])


def _draw(work: Path, packing: str, moment: datetime) -> tuple[FileContent, object]:
    work.mkdir()
    place, land = Place(-58.37, -34.6, _PIXELS, 0.7), draw("town", 1, _PIXELS)
    scene_id = f"{moment:%Y%m%d_%H%M%S}_636_SN33_L1D_SR_MS_{TASK}"
    product = Product(scene_id, "L1D_SR", moment, 33, place, land, packing=packing)
    write_product(product, work)
    return FileContent(work / "delivery.zip"), place.footprint


def _measured(origin: DemoOrigin, work: Path) -> Iterator[Cost]:
    place = work / "mnt"
    place.mkdir()
    export = [_satfs(), "stac", "export", str(place / "tasks"), "-o"]
    with _mounted(origin, work, place, "first") as measure:
        yield measure("`ls -R`", ["ls", "-R", str(place / "tasks")])
        yield measure("`satfs stac export`, empty cache", [*export, str(work / "all.json")])
        yield measure("the same again", [*export, str(work / "all.json")])
        yield measure("as lines (`--ndjson`)", [*export, str(work / "all.ndjson"), "--ndjson"])
    with _mounted(origin, work, place, "first") as measure:
        yield measure("after a remount", [*export, str(work / "all.json")])
    with _mounted(origin, work, place, "second") as measure:
        yield measure("`ls -lR`, empty cache", ["ls", "-lR", str(place / "tasks")])
        yield measure("the same again", ["ls", "-lR", str(place / "tasks")])


@contextmanager
def _mounted(
    origin: DemoOrigin, work: Path, place: Path, cache: str
) -> Iterator[Callable[[str, list[str]], Cost]]:
    """Mount *origin* at *place*, and yield what measures a command."""
    runtime = work / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environment = {
        **os.environ,
        **origin.environment(),
        "SATFS_CACHE_DIR": str(work / cache),
        "XDG_RUNTIME_DIR": str(runtime),
    }
    subprocess.run([_satfs(), "mount", str(place)], env=environment, check=True)
    pid = json.loads((place / ".satfs" / "status.json").read_text())["pid"]

    def measure(what: str, command: list[str]) -> Cost:
        origin.journal.wait_until_idle()
        origin.journal.clear()
        began_s = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        command_bytes = 0
        while process.poll() is None:
            command_bytes = max(command_bytes, _highest_bytes(process.pid))
            time.sleep(_POLL_S)
        took_s = time.monotonic() - began_s
        assert process.returncode == 0, command
        store = origin.journal.n_requests("object")
        return Cost(
            what,
            took_s,
            origin.journal.n_requests() - store,
            store,
            origin.journal.bytes_sent(),
            command_bytes,
            _highest_bytes(pid),
        )

    try:
        yield measure
    finally:
        subprocess.run([_satfs(), "umount", str(place)], env=environment, check=True)


def _highest_bytes(pid: int) -> int:
    """Return the highest resident set size of a process (proc_pid_status(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _satfs() -> str:
    return str(Path(sys.executable).with_name("satfs"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
