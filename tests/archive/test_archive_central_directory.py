"""From any bytes of a directory to members."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zipfile
from collections.abc import Iterable
from zlib import crc32

import pytest
from archive.zips import (
    DOS_DATE,
    DOS_TIME,
    Entry,
    Layout,
    build,
    directories,
    extra_field,
    files,
    find_directory,
    honest,
    members,
    read_members,
    refusals,
    walk,
)
from hypothesis import given
from hypothesis import strategies as st

from satfs.archive import members as members_module
from satfs.archive.central_directory import DirectoryParser
from satfs.archive.end_record import CentralDirectory
from satfs.archive.members import ROOT, Members
from satfs.errors import Damaged
from satfs.model import ByteRange

NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=40
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def read_entries(entries: Iterable[Entry], layout: Layout | None = None) -> Members:
    return read_members(build(entries, layout))


@given(st.dictionaries(PATHS, st.binary(max_size=50), max_size=12))
def test_an_honest_archive_reads_as_zipfile_reads_it(contents: dict[str, bytes]) -> None:
    """Every member that zipfile finds is shown with its numbers, or is refused by name."""
    data = honest(contents)
    tree = read_members(data)
    shown = files(tree)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    assert len(shown) + tree.n_refused == len(infos)
    for path, row in shown.items():
        info = next(info for name, info in infos.items() if _same(name, path))
        member = tree.member(row)
        assert member.size_bytes == info.file_size
        assert member.compressed_bytes == info.compress_size
        assert member.header_offset == info.header_offset
        assert member.crc32 == info.CRC
        assert member.method == info.compress_type
        assert member.name_bytes == len(info.orig_filename.encode())
        assert not member.is_encrypted
        assert not member.is_executable
    assert {refused.name for refused in tree.refused} <= set(infos)


def _same(name: str, path: str) -> bool:
    return [part for part in name.split("/") if part not in ("", ".")] == path.split("/")


def test_directories_are_there_whether_stated_or_implied() -> None:
    """With their own entry they have its time; the root is never an entry."""
    tree = read_entries(
        [
            Entry(b"./"),
            Entry(b"stated/"),
            Entry(b"stated/deep/x", b"1"),
            Entry(b"implied/y", b"2"),
            Entry(b"late/z", b"3"),
            Entry(b"late/", date=DOS_DATE + 1),
            Entry(b"zero", b""),
        ]
    )
    assert directories(tree) == {"stated", "stated/deep", "implied", "late"}
    assert set(files(tree)) == {"stated/deep/x", "implied/y", "late/z", "zero"}
    assert tree.n_refused == 0
    rows = walk(tree)
    moment_ns = 1_706_933_106 * 10**9  # 2024-02-03 04:05:06 UTC
    assert tree.mtime_ns(rows["stated"]) == moment_ns
    assert tree.mtime_ns(rows["implied"]) is None
    assert tree.mtime_ns(rows["late"]) == moment_ns + 86_400 * 10**9
    assert tree.member(rows["zero"]).size_bytes == 0
    assert tree.find(ROOT, b"stated") == rows["stated"]
    assert tree.find(ROOT, b"deep") is None
    assert tree.find(rows["stated"], b"deep") == rows["stated/deep"]


def ntfs(mtime_s: int, nanoseconds: int = 0) -> bytes:
    ticks = (mtime_s + 11_644_473_600) * 10**7 + nanoseconds // 100
    return extra_field(0x000A, bytes(4) + extra_field(1, struct.pack("<3Q", ticks, 0, 0)))


def stamp(mtime_s: int, flags: int = 1) -> bytes:
    return extra_field(0x5455, struct.pack("<Bl", flags, mtime_s))


@pytest.mark.parametrize(
    ("entry", "mtime_ns"),
    [
        (Entry(b"a"), 1_706_933_106 * 10**9),
        (Entry(b"a", date=0, time=0), None),
        (Entry(b"a", date=(44 << 9) | (2 << 5) | 30), None),  # 30 February
        (Entry(b"a", time=0xFFFF), None),
        (Entry(b"a", extra=stamp(1_700_000_001)), 1_700_000_001 * 10**9),
        (Entry(b"a", extra=stamp(-5)), 1_706_933_106 * 10**9),
        (Entry(b"a", extra=stamp(1_700_000_001, flags=2)), 1_706_933_106 * 10**9),
        (Entry(b"a", extra=ntfs(1_700_000_001, 123_400)), 1_700_000_001 * 10**9 + 123_400),
        (Entry(b"a", extra=ntfs(1_700_000_009) + stamp(1_700_000_001)), 1_700_000_001 * 10**9),
        (Entry(b"a", extra=extra_field(0x000A, b"\xff" * 50)), 1_706_933_106 * 10**9),
        (Entry(b"a", extra=extra_field(0x5455, b"\1")), 1_706_933_106 * 10**9),
        (Entry(b"a", extra=b"\x55\x54\xff\xff\1"), 1_706_933_106 * 10**9),
    ],
)
def test_the_time_of_a_member(entry: Entry, mtime_ns: int | None) -> None:
    """Extended timestamp, NTFS time, DOS time as UTC; none when the archive states none."""
    tree = read_entries([entry])
    assert tree.mtime_ns(files(tree)["a"]) == mtime_ns


@pytest.mark.parametrize(
    ("entry", "is_executable"),
    [
        (Entry(b"a", mode=0o100755), True),
        (Entry(b"a", mode=0o755), True),
        (Entry(b"a", mode=0o100644), False),
        (Entry(b"a", mode=0o120777), False),  # a symbolic link is shown as the text that it holds
        (Entry(b"a", mode=0o100755, made_on=0), False),
    ],
)
def test_the_executable_bit_comes_from_unix_only(entry: Entry, is_executable: bool) -> None:
    """And never from a symbolic link, whose bits mean nothing."""
    tree = read_entries([entry])
    assert tree.member(files(tree)["a"]).is_executable is is_executable


def test_names_in_every_encoding() -> None:
    """UTF-8 by flag, by Unix program, by extra field; code page 437 otherwise."""
    field = extra_field(0x7075, struct.pack("<BL", 1, crc32(b"_")) + "ö".encode())
    tree = read_entries(
        [
            Entry("ü".encode(), flags=1 << 11, made_on=0),
            Entry("é".encode()),
            Entry(b"\x84", made_on=0),
            Entry(b"_", extra=field),
        ]
    )
    assert set(files(tree)) == {"ü", "é", "ä", "ö"}


def test_the_later_of_two_members_of_one_name_is_shown() -> None:
    """Of two members with one name the later is shown: programs that update a zip append."""
    tree = read_entries([Entry(b"a", b"old"), Entry(b"b", b"b"), Entry(b"./a", b"newer")])
    assert tree.member(files(tree)["a"]).size_bytes == 5
    assert set(files(tree)) == {"a", "b"}
    assert refusals(tree) == {"a": "DUPLICATE"}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_directory_wins_over_a_file_of_the_same_name(order: list[int]) -> None:
    """Of a directory and a file with one name the directory is shown: it has more to show."""
    entries = [Entry(b"a", b"file"), Entry(b"a/b", b"inside")]
    tree = read_entries(entries[index] for index in order)
    assert set(files(tree)) == {"a/b"}
    assert directories(tree) == {"a"}
    assert refusals(tree) == {"a": "CLASH"}


def test_what_cannot_be_shown_is_listed_with_the_reason() -> None:
    """The honest member beside them is shown all the same."""
    tree = read_entries(
        [
            Entry(b"../evil", b"x"),
            Entry(b"/../abs", b"x"),
            Entry(b"C:\\drive", b"x"),
            Entry(b"l" * 300, b"x"),
            Entry(b"nul\0", b"x"),
            Entry(b"beyond", b"", offset=10**6),
            Entry(b"far", b"", offset=1 << 63),
            Entry(b"long", b"x", size=10**6, compressed=10**6),
            Entry(b"stored", b"four", size=5),
            Entry(b"bomb", b"", method=8, packed=b"\3\0", size=2 * 1032 + 1),
            Entry(b"honest", b"content"),
        ]
    )
    assert set(files(tree)) == {"honest"}
    assert refusals(tree) == {
        "../evil": "OUTSIDE",
        "/../abs": "OUTSIDE",
        "C:\\drive": "OUTSIDE",
        "l" * 300: "TOO_LONG",
        "nul\0": "UNNAMEABLE",
        "beyond": "MISPLACED",
        "far": "MISPLACED",
        "long": "MISPLACED",
        "stored": "CONTRADICTION",
        "bomb": "CONTRADICTION",
    }


def test_a_bomb_that_deflate_can_make_is_shown_with_the_size_it_declares() -> None:
    """Two gigabytes of zeros out of two megabytes are possible, and cost nothing until read."""
    packed = bytes(2_100_000)
    tree = read_entries([Entry(b"zeros", b"", method=8, packed=packed, size=2 << 30)])
    assert tree.member(files(tree)["zeros"]).size_bytes == 2 << 30


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_members_in_each_others_bytes_are_refused_but_for_the_first(order: list[int]) -> None:
    """Of members in the same bytes the first is shown, as in a bomb of a thousand members."""
    entries = [
        Entry(b"first", b"1" * 50),
        Entry(b"inner", is_absent=True, offset=40, size=10, compressed=10),
        Entry(b"second", b"2" * 50),
        Entry(b"same", is_absent=True, offset=0, size=20, compressed=20),
    ]
    tree = read_members(_in_order(entries, order))
    assert {"second"} <= set(files(tree))
    assert len(files(tree)) == 2
    assert sorted(refusals(tree).values()) == ["OVERLAP", "OVERLAP"]


def _in_order(entries: list[Entry], order: list[int]) -> bytes:
    """Lay the members out as listed, and the directory in another order."""
    plain = build(entries)
    found = find_directory(plain)
    directory = plain[found.span.start : found.span.stop]
    pieces, position = [], 0
    while position < len(directory):
        lengths = struct.unpack_from("<3H", directory, position + 28)
        stop = position + 46 + sum(lengths)
        pieces.append(directory[position:stop])
        position = stop
    shuffled = b"".join(pieces[index] for index in order)
    return plain[: found.span.start] + shuffled + plain[found.span.stop :]


@pytest.mark.parametrize("local_name", [b"", b"s", b"a much longer name/" * 20])
@pytest.mark.parametrize("name", [b"n", b"a name in the directory.tif"])
def test_a_local_name_of_another_length_hides_nothing(name: bytes, local_name: bytes) -> None:
    """Where a member ends is what its local header states, and that is read when it is opened."""
    entries = [
        Entry(name, b"first" * 9, local_name=local_name),
        Entry(b"second", b"2", local_name=local_name),
        Entry(b"last", b"3", local_name=local_name, has_descriptor=True),
    ]
    data = build(entries)
    tree = read_members(data)
    assert {path: tree.stop(row) for path, row in files(tree).items()} == {
        name.decode(): data.index(b"PK\3\4", 4),
        "second": data.rindex(b"PK\3\4"),
        "last": tree.offsets.data_stop,
    }
    assert tree.n_refused == 0


@given(st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=60)), max_size=6))
def test_honest_members_are_all_shown_whatever_their_local_names_and_fields(
    locals_: list[tuple[bytes, bytes]],
) -> None:
    """Local names and extra fields of any length: no member is among the bytes of another."""
    tree = read_members(
        build(
            Entry(b"%d" % number, b"x" * number, local_name=name, local_extra=extra)
            for number, (name, extra) in enumerate(locals_)
        )
    )
    assert len(files(tree)) == len(locals_)


@pytest.mark.parametrize(
    ("entry", "is_directory"),
    [
        (Entry(b"d", mode=0o040755), True),
        (Entry(b"d", mode=0o040755, method=8), True),
        (Entry(b"d", mode=0, made_on=0, attributes=0x10), True),
        (Entry(b"d", mode=0, made_on=0, attributes=0x20), False),
        (Entry(b"d", mode=0o100644, attributes=0x10), False),
        (Entry(b"d", b"content", mode=0o040755), False),
    ],
)
def test_a_directory_may_be_one_by_its_attributes_alone(entry: Entry, is_directory: bool) -> None:
    """Without a slash at its end, as some programs write it; bytes are never hidden by that."""
    tree = read_entries([entry])
    assert tree.is_directory(walk(tree)["d"]) is is_directory


def test_absolute_names_are_shown_without_their_first_slash() -> None:
    """As unzip unpacks them; of two that become one name the later is shown."""
    tree = read_entries(
        [Entry(b"/abs/a", b"1"), Entry(b"//b", b"2"), Entry(b"c", b"3"), Entry(b"/c", b"later")]
    )
    assert set(files(tree)) == {"abs/a", "b", "c"}
    assert tree.member(files(tree)["c"]).size_bytes == 5
    assert refusals(tree) == {"c": "DUPLICATE"}


def test_encrypted_members_are_shown() -> None:
    """They are refused when opened, not hidden; the header in front of the data is allowed for."""
    tree = read_entries([Entry(b"secret", b"x" * 20, packed=b"?" * 32, flags=1)])
    assert tree.member(files(tree)["secret"]).is_encrypted


def test_zip64_sizes_and_offsets_are_read() -> None:
    """Fields of 64 bits, in the order and number that the 32-bit fields call for."""
    big = 5 << 32
    directory = CentralDirectory(ByteRange(3 * big, 3 * big + 0), 1)
    entry = build([Entry(b"big", size=big, compressed=big, offset=big, is_absent=True)])
    span = find_directory(entry).span
    data = entry[span.start : span.stop]
    where = CentralDirectory(ByteRange(3 * big, 3 * big + len(data)), directory.n_entries)
    tree = members(data, where)
    member = tree.member(files(tree)["big"])
    assert (member.size_bytes, member.compressed_bytes, member.header_offset) == (big, big, big)


def test_a_missing_zip64_field_makes_a_member_that_lies_outside() -> None:
    """The 32-bit placeholder is no place in the archive."""
    data = build([Entry(b"x", b"abc")])
    span = find_directory(data).span
    directory = bytearray(data[span.start : span.stop])
    directory[42:46] = b"\xff" * 4
    tree = members(bytes(directory), find_directory(data))
    assert refusals(tree) == {"x": "MISPLACED"}


@pytest.mark.parametrize(
    "layout", [Layout(n_entries=1), Layout(n_entries=3), Layout(directory_bytes=60)]
)
def test_a_directory_that_contradicts_its_end_record_is_damaged(layout: Layout) -> None:
    """Part of a directory is never shown as if it were the whole."""
    with pytest.raises(Damaged):
        read_entries([Entry(b"aaaaaaaaaa"), Entry(b"b")], layout)


@pytest.mark.slow
def test_a_count_that_overflowed_sixteen_bits_is_understood() -> None:
    """Programs without ZIP64 write the numbers that fit; the directory itself has the others."""
    entries = [Entry(b"%05d" % number) for number in range(65_537)]
    tree = read_members(build(entries), tail_bytes=4 << 20)
    assert len(tree) == 65_538


def test_a_masked_directory_is_damaged() -> None:
    """Names and sizes in it are not what they seem."""
    with pytest.raises(Damaged, match="encrypted"):
        read_entries([Entry(b"x", flags=1 << 13)])


def test_a_digital_signature_behind_the_entries_is_skipped() -> None:
    """It belongs to the directory, and states nothing about members."""
    data = build([Entry(b"x", b"abc")])
    found = find_directory(data)
    signature = b"PK\5\5\4\0abcd"
    where = CentralDirectory(
        ByteRange(found.span.start, found.span.stop + len(signature)), found.n_entries
    )
    assert set(files(members(data[found.span.start : found.span.stop] + signature, where))) == {"x"}


def test_names_beyond_the_limit_are_counted_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded for any statements of the archive."""
    monkeypatch.setattr(members_module, "MAX_NAMES", 4)
    monkeypatch.setattr(members_module, "MAX_REFUSALS", 2)
    entries = [Entry(b"%d" % number) for number in range(5)] + [Entry(b"d/e/f"), Entry(b"g/")]
    tree = read_entries(entries)
    assert len(files(tree)) == 3
    assert tree.n_refused == 4
    assert [refused.refusal.name for refused in tree.refused] == ["TOO_MANY"] * 2


@given(st.data())
def test_pieces_of_any_size_give_the_same_members(data: st.DataObject) -> None:
    """A directory is read piece by piece; where the cuts are makes no difference."""
    zipped = honest({f"d{number}/{number}": b"x" * number for number in range(20)})
    found = find_directory(zipped)
    directory = zipped[found.span.start : found.span.stop]
    parser = DirectoryParser(found)
    position = 0
    while position < len(directory):
        stop = position + data.draw(st.integers(1, len(directory)))
        parser.feed(memoryview(directory)[position:stop])
        position = stop
    tree = parser.finish()
    assert walk(tree) == walk(members(directory, found))


@given(st.binary(max_size=400), st.integers(0, 70_000), st.integers(0, 1 << 65))
def test_any_bytes_are_members_or_damaged(data: bytes, n_entries: int, start: int) -> None:
    """Any bytes in place of a zip's directory are read as members, or as a damaged zip."""
    where = CentralDirectory(ByteRange(start, start + len(data)), n_entries)
    with contextlib.suppress(Damaged):
        walk(members(data, where))


@given(st.data())
def test_mutated_archives_are_members_or_damaged(data: st.DataObject) -> None:
    """Flipped bytes in valid archives: what is shown keeps every promise."""
    zipped = bytearray(
        build(
            [
                Entry(b"a/b", b"x" * 10, extra=stamp(1_700_000_000) + ntfs(1_700_000_000)),
                Entry(b"a/c", b"y" * 100, method=8),
                Entry("ü".encode(), b"z", flags=1 << 11, comment=b"hello"),
                Entry(b"big", size=1 << 33, compressed=1 << 33),
            ],
            Layout(is_zip64=data.draw(st.booleans()), prefix=b"#!/bin/sh\n"),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        zipped[data.draw(st.integers(0, len(zipped) - 1))] = data.draw(st.integers(0, 255))
    try:
        tree = read_members(bytes(zipped))
    except Damaged:
        return
    taken = 0
    for row in sorted(files(tree).values(), key=lambda row: tree.member(row).header_offset):
        member = tree.member(row)
        assert member.header_offset >= taken
        taken = member.header_offset + 30 + member.compressed_bytes
        assert taken <= tree.stop(row)
    assert taken <= tree.offsets.data_stop


@given(st.lists(st.binary(max_size=30), max_size=8), st.data())
def test_valid_archives_with_odd_names_agree_with_zipfile(
    names: list[bytes], data: st.DataObject
) -> None:
    """For any bytes as names: as many members as zipfile sees, shown or refused."""
    made_on = data.draw(st.sampled_from([0, 3]))
    zipped = build(Entry(name, b"x", made_on=made_on) for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
            found = [info.orig_filename for info in archive.infolist()]
    # Windows programs may end a directory's name with a backslash.
    n_members = sum(not name.endswith(("/", "\\") if made_on == 0 else "/") for name in found)
    tree = read_members(zipped)
    assert len(files(tree)) <= n_members
    assert len(files(tree)) + tree.n_refused >= n_members


def test_half_a_million_entries_stay_under_a_hundred_bytes_each() -> None:
    """A member of any zip takes under 100 bytes of memory besides its name."""
    n_entries = 20_000
    entries = build([Entry(b"%07d.tif" % number) for number in range(n_entries)])
    tree = read_members(entries, tail_bytes=1 << 24)
    name_bytes = 11
    assert tree.n_bytes / n_entries < 100 + name_bytes


def test_dos_time_is_the_one_the_builder_means() -> None:
    """The constants above are 2024-02-03 04:05:06."""
    info = zipfile.ZipInfo("x", (2024, 2, 3, 4, 5, 6))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, b"")
    assert struct.unpack_from("<2H", buffer.getvalue(), 10) == (DOS_TIME, DOS_DATE)
