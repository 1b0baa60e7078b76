"""Names: any vendor text as a legal, injective, stable, reversible file name."""

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from satfs.tree.names import (
    NAME_MAX_BYTES,
    file_names,
    is_cut,
    is_polled,
    name_of,
    plain_text_of,
    text_of,
)

OWN = frozenset(
    {
        "task.json",
        "captures.json",
        "capture.json",
        "footprints.geojson",
        "scene.json",
        "footprint.geojson",
        "contents",
        "README.txt",
        ".satfs",
    }
)

#: Anything JSON can carry: all code points, lone surrogates too; and much of what hurts.
texts = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=())),
    st.text(st.sampled_from("%/~.0123456789abcdefABCDEF\x00\n\x1b\ud800\udfffé\u0301")),
    st.sampled_from(sorted(OWN)),
    st.text(st.sampled_from("ab%/é"), min_size=100, max_size=400),
)


@given(texts)
@example("")
@example(".")
@example("..")
@example("%")
@example("%~")
@example("a/b")
@example("\x00")
@example("\ud800")
@example("x" * 256)
@example("é" * 128)
@example(".Trash-1000")
@example("-rf")
def test_any_text_has_a_legal_name(text: str) -> None:
    """A name has no separator, NUL or control character, is UTF-8, fits, and is not one of ours."""
    name = name_of(text, OWN)
    assert 1 <= len(name) <= NAME_MAX_BYTES
    assert b"/" not in name
    assert name not in (b".", b"..")
    shown = name.decode()  # strict
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in shown)
    assert shown not in OWN
    assert not is_polled(shown)


@given(texts, texts)
@example("%2F", "/")
@example("%25", "%")
@example("%", "")
@example("%%2F", "%/")
@example("%74ask.json", "task.json")
@example(".", "%2E")
@example("\ud83d\ude00", "\U0001f600")
@example("e\u0301", "\u00e9")
@example("x" * 300 + "1.zip", "x" * 300 + "2.zip")
def test_different_texts_have_different_names(one: str, other: str) -> None:
    """Two ids never share a directory."""
    assert (name_of(one, OWN) == name_of(other, OWN)) == (one == other)


@given(texts)
@example("%2")
@example("%2%2F")
@example("%~")
@example("100%")
@example("CVS")
def test_a_name_leads_back_to_its_text(text: str) -> None:
    """A name that was not cut contains the id, and is looked up without a listing."""
    name = name_of(text, OWN)
    assert text_of(name, OWN) == (None if is_cut(name) else text)


@given(st.binary(max_size=300))
@example(b"%2f")
@example(b"%61")
@example(b"\xff")
@example(b"%ff")
@example(b"task.json")
@example(b"%FF")
def test_a_text_has_one_name_only(name: bytes) -> None:
    """A program finds an entry under its one name or not at all."""
    text = text_of(name, OWN)
    assert text is None or name_of(text, OWN) == name


@given(st.one_of(st.binary(max_size=300), texts.map(lambda text: name_of(text, OWN))))
@example(b"scene.json")
@example(b".Trash-1000")
def test_a_plain_text_is_its_own_name(name: bytes) -> None:
    plain = plain_text_of(name, OWN)
    assert plain is None or plain == text_of(name, OWN) == name.decode()


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [
        (b"20260930_143010_SN41_L1C_1081", True), (b"3f2c-9e.b", True), (b"a" * 128, True),
        (b"%", False), (b"%2E%2E", False), (b"..%2F..%2Fcontracts", False), (b"x%00y", False),
        ("é".encode(), False), (b"a:b", False), (b"a b", False), (b".hidden", False),
    ],
)  # fmt: skip
def test_ordinary_ids_are_plain(name: bytes, is_plain: bool) -> None:
    assert (plain_text_of(name) is not None) == is_plain


@given(st.text(st.sampled_from("abcé%/."), min_size=256, max_size=500))
def test_a_long_name_keeps_beginning_and_extension(stem: str) -> None:
    """A name too long to hold is cut in the middle: people and programs still see what it is."""
    name = name_of(stem + "x.zip")
    assert is_cut(name)
    assert name.endswith(b".zip")
    assert name[0] == name_of(stem[0] + "x")[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("268095", b"268095"),
        ("20241206_081221_SN49_L1C_MS_268095", b"20241206_081221_SN49_L1C_MS_268095"),
        ("Perito Moreno (2)", b"Perito Moreno (2)"),
        ("100 %", b"100 %"),
        ("Fjörð", "Fjörð".encode()),
        ("a/b", b"a%2Fb"),
        ("..", b"%2E%2E"),
        ("a\nb", b"a%0Ab"),
        ("\x1b[31m", b"%1B[31m"),
        ("nul\x00", b"nul%00"),
        ("50%2F", b"50%252F"),
        ("\u202egnp.exe", b"%E2%80%AEgnp.exe"),
        ("\ud800", b"%ED%A0%80"),
        ("", b"%"),
        (".git", b"%2Egit"),
        ("task.json", b"%74ask.json"),
        ("x" * 300 + ".zip", b"x" * 217 + b"%~029b57b231a9eed59aa98edee31b4a9e.zip"),
    ],
)
def test_names_are_these(text: str, name: bytes) -> None:
    """Names stay the same from one release to the next: scripts and backups hold them."""
    assert name_of(text, OWN) == name


pairs = st.lists(st.tuples(texts, texts), max_size=8)


@given(pairs, st.randoms())
@example([("a.zip", "x"), ("a.zip", "y"), ("a~x.zip", "z")], None)
@example([("a", "b~c"), ("a", "d"), ("a~b", "c"), ("a~b", "e")], None)
@example([("scene.json", "a"), ("scene.json", "b")], None)
def test_files_of_one_directory_never_share_a_name(
    wanted: list[tuple[str, str]], random: Random | None
) -> None:
    """Attachments stored under one file name are all shown, in any order of the listing."""
    found = file_names(wanted, OWN)
    assert set(found) == set(wanted)
    assert len(set(found.values())) == len(found)
    for name in found.values():
        assert 1 <= len(name) <= NAME_MAX_BYTES
        assert b"/" not in name
        assert name.decode() not in OWN | {".", ".."}
        assert not is_polled(name.decode())
    shuffled = list(reversed(wanted))
    if random is not None:
        random.shuffle(shuffled)
    assert file_names(shuffled, OWN) == found


def test_duplicates_carry_their_key() -> None:
    """Of two attachments with one file name each shows which it is; a lone one is left alone."""
    found = file_names([("a.zip", "delivery_zip"), ("a.zip", "other"), ("b.png", "preview")])
    assert found == {
        ("a.zip", "delivery_zip"): b"a~delivery_zip.zip",
        ("a.zip", "other"): b"a~other.zip",
        ("b.png", "preview"): b"b.png",
    }


@pytest.mark.parametrize(
    "name",
    [
        ".Trash",
        ".Trash-1000",
        "autorun.inf",
        ".hidden",
        "desktop.ini",
        ".xdg-volume-info",
        ".DS_Store",
        "._scene.zip",
        "Thumbs.db",
        ".directory",
        ".git",
        "folder.jpg",
        ".nomedia",
        ".trackerignore",
    ],
)
def test_desktops_are_answered_from_memory(name: str) -> None:
    """Names that file managers and shells poll are known not to be there."""
    assert is_polled(name)


@pytest.mark.parametrize("name", ["268095", "scene.json", ".satfs", "contents", ".Trash-me", "a"])
def test_ordinary_names_are_asked_for(name: str) -> None:
    """Nothing that a delivery may hold is denied from memory."""
    assert not is_polled(name)
