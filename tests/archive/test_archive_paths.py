"""Names in zips as paths that stay below, or the reason why not."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from satfs.archive.paths import (
    MADE_ON_FAT,
    MADE_ON_UNIX,
    NameProblem,
    UnsafeName,
    decode_name,
    split_path,
)


def unicode_path(raw: bytes, name: str, *, version: int = 1, crc: int | None = None) -> bytes:
    return struct.pack("<BL", version, crc32(raw) if crc is None else crc) + name.encode()


@given(st.text(max_size=600), st.sampled_from([MADE_ON_FAT, MADE_ON_UNIX]))
@example("./././a/.", MADE_ON_UNIX)
@example("C:a", MADE_ON_FAT)
def test_every_path_stays_below_and_can_be_a_file(name: str, made_on: int) -> None:
    """The parts of any name are legal file names that lead down, or it is refused."""
    try:
        parts, is_directory = split_path(name, made_on=made_on)
    except UnsafeName:
        return
    assert parts or is_directory, "only a directory can be the root"
    for part in parts:
        assert part not in (b"", b".", b"..")
        assert b"/" not in part
        assert b"\0" not in part
        assert part.decode().isprintable() or not part.isascii()
        assert len(part) <= 255
        part.decode()


@pytest.mark.parametrize("made_on", [MADE_ON_FAT, MADE_ON_UNIX])
@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "..", "a/..", "/../etc/passwd", "//host/../..", "C:\\x", "c:/x", "/.."],
)
def test_a_path_that_leads_outside_is_refused(name: str, made_on: int) -> None:
    """A member whose path leads out of the archive is not shown, under no other name either."""
    with pytest.raises(UnsafeName) as caught:
        split_path(name, made_on=made_on)
    assert caught.value.refusal is NameProblem.OUTSIDE


def test_backslashes_separate_only_where_windows_made_the_archive() -> None:
    """As unzip has it: on Unix a backslash is a character like any other."""
    assert split_path("a\\b", made_on=MADE_ON_FAT) == ((b"a", b"b"), False)
    assert split_path("a\\b", made_on=MADE_ON_UNIX) == ((b"a\\b",), False)
    assert split_path("a/b\\c", made_on=MADE_ON_FAT) == ((b"a", b"b\\c"), False)
    assert split_path("\\x", made_on=MADE_ON_FAT) == ((b"x",), False)
    with pytest.raises(UnsafeName):
        split_path("..\\..\\x", made_on=MADE_ON_FAT)
    assert split_path("..\\..\\x", made_on=MADE_ON_UNIX) == ((b"..\\..\\x",), False)


@pytest.mark.parametrize(
    ("name", "parts", "is_directory"),
    [
        ("a", (b"a",), False),
        ("a/", (b"a",), True),
        ("./a//b/./c", (b"a", b"b", b"c"), False),
        ("./", (), True),
        ("...", (b"...",), False),
        ("a b/ü.tif", (b"a b", "ü.tif".encode()), False),
        ("C:", (b"C:",), False),
        ("/etc/passwd", (b"etc", b"passwd"), False),
        ("//host/share", (b"host", b"share"), False),
        ("/a/", (b"a",), True),
        ("/", (), True),
    ],
)
def test_parts_of_ordinary_names(name: str, parts: tuple[bytes, ...], is_directory: bool) -> None:
    """Empty parts, dots and a first slash mean nothing; a final slash makes a directory."""
    assert split_path(name, made_on=MADE_ON_UNIX) == (parts, is_directory)


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("", NameProblem.UNNAMEABLE),
        (".", NameProblem.UNNAMEABLE),
        ("a/.", NameProblem.UNNAMEABLE),
        ("a\0b", NameProblem.UNNAMEABLE),
        ("a\nb", NameProblem.UNNAMEABLE),
        ("\x1b[2Jx", NameProblem.UNNAMEABLE),
        ("x\u202etxt.exe", NameProblem.UNNAMEABLE),
        ("x" * 256, NameProblem.TOO_LONG),
        ("ü" * 128, NameProblem.TOO_LONG),
        ("/".join(["a" * 200] * 21), NameProblem.TOO_LONG),
        ("/".join("a" * 65), NameProblem.TOO_DEEP),
    ],
)
def test_names_that_no_file_can_have_are_refused(name: str, refusal: NameProblem) -> None:
    """The error has the reason, so that it can be shown."""
    with pytest.raises(UnsafeName) as caught:
        split_path(name, made_on=MADE_ON_UNIX)
    assert caught.value.refusal is refusal


@given(st.binary(max_size=300), st.integers(0, 0xFFFF), st.integers(0, 255), st.binary(max_size=40))
def test_any_bytes_are_some_name(raw: bytes, flags: int, made_on: int, field: bytes) -> None:
    """Decoding never fails: code page 437 gives every byte a meaning."""
    decode_name(raw, flags=flags, made_on=made_on, unicode_path=field)


def test_names_are_decoded_as_the_archive_says() -> None:
    """ASCII, the UTF-8 flag, UTF-8 from Unix programs, else code page 437."""
    assert decode_name(b"a.tif", flags=0, made_on=MADE_ON_FAT) == "a.tif"
    assert decode_name("ü".encode(), flags=1 << 11, made_on=MADE_ON_FAT) == "ü"
    assert decode_name("ü".encode(), flags=0, made_on=MADE_ON_UNIX) == "ü"
    assert decode_name("ü".encode(), flags=0, made_on=MADE_ON_FAT) == "├╝"
    assert decode_name(b"\x81", flags=0, made_on=MADE_ON_FAT) == "ü"
    assert decode_name(b"\x81", flags=0, made_on=MADE_ON_UNIX) == "ü"
    assert decode_name(b"\x81", flags=1 << 11, made_on=MADE_ON_UNIX) == "ü"


def test_a_unicode_path_counts_only_with_the_crc_of_the_name_it_replaces() -> None:
    """A program that renamed a member without knowing the field left it behind."""
    raw = b"_.tif"
    for made_on in (MADE_ON_FAT, MADE_ON_UNIX):
        field = unicode_path(raw, "ü.tif")
        assert decode_name(raw, flags=0, made_on=made_on, unicode_path=field) == "ü.tif"
        stale = unicode_path(b"old", "ü.tif")
        assert decode_name(raw, flags=0, made_on=made_on, unicode_path=stale) == "_.tif"
        newer = unicode_path(raw, "ü.tif", version=2)
        assert decode_name(raw, flags=0, made_on=made_on, unicode_path=newer) == "_.tif"
        broken = unicode_path(raw, "") + b"\xff"
        assert decode_name(raw, flags=0, made_on=made_on, unicode_path=broken) == "_.tif"
