"""Members of other methods: unpacked once, within bounds."""

from __future__ import annotations

import bz2
import lzma
import random
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, ClassVar
from weakref import WeakKeyDictionary
from zlib import crc32

import pytest
import trio
from archive.opening import MIB, MemoryStore, Opened, wordy
from archive.zips import Entry, build
from hypothesis import given, settings
from hypothesis import strategies as st

from satfs.archive import decoders, spooled
from satfs.archive.member_data import MemberData
from satfs.archive.resources import DecoderMemory
from satfs.errors import Damaged, Unsupported
from satfs.model import ByteRange, Reader

zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

LZMA_FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]


def zip_lzma(data: bytes) -> bytes:
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=LZMA_FILTERS)
    return b"\x09\x04\x05\x00" + bytes([2 * 45 + 3]) + (1 << 16).to_bytes(4, "little") + packed


PACKERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (12, bz2.compress),
    (14, zip_lzma),
    (20, zstd.compress),
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
    content, shelf = wordy(2_500_000), MemoryStore()
    it = opened(
        build([Entry(b"a", content, method=method, packed=pack(content))]),
        derived=shelf,
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
    it = opened(build([entry]), derived=MemoryStore(), unpack_bytes=MIB)
    with pytest.raises(Damaged, match=how):
        await it.content("a", 50_000)


@pytest.mark.parametrize("method", [12, 14, 93, 95])
async def test_garbage_in_other_methods_is_damage(
    opened: Callable[..., Opened], method: int
) -> None:
    """Again and again, and never other bytes."""
    entry = Entry(b"a", b"x" * 5000, method=method, packed=b"\x09\x04\x05\x00]\0\0\1\0garbage" * 9)
    it = opened(build([entry]), derived=MemoryStore(), unpack_bytes=MIB)
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
        derived=MemoryStore(),
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
    """With any setting: it would evict the bytes that it is made of."""
    entry = Entry(b"a", b"x" * 5000, method=12, packed=bz2.compress(b"x" * 5000))
    it = opened(build([entry]), derived=MemoryStore(max_bytes=4999), unpack_bytes=MIB)
    with pytest.raises(Unsupported, match="cache"):
        await it.reader("a")
    await it.is_closed()


async def test_what_was_unpacked_is_there_after_a_remount(opened: Callable[..., Opened]) -> None:
    """No byte of the member is requested again; its CRC is checked again."""
    content, shelf = wordy(900_000), MemoryStore()
    data = build([Entry(b"a", content, method=12, packed=bz2.compress(content))])
    async with trio.open_nursery() as first_mount:
        it = Opened(data, first_mount, derived=shelf, unpack_bytes=MIB)
        assert await it.content("a") == content
        await it.end()
    again = opened(data, derived=shelf, unpack_bytes=MIB)
    await again.archive.members()
    n_asked = len(again.zip.asked)
    assert await again.content("a") == content
    assert len(again.zip.asked) == n_asked
    (file,) = shelf.files.values()
    file.pieces[5] = bytes(len(file.pieces[5]))
    with pytest.raises(Damaged, match="CRC"):
        await opened(data, derived=shelf, unpack_bytes=MIB).content("a")


async def test_bytes_of_a_member_that_is_damaged_at_its_end_are_never_whole(
    opened: Callable[..., Opened],
) -> None:
    """So no later mount takes them for the member."""
    content, shelf = wordy(200_000), MemoryStore()
    packed = bz2.compress(content + b"more")
    data = build([Entry(b"a", content, method=12, packed=packed)])
    for _ in range(2):
        it = opened(data, derived=shelf, unpack_bytes=MIB)
        with pytest.raises(Damaged, match="more"):
            await it.content("a", 50_000)
    (file,) = shelf.files.values()
    assert await file.first_gap(ByteRange(0, len(content))) is not None


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_had_to_go_is_unpacked_again(data: st.DataObject) -> None:
    """Any reads, any pieces evicted in between, by one reader or two at once: the same bytes."""
    content, shelf = wordy(120_000), MemoryStore()
    zipped = build([Entry(b"a", content, method=12, packed=bz2.compress(content))])
    spans = st.builds(
        lambda start, length: ByteRange(start, start + length),
        st.integers(0, 120_000),
        st.integers(0, 60_000),
    )

    async def read_and_evict() -> None:
        async with trio.open_nursery() as nursery:
            it = Opened(zipped, nursery, derived=shelf, unpack_bytes=MIB)
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


# -- the decoders' memory --------------------------------------------------------------------------


def with_dictionary(data: bytes, n_bytes: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": n_bytes}]
    return lzma.compress(data, lzma.FORMAT_XZ, filters=filters)


@cache
def large_member() -> tuple[bytes, bytes]:
    """Return the content of a member, 72 MiB, and what it is packed as, with a dictionary of 64."""
    content = wordy(64 * 1024) * 96 * 12
    return content, with_dictionary(content, 64 * MIB)


class CountingDecoder:
    """A decoder that is counted, with the dictionary it was made for, as long as it exists."""

    held: ClassVar[WeakKeyDictionary[CountingDecoder, int]] = WeakKeyDictionary()
    most = 0
    n_made = 0

    def __init__(self, decoder: Any, dictionary: int) -> None:
        self._decoder = decoder
        self.held[self] = dictionary
        CountingDecoder.n_made += 1
        CountingDecoder.most = max(CountingDecoder.most, sum(self.held.values()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountingDecoder]:
    CountingDecoder.most = CountingDecoder.n_made = 0
    monkeypatch.setattr(
        spooled,
        "new_decoder",
        lambda method, dictionary: CountingDecoder(
            decoders.new_decoder(method, dictionary), dictionary
        ),
    )
    return CountingDecoder


@pytest.mark.slow
async def test_decoders_of_all_open_members_share_one_limit(
    opened: Callable[..., Opened], counted: type[CountingDecoder]
) -> None:
    """Twenty members with dictionaries of 64 MiB are read at once and in turn within 128 MiB."""
    content, packed = large_member()
    names = [f"m{number}".encode() for number in range(20)]
    it = opened(
        build([Entry(name, content, method=95, packed=packed) for name in names]),
        derived=MemoryStore(max_bytes=10**9),
        unpack_bytes=10**9,
    )
    readers = [await it.reader(name.decode()) for name in names]

    async def read(reader: Reader, start: int) -> None:
        data = await reader.read(ByteRange(start, start + 70_000))
        assert data == content[start : start + 70_000]

    for start in (0, 8 * MIB, 30 * MIB):
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(read, reader, start)
    assert 64 * MIB <= counted.most <= 128 * MIB
    # Some are made again, but a few times only.
    assert 20 < counted.n_made <= 20 * 5


async def test_a_member_that_is_whole_holds_no_decoder(
    opened: Callable[..., Opened], counted: type[CountingDecoder]
) -> None:
    """A member that was unpacked to its end, or found damaged, keeps no decoder while open."""
    content = wordy(300_000)
    it = opened(
        build(
            [
                Entry(b"good", content, method=95, packed=lzma.compress(content)),
                Entry(b"bad", content, method=12, packed=bz2.compress(content), crc=1),
            ]
        ),
        derived=MemoryStore(),
        unpack_bytes=MIB,
    )
    good, bad = await it.reader("good"), await it.reader("bad")
    await good.read(ByteRange(0, 300_000))
    with pytest.raises(Damaged):
        await bad.read(ByteRange(0, 300_000))
    assert not counted.held


@pytest.mark.slow
@pytest.mark.parametrize(("method", "pack"), PACKERS)
async def test_a_decoder_that_waits_for_the_network_is_lent_to_others(
    opened: Callable[..., Opened],
    monkeypatch: pytest.MonkeyPatch,
    method: int,
    pack: Callable[[bytes], bytes],
) -> None:
    """A member whose bytes do not come keeps no other member from being read."""
    content, packed_content = large_member()
    packed = random.Random(1).randbytes(3 * MIB)
    it = opened(
        build(
            [
                Entry(b"slow", packed, method=method, packed=pack(packed)),
                Entry(b"good", content, method=95, packed=packed_content),
            ]
        ),
        derived=MemoryStore(max_bytes=10**9),
        unpack_bytes=10**9,
    )
    it.archives._resources.decoder_memory = DecoderMemory(70 * MIB)
    slow_reader, good_reader = await it.reader("slow"), await it.reader("good")
    assert await slow_reader.read(ByteRange(0, 5)) == packed[:5]
    monkeypatch.setattr(spooled, "_MAX_INPUT_WAIT_S", 0)
    is_hanging, goes_on = trio.Event(), trio.Event()
    fetch = MemberData.fetch

    async def hang(self: MemberData, read: Any, span: ByteRange) -> Any:
        if self.path == "slow" and not is_hanging.is_set():
            is_hanging.set()
            await goes_on.wait()
        return await fetch(self, read, span)

    monkeypatch.setattr(MemberData, "fetch", hang)
    async with trio.open_nursery() as nursery:

        async def read_slow() -> None:
            assert await slow_reader.read(ByteRange(0, 3 * MIB)) == packed

        nursery.start_soon(read_slow)
        await is_hanging.wait()
        with trio.fail_after(10):
            assert await good_reader.read(ByteRange(0, 70_000)) == content[:70_000]
        goes_on.set()


@pytest.mark.parametrize(
    ("method", "packed"),
    [
        (95, with_dictionary(b"x" * 5000, 129 * MIB)),
        (93, b"\x28\xb5\x2f\xfd\x00" + bytes([(28 - 10) << 3]) + b"\x01\x00\x00"),
        (14, b"\x09\x04\x05\x00\x5d" + (129 * MIB).to_bytes(4, "little") + b"x" * 90),
    ],
)
async def test_a_dictionary_beyond_the_limit_is_refused_with_a_sentence(
    opened: Callable[..., Opened], counted: type[CountingDecoder], method: int, packed: bytes
) -> None:
    """Each method's header is read before a decoder is made; the refusal names both sizes."""
    entry = Entry(b"a", b"x" * 5000, method=method, packed=packed)
    it = opened(build([entry]), derived=MemoryStore(), unpack_bytes=MIB)
    reader = await it.reader("a")
    for _ in range(2):
        with pytest.raises(Unsupported, match=f"dictionary of \\d+ bytes; at most {128 * MIB}"):
            await reader.read(ByteRange(0, 5000))
    assert counted.n_made == 0


@given(
    st.sampled_from([12, 14, 93, 95]),
    st.binary(max_size=60).map(lambda data: data[:20]),
    st.booleans(),
)
def test_whatever_a_header_holds_its_dictionary_is_bounded(
    method: int, garbage: bytes, is_magic: bool
) -> None:
    """Any first bytes give a size within the limit, or Unsupported; nothing else is raised."""
    magic = {93: b"\x28\xb5\x2f\xfd", 95: b"\xfd7zXZ\0\0\4\x69\x22\xde\x36"}.get(method, b"")
    try:
        n_bytes = decoders.dictionary_bytes(method, (magic if is_magic else b"") + garbage)
    except Unsupported:
        return
    assert 0 <= n_bytes <= decoders.MAX_DICTIONARY_BYTES
    assert decoders.decoder_bytes(method, n_bytes, 2**40, 2**40) <= decoders.MAX_DECODER_BYTES


@given(st.integers(12, 27), st.sampled_from([93, 95]))
@settings(max_examples=20, deadline=None)
def test_the_dictionary_that_was_asked_for_is_found(log: int, method: int) -> None:
    """The window that the library writes is read from the header."""
    if method == 95:
        packed = with_dictionary(b"abc" * 100, 1 << log)
    else:
        parameter = zstd.CompressionParameter.window_log
        compressor = zstd.ZstdCompressor(options={parameter: log})
        packed = compressor.compress(b"abc" * 100) + compressor.compress(b"z" * 9_000_000)
        packed += compressor.flush()
    assert decoders.dictionary_bytes(method, packed[: decoders.HEAD_BYTES]) == 1 << log
