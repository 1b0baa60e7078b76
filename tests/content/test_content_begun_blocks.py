"""Blocks of which no response brings all: the next one goes on in the middle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import trio
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.transfer.interface import Download
from satfs.model import ByteRange

CONTENT = bytes(range(251)) * (3 * BLOCK_BYTES // 251 + 1)


class Kept:
    """A cache that keeps what it is given, and loses parts of blocks when told to."""

    def __init__(self) -> None:
        self.data = bytearray(3 * BLOCK_BYTES)
        self.held: list[tuple[int, int]] = []

    def put(self, cached: object, layer: object, at: int, view: memoryview) -> None:
        self.data[at : at + len(view)] = view

    def hold(self, cached: object, layer: object, block: int, hashes: object, stop: int) -> None:
        self.held.append((block * BLOCK_BYTES, stop))

    def lose(self, start: int) -> None:
        self.data[start:] = bytes(len(self.data) - start)


@given(st.lists(st.tuples(st.integers(1, 20_000), st.booleans(), st.booleans()), max_size=60))
def test_any_pieces_give_the_bytes(pieces: list[tuple[int, bool, bool]]) -> None:
    """However short the responses; an attempt that begins the block anew is right as well."""
    cache, stop = Kept(), 2 * BLOCK_BYTES + 100

    async def work() -> None:
        cached = cast(Any, SimpleNamespace(top=object()))
        download = Download(cast(Any, cache), cached, ByteRange(0, stop))
        for n_bytes, is_resumed, is_lost in pieces:
            if download.is_done:
                break
            if is_lost:
                cache.lose(download.held_until)
            before = download.received_until
            download.begin()
            if is_resumed:
                download.resume()
                assert download.front == before
            at = download.front
            download.receive(CONTENT[at : min(stop, at + n_bytes)])
            assert download.received_until == download.front
            held = download.held_until
            assert cache.data[:held] == CONTENT[:held]
            assert download.front - held < BLOCK_BYTES
        assert [stop for _, stop in cache.held] == sorted({stop for _, stop in cache.held})

    trio.run(work)
