"""Where the directory is, from the last bytes of a zip."""

from __future__ import annotations

import struct

import pytest
from archive.zips import Entry, Layout, build, files, find_directory, honest, read_members
from hypothesis import given
from hypothesis import strategies as st

from satfs.archive.end_record import MAX_DIRECTORY_BYTES, CentralDirectory, NeedMore, locate
from satfs.errors import Damaged

MEMBERS = [Entry(b"a.txt", b"first"), Entry(b"b/c.txt", b"second" * 100, method=8)]
NAMES = {"a.txt", "b/c.txt"}

#: An end record without a single entry, as an attacker or an accident puts it into a comment.
EMPTY_END = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)


@given(
    prefix=st.binary(max_size=200),
    comment=st.one_of(
        st.binary(max_size=400),
        st.lists(
            st.sampled_from(
                [b"PK\5\6", b"PK\6\7", b"PK\6\6", b"PK\1\2", EMPTY_END, b"\0", b"x" * 22]
            )
        ).map(b"".join),
    ),
    is_zip64=st.booleans(),
    tail_bytes=st.integers(22, 3000),
)
def test_the_directory_is_found_whatever_surrounds_it(
    prefix: bytes, comment: bytes, is_zip64: bool, tail_bytes: int
) -> None:
    """Prefixes, comments full of signatures and ZIP64 records: the numbers that fit are right."""
    data = build(MEMBERS, Layout(prefix=prefix, comment=comment, is_zip64=is_zip64))
    found = find_directory(data, tail_bytes)
    assert data[found.span.start :].startswith(b"PK\1\2")
    assert found.n_entries == len(MEMBERS)
    assert found.shift == len(prefix)
    assert set(files(read_members(data, tail_bytes))) == NAMES


@pytest.mark.parametrize("filler", [b"PK\5\6", EMPTY_END, b"PK\6\6", b"\0"])
def test_the_longest_comment_takes_one_more_read(filler: bytes) -> None:
    """65,535 bytes of comment, of signatures or not: found with the one read that is requested."""
    comment = (filler * 65535)[:65535]
    data = build(MEMBERS, Layout(comment=comment))
    assert isinstance(locate(data[-65536:], len(data)), NeedMore)
    assert set(files(read_members(data))) == NAMES


def test_a_zip_inside_a_comment_is_not_taken_when_its_numbers_do_not_fit() -> None:
    """A whole zip as comment: its offsets are another's, and it does not reach the end."""
    data = build(MEMBERS, Layout(comment=build([Entry(b"evil", b"x")]) + b"."))
    assert set(files(read_members(data))) == NAMES


def test_one_tail_is_enough_for_a_directory_larger_than_it() -> None:
    """The end record states where the directory is: nothing more is requested for it."""
    data = honest({f"{number:05}.tif": b"" for number in range(2000)})
    found = locate(data[-65536:], len(data))
    assert isinstance(found, CentralDirectory)
    assert len(found.span) > 65536
    assert len(read_members(data)) == 2001


def test_bytes_behind_the_archive_are_tolerated() -> None:
    """A store or a tool that pads: the archive before it is whole."""
    data = build(MEMBERS, Layout(trailing=b"\0" * 100))
    assert set(files(read_members(data))) == NAMES


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"PK", b"junk behind it "])
@pytest.mark.parametrize("n_bytes", [200_000, 1 << 20, 5_000_000])
def test_megabytes_behind_the_archive_take_more_reads(filler: bytes, n_bytes: int) -> None:
    """As where a device was copied as a whole: the archive is found before them."""
    data = build(MEMBERS, Layout(trailing=(filler * n_bytes)[:n_bytes]))
    assert set(files(read_members(data))) == NAMES


def test_no_more_is_read_than_a_found_directory_takes() -> None:
    """Bytes behind the archive that the first longer tail settles cost no read beyond it."""
    data = build(MEMBERS, Layout(trailing=b"\0" * 100))
    data = bytes(4 << 20) + data
    found = locate(data[-65536:], len(data))
    assert isinstance(found, NeedMore)
    assert isinstance(locate(data[found.span.start :], len(data)), CentralDirectory)


def test_a_gap_between_directory_and_end_record_is_tolerated() -> None:
    """The directory is where the end record places it, when the signature there confirms it."""
    data = build(MEMBERS, Layout(gap=b"?" * 64))
    found = find_directory(data)
    assert found.shift == 0
    assert set(files(read_members(data))) == NAMES


def test_an_empty_archive_has_no_members() -> None:
    """Twenty-two bytes are a zip."""
    assert files(read_members(build([]))) == {}
    assert files(read_members(build([], Layout(comment=b"nothing")))) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        b"<html>503 Slow Down</html>" * 100,
        b"PK\3\4" + bytes(200_000),
        b"PK\5\6" * 20_000,
        EMPTY_END[:-1],
        build(MEMBERS)[:-1],
        build(MEMBERS)[: len(build(MEMBERS)) // 2],
        build(MEMBERS, Layout(directory_offset=10**6)),
        build(MEMBERS, Layout(directory_bytes=10**6)),
        build(MEMBERS, Layout(n_entries=1000)),
    ],
    ids=lambda data: f"{len(data)}-{data[:4]!r}",
)
def test_what_is_not_a_zip_is_damaged(data: bytes) -> None:
    """Not a zip, cut off, numbers that cannot be: reported after three reads at most."""
    with pytest.raises(Damaged):
        find_directory(data)


def test_a_directory_of_gigabytes_is_not_read() -> None:
    """A mere `ls` fetches no more than a stated number of bytes."""
    length = MAX_DIRECTORY_BYTES + 1
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, length, 0, 0)
    with pytest.raises(Damaged, match="no more than"):
        locate(bytes(60_000) + end, length + len(end))


@given(st.binary(max_size=300), st.integers(0, 1 << 66))
def test_any_tail_gives_a_place_a_question_or_damaged(tail: bytes, before: int) -> None:
    """And the requested range is larger than the given one, and ends where the object ends."""
    size_bytes = len(tail) + before
    try:
        found = locate(tail, size_bytes)
    except Damaged:
        return
    assert found.span.stop <= size_bytes
    if isinstance(found, NeedMore):
        assert found.span.stop == size_bytes
        assert len(found.span) > len(tail)


@given(st.data())
def test_mutated_tails_give_a_place_a_question_or_damaged(data: st.DataObject) -> None:
    """Flipped bytes in honest end records: the same three outcomes."""
    zipped = bytearray(
        build(MEMBERS, Layout(is_zip64=data.draw(st.booleans()), comment=b"PK\5\6" * 3))
    )
    for _ in range(data.draw(st.integers(1, 8))):
        zipped[data.draw(st.integers(0, len(zipped) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = locate(bytes(zipped), len(zipped))
    except Damaged:
        return
    assert isinstance(found, CentralDirectory), "everything was given: nothing to ask for"
    assert found.span.stop <= len(zipped)
