"""Through the kernel: what was fetched is not fetched again, by the origin's own count."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted.conftest import MountIt

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.demo.server import DemoOrigin

#: Long enough for workers, many ranges and windows that grow; no whole number of blocks.
SIZE = 96 * 2**20 + 4321
CONTENT = RampContent(SIZE, 3)
NAME = "scenes/once/once.zip"

pytestmark = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture(scope="module")
def digest() -> str:
    return hashlib.sha256(CONTENT.read(0, SIZE)).hexdigest()


@pytest.fixture
def origin() -> Iterator[DemoOrigin]:
    scene = make_scene("once", [make_delivery("once", CONTENT)])
    with DemoOrigin(Catalogue([make_task(1, [make_capture("capture", [scene])])])) as origin:
        yield origin


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_second_cp_after_a_remount_fetches_no_content(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: Path, digest: str, workers: int
) -> None:
    """The cache on disk has it all; the second mount finds it, and requests no byte."""
    copies = [tmp_path / "first", tmp_path / "second"]
    for copy in copies:
        origin.journal.clear()
        mount = mount_it(origin, workers=workers)
        subprocess.run(["cp", mount.path / NAME, copy], check=True, timeout=60)
        mount.stop()
        assert digest_of(copy) == digest
    assert origin.journal.bytes_sent("object") == 0


def test_eight_parallel_readers_fetch_each_byte_once(
    origin: DemoOrigin, mount_it: MountIt, digest: str, workers: int
) -> None:
    """Eight programs read one file at once: the origin sends its bytes, and those once.

    Of the tail, which taught the length, a part of a block comes again.
    """
    path = mount_it(origin, workers=workers).path / NAME
    readers = [
        subprocess.Popen(["sha256sum", path], stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    for reader in readers:
        printed, _ = reader.communicate(timeout=120)
        assert printed.split()[0] == digest
    assert origin.journal.wait_until_idle()
    assert SIZE <= origin.journal.bytes_sent("object") <= SIZE + BLOCK_BYTES
