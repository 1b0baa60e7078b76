"""Bytes that are stored in the kernel beside its requests."""

from __future__ import annotations

import threading
from typing import cast

import pytest
import trio

from satfs.errors import Unneeded
from satfs.fuse.handles import OpenFile
from satfs.fuse.page_store import MAX_STORES, PageStore
from satfs.model import ByteRange
from satfs.tree.nodes import File

PAGE = 4096
CONTENT = bytes(range(256)) * 64 * 8


class Raster:
    """A reader whose program needs a part of each request: as much of it as lies before *stop*."""

    def __init__(self, stop: int | None, *, is_longer: bool = False) -> None:
        self.size_bytes = len(CONTENT)
        self.stop = stop
        self.is_longer = is_longer
        self.asked: list[ByteRange] = []

    async def read(self, span: ByteRange) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(span)
        return CONTENT[span.start : span.stop]

    def is_near(self, span: ByteRange) -> bool:
        return False

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        if self.stop is None:
            return None
        stop = self.stop if self.is_longer else min(self.stop, span.stop)
        return ByteRange(span.start, max(span.start, stop))

    def close(self) -> None:
        """Hold nothing."""


def opened(reader: Raster, kept: list[tuple[int, bytes]]) -> OpenFile:
    node = cast(File, None)  # shown in logs alone
    return OpenFile(node, reader, 0, 0, lambda offset, content: kept.append((offset, content)))


@pytest.mark.parametrize("stop", [0, PAGE])
async def test_of_a_request_that_is_not_needed_nothing_is_read(stop: int) -> None:
    kept: list[tuple[int, bytes]] = []
    reader = Raster(stop)
    file = opened(reader, kept)
    with pytest.raises(Unneeded):
        await file.read(PAGE, 20 * PAGE)
    assert not reader.asked
    assert not kept


async def test_a_request_that_is_needed_as_a_whole_is_answered() -> None:
    kept: list[tuple[int, bytes]] = []
    file = opened(Raster(stop=21 * PAGE), kept)
    assert await file.read(PAGE, 20 * PAGE) == CONTENT[PAGE : 21 * PAGE]
    assert not kept


async def test_where_a_page_is_requested_the_rest_of_its_block_is_kept() -> None:
    """A read-ahead was refused there before."""
    kept: list[tuple[int, bytes]] = []
    reader = Raster(stop=10 * PAGE + 5, is_longer=True)
    file = opened(reader, kept)
    assert await file.read(3 * PAGE, PAGE) == CONTENT[3 * PAGE : 4 * PAGE]
    assert reader.asked == [ByteRange(3 * PAGE, 10 * PAGE + 5)]
    assert kept == [(4 * PAGE, CONTENT[4 * PAGE : 10 * PAGE])]


async def test_pages_are_stored_in_a_thread_and_awaited_at_the_end() -> None:
    stored: list[tuple[int, int, bytes]] = []
    may_store = threading.Event()

    def store(inode: int, offset: int, content: bytes) -> None:
        may_store.wait(10)
        stored.append((inode, offset, content))

    pages = PageStore(store)
    for number in range(MAX_STORES + 3):  # what is too much at once is left to the kernel
        pages.keep(7, number * PAGE, b"x" * PAGE)
    assert not stored
    may_store.set()
    await pages.end()
    assert sorted(stored) == [(7, number * PAGE, b"x" * PAGE) for number in range(MAX_STORES)]
    pages.keep(7, 0, b"x" * PAGE)  # the mount is being taken down
    assert len(stored) == MAX_STORES


async def test_what_the_kernel_does_not_take_is_left_to_it() -> None:
    """It may have forgotten the inode; the program's page is requested then."""

    def store(inode: int, offset: int, content: bytes) -> None:
        raise FileNotFoundError(2, "no such inode")

    pages = PageStore(store)
    pages.keep(7, 0, b"x" * PAGE)
    await pages.end()
