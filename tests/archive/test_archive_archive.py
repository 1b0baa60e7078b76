"""A whole zip: its directory at the first use, and the members that can be opened."""

from __future__ import annotations

import bz2
import contextlib
import gc
import io
import lzma
import weakref
import zipfile
from collections.abc import Callable
from zlib import crc32

import pytest
import structlog
import trio
from archive.opening import MIB, MemoryStore, Opened, read_all, resources, wordy
from archive.zips import CountingZip, Entry, Layout, build, files, honest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satfs.archive import archive as archive_module
from satfs.archive.archive import Archives
from satfs.archive.end_record import TAIL_BYTES
from satfs.archive.paths import NameProblem
from satfs.errors import Damaged, Encrypted, Unreachable, Unsupported
from satfs.model import ByteRange, Reader


async def test_nothing_is_read_until_somebody_looks(opened: Callable[..., Opened]) -> None:
    """And then the tail, once, for any number of callers."""
    it = opened(honest({f"{number}.txt": b"x" for number in range(100)}))
    assert it.zip.asked == []
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(it.archive.members)
    assert it.zip.asked == [ByteRange(0, it.zip.size_bytes)]
    assert len(files(await it.archive.members())) == 100
    await it.is_closed()


async def test_a_directory_larger_than_the_tail_takes_one_more_read(
    opened: Callable[..., Opened],
) -> None:
    """Of what the tail did not hold."""
    data = honest({f"{number:06}.tif": b"" for number in range(3000)})
    it = opened(data)
    assert len(files(await it.archive.members())) == 3000
    tail, rest = it.zip.asked
    assert tail == ByteRange(len(data) - TAIL_BYTES, len(data))
    assert rest.stop == tail.start


@pytest.mark.slow
async def test_a_cancelled_look_is_taken_up_where_it_was(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory too large for one deadline is read by those who come again."""
    monkeypatch.setattr(archive_module, "_PIECE_BYTES", 10_000)
    it = opened(honest({f"{number:06}.tif": b"" for number in range(5000)}))
    read, n_left = it.zip.read, 5

    async def slow(span: ByteRange) -> memoryview:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            await trio.sleep_forever()
        return await read(span)

    monkeypatch.setattr(it.zip, "read", slow)
    n_asked = []
    while True:
        n_left = 5
        before = len(it.zip.asked)
        with trio.move_on_after(0.5):
            assert len(files(await it.archive.members())) == 5000
            break
        n_asked.append(len(it.zip.asked) - before)
    assert n_asked
    await it.is_closed()
    assert len(set(it.zip.asked)) == len(it.zip.asked), "no piece twice"


async def test_a_damaged_zip_is_read_once(
    opened: Callable[..., Opened], expect_log: Callable[..., None]
) -> None:
    """The directory does not change: the next caller gets it without a request."""
    expect_log("archive not readable", archive="zip 1")
    it = opened(b"<html>not a zip</html>")
    for _ in range(2):
        with pytest.raises(Damaged, match="not a zip"):
            await it.archive.members()
    assert len(it.zip.asked) == 1


async def test_a_failed_look_is_tried_again(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is down is no statement about the zip."""
    it = opened(honest({"a": b"x"}))

    async def fail(span: ByteRange) -> bytes:
        raise Unreachable("no network")

    with monkeypatch.context() as patched:
        patched.setattr(it.zip, "read", fail)
        with pytest.raises(Unreachable):
            await it.archive.members()
    assert list(files(await it.archive.members())) == ["a"]


async def test_one_version_of_a_zip_is_one_archive(nursery: trio.Nursery) -> None:
    """The same for every path that leads to it; another version is another archive."""
    archives = Archives(resources(nursery))
    source = CountingZip(honest({"a": b"x"}))
    first = archives.archive("v1", source.open)
    assert archives.archive("v1", source.open) is first
    assert archives.archive("v2", source.open) is not first


@pytest.mark.parametrize("method", [0, 8, 12, 99])
async def test_an_encrypted_member_is_refused_when_opened(
    opened: Callable[..., Opened], method: int
) -> None:
    """Known, and not readable, with any method."""
    it = opened(build([Entry(b"a", b"x" * 10, method=method, packed=b"?" * 22, flags=1)]))
    with pytest.raises(Encrypted):
        await it.reader("a")


async def test_a_member_that_is_refused_does_not_hide_the_others(
    opened: Callable[..., Opened],
) -> None:
    """Hostile members beside honest ones: the honest are read."""
    it = opened(
        build([Entry(b"../evil", b"x"), Entry(b"fine", b"content"), Entry(b"b" * 300, b"y")])
    )
    assert await it.content("fine") == b"content"
    assert {item.refusal for item in (await it.archive.members()).refused} == {
        NameProblem.OUTSIDE,
        NameProblem.TOO_LONG,
    }


@st.composite
def archives(draw: st.DrawFn) -> dict[str, tuple[bytes, int]]:
    """Return contents and methods of a random archive's members."""
    found = {}
    for number in range(draw(st.integers(1, 4))):
        seed, size = draw(st.integers(0, 99)), draw(st.integers(0, 300_000))
        found[f"d/{number}"] = (wordy(size, seed), draw(st.sampled_from([0, 8, 12, 14])))
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(archives(), st.data())
def test_random_reads_of_random_archives_are_what_zipfile_reads(
    contents: dict[str, tuple[bytes, int]], data: st.DataObject
) -> None:
    """Any member, any range, any order: the bytes that the standard library extracts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, (content, method) in contents.items():
            made.writestr(name, content, method)
    zipped = buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(zipped)) as reference:
        expected = {name: reference.read(name) for name in contents}
    reads = []
    for _ in range(data.draw(st.integers(1, 12))):
        name = data.draw(st.sampled_from(sorted(contents)))
        start = data.draw(st.integers(0, len(expected[name]) + 10))
        reads.append((name, ByteRange(start, start + data.draw(st.integers(0, 400_000)))))

    async def read_them() -> None:
        async with trio.open_nursery() as nursery:
            it = Opened(zipped, nursery, derived=MemoryStore(), unpack_bytes=10 * MIB)
            rows = files(await it.archive.members())
            assert set(rows) == set(contents)
            readers: dict[str, Reader] = {}
            for name, span in reads:
                if name not in readers:
                    readers[name] = await it.reader(name)
                got = await readers[name].read(span)
                assert got == expected[name][span.start : span.stop]
            await it.end()

    trio.run(read_them)


MUTABLE = build(
    [
        Entry(b"stored", wordy(900), local_extra=b"\0" * 9),
        Entry(b"deflated", wordy(3000), method=8, has_descriptor=True),
        Entry(b"bzip2", wordy(500), method=12, packed=bz2.compress(wordy(500))),
        Entry(b"xz", wordy(500), method=95, packed=lzma.compress(wordy(500))),
        Entry(b"d/empty", b"", method=8),
    ],
    Layout(is_zip64=True, comment=b"a comment"),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_mutated_archive_gives_right_bytes_or_an_error_of_ours(data: st.DataObject) -> None:
    """Flipped bytes anywhere: what can be read whole has the declared size and CRC."""
    zipped = bytearray(MUTABLE)
    for _ in range(data.draw(st.integers(1, 5))):
        zipped[data.draw(st.integers(0, len(zipped) - 1))] = data.draw(st.integers(0, 255))

    async def read_everything() -> None:
        async with trio.open_nursery() as nursery:
            it = Opened(bytes(zipped), nursery, derived=MemoryStore(), unpack_bytes=MIB)
            with contextlib.suppress(Damaged):
                members = await it.archive.members()
                for row in files(members).values():
                    member = members.member(row)
                    if member.size_bytes > MIB:
                        continue  # a size that lies is found out in the end, and this takes long
                    with contextlib.suppress(Damaged, Encrypted, Unsupported):
                        reader = await it.archive.open(row)
                        it.left_open.append(reader)
                        content = await read_all(reader, 700)
                        assert len(content) == member.size_bytes
                        assert crc32(content) == member.crc32 or not content
            await it.end()

    with structlog.testing.capture_logs():
        trio.run(read_everything)


async def test_archives_are_forgotten_but_for_those_in_use_and_used_last(
    nursery: trio.Nursery,
) -> None:
    """Nothing keeps an archive that no node refers to, when others came after it."""
    archives = Archives(resources(nursery))
    source = CountingZip(honest({"a": b"x"}))
    kept = archives.archive("kept", source.open)
    forgotten = weakref.ref(archives.archive("forgotten", source.open))
    for number in range(100):
        archives.archive(f"v{number}", source.open)
    gc.collect()
    assert forgotten() is None
    assert archives.archive("kept", source.open) is kept
