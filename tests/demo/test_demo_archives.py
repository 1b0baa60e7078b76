"""Archives of every make are zips that other programs can read."""

from __future__ import annotations

import io
import stat
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.demo.archives import DEFLATED, STORED, Member, ZipForm, write_zip

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\\0:"), min_size=1, max_size=30)
MEMBERS = st.builds(
    Member,
    NAMES,
    st.binary(max_size=3000) | st.binary(max_size=20).map(lambda data: data * 500),
    st.sampled_from([STORED, DEFLATED]),
    st.integers(315_619_200, 2**32 - 1),  # the range of both kinds of time: 1980 to 2106
)
MAKES = st.builds(
    ZipForm,
    folder=st.sampled_from(["", "scene/"]),
    zip64=st.booleans(),
    descriptors=st.booleans(),
    comment=st.binary(max_size=40).filter(lambda text: b"PK" not in text),
    zeros_bytes=st.sampled_from([0, 1, 32 * 1024]),
)


def packed(members: list[Member], make: ZipForm | None = None) -> bytes:
    buffer = io.BytesIO()
    write_zip(buffer, members, make)
    return buffer.getvalue()


@given(st.lists(MEMBERS, max_size=6, unique_by=lambda member: member.name), MAKES)
def test_standard_library_reads_it(members: list[Member], make: ZipForm) -> None:
    """Names, bytes, methods, checksums and the comment come out as they went in."""
    with zipfile.ZipFile(io.BytesIO(packed(members, make))) as archive:
        assert archive.testzip() is None
        assert archive.comment == make.comment
        entries = archive.infolist()
        assert [entry.orig_filename for entry in entries] == [make.folder + m.name for m in members]
        for entry, member in zip(entries, members, strict=True):
            assert archive.read(entry) == member.source
            assert entry.compress_type == member.method
            assert entry.external_attr >> 16 == 0o100644
            packed_s = datetime(*entry.date_time, tzinfo=UTC).timestamp()
            assert 0 <= member.modified_s - packed_s < 2


def test_same_members_give_the_same_bytes() -> None:
    """Nothing depends on when or where an archive is written."""
    members = [Member("a", b"x" * 99), Member("b", b"y", DEFLATED)]
    assert packed(members) == packed(members)


def test_file_is_packed_as_its_bytes(tmp_path: Path) -> None:
    """A member may come from disk; it is read piece by piece."""
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert packed([Member("x", path)]) == packed([Member("x", path.read_bytes())])


@pytest.mark.parametrize("zip64", [True, False])
def test_zip64_is_written_when_told(zip64: bool) -> None:
    """A small archive has 64-bit records exactly when they were requested."""
    data = packed([Member("a", b"x")], ZipForm(zip64=zip64))
    assert (b"PK\x06\x06" in data) is zip64
    assert (b"PK\x06\x07" in data) is zip64


def test_descriptors_follow_the_data() -> None:
    """With descriptors the local header has no sizes; they come behind."""
    data = packed([Member("a", b"hello")], ZipForm(descriptors=True))
    assert data[14:26] == bytes(12)
    assert b"helloPK\x07\x08" in data


def test_habits_of_programs_are_written_when_told() -> None:
    """Absolute names, directories marked by their attributes alone, zeros behind the end."""
    members = [Member("a/b/c", b"x"), Member("a/d", b"y")]
    make = ZipForm(absolute=True, directories=True, zeros_bytes=7)
    data = packed(members, make)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    assert list(entries) == ["/a", "/a/b", "/a/b/c", "/a/d"]
    assert [stat.S_ISDIR(entry.external_attr >> 16) for entry in entries.values()] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [entry.external_attr & 0x10 for entry in entries.values()] == [0x10, 0x10, 0, 0]
    assert data.endswith(b"\0" * 7)
    assert data.rindex(b"PK\x05\x06") == len(data) - 22 - 7
