"""Members of other methods: unpacked once, within bounds."""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable
from importlib import import_module
from zlib import crc32

import pytest
import trio
from archive.opening import MIB, MemoryShelf, Opened, wordy
from archive.zips import Entry, build
from hypothesis import given, settings
from hypothesis import strategies as st

from satfs.errors import Damaged, Unsupported
from satfs.model import ByteRange

zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

LZMA_FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]


def zip_lzma(data: bytes) -> bytes:
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=LZMA_FILTERS)
    return b"\x09\x04\x05\x00" + bytes([2 * 45 + 3]) + (1 << 16).to_bytes(4, "little") + packed


PACKERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (12, bz2.compress),
    (14, zip_lzma),
    (93, zstd.compress),
    (95, lzma.compress),
]


@pytest.mark.parametrize(("method", "pack"), PACKERS)
async def test_other_methods_are_unpacked_once(
    opened: Callable[..., Opened],
    method: int,
    pack: Callable[[bytes], bytes],
) -> None:
    """A member of bzip2, LZMA, xz or zstandard is unpacked once, to disk, as far as it is read."""
    content, shelf = wordy(2_500_000), MemoryShelf()
    it = opened(
        build([Entry(b"a", content, method=method, packed=pack(content))]),
        shelf=shelf,
        unpack_bytes=3_000_000,
    )
    first, second = await it.reader("a"), await it.reader("a")
    assert await first.read(ByteRange(2_400_000, 2_600_000)) == content[2_400_000:]
    n_asked = len(it.zip.asked)
    assert await second.read(ByteRange(5, 500)) == content[5:500]
    it.close(first, second)
    assert await it.content("a") == content
    assert len(it.zip.asked) == n_asked
    await it.is_closed()
    (file,) = shelf.files.values()
    assert (file.n_open, file.label) == (0, "S/contents/a (unpacked)")


@pytest.mark.parametrize(("method", "pack"), PACKERS)
@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"crc": 5}, "CRC"),
        ({"size": 200_001}, "fewer"),
        ({"size": 199_999, "crc": crc32(wordy(200_000)[:-1])}, "more"),
    ],
)
async def test_other_methods_are_checked_likewise(
    opened: Callable[..., Opened],
    method: int,
    pack: Callable[[bytes], bytes],
    change: dict[str, int],
    how: str,
) -> None:
    """More, fewer or other bytes than declared are damage."""
    content = wordy(200_000)
    entry = Entry(b"a", content, method=method, packed=pack(content), **change)  # type: ignore[arg-type]
    it = opened(build([entry]), shelf=MemoryShelf(), unpack_bytes=MIB)
    with pytest.raises(Damaged, match=how):
        await it.content("a", 50_000)


@pytest.mark.parametrize("method", [12, 14, 93, 95])
async def test_garbage_in_other_methods_is_damage(
    opened: Callable[..., Opened], method: int
) -> None:
    """Again and again, and never other bytes."""
    entry = Entry(b"a", b"x" * 5000, method=method, packed=b"\x09\x04\x05\x00]\0\0\1\0garbage" * 9)
    it = opened(build([entry]), shelf=MemoryShelf(), unpack_bytes=MIB)
    reader = await it.reader("a")
    for _ in range(3):
        with pytest.raises(Damaged):
            await reader.read(ByteRange(0, 5000))


async def test_a_member_that_takes_too_much_is_refused_when_opened(
    opened: Callable[..., Opened],
) -> None:
    """A member that takes too much disk or memory, or has an unknown method, is EOPNOTSUPP."""
    content = wordy(100_000)
    greedy = zip_lzma(content)[:5] + (1 << 31).to_bytes(4, "little") + zip_lzma(content)[9:]
    it = opened(
        build(
            [
                Entry(b"large", content, method=12, packed=bz2.compress(content)),
                Entry(b"small", content[:50_000], method=12, packed=bz2.compress(content[:50_000])),
                Entry(b"greedy", content[:100], method=14, packed=greedy),
                Entry(b"odd", content, method=98, packed=content),
            ]
        ),
        shelf=MemoryShelf(),
        unpack_bytes=99_999,
    )
    with pytest.raises(Unsupported, match="cache"):
        await it.reader("large")
    with pytest.raises(Unsupported, match="PPMd"):
        await it.reader("odd")
    with pytest.raises(Unsupported, match="dictionary"):
        await it.content("greedy")
    assert await it.content("small") == content[:50_000]
    await it.is_closed()


async def test_a_member_that_would_fill_the_cache_is_refused(
    opened: Callable[..., Opened],
) -> None:
    """Whatever the setting says: it would push out what it is made of."""
    entry = Entry(b"a", b"x" * 5000, method=12, packed=bz2.compress(b"x" * 5000))
    it = opened(build([entry]), shelf=MemoryShelf(max_bytes=4999), unpack_bytes=MIB)
    with pytest.raises(Unsupported, match="cache"):
        await it.reader("a")
    await it.is_closed()


async def test_what_was_unpacked_is_there_after_a_remount(opened: Callable[..., Opened]) -> None:
    """Not a byte of the member is asked for again; its CRC is checked again."""
    content, shelf = wordy(900_000), MemoryShelf()
    data = build([Entry(b"a", content, method=12, packed=bz2.compress(content))])
    async with trio.open_nursery() as first_mount:
        it = Opened(data, first_mount, shelf=shelf, unpack_bytes=MIB)
        assert await it.content("a") == content
        await it.end()
    again = opened(data, shelf=shelf, unpack_bytes=MIB)
    await again.archive.members()
    n_asked = len(again.zip.asked)
    assert await again.content("a") == content
    assert len(again.zip.asked) == n_asked
    (file,) = shelf.files.values()
    file.pieces[5] = bytes(len(file.pieces[5]))
    with pytest.raises(Damaged, match="CRC"):
        await opened(data, shelf=shelf, unpack_bytes=MIB).content("a")


async def test_bytes_of_a_member_that_is_damaged_at_its_end_are_never_whole(
    opened: Callable[..., Opened],
) -> None:
    """So no later mount takes them for the member."""
    content, shelf = wordy(200_000), MemoryShelf()
    packed = bz2.compress(content + b"more")
    data = build([Entry(b"a", content, method=12, packed=packed)])
    for _ in range(2):
        it = opened(data, shelf=shelf, unpack_bytes=MIB)
        with pytest.raises(Damaged, match="more"):
            await it.content("a", 50_000)
    (file,) = shelf.files.values()
    assert await file.first_gap(ByteRange(0, len(content))) is not None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_had_to_go_is_unpacked_again(data: st.DataObject) -> None:
    """Any reads, any pieces evicted in between, by one reader or two at once: the same bytes."""
    content, shelf = wordy(120_000), MemoryShelf()
    zipped = build([Entry(b"a", content, method=12, packed=bz2.compress(content))])
    spans = st.builds(
        lambda start, length: ByteRange(start, start + length),
        st.integers(0, 120_000),
        st.integers(0, 60_000),
    )

    async def read_and_evict() -> None:
        async with trio.open_nursery() as nursery:
            it = Opened(zipped, nursery, shelf=shelf, unpack_bytes=MIB)
            reader = await it.reader("a")

            async def read(span: ByteRange) -> None:
                assert await reader.read(span) == content[span.start : span.stop]

            for _ in range(data.draw(st.integers(1, 6))):
                async with trio.open_nursery() as both:
                    both.start_soon(read, data.draw(spans))
                    both.start_soon(read, data.draw(spans))
                (file,) = shelf.files.values()
                for number in data.draw(st.sets(st.integers(0, 29), max_size=5)):
                    file.pieces.pop(number, None)
            await it.end()

    trio.run(read_and_evict)


async def test_without_a_cache_directory_nothing_is_unpacked_to_disk(
    opened: Callable[..., Opened],
) -> None:
    """A clear refusal, at open."""
    it = opened(build([Entry(b"a", b"x", method=12, packed=bz2.compress(b"x"))]))
    with pytest.raises(Unsupported):
        await it.reader("a")
    await it.is_closed()
