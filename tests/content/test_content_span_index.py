"""`content/fetch/span_index.py`: items that cover a span are found among any others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.fetch.span_index import CELL_BYTES, SpanIndex
from satfs.model import ByteRange

#: Offsets beside the bounds of cells, where a mistake would show, and anywhere.
OFFSETS = st.one_of(
    st.integers(0, 12 * CELL_BYTES),
    st.builds(
        lambda cell, beside: max(0, cell * CELL_BYTES + beside),
        st.integers(0, 12),
        st.integers(-2, 2),
    ),
)
SPANS = st.tuples(OFFSETS, OFFSETS).map(lambda each: ByteRange(min(each), max(each)))


class TestSpanIndex:
    @given(st.lists(SPANS, max_size=12), st.sets(st.integers(0, 11)), SPANS)
    def test_finds_what_a_look_at_everything_finds(
        self, spans: list[ByteRange], removed: set[int], wanted: ByteRange
    ) -> None:
        """Each item whose span shares a byte with the wanted one, once, unless it was removed."""
        index: SpanIndex[int] = SpanIndex()
        for number, span in enumerate(spans):
            index.add(number, span)
        for number in removed & set(range(len(spans))):
            index.remove(number)
        left = {n: span for n, span in enumerate(spans) if n not in removed}
        found = index.overlapping(wanted)
        assert sorted(found) == [n for n, span in left.items() if span.overlaps(wanted)]
        assert list(index) == list(left)
        assert len(index) == len(left)
        assert all((n in index) == (n in left) for n in range(len(spans)))

    @given(st.lists(SPANS, max_size=12))
    def test_nothing_is_left_of_what_was_removed(self, spans: list[ByteRange]) -> None:
        """A mount lives for weeks: an index that is empty again holds no memory."""
        index: SpanIndex[int] = SpanIndex()
        for number, span in enumerate(spans):
            index.add(number, span)
        for number in range(len(spans)):
            index.remove(number)
        assert not index
        assert not index._cells

    def test_what_is_not_there_cannot_be_removed(self) -> None:
        index: SpanIndex[str] = SpanIndex()
        with pytest.raises(KeyError):
            index.remove("never entered")
