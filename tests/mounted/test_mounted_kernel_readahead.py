"""Through the kernel: what it reads ahead of a program that seeks on is not fetched."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.processes import wait_until
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.demo.server import DemoOrigin
from satfs.kernel_tuning import READ_AHEAD_KB

KIB, MIB = 1024, 1024 * 1024
SIZE = 64 * MIB + 4321
WHOLE = bytes(RampContent(SIZE, 7).read(0, SIZE))
#: The reads of GDAL for three tiles of a row, through stdio's buffer of 8 KiB.
TILES = (8 * KIB, 152 * KIB, 8 * KIB, 144 * KIB, 8 * KIB, 144 * KIB, 8 * KIB)
ROWS = tuple(range(5 * MIB, 61 * MIB, 7 * MIB))


@pytest.fixture
def origin(start_origin: StartOrigin) -> DemoOrigin:
    catalogue = Catalogue()
    scene = make_scene("large", [make_delivery("large", RampContent(SIZE, 7))])
    catalogue.add_task(make_task(1, [make_capture("capture", [scene])]))
    return start_origin(catalogue)


@pytest.fixture
def mount(mount_it: MountIt, origin: DemoOrigin) -> RealMount:
    mount = mount_it(origin)
    device = os.stat(mount.path).st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if int(bdi.read_text()) != READ_AHEAD_KB:
        pytest.skip("the kernel's read-ahead cannot be raised here, and is too short to matter")
    return mount


@pytest.fixture
def path(mount: RealMount) -> Path:
    return mount.path / "scenes/large/large.zip"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def read_tiles(file: int, row: int) -> None:
    at = row
    for length in TILES:
        assert os.pread(file, length, at) == WHOLE[at : at + length]
        at += length


def test_a_window_of_a_raster_costs_its_rows_of_tiles(origin: DemoOrigin, path: Path) -> None:
    """The kernel reads again the bytes that it was refused: every byte is the object's."""
    origin.journal.clear()
    for first in range(0, len(ROWS), 2):
        with opened(path) as file:
            for row in ROWS[first : first + 2]:
                read_tiles(file, row)
    fetched = sum(each.bytes_sent for each in origin.journal.of("object"))
    # On a slow machine a program may take longer over a row than is waited, but not over all.
    assert fetched <= len(ROWS) * (MIB + 16 * KIB) - 512 * KIB
    with opened(path) as file:
        for at in range(0, SIZE, 100_000):
            assert os.pread(file, 100_000, at) == WHOLE[at : at + 100_000]


def test_nothing_is_fetched_ahead_of_a_program_that_has_ended(
    mount: RealMount, origin: DemoOrigin, path: Path
) -> None:
    """The kernel reports a close only when all its reads have ended; procfs shows it sooner."""
    program = "import os, sys; file = os.open(sys.argv[1], os.O_RDONLY)\n"
    program += "for at, n in ((0, 8), (8, 152), (160, 8)):\n"
    program += "    os.pread(file, n << 10, int(sys.argv[2]) + (at << 10))\nos._exit(0)"

    def given_up() -> bool:
        return any(line["error"] == "Unneeded" for line in mount.events("refused"))

    # On a slow machine a program may end later than is waited, but not each time.
    for row in ROWS:
        origin.journal.clear()
        subprocess.run([sys.executable, "-c", program, path, str(row)], check=True)
        wait_until(lambda: given_up() or len(origin.journal.of("object")) > 2, 30)
        if given_up():
            break
    assert given_up(), "everything was fetched"


def test_threads_that_share_a_descriptor_get_their_bytes(path: Path) -> None:
    """Each may take another's seek for the end of its own run: that costs time, and no byte."""

    def read_places(file: int, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(20):
            read_tiles(file, dice.randrange(SIZE - MIB))

    with opened(path) as file, ThreadPoolExecutor(4) as readers:
        for done in [readers.submit(read_places, file, seed) for seed in range(4)]:
            done.result()
