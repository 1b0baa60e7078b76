"""Long texts held compressed: any part of them, as it was made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from satfs.model import ByteRange
from satfs.tree.large_content import LargeContent, LargeContentReader

CHUNK = 256 * 1024


@given(
    st.lists(st.integers(0, CHUNK + 3), max_size=5),
    st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.integers(0, 2 * CHUNK)), max_size=6),
)
async def test_any_part_is_what_was_made(sizes: list[int], spans: list[tuple[int, int]]) -> None:
    """For any length of the pieces, and any order of reads."""
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    whole = b"".join(pieces)
    content = LargeContent(iter(pieces))
    assert len(content) == len(whole)
    assert content.digest == LargeContent([whole]).digest
    assert content.digest != LargeContent([whole, b"x"]).digest
    reader = LargeContentReader(content)
    for start, size in spans:
        assert await reader.read(ByteRange(start, start + size)) == whole[start : start + size]
        assert reader.is_near(ByteRange(start, start + size))


def test_a_repetitive_text_takes_little_memory() -> None:
    """The records of one capture repeat each other."""
    content = LargeContent(b'{"scene_id": "s-%07d", "level": "L1D"},\n' % n for n in range(50_000))
    assert content.held_bytes < len(content) / 5
