"""Places to enter a stream: which are wanted, which are kept, and what survives a remount."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.archive.checkpoints import (
    BEGINNING,
    MAX_CHECKPOINTS,
    MIN_DISTANCE_BYTES,
    Checkpoint,
    Checkpoints,
)

MIB = 1024 * 1024
IDENTITY = bytes(range(32))


def place(position: int) -> Checkpoint:
    return Checkpoint(position, position * 4 + 3, b"%d" % position)


@given(st.integers(1, 2000 * MIB), st.lists(st.integers(0, 2000 * MIB), max_size=40))
def test_places_are_found_and_never_crowd(size_bytes: int, positions: list[int]) -> None:
    """The nearest at or before; none closer together than half the distance."""
    checkpoints = Checkpoints(size_bytes)
    kept = [0]
    for position in positions:
        due = checkpoints.next_due(position)
        assert due >= min(position, size_bytes)
        if due < size_bytes:
            assert checkpoints.add(place(due))
            kept.append(due)
        if checkpoints.add(place(position)):
            kept.append(position)
    kept.sort()
    half = checkpoints.distance_bytes // 2
    assert all(later - earlier >= half for earlier, later in pairwise(kept))
    assert len(checkpoints) <= 2 * MAX_CHECKPOINTS + 1
    for position in positions:
        expected = max(start for start in kept if start <= position)
        assert checkpoints.before(position).out_position == expected


@pytest.mark.parametrize("size_bytes", [MIB, 500 * MIB, 8000 * MIB])
def test_who_passes_once_leaves_no_gap_larger_than_the_distance(size_bytes: int) -> None:
    """With blocks of 100 kB, a reader is never farther than the distance and one block away."""
    checkpoints = Checkpoints(size_bytes)
    block = 100_000
    for position in range(block, size_bytes, block):
        if checkpoints.next_due(position) == position:
            checkpoints.add(place(position))
    worst = max(
        position - checkpoints.before(position).out_position
        for position in range(0, size_bytes, 50_000)
    )
    assert worst <= checkpoints.distance_bytes + block
    assert checkpoints.n_bytes <= (MAX_CHECKPOINTS + 1) * (32768 + 300)
    if size_bytes <= 512 * MIB:
        assert checkpoints.distance_bytes == MIN_DISTANCE_BYTES


def test_the_beginning_is_always_a_place() -> None:
    """Known before anything was read."""
    checkpoints = Checkpoints(100)
    assert checkpoints.before(0) is BEGINNING
    assert checkpoints.before(99) is BEGINNING
    assert checkpoints.next_due(0) == 100, "none is wanted in a small member"
    assert not checkpoints.add(place(100))


@given(st.booleans(), st.lists(st.integers(1, 50), unique=True))
def test_what_is_written_is_read_back(is_checked: bool, positions: list[int]) -> None:
    """And the same member's index is the same bytes."""
    checkpoints = Checkpoints(200 * MIB)
    checkpoints.is_checked = is_checked
    for position in positions:
        checkpoints.add(place(position * 3 * MIB))
    data = checkpoints.to_bytes(IDENTITY)
    again = Checkpoints.from_bytes(data, IDENTITY, 200 * MIB)
    assert again is not None
    assert again.is_checked is is_checked
    assert len(again) == len(checkpoints)
    for position in positions:
        where = position * 3 * MIB
        assert again.before(where) == checkpoints.before(where)
    assert again.to_bytes(IDENTITY) == data


@given(st.data())
def test_an_index_that_was_touched_is_not_believed(data: st.DataObject) -> None:
    """Flipped, cut, empty, another member's: no index rather than a wrong one."""
    checkpoints = Checkpoints(20 * MIB)
    checkpoints.add(place(3 * MIB))
    written = bytearray(checkpoints.to_bytes(IDENTITY))
    assert Checkpoints.from_bytes(bytes(written), bytes(32), 20 * MIB) is None
    assert Checkpoints.from_bytes(bytes(written), IDENTITY, 21 * MIB) is None
    cut = data.draw(st.integers(0, len(written) - 1))
    assert Checkpoints.from_bytes(bytes(written[:cut]), IDENTITY, 20 * MIB) is None
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= 1 << data.draw(st.integers(0, 7))
    assert Checkpoints.from_bytes(bytes(written), IDENTITY, 20 * MIB) is None
