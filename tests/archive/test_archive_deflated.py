"""Deflated members: any range, by many at once, with no work done twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import trio
from archive.opening import MIB, MemoryStore, Opened, read_all, wordy
from archive.zips import Entry, build, deflated
from imagery.rasters import learn, pixels, write

from satfs.archive import cursor as cursor_module
from satfs.archive import deflated as deflated_module
from satfs.archive import inflate as inflate_module
from satfs.archive.checkpoints import MIN_DISTANCE_BYTES, Checkpoints
from satfs.errors import Damaged, Unreachable, Unsupported
from satfs.imagery.layout import Block
from satfs.model import ByteRange


@pytest.mark.slow
async def test_a_deflated_member_is_read_through_without_reading_twice(
    opened: Callable[..., Opened],
) -> None:
    """Read from beginning to end, a member's compressed bytes are requested once."""
    content = wordy(12 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    reader = await it.reader("a")
    it.zip.asked.clear()
    assert await read_all(reader) == content
    asked = sorted(it.zip.asked)
    for earlier, later in pairwise(asked):
        assert earlier.stop <= later.start + 64, "no byte twice, but for a guess at the header"
    assert it.zip.n_bytes_asked <= it.zip.size_bytes


@pytest.mark.slow
async def test_a_backward_seek_restarts_from_the_nearest_checkpoint(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one pass any read inflates 2 MiB and one deflate block in vain at the most."""
    content = wordy(14 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    reader = await it.reader("a")
    assert await read_all(reader) == content
    monkeypatch.setattr(deflated_module, "_SEQUENTIAL_READS", 1000)  # nothing runs ahead
    inflated = count_inflated(monkeypatch)
    source = random.Random(3)
    for _ in range(30):
        start = source.randrange(len(content) - 65536)
        before = sum(inflated)
        span = ByteRange(start, start + 65536)
        assert await reader.read(span) == content[span.start : span.stop]
        assert sum(inflated) - before <= MIN_DISTANCE_BYTES + 65536 + 300_000
    it.close(reader)
    await it.is_closed()


def count_inflated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the output of each step."""
    inflated: list[int] = []
    step = cursor_module.Cursor.step

    def counting(self: cursor_module.Cursor, *arguments: Any) -> cursor_module.InflateStep:
        outcome = step(self, *arguments)
        inflated.append(len(outcome.output))
        return outcome

    monkeypatch.setattr(cursor_module.Cursor, "step", counting)
    return inflated


@pytest.mark.slow
async def test_the_index_survives_a_remount(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mount on the same cache goes to the nearest checkpoint at once."""
    content, shelf = wordy(9 * MIB), MemoryStore()
    data = build([Entry(b"a", content, method=8)])
    async with trio.open_nursery() as first_mount:
        it = Opened(data, first_mount, derived=shelf)
        assert await it.content("a") == content
    again = opened(data, derived=shelf)
    inflated = count_inflated(monkeypatch)
    reader = await again.reader("a")
    assert await reader.read(ByteRange(8 * MIB, 8 * MIB + 10)) == content[8 * MIB : 8 * MIB + 10]
    assert sum(inflated) <= MIN_DISTANCE_BYTES + 300_000
    assert [label for _, label in shelf.records.values()] == ["S/contents/a (checkpoints)"]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "other"])
async def test_a_harmed_index_costs_time_and_no_byte(
    opened: Callable[..., Opened], harm: str
) -> None:
    """Stored checkpoints that were changed are not believed."""
    content, shelf = wordy(5 * MIB), MemoryStore()
    data = build([Entry(b"a", content, method=8)])
    async with trio.open_nursery() as first_mount:
        assert await Opened(data, first_mount, derived=shelf).content("a") == content
    ((key, (whole, label)),) = shelf.records.items()
    harmed = {
        "flip": whole[:20_000] + bytes([whole[20_000] ^ 1]) + whole[20_001:],
        "cut": whole[:-1],
        "empty": b"",
        "other": Checkpoints(len(content)).to_bytes(b"another".ljust(32)),
    }
    shelf.records[key] = (harmed[harm], label)
    assert await opened(data, derived=shelf).content("a") == content


@pytest.mark.parametrize(
    ("entry", "how"),
    [
        (Entry(b"a", b"x" * 50_000, method=8, crc=99), "CRC"),
        (Entry(b"a", b"x" * 50_000, method=8, size=50_001), "fewer"),
        (Entry(b"a", b"x" * 50_000, method=8, size=49_999, crc=crc32(b"x" * 49_999)), "more"),
        (Entry(b"a", b"x" * 900, method=8, packed=b"\x06" * 80), "deflate"),
        (Entry(b"a", b"x" * 900, method=8, packed=deflated(b"x" * 900)[:-4]), "fewer"),
        (Entry(b"a", wordy(90_000), method=8, packed=deflated(wordy(90_000))[:-900]), "fewer"),
    ],
)
async def test_a_member_that_is_not_what_it_says_is_damage_at_the_last_read(
    opened: Callable[..., Opened], entry: Entry, how: str
) -> None:
    """More bytes than declared, fewer, or others: an error for the reader, not silence."""
    it = opened(build([entry, Entry(b"b", b"fine", method=8)]))
    with pytest.raises(Damaged, match=how):
        await it.content("a", 10_000)
    assert await it.content("b") == b"fine"


async def test_bytes_before_the_damage_are_served(opened: Callable[..., Opened]) -> None:
    """The damaged part of a member is lost, and no more."""
    content = wordy(400_000)
    packed = bytearray(deflated(content))
    packed[-20_000:] = b"\x06" * 20_000
    it = opened(build([Entry(b"a", content, method=8, packed=bytes(packed))]))
    reader = await it.reader("a")
    assert await reader.read(ByteRange(0, 200_000)) == content[:200_000]
    with pytest.raises(Damaged):
        await reader.read(ByteRange(390_000, 400_000))
    assert await reader.read(ByteRange(100_000, 200_000)) == content[100_000:200_000]


async def test_a_bomb_is_unpacked_as_far_as_it_is_read(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gigabytes declared: a read of the beginning inflates the beginning."""
    packed = deflated(bytes(64 * MIB))
    it = opened(
        build([Entry(b"zeros", b"", method=8, packed=packed * 32, size=len(packed) * 32 * 1000)])
    )
    inflated = count_inflated(monkeypatch)
    reader = await it.reader("zeros")
    assert await reader.read(ByteRange(0, 4096)) == bytes(4096)
    assert sum(inflated) == 4096


async def test_empty_members_are_empty(opened: Callable[..., Opened]) -> None:
    """Stored or deflated, with or without bytes in the zip."""
    it = opened(build([Entry(b"a"), Entry(b"b", method=8), Entry(b"c", method=8, packed=b"")]))
    for path in ("a", "b", "c"):
        assert await it.content(path) == b""
        assert await (await it.reader(path)).read(ByteRange(0, 10)) == b""


@pytest.mark.slow
async def test_several_readers_share_what_one_learns(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty at random places, cold, inflate the member about once, not twenty times."""
    content = wordy(10 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    inflated = count_inflated(monkeypatch)
    source = random.Random(5)

    async def read_some() -> None:
        reader = await it.reader("a")
        start = source.randrange(9 * MIB, 10 * MIB - 1000)
        assert await reader.read(ByteRange(start, start + 1000)) == content[start : start + 1000]
        it.close(reader)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(read_some)
    assert sum(inflated) < 2 * len(content) + 20 * MIN_DISTANCE_BYTES // 2
    await it.is_closed()


async def test_many_sequential_readers_of_one_member(opened: Callable[..., Opened]) -> None:
    """Each gets every byte, in any order of the kernel's requests."""
    content = wordy(3 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))

    async def read_through(seed: int) -> None:
        reader = await it.reader("a")
        source = random.Random(seed)
        starts = list(range(0, len(content), 131072))
        for index in range(0, len(starts) - 1, 2):  # neighbours swapped, as read-ahead may do
            if source.random() < 0.5:
                starts[index], starts[index + 1] = starts[index + 1], starts[index]
        for start in starts:
            got = await reader.read(ByteRange(start, start + 131072))
            assert got == content[start : start + 131072]
        it.close(reader)

    async with trio.open_nursery() as nursery:
        for seed in range(12):
            nursery.start_soon(read_through, seed)
    await it.is_closed()


async def test_a_cancelled_read_leaves_everything_as_it_was(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled anywhere, the next read gives the right bytes, and what was learnt is kept."""
    content = wordy(6 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    read = it.zip.read

    async def slow(span: ByteRange) -> memoryview:
        await trio.sleep(0.002)
        return await read(span)

    monkeypatch.setattr(it.zip, "read", slow)
    reader = await it.reader("a")
    source = random.Random(7)
    n_cancelled = 0
    for _ in range(60):
        start = source.randrange(len(content))
        span = ByteRange(start, min(len(content), start + source.randrange(1, 200_000)))
        with trio.move_on_after(source.random() * 0.02) as scope:
            assert await reader.read(span) == content[span.start : span.stop]
        n_cancelled += scope.cancelled_caught
    assert n_cancelled
    assert await read_all(reader) == content
    it.close(reader)
    await it.is_closed()


async def test_a_read_that_fails_can_be_repeated(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network fails in mid member: the same read succeeds later, with the same bytes."""
    content = wordy(4 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    read, source = it.zip.read, random.Random(9)
    reader = await it.reader("a")

    async def flaky(span: ByteRange) -> memoryview:
        if source.random() < 0.4:
            raise Unreachable("no network")
        return await read(span)

    monkeypatch.setattr(it.zip, "read", flaky)
    got = b""
    while len(got) < len(content):
        try:
            got += await reader.read(ByteRange(len(got), len(got) + 131072))
        except Unreachable:
            continue
    assert got == content


async def test_inflating_is_never_done_on_the_event_loop(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inflating runs in threads; other requests are served during that time."""
    threads = set()
    step = cursor_module.Cursor.step

    def noting(self: cursor_module.Cursor, *arguments: Any) -> cursor_module.InflateStep:
        threads.add(threading.get_ident())
        time.sleep(0.01)
        return step(self, *arguments)

    monkeypatch.setattr(cursor_module.Cursor, "step", noting)
    content = wordy(3 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    n_turns = 0

    async def turn() -> None:
        nonlocal n_turns
        while True:
            n_turns += 1
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        assert await it.content("a", MIB) == content
        nursery.cancel_scope.cancel()
    assert threading.get_ident() not in threads
    assert n_turns > 10


async def test_more_readers_than_cursors(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by closing positions; bytes are right all the same."""
    monkeypatch.setattr("satfs.archive.resources.MAX_CURSORS", 3)
    contents = {f"{number}".encode(): wordy(700_000, number) for number in range(8)}
    it = opened(build(Entry(name, content, method=8) for name, content in contents.items()))

    async def read_through(name: bytes) -> None:
        assert await it.content(name.decode(), 50_000) == contents[name]

    async with trio.open_nursery() as nursery:
        for name in contents:
            nursery.start_soon(read_through, name)
    await it.is_closed()


async def test_without_zlib_deflated_members_are_refused_when_opened(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system without zlib the other members can still be read."""
    monkeypatch.setattr(inflate_module, "_LIBRARY", "libz.so.of-nowhere")
    monkeypatch.setattr(inflate_module, "_zlib", inflate_module._zlib.__wrapped__)
    it = opened(build([Entry(b"a", b"x" * 99, method=8), Entry(b"b", b"stored")]))
    with pytest.raises(Unsupported, match="zlib"):
        await it.reader("a")
    assert await it.content("b") == b"stored"
    await it.is_closed()


@pytest.mark.slow
async def test_a_bug_behind_a_reader_is_logged_and_ends_nothing(
    opened: Callable[..., Opened],
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[..., None],
) -> None:
    """A failure while inflating ahead is raised in a read that goes on, and in no other."""
    expect_log("inflating ahead failed", reason="ZeroDivisionError")
    content = wordy(8 * MIB)
    it = opened(build([Entry(b"a", content, method=8)]))
    reader = await it.reader("a")
    pursue = deflated_module.DeflatedMember._pursue

    async def breaking(
        self: deflated_module.DeflatedMember,
        cursor: cursor_module.Cursor,
        span: ByteRange,
        wanted_stop: int | None = None,
    ) -> None:
        if "_run_ahead" in trio.lowlevel.current_task().name:
            raise ZeroDivisionError
        await pursue(self, cursor, span, wanted_stop)

    monkeypatch.setattr(deflated_module.DeflatedMember, "_pursue", breaking)
    assert await read_all(reader) == content


@pytest.mark.slow
async def test_of_a_raster_no_more_is_inflated_than_its_blocks(
    opened: Callable[..., Opened], tmp_path: Path
) -> None:
    """A window of a deflated TIFF inflates to the last block that it needs, and 64 KiB further."""
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    data = write(tmp_path / "image.tif", pixels(4, 1536, 1536), **tiles).read_bytes()
    raster = learn(data, whole=True)
    it = opened(build([Entry(b"a.tif", data, method=8)]))
    reader = await it.reader("a.tif")

    async def read(start: int, stop: int) -> None:
        asked = ByteRange(start, stop)
        part = reader.expected_part(asked)
        if part := asked if part is None else part:
            assert await reader.read(part) == data[part.start : part.stop]

    await read(0, 32 * 1024)
    member = reader._member  # type: ignore[attr-defined]
    spans = {n: raster.span_of(Block(0, n)) or ByteRange(0, 0) for n in (7, 8, 13, 14)}
    for number, block in spans.items():  # two rows of two tiles
        start = block.start // 8192 * 8192
        await read(start, start + 8192)
        for at in range(start + 8192, block.stop + 512 * 1024, 128 * 1024):  # and the kernel's
            await read(at, at + 128 * 1024)
        while any(cursor.is_ahead for cursor in member._cursors):
            await trio.lowlevel.checkpoint()
        inflated = max(cursor.out_position for cursor in member._cursors)
        # The second tile of a row is expected with the first one, once there was a row before.
        last = spans[14] if number == 13 else block
        assert inflated <= last.stop + 64 * 1024
