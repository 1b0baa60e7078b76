"""Listings held compactly: the same records, in fewer bytes."""

from __future__ import annotations

import json
import sys
import tracemalloc
from typing import Any

import pytest
from fakes.record_lists import list_of
from fakes.vendor import some_scene
from hypothesis import given
from hypothesis import strategies as st

from satfs.api import json_document, record_parsers
from satfs.api.packed_records import Block, PackedBlock
from satfs.api.record_list import (
    RecordList,
    RecordPage,
    joined,
    list_of_one,
    new_records,
    packed_page,
)

records = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40),
    max_size=4,
)


def listing(entries: list[dict[str, Any]]) -> RecordList[Any]:
    """Return *entries* as a listing of scenes."""
    return list_of(entries, record_parsers.scene)


@pytest.mark.slow
@given(st.lists(records, max_size=8))
def test_each_record_is_what_was_packed(entries: list[dict[str, Any]]) -> None:
    """Whichever is read first, and after it was kept on disk."""
    numbered: list[dict[str, Any]] = json_document.document(
        json.dumps([{**entry, "scene_id": str(n)} for n, entry in enumerate(entries)]).encode()
    )
    kept = listing(numbered)
    again = RecordList(
        record_parsers.scene,
        [RecordPage(page.ids, Block(PackedBlock(*page.block.kept()))) for page in kept.pages],
    )
    assert kept == again
    for number in reversed(range(len(numbered))):
        for found in (
            kept[number],
            again[number],
            kept.find(str(number)),
            kept[number - len(kept)],
        ):
            assert found is not None
            assert found == record_parsers.scene(numbered[number])
            assert dict(found.record) == dict(found.record.items())
            assert len(found.record) == len(dict(found.record))
        assert kept.id_at(number) == str(number)
    assert list(kept) == [kept[number] for number in range(len(kept))] == list(kept[:])
    assert kept.find("no such id") is None


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5), max_size=5))
def test_each_id_is_there_once(pages: list[list[str]]) -> None:
    """Of several records with one id the first counts, in one page or in several."""
    lists = [
        listing([{"scene_id": id, "at": [number, place]} for place, id in enumerate(ids)])
        for number, ids in enumerate(pages)
    ]
    together = joined(record_parsers.scene, lists)
    firsts: dict[str, list[int]] = {}
    for number, ids in enumerate(pages):
        for place, id in enumerate(ids):
            firsts.setdefault(id, [number, place])
    assert {scene.scene_id: scene.record["at"] for scene in together} == firsts
    assert list(together.ids()) == list(firsts)


def test_lists_are_equal_when_their_records_are() -> None:
    """However they are cut into pages, and to a plain sequence."""
    entries = [{"scene_id": str(n), "note": "x" * n} for n in range(6)]
    index: dict[str, int] = {}
    halves = [new_records(listing(part).pages[0], index) for part in (entries[:2], entries[2:])]
    cut = RecordList(record_parsers.scene, [half for half in halves if half is not None], index)
    assert cut == listing(entries)
    assert cut == tuple(record_parsers.scene(entry) for entry in entries)
    assert cut != listing(entries[:-1])
    assert cut != listing([*entries[:-1], {"scene_id": "5"}])
    assert listing([]) == ()


def test_pages_that_are_equal_are_shared() -> None:
    """Objects made of the old listing and of the new one refer to one page in memory."""
    old = joined(record_parsers.scene, [listing([{"scene_id": str(n)}]) for n in range(3)])
    same = joined(record_parsers.scene, [listing([{"scene_id": str(n)}]) for n in range(3)])
    assert same.sharing(old) is old
    entries: list[dict[str, Any]] = [{"scene_id": str(n)} for n in range(4)]
    entries[1]["new"] = True
    new = joined(record_parsers.scene, [listing([entry]) for entry in entries])
    shared = new.sharing(old)
    assert shared == new
    assert [page is theirs for page, theirs in zip(shared.pages, old.pages, strict=False)] == [
        True, False, True,
    ]  # fmt: skip
    assert list(shared.ids()) == ["0", "1", "2", "3"]


def test_a_looked_up_record_is_a_list_of_one() -> None:
    """Under the id that was requested."""
    found = record_parsers.scene({"scene_id": "s", "note": 1})
    assert found is not None
    assert list_of_one(record_parsers.scene, "s", found.record) == (found,)


@pytest.mark.parametrize(
    "kept",
    [PackedBlock(b"", b"\1\0\0\0", b""), PackedBlock(b"", b"\1\0\0", b"x")],
)
def test_a_block_that_contradicts_itself_is_refused(kept: PackedBlock) -> None:
    """A record that was damaged on disk does not come back as another one."""
    with pytest.raises(ValueError, match=r"end|multiple"):
        Block(kept)
    with pytest.raises(ValueError, match="ids"):
        RecordList(
            record_parsers.scene, [RecordPage(("a", "b"), packed_page(["a"], [b"{}"]).block)]
        )


@pytest.mark.slow
def test_a_listing_takes_as_much_as_it_tells() -> None:
    """`size_bytes` counts ids, index and records; Python's own allocator agrees within a third."""
    entries = [some_scene(f"20260128_155747_{n:03}_SN33_L1D_MS_{n}", "c") for n in range(3000)]
    bodies = [json.dumps(entries[at : at + 100]).encode() for at in range(0, 3000, 100)]
    listing(entries[:1])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        index: dict[str, int] = {}
        pages = [
            new_records(page, index)
            for body in bodies
            for page in list_of(json.loads(body), record_parsers.scene).pages
        ]
        found = RecordList(
            record_parsers.scene, [page for page in pages if page is not None], index
        )
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 3000
    taken = after - before - sys.getsizeof(bodies)
    assert 0.66 < found.size_bytes / taken < 1.5
    assert taken < sum(map(len, bodies)) / 3
