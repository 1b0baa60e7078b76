"""Members of other methods: unpacked once, within bounds."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from archive.opening import MIB, Opened, wordy
from archive.zips import Entry, build

from satfs.errors import Damaged, Unsupported
from satfs.model import ByteRange

LZMA_FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]


def zip_lzma(data: bytes) -> bytes:
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=LZMA_FILTERS)
    return b"\x09\x04\x05\x00" + bytes([2 * 45 + 3]) + (1 << 16).to_bytes(4, "little") + packed


PACKERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (12, bz2.compress),
    (14, zip_lzma),
    (95, lzma.compress),
]


@pytest.mark.parametrize(("method", "pack"), PACKERS)
async def test_other_methods_are_unpacked_once(
    opened: Callable[..., Opened],
    tmp_path: Path,
    method: int,
    pack: Callable[[bytes], bytes],
) -> None:
    """A member of bzip2, LZMA or xz is unpacked once, to disk, as far as it is read."""
    content = wordy(2_500_000)
    it = opened(
        build([Entry(b"a", content, method=method, packed=pack(content))]),
        cache_dir=tmp_path,
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
    assert list((tmp_path / "unpacked").iterdir()) == [], "the file has no name"


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
    tmp_path: Path,
    method: int,
    pack: Callable[[bytes], bytes],
    change: dict[str, int],
    how: str,
) -> None:
    """More, fewer or other bytes than declared are damage."""
    content = wordy(200_000)
    entry = Entry(b"a", content, method=method, packed=pack(content), **change)  # type: ignore[arg-type]
    it = opened(build([entry]), cache_dir=tmp_path, unpack_bytes=MIB)
    with pytest.raises(Damaged, match=how):
        await it.content("a", 50_000)


@pytest.mark.parametrize("method", [12, 14, 95])
async def test_garbage_in_other_methods_is_damage(
    opened: Callable[..., Opened], tmp_path: Path, method: int
) -> None:
    """Again and again, and never other bytes."""
    entry = Entry(b"a", b"x" * 5000, method=method, packed=b"\x09\x04\x05\x00]\0\0\1\0garbage" * 9)
    it = opened(build([entry]), cache_dir=tmp_path, unpack_bytes=MIB)
    reader = await it.reader("a")
    for _ in range(3):
        with pytest.raises(Damaged):
            await reader.read(ByteRange(0, 5000))


async def test_a_member_that_takes_too_much_is_refused_when_opened(
    opened: Callable[..., Opened], tmp_path: Path
) -> None:
    """A member that takes too much disk or memory, or has an unknown method, is EOPNOTSUPP."""
    content = wordy(100_000)
    greedy = zip_lzma(content)[:5] + (1 << 31).to_bytes(4, "little") + zip_lzma(content)[9:]
    it = opened(
        build(
            [
                Entry(b"large", content, method=12, packed=bz2.compress(content)),
                Entry(b"small", content[:50_000], method=12, packed=bz2.compress(content[:50_000])),
                Entry(b"next", content[:60_000], method=12, packed=bz2.compress(content[:60_000])),
                Entry(b"greedy", content[:100], method=14, packed=greedy),
                Entry(b"odd", content, method=98, packed=content),
            ]
        ),
        cache_dir=tmp_path,
        unpack_bytes=99_999,
    )
    with pytest.raises(Unsupported, match="disk"):
        await it.reader("large")
    with pytest.raises(Unsupported, match="PPMd"):
        await it.reader("odd")
    with pytest.raises(Unsupported, match="dictionary"):
        await it.content("greedy")
    small = await it.reader("small")
    with pytest.raises(Unsupported, match="disk"):
        await it.reader("next")
    it.close(small)
    assert await it.content("next") == content[:60_000], "parked members give way"
    await it.is_closed()


async def test_without_a_cache_directory_nothing_is_unpacked_to_disk(
    opened: Callable[..., Opened],
) -> None:
    """A clear refusal, at open."""
    it = opened(build([Entry(b"a", b"x", method=12, packed=bz2.compress(b"x"))]))
    with pytest.raises(Unsupported):
        await it.reader("a")
    await it.is_closed()
