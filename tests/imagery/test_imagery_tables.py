"""Tables of blocks: any integer type, in pieces, back from an offset, and bounded."""

from __future__ import annotations

import random
import struct
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagery.rasters import plain_image
from msgspec.structs import replace

from satfs.imagery.layout import Block, Image, Table
from satfs.imagery.tables import PIECE_BYTES, BlockTables
from satfs.model import ByteRange

TYPES = {"B": 1, "H": 2, "I": 4, "Q": 8}


def tabled(
    offsets: list[int], sizes: list[int], letters: str, order: str, *, at: int = 1000
) -> tuple[Image, bytes]:
    """Return an image of one row of blocks, and the bytes of its two tables, which lie *at*."""
    n = len(offsets)
    raw = [
        struct.pack(f"{order}{n}{letter}", *items)
        for letter, items in zip(letters, (offsets, sizes), strict=True)
    ]
    tables, start = [], at
    for letter, data in zip(letters, raw, strict=True):
        tables.append(Table(ByteRange(start, start + len(data)), TYPES[letter], letter))
        start += len(data)
    plain = plain_image(16 * n, 16, 16)
    image = replace(plain, offsets=tables[0], sizes=tables[1])
    return image, b"".join(raw)


@given(
    blocks=st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 255)), min_size=1),
    letters=st.tuples(st.sampled_from("HIQ"), st.sampled_from("BHIQ")).map("".join),
    order=st.sampled_from("<>"),
    cut=st.integers(1, 400),
)
def test_any_type_and_order_of_blocks(
    blocks: list[tuple[int, int]], letters: str, order: str, cut: int
) -> None:
    """Unsorted, sparse and repeated blocks: spans are those of the tables, and lead back."""
    offsets, sizes = [offset for offset, _ in blocks], [size for _, size in blocks]
    image, data = tabled(offsets, sizes, letters, order)
    tables = BlockTables(10**6)
    tables.add(image, order)
    for number in range(len(blocks)):
        for span in tables.needs(Block(0, number)):
            assert len(span) <= PIECE_BYTES
            tables.feed(span.start, data[span.start - 1000 : span.stop - 1000])
        offset, size = blocks[number]
        is_sparse = not offset or not size
        expected = ByteRange(0, 0) if is_sparse else ByteRange(offset, offset + size)
        assert tables.span(Block(0, number)) == expected
    # Blocks that share bytes with others are not to be told apart: look where there is only one.
    for number, (offset, size) in enumerate(blocks):
        position = offset + size // 2
        holders = [k for k, (o, s) in enumerate(blocks) if o and s and o <= position < o + s]
        if holders == [number]:
            found = tables.block_at(position)
            inner = any(k != number and offset <= o <= position for k, (o, _) in enumerate(blocks))
            assert found == Block(0, number) or inner
        elif not holders:
            assert tables.block_at(position) is None


@given(
    n=st.integers(1, 700),
    letters=st.tuples(st.sampled_from("IQ"), st.sampled_from("HIQ")).map("".join),
    cuts=st.lists(st.integers(0, 12_000), max_size=8),
    order=st.sampled_from("<>"),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_pieces_may_be_cut_anywhere(
    n: int, letters: str, cuts: list[int], order: str, seed: int
) -> None:
    """A table that is not given whole is unknown, and states its needs; no known entry is wrong."""
    offsets = [100_000 + 50 * k for k in range(n)]
    random.Random(seed).shuffle(offsets)
    image, data = tabled(offsets, [40] * n, letters, order)
    tables = BlockTables(10**7)
    tables.add(image, order)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = list(pairwise(edges))
    random.Random(seed).shuffle(pieces)
    for start, stop in pieces:
        tables.feed(1000 + start, data[start:stop])
    for number, offset in enumerate(offsets):
        span, needs = tables.span(Block(0, number)), tables.needs(Block(0, number))
        assert (span is None) == bool(needs)
        assert span is None or span == ByteRange(offset, offset + 40)
        at = tables.block_at(offset + 39)
        assert at == (Block(0, number) if span is not None else None)
        assert tables.block_at(offset + 40) is None


@given(
    n=st.integers(1, 3000),
    step=st.integers(900, 9000),
    letters=st.tuples(st.sampled_from("IQ"), st.sampled_from("HI")).map("".join),
    at=st.integers(8, 1000),
)
@settings(deadline=None)
def test_reads_one_behind_the_other_leave_no_gaps(n: int, step: int, letters: str, at: int) -> None:
    """Wherever a reader cuts, a table that was read from end to end is known from end to end."""
    image, data = tabled([100_000 + 50 * k for k in range(n)], [40] * n, letters, "<", at=at)
    tables = BlockTables(10**7)
    tables.add(image, "<")
    content = bytes(at) + data + bytes(100)
    for start in range(0, len(content), step):
        tables.feed(start, content[start : start + step])
    assert [tables.needs(Block(0, number)) for number in range(n)] == [()] * n
    assert tables.block_at(100_000 + 50 * (n - 1) + 5) == Block(0, n - 1)


@pytest.mark.slow
@pytest.mark.parametrize("is_sorted", [True, False], ids=["sorted", "shuffled"])
def test_a_million_blocks_stay_small(is_sorted: bool) -> None:
    """Two pieces for one block; all of them in some thirty megabytes, and the way back is right."""
    n = 1_000_000
    order = list(range(n))
    if not is_sorted:
        random.Random(7).shuffle(order)
    offsets = array("Q", (2**33 + 1000 * k for k in order))
    raw = offsets.tobytes() + array("I", [900] * n).tobytes()
    plain = plain_image(16 * n, 16, 16)
    first = Table(ByteRange(16, 16 + 8 * n), 8, "Q")
    sizes = Table(ByteRange(first.span.stop, 16 + 12 * n), 4, "I")
    image = replace(plain, offsets=first, sizes=sizes)
    tables = BlockTables(2**40)
    tables.add(image, "<")
    block = Block(0, 654_321)
    needs = tables.needs(block)
    assert sum(len(span) for span in needs) <= 2 * PIECE_BYTES
    for span in needs:
        tables.feed(span.start, raw[span.start - 16 : span.stop - 16])
    assert tables.span(block) == ByteRange(offsets[654_321], offsets[654_321] + 900)
    assert tables.kept_bytes < 10_000
    step = 300_007
    for start in range(0, len(raw), step):
        tables.feed(16 + start, raw[start : start + step])
    assert tables.kept_bytes <= 32 * 2**20
    for number in random.Random(1).sample(range(n), 500):
        found = tables.block_at(offsets[number] + 899)
        assert found == Block(0, number)
        assert tables.following(offsets[number] - 50) == Block(0, number)


def test_beyond_the_bound_everything_is_learnt_again() -> None:
    """A bound of 20 KB: more than that is never kept, and what is needed is stated once more."""
    n = 20_000
    image, data = tabled([10**6 + 10 * k for k in range(n)], [9] * n, "QI", "<")
    tables = BlockTables(10**9, max_kept_bytes=20_000)
    tables.add(image, "<")
    for number in range(0, n, 97):
        block = Block(0, number)
        for span in tables.needs(block):
            tables.feed(span.start, data[span.start - 1000 : span.stop - 1000])
        for span in tables.needs(block):  # the first of the two was the one too many
            tables.feed(span.start, data[span.start - 1000 : span.stop - 1000])
        assert tables.kept_bytes <= 20_000
        assert tables.span(block) == ByteRange(10**6 + 10 * number, 10**6 + 10 * number + 9)
