"""A zip in memory, opened as the tree opens one, with everything closed in the end."""

from __future__ import annotations

import random
from typing import Any

import trio
from archive.zips import CountingZip, files

from satfs.archive.archive import Archives
from satfs.archive.body import Reader
from satfs.model import ByteRange

MIB = 1024 * 1024


def wordy(n_bytes: int, seed: int = 1) -> bytes:
    """Return bytes that compress about threefold, in many blocks."""
    source = random.Random(seed)
    words = [source.randbytes(source.randint(2, 12)) for _ in range(300)]
    parts, length = [], 0
    while length < n_bytes:
        parts.append(source.choice(words))
        length += len(parts[-1])
    return b"".join(parts)[:n_bytes]


class Opened:
    """An archive over a counting zip, and its members by path."""

    def __init__(self, data: bytes, nursery: trio.Nursery, **means: Any) -> None:
        self.zip = CountingZip(data)
        self.archives = Archives(nursery, **means)
        self.archive = self.archives.archive("zip 1", self.zip.open)
        self.left_open: list[Reader] = []

    async def reader(self, path: str) -> Reader:
        reader = await self.archive.open(files(await self.archive.members())[path])
        self.left_open.append(reader)
        return reader

    async def content(self, path: str, step_bytes: int = 128 * 1024) -> bytes:
        reader = await self.reader(path)
        try:
            return await read_all(reader, step_bytes)
        finally:
            self.close(reader)

    def close(self, *readers: Reader) -> None:
        for reader in readers:
            self.left_open.remove(reader)
            reader.close()

    async def end(self) -> None:
        """Close everything; nothing of the zip is open after that."""
        self.close(*self.left_open)
        self.archives.close()
        await self.is_closed()

    async def is_closed(self) -> None:
        """Wait until nothing of the zip is open: a step in a thread is not cut short."""
        with trio.fail_after(5):
            while self.zip.n_open:
                await trio.lowlevel.checkpoint()


async def read_all(reader: Reader, step_bytes: int = 128 * 1024) -> bytes:
    starts = range(0, reader.size_bytes, step_bytes)
    return b"".join([bytes(await reader.read(ByteRange(at, at + step_bytes))) for at in starts])
