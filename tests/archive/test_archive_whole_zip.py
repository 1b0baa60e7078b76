"""A zip that a program looks into itself: its reads are unchanged, and its members are found."""

from __future__ import annotations

import random
from collections.abc import Callable

from archive.opening import Opened
from archive.zips import Entry, build, extra_field

from satfs.archive.end_record import TAIL_BYTES
from satfs.archive.whole_zip import WholeZipReader
from satfs.model import ByteRange

MIB = 1024 * 1024
_noise = random.Random(1)
FILLING = _noise.randbytes(3 * MIB)
FIRST, SECOND = _noise.randbytes(2 * MIB), _noise.randbytes(2 * MIB)


def make_zip() -> bytes:
    return build(
        [
            Entry(b"filling", FILLING),
            Entry(b"first.tif", FIRST, local_extra=extra_field(0x9999, bytes(100))),
            Entry(b"packed.tif", FIRST, method=8),
            Entry(b"second.tif", SECOND),
        ]
    )


async def whole(it: Opened) -> WholeZipReader:
    """Open the zip whose end is cached, as the look at its size leaves it."""
    size_bytes = len(it.zip.data)
    it.zip.kept = ByteRange(max(0, size_bytes - TAIL_BYTES), size_bytes)
    return WholeZipReader(await it.archive._open_zip(None), it.archive)


async def test_the_member_that_is_read_is_located(opened: Callable[..., Opened]) -> None:
    """Once its local header was read, as every program does before its bytes."""
    data = make_zip()
    it = opened(data)
    reader = await whole(it)
    start, second = data.index(FIRST), data.index(SECOND)
    header = data.rindex(b"PK\3\4", 0, start)
    assert await reader.read(ByteRange(header, start)) == data[header:start]
    assert await reader.read(ByteRange(start, start + 10)) == FIRST[:10]
    assert it.zip.located[-1] == ByteRange(start, start + len(FIRST))
    await reader.read(ByteRange(data.rindex(b"PK\3\4", 0, second), second))
    assert it.zip.located[-1:] == [None]
    await reader.read(ByteRange(second + 5, second + 10))
    assert it.zip.located[-1] == ByteRange(second, second + len(SECOND))
    reader.close()


async def test_what_contents_know_is_known_here(opened: Callable[..., Opened]) -> None:
    """Where a member begins was learnt by a read through its file."""
    data = make_zip()
    it = opened(data)
    await it.content("second.tif")
    it.zip.located.clear()
    reader = await whole(it)
    second = data.index(SECOND)
    await reader.read(ByteRange(second + MIB, second + MIB + 10))
    assert it.zip.located == [ByteRange(second, second + len(SECOND))]
    reader.close()


async def test_a_copy_of_the_zip_looks_nothing_up(opened: Callable[..., Opened]) -> None:
    data = make_zip()
    it = opened(data)
    reader = await whole(it)
    step = 256 * 1024
    for at in range(0, len(data), step):
        assert await reader.read(ByteRange(at, at + step)) == data[at : at + step]
    assert it.zip.located == []
    assert len(it.zip.asked) == -(-len(data) // step)
    reader.close()


async def test_a_packed_member_is_read_as_bytes(opened: Callable[..., Opened]) -> None:
    data = make_zip()
    it = opened(data)
    reader = await whole(it)
    packed = data.index(b"packed.tif") + 10
    for at in (packed - 100, packed, packed + 5000):
        assert await reader.read(ByteRange(at, at + 100)) == data[at : at + 100]
    assert not any(it.zip.located)
    assert reader.expected_part(ByteRange(packed, packed + 10)) is None
    reader.close()


async def test_what_is_no_zip_is_read_as_bytes(opened: Callable[..., Opened]) -> None:
    """Nothing more of it is read, and nothing is logged."""
    it = opened(FILLING)
    reader = await whole(it)
    at = 2 * MIB + 500_000
    for _ in range(2):
        assert await reader.read(ByteRange(at, at + 100)) == FILLING[at : at + 100]
    assert not any(it.zip.located)
    assert len(it.zip.asked) == 3  # two reads, and one look at the end, which is cached
    reader.close()


async def test_a_zip_whose_end_is_not_cached_is_read_as_bytes(
    opened: Callable[..., Opened],
) -> None:
    data = make_zip()
    it = opened(data)
    reader = await whole(it)
    it.zip.kept = ByteRange(0, 0)
    second = data.index(SECOND)
    for at in (second, second + MIB):
        assert await reader.read(ByteRange(at, at + 10)) == data[at : at + 10]
    assert len(it.zip.asked) == 2
    reader.close()


async def test_a_search_for_the_end_of_a_zip_is_one_request(opened: Callable[..., Opened]) -> None:
    """GDAL goes back by 8 KiB at a time, over all that a comment could fill."""
    data = make_zip()
    it = opened(data)
    reader = await whole(it)
    stop = len(data) - TAIL_BYTES
    assert await reader.read(ByteRange(stop - 8192, stop)) == data[stop - 8192 : stop]
    search = next(span for span in it.zip.asked if span.start < stop)
    assert search.start <= len(data) - 22 - 65_535 - 4096
    assert search.stop == stop
    reader.close()
