"""Which reads are taken for the kernel's own, by their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from satfs.fuse.readahead_detection import (
    AHEAD_BYTES,
    MAX_PATIENCE_S,
    MIN_PATIENCE_S,
    PATIENCE_S,
    PLACE_BYTES,
    KernelReadAhead,
    ReadKind,
)
from satfs.model import ByteRange

KIB = 1024
MIB = 1024 * KIB
ROW = (8 * KIB, 512 * KIB, 512 * KIB)


def guesses(*lengths: int, start: int, foresight: KernelReadAhead | None = None) -> list[ReadKind]:
    """Return what pieces of these *lengths*, one behind the other from *start* on, look like."""
    foresight = foresight or KernelReadAhead()
    found = []
    for length in lengths:
        found.append(foresight.note(ByteRange(start, start + length)))
        start += length
    return found


def test_what_follows_a_read_ahead_behind_a_small_read_is_another_one() -> None:
    """As GDAL's row of tiles looks: a small read where it sought, and the kernel's two."""
    assert guesses(*ROW, start=7 * MIB) == [ReadKind.ELSEWHERE, ReadKind.NEEDED, ReadKind.AHEAD]


def test_each_row_anew() -> None:
    foresight = KernelReadAhead()
    for row in range(1, 5):
        assert guesses(*ROW, start=7 * row * MIB, foresight=foresight)[-1] is ReadKind.AHEAD


@given(st.lists(st.integers(1, 2 * MIB), min_size=1, max_size=20))
def test_nothing_of_a_file_read_from_its_beginning(lengths: list[int]) -> None:
    """A copy waits for nothing but its bytes, also when it begins again."""
    foresight = KernelReadAhead()
    for _ in range(2):
        assert ReadKind.AHEAD not in guesses(*lengths, start=0, foresight=foresight)


@given(
    st.integers(AHEAD_BYTES, 2 * MIB),
    st.lists(st.integers(1, 2 * MIB), max_size=20),
    st.integers(1, 1 << 40),
)
def test_nothing_behind_a_long_read(first: int, lengths: list[int], start: int) -> None:
    """A program that reads a megabyte at some place gets it in pieces, and waits for each."""
    assert ReadKind.AHEAD not in guesses(first, *lengths, start=start)


@given(st.lists(st.integers(1, AHEAD_BYTES - 1), max_size=20), st.integers(1, 1 << 40))
def test_nothing_where_the_kernel_reads_little_ahead(lengths: list[int], start: int) -> None:
    """Where its read-ahead could not be raised, most of it is needed."""
    assert ReadKind.AHEAD not in guesses(*lengths, start=start)


@given(st.lists(st.tuples(st.integers(0, 8 * MIB), st.integers(1, MIB)), max_size=40))
def test_read_ahead_is_long_and_follows_something_long(reads: list[tuple[int, int]]) -> None:
    """For any reads, only a long piece right behind a long piece counts as read-ahead."""
    foresight, last = KernelReadAhead(), ByteRange(0, 0)
    for start, length in reads:
        span = ByteRange(start, start + length)
        if foresight.note(span) is ReadKind.AHEAD:
            assert len(span) >= AHEAD_BYTES
            assert len(last) >= AHEAD_BYTES
            assert span.start >= last.start
        last = span


def test_who_reads_on_is_believed() -> None:
    """Beyond what a place has, or once it was wrong, nothing is held back in that run."""
    foresight = KernelReadAhead()
    lengths = (*ROW, *[512 * KIB] * 8)
    late = guesses(*lengths, start=7 * MIB)[-1 - (sum(lengths) - PLACE_BYTES) // (512 * KIB) :]
    assert ReadKind.AHEAD not in late[1:]
    assert guesses(*ROW, start=7 * MIB, foresight=foresight)[-1] is ReadKind.AHEAD
    foresight.was_wrong()
    after = 7 * MIB + sum(ROW)
    assert guesses(512 * KIB, start=after, foresight=foresight) == [ReadKind.NEEDED]
    assert guesses(*ROW, start=70 * MIB, foresight=foresight)[-1] is ReadKind.AHEAD


def test_patience_grows_where_it_paid() -> None:
    foresight = KernelReadAhead()
    assert foresight.patience_s == PATIENCE_S
    for _ in range(10):
        foresight.was_right()
    assert foresight.patience_s == MAX_PATIENCE_S
    foresight.was_wrong()
    assert foresight.patience_s == MAX_PATIENCE_S / 2


def test_patience_ends_where_it_never_pays() -> None:
    """Tiles longer than the kernel's read-ahead are waited for: soon next to nothing is lost."""
    foresight, waited_s = KernelReadAhead(), 0.0
    for row in range(1, 11):
        assert guesses(*ROW, start=7 * row * MIB, foresight=foresight)[-1] is ReadKind.AHEAD
        waited_s += foresight.patience_s
        foresight.was_wrong()
    assert foresight.patience_s == MIN_PATIENCE_S
    assert waited_s < 3 * PATIENCE_S
