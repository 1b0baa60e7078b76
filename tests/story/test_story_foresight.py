"""Reads that the kernel sends ahead of a program are held back until a program needs them."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
import trio
from conftest import LogBook
from pyfuse3 import FUSEError
from story.conftest import MountIt
from story.kernel import Kernel
from story.shelves import FakeObjects

from satfs.fuse.readahead_detection import PATIENCE_S

KIB = 1024
LARGE = bytes(range(256)) * (32 * KIB)  # 8 MiB
FILE = "tasks/341271/cap-1/scene-a/scene-a.zip"
ROW = 3 * 1024 * KIB
AHEAD = ROW + 520 * KIB


@pytest.fixture
def kernel(mount_it: MountIt, objects: FakeObjects) -> Kernel:
    objects.put("scene-a", LARGE)
    return mount_it()


async def read(kernel: Kernel, fh: int, start: int, size: int) -> bytes:
    return bytes(await kernel.operations.read(fh, start, size))


async def read_row(kernel: Kernel, fh: int) -> None:
    """Read where a program went, and the read-ahead that the kernel adds."""
    await read(kernel, fh, ROW, 8 * KIB)
    await read(kernel, fh, ROW + 8 * KIB, 512 * KIB)


class Ahead:
    """One more read-ahead, and how it ended."""

    def __init__(self, kernel: Kernel, fh: int) -> None:
        self.errno: int | None = None
        self.data = b""
        self.took_s = 0.0
        self._kernel = kernel
        self._fh = fh

    async def read(self) -> None:
        """Read it."""
        started_s = trio.current_time()
        try:
            self.data = await read(self._kernel, self._fh, AHEAD, 512 * KIB)
        except FUSEError as failure:
            self.errno = failure.errno
        self.took_s = trio.current_time() - started_s


async def test_what_nobody_came_for_is_not_fetched(
    kernel: Kernel, objects: FakeObjects, autojump_clock: object, log_book: LogBook
) -> None:
    """A program that seeks on leaves the kernel's read-ahead behind: it is given up unfetched."""
    fh = await kernel.open(FILE)
    await read_row(kernel, fh)
    n_reads = objects.calls["read"]
    ahead = Ahead(kernel, fh)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ahead.read)
        await trio.sleep(PATIENCE_S / 2)
        assert await read(kernel, fh, 10, 20) == LARGE[10:30]
    assert ahead.errno == errno.ECANCELED
    assert objects.calls["read"] == n_reads + 1
    assert [line.event for line in log_book.lines] == ["refused"]
    # Whoever comes for it after all gets it.
    assert await read(kernel, fh, AHEAD, 4 * KIB) == LARGE[AHEAD : AHEAD + 4 * KIB]


async def test_what_may_be_waited_for_is_held_back_for_a_moment_only(
    kernel: Kernel, autojump_clock: object
) -> None:
    """FUSE does not report whether a program waits: if one does, it gets its bytes."""
    fh = await kernel.open(FILE)
    await read_row(kernel, fh)
    ahead = Ahead(kernel, fh)
    await ahead.read()
    assert ahead.data == LARGE[AHEAD : AHEAD + 512 * KIB]
    assert ahead.took_s == pytest.approx(PATIENCE_S)


async def test_whoever_reads_on_is_not_held_up(kernel: Kernel, autojump_clock: object) -> None:
    """A read of the next piece shows that a program needs this one."""
    fh = await kernel.open(FILE)
    await read_row(kernel, fh)
    ahead = Ahead(kernel, fh)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ahead.read)
        await trio.sleep(PATIENCE_S / 2)
        await read(kernel, fh, AHEAD + 512 * KIB, 512 * KIB)
    assert ahead.data == LARGE[AHEAD : AHEAD + 512 * KIB]
    assert ahead.took_s == pytest.approx(PATIENCE_S / 2)


async def test_what_a_program_left_behind_when_it_ended_is_not_fetched(
    kernel: Kernel, objects: FakeObjects, autojump_clock: object
) -> None:
    """The kernel reports a close only when all its reads have ended; procfs shows it sooner."""
    kernel.caller = _ended_process()
    fh = await kernel.open(FILE)
    await read_row(kernel, fh)
    n_reads = objects.calls["read"]
    ahead = Ahead(kernel, fh)
    await ahead.read()
    assert ahead.errno == errno.ECANCELED
    assert objects.calls["read"] == n_reads
    # A file that was handed on has a reader all the same: that is noticed, and believed.
    await read(kernel, fh, 10, 20)
    await read_row(kernel, fh)
    again = Ahead(kernel, fh)
    await again.read()
    assert again.data == LARGE[AHEAD : AHEAD + 512 * KIB]


def _ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


async def test_a_file_opened_past_the_kernels_cache_has_nothing_held_back(
    kernel: Kernel, autojump_clock: object
) -> None:
    """With O_DIRECT the kernel reads nothing ahead, and a failure would be the program's."""
    fh = await kernel.open(FILE, os.O_RDONLY | os.O_DIRECT)
    await read_row(kernel, fh)
    ahead = Ahead(kernel, fh)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ahead.read)
        await trio.sleep(PATIENCE_S / 2)
        await read(kernel, fh, 10, 20)
    assert ahead.data == LARGE[AHEAD : AHEAD + 512 * KIB]
    assert ahead.took_s == 0
