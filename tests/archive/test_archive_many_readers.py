"""Many readers of many members, some given up, over a zip whose bytes are late or do not come."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import trio
from archive.opening import MIB, MemoryStore, Opened, wordy
from archive.test_archive_spooled import with_dictionary, zip_lzma, zstd
from archive.zips import Entry, build, deflated

from satfs.archive import resources, spooled
from satfs.archive.resources import DecoderMemory
from satfs.errors import Unreachable
from satfs.model import ByteRange

#: Members by name: compression method, program that packs, and size.
MEMBERS: dict[str, tuple[int, Callable[[bytes], bytes] | None, int]] = {
    "stored": (0, None, 400_000),
    "deflated": (8, deflated, 5_000_000),
    "small": (8, deflated, 300),
    "bzip2": (12, bz2.compress, 1_500_000),
    "lzma": (14, zip_lzma, 1_300_000),
    "zstandard": (93, zstd.compress, 1_600_000),
    "xz": (95, lambda data: with_dictionary(data, 4 * MIB), 2_500_000),
}
CONTENTS = {name: wordy(size, seed=size) for name, (_, _, size) in MEMBERS.items()}


class Program:
    """Reads members at random places, and gives some reads up."""

    def __init__(self, it: Opened, random: Random) -> None:
        self.it = it
        self.random = random

    async def run(self) -> None:
        for _ in range(3):
            name = self.random.choice(list(CONTENTS))
            try:
                reader = await self.it.reader(name)
            except Unreachable:
                continue
            for _ in range(self.random.randint(1, 8)):
                await self.read(reader, CONTENTS[name])
            self.it.close(reader)

    async def read(self, reader: Any, content: bytes) -> None:
        start = self.random.randrange(len(content))
        span = ByteRange(start, start + self.random.choice([1, 5000, 128 * 1024, 300_000]))
        with trio.move_on_after(self.random.choice([0.002, 0.02, 5, 5])):
            try:
                data = await reader.read(span)
            except Unreachable:
                return
            assert data == content[span.start : span.stop]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_every_read_is_right_or_fails_as_the_zip_does(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With little memory members take cursors and decoders from each other all the time."""
    random = Random(seed)
    monkeypatch.setattr(spooled, "_MAX_INPUT_WAIT_S", random.choice([0.002, 0.02, 2.0]))
    monkeypatch.setattr(resources, "MAX_CURSORS", random.choice([2, 64]))
    entries = [
        Entry(
            name.encode(),
            CONTENTS[name],
            method=method,
            packed=None if pack is None else pack(CONTENTS[name]),
        )
        for name, (method, pack, _) in MEMBERS.items()
    ]
    it = opened(build(entries), derived=MemoryStore(10**9), unpack_bytes=10**9)
    memory = it.archives._resources.decoder_memory = DecoderMemory(random.choice([7, 12]) * MIB)
    read = it.zip.read

    async def read_at_times(span: ByteRange) -> Any:
        chance = random.random()
        if chance < 0.3:
            await trio.sleep(random.random() * 0.006)
        elif chance < 0.36:
            raise Unreachable("the store is away")
        return await read(span)

    monkeypatch.setattr(it.zip, "read", read_at_times)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(Program(it, random).run)
    monkeypatch.setattr(it.zip, "read", read)
    for name, content in CONTENTS.items():
        assert await it.content(name) == content
    assert memory.n_bytes == 0
