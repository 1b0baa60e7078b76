"""Any file ends in a layout or in none: without an error, in bounded memory and time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagery.hostile import GOOD, HOSTILE, SIZE
from imagery.rasters import LAYOUTS, directory, learn, tiff

from satfs.imagery.layout import Block
from satfs.imagery.parser import MAX_DIRECTORIES
from satfs.imagery.raster import Raster
from satfs.imagery.spans import MAX_HELD_BYTES, HeldSpans
from satfs.model import ByteRange


def test_the_file_that_the_others_are_made_of_has_a_layout() -> None:
    """Each hostile file differs from this one in what its name says, and in nothing else."""
    assert learn(tiff(directory(GOOD), size_bytes=SIZE)).layout is not None


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("is_whole", [False, True], ids=["as needed", "whole"])
def test_a_hostile_header_ends_in_no_layout(name: str, is_whole: bool) -> None:
    """No error, a reason for the log, nothing kept, and no layout."""
    data = HOSTILE[name]
    if is_whole:
        raster = Raster(len(data))
        raster.feed(0, data)
    else:
        raster = learn(data)
    assert raster.is_done
    assert raster.layout is None
    assert raster.reason
    assert raster.needs() == raster.needs_for_facts() == ()
    assert raster.kept_bytes == 0
    assert raster.facts() is None
    assert raster.is_cog() is None
    assert raster.block_at(600) is raster.following(0) is None


def test_a_file_of_many_directories_is_read_as_far_as_is_sensible() -> None:
    """Images behind the limit are no part of the layout, which then states that it is cut."""
    n, length = MAX_DIRECTORIES + 10, len(directory(GOOD))
    made = [directory(GOOD, 8 + length * (k + 1), at=8 + length * k) for k in range(n)]
    raster = learn(tiff(*made, size_bytes=length * n + SIZE))
    assert raster.layout is not None
    assert len(raster.layout.images) == MAX_DIRECTORIES
    assert not raster.layout.is_complete


def test_a_file_that_is_all_zeros_or_all_ones_costs_nothing() -> None:
    """Sixteen megabytes of nonsense, fed whole: refused by its first bytes."""
    tracemalloc.start()
    try:
        for data in (bytes(2**24), b"\xff" * 2**24):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            raster = Raster(len(data))
            raster.feed(0, data)
            _, peak = tracemalloc.get_traced_memory()
            assert raster.layout is None
            assert peak - before < 4 * MAX_HELD_BYTES
    finally:
        tracemalloc.stop()


@given(pieces=st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=40)), max_size=60))
def test_pieces_that_are_held_are_bounded_and_right(pieces: list[tuple[int, bytes]]) -> None:
    """Never more than the bound; what is returned is what was added last or before at a place."""
    content = bytes(range(256)) * 2
    held = HeldSpans(max_bytes=100)
    for start, data in pieces:
        held.add(start, content[start : start + len(data)])
        assert sum(len(piece) for _, piece in held.pieces()) <= 100
        for span in (ByteRange(start, start + len(data)), ByteRange(start, start + 200)):
            found = held.get(span)
            assert found is None or found == content[span.start : span.stop]


@given(data=st.data(), name=st.sampled_from(sorted(LAYOUTS)))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_damaged_file_never_raises(
    raster_of: Callable[[str], Path], data: st.DataObject, name: str
) -> None:
    """Bytes changed among the directories, the end cut off: spans stay in the file, and it ends."""
    content = bytearray(raster_of(name).read_bytes())
    edits = st.tuples(
        st.integers(0, min(len(content), 2000) - 1), st.binary(min_size=1, max_size=8)
    )
    for position, new in data.draw(st.lists(edits, max_size=6)):
        content[position : position + len(new)] = new
    size = data.draw(st.sampled_from([len(content), len(content) // 2, 200]))
    content = content[:size]
    raster = learn(bytes(content), whole=True)
    assert raster.is_done
    if raster.layout is None:
        assert raster.reason
        return
    raster.is_cog()
    for image in raster.layout.images:
        for number in {0, image.n_blocks // 2, image.n_blocks - 1}:
            block = Block(image.number, number)
            for span in raster.needs_of(block):
                assert span.stop <= len(content)
            for found in (raster.span_of(block), raster.fetch_span_of(block)):
                assert found is None or found.stop <= len(content)
    for position in range(0, len(content), 1 + len(content) // 50):
        at = raster.block_at(position)
        if at is not None:
            inside = raster.span_of(at)
            assert inside is not None
            assert inside.start <= position < inside.stop
