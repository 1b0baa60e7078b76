"""Stored members: arithmetic on the zip."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from archive.opening import Opened, wordy
from archive.zips import Entry, Layout, build, extra_field

from satfs.errors import Damaged
from satfs.model import ByteRange


async def test_a_stored_member_is_arithmetic(opened: Callable[..., Opened]) -> None:
    """The first read finds the data in one request; each other is one read of the same length."""
    content = random.Random(1).randbytes(500_000)
    it = opened(build([Entry(b"x", b"y" * 1000), Entry(b"a.tif", content, local_extra=b"?" * 28)]))
    reader = await it.reader("a.tif")
    it.zip.asked.clear()
    assert await reader.read(ByteRange(0, 16384)) == content[:16384]
    (asked,) = it.zip.asked
    assert len(asked) <= 16384 + 30 + 5 + 64
    it.zip.asked.clear()
    assert await reader.read(ByteRange(300_000, 400_000)) == content[300_000:400_000]
    assert [len(span) for span in it.zip.asked] == [100_000]
    again = await it.reader("a.tif")
    it.zip.asked.clear()
    assert await again.read(ByteRange(499_999, 600_000)) == content[499_999:]
    assert [len(span) for span in it.zip.asked] == [1], "where it begins is remembered"
    assert await again.read(ByteRange(500_000, 600_000)) == b""


@pytest.mark.parametrize("extra_bytes", [0, 64, 65, 200, 5000])
@pytest.mark.parametrize("first", [0, 10, 100_000])
async def test_the_local_headers_own_lengths_are_honoured(
    opened: Callable[..., Opened], extra_bytes: int, first: int
) -> None:
    """They differ from the directory's; found once, and never more than two requests."""
    content = random.Random(1).randbytes(150_000)
    entry = Entry(b"a.tif", content, local_extra=extra_field(0x9999, bytes(extra_bytes)))
    it = opened(build([entry, Entry(b"behind", b"z" * 40_000)], Layout(prefix=b"#!" * 50)))
    reader = await it.reader("a.tif")
    it.zip.asked.clear()
    assert await reader.read(ByteRange(first, first + 200)) == content[first : first + 200]
    assert len(it.zip.asked) <= 2
    assert it.zip.n_bytes_asked < first + 1000 or first > 65536


async def test_the_crc_of_a_stored_member_is_checked_once_all_was_seen(
    opened: Callable[..., Opened],
) -> None:
    """Once every byte of a member was read its CRC is checked; a wrong one is EIO from then on."""
    content = random.Random(1).randbytes(100_000)
    it = opened(build([Entry(b"good", content), Entry(b"bad", content, crc=123)]))
    spans = [ByteRange(start, start + 10_000) for start in range(0, 100_000, 10_000)]
    random.Random(2).shuffle(spans)
    good, bad = await it.reader("good"), await it.reader("bad")
    for span in spans:
        assert await good.read(span) == content[span.start : span.stop]
    for span in spans[:-1]:
        assert await bad.read(span) == content[span.start : span.stop]
    with pytest.raises(Damaged, match="CRC"):
        await bad.read(spans[-1])
    with pytest.raises(Damaged, match="CRC"):
        await bad.read(spans[0])
    it.close(bad)
    with pytest.raises(Damaged, match="CRC"):
        await it.reader("bad")


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("where", ["signature", "method", "encrypted", "reach"])
async def test_a_local_header_that_contradicts_the_directory_is_damage(
    opened: Callable[..., Opened], method: int, where: str
) -> None:
    """Bytes are never taken from where they are not."""
    data = bytearray(build([Entry(b"a", wordy(500), method=method), Entry(b"b", b"b")]))
    if where == "signature":
        data[0] = 0
    elif where == "method":
        data[8] = 12
    elif where == "encrypted":
        data[6] |= 1
    else:
        data[28:30] = b"\xff\xff"
    it = opened(bytes(data))
    reader = await it.reader("a")
    for _ in range(2):
        with pytest.raises(Damaged):
            await reader.read(ByteRange(0, 10))
    assert await it.content("b") == b"b"
