"""A zip in memory, opened as the tree opens one, with everything closed in the end."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import trio
from archive.zips import CountingZip, files

from satfs.archive.archive import Archives
from satfs.archive.resources import ArchiveResources
from satfs.model import ByteRange, Reader

MIB = 1024 * 1024


@cache
def wordy(n_bytes: int, seed: int = 1) -> bytes:
    """Return bytes that compress about threefold, in many blocks."""
    source = random.Random(seed)
    words = [source.randbytes(source.randint(2, 12)) for _ in range(300)]
    data = b""
    while len(data) < n_bytes:
        data += b"".join(source.choices(words, k=n_bytes // 7 + 1))  # words of 7 bytes on average
    return data[:n_bytes]


class MemoryStore:
    """A shelf that outlives mounts, with all that it was given, until told to lose it."""

    def __init__(self, max_bytes: int = 100 * MIB) -> None:
        self.max_bytes = max_bytes
        self.records: dict[str, tuple[bytes, str]] = {}
        self.files: dict[str, MemoryShelfFile] = {}

    async def get(self, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.records[key][0] if key in self.records else None

    async def put(self, key: str, data: bytes, label: str) -> None:
        await trio.lowlevel.checkpoint()
        self.records[key] = (data, label)

    async def open(self, key: str, size_bytes: int, label: str) -> MemoryShelfFile:
        await trio.lowlevel.checkpoint()
        file = self.files.setdefault(key, MemoryShelfFile(size_bytes, label))
        file.n_open += 1
        return file


class MemoryShelfFile:
    """A file of pieces of 4 KiB, each kept or not."""

    grain_bytes = 4096

    def __init__(self, size_bytes: int, label: str) -> None:
        self.size_bytes = size_bytes
        self.label = label
        self.pieces: dict[int, bytes] = {}
        self.n_open = 0

    async def first_gap(self, span: ByteRange) -> int | None:
        await trio.lowlevel.checkpoint()
        first = span.start // self.grain_bytes
        missing = (
            number
            for number in range(first, -(-span.stop // self.grain_bytes))
            if number not in self.pieces
        )
        number = next(missing, None)
        return None if number is None else number * self.grain_bytes

    async def read(self, span: ByteRange) -> bytes | None:
        if await self.first_gap(span) is not None:
            return None
        first, last = span.start // self.grain_bytes, -(-span.stop // self.grain_bytes)
        data = b"".join(self.pieces[number] for number in range(first, last))
        return data[span.start - first * self.grain_bytes :][: len(span)]

    async def write(self, start: int, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        stop = start + len(data)
        assert start % self.grain_bytes == 0
        assert stop % self.grain_bytes == 0 or stop == self.size_bytes
        for at in range(0, len(data), self.grain_bytes):
            self.pieces[(start + at) // self.grain_bytes] = data[at : at + self.grain_bytes]

    def close(self) -> None:
        self.n_open -= 1


def resources(
    nursery: trio.Nursery, derived: MemoryStore | None = None, *, unpack_bytes: int = 0
) -> ArchiveResources:
    """Return the resources of one mount, by default without room for members unpacked whole."""
    shelf = MemoryStore() if derived is None else derived
    return ArchiveResources(nursery, shelf, unpack_bytes)  # type: ignore[arg-type]


class Opened:
    """An archive over a counting zip, and its members by path."""

    def __init__(self, data: bytes, nursery: trio.Nursery, **means: Any) -> None:
        self.zip = CountingZip(data)
        self.archives = Archives(resources(nursery, **means))
        self.archive = self.archives.archive("zip 1", self.zip.open, "S/contents")
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
        await self.is_closed()

    async def is_closed(self) -> None:
        """Wait until nothing of the zip is open: a step in a thread is not cut short."""
        with trio.fail_after(5):
            while self.zip.n_open:
                await trio.lowlevel.checkpoint()


async def read_all(reader: Reader, step_bytes: int = 128 * 1024) -> bytes:
    starts = range(0, reader.size_bytes, step_bytes)
    return b"".join([bytes(await reader.read(ByteRange(at, at + step_bytes))) for at in starts])
