"""The CRC of a whole, from any parts in any order."""

from __future__ import annotations

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from isal.isal_zlib import crc32_combine

from satfs.archive.checksum import Checksum
from satfs.model import ByteRange

SPANS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=60)


def test_lengths_beyond_32_bits_are_combined() -> None:
    """In the library: a gigabyte of zeros eight times is eight gigabytes of zeros."""
    gigabyte = 0
    for _ in range(1024):
        gigabyte = crc32_combine(gigabyte, crc32(bytes(1 << 20)), 1 << 20)
    eight = 0
    for _ in range(8):
        eight = crc32_combine(eight, gigabyte, 1 << 30)
    whole = crc32_combine(gigabyte, crc32_combine(gigabyte, gigabyte, 1 << 30), 2 << 30)
    assert eight == crc32_combine(
        whole, crc32_combine(whole, crc32_combine(gigabyte, gigabyte, 1 << 30), 2 << 30), 5 << 30
    )


@given(st.binary(min_size=1, max_size=400), SPANS)
def test_any_pieces_in_any_order_give_the_whole(data: bytes, spans: list[tuple[int, int]]) -> None:
    """Overlapping, repeated, out of order: known exactly when everything was seen."""
    checksum = Checksum(len(data))
    seen = [False] * len(data)
    for first, second in [*spans, (0, 400)]:
        assert checksum.whole == (crc32(data) if all(seen) else None)
        span = ByteRange(min(first, second), max(first, second)).clip(len(data))
        for part in checksum.missing(span):
            assert not any(seen[part.start : part.stop])
            checksum.add(part, crc32(data[part.start : part.stop]))
            seen[part.start : part.stop] = [True] * len(part)
        assert all(seen[span.start : span.stop])
        assert checksum.missing(span) == []
    assert checksum.whole == crc32(data)


def test_a_piece_that_was_seen_already_changes_nothing() -> None:
    """Two readers may pass the same bytes at the same time."""
    data = b"0123456789"
    checksum = Checksum(10)
    checksum.add(ByteRange(0, 6), crc32(data[:6]))
    checksum.add(ByteRange(4, 8), 12345)
    checksum.add(ByteRange(3, 3), 12345)
    checksum.add(ByteRange(6, 10), crc32(data[6:]))
    assert checksum.whole == crc32(data)


def test_a_random_reader_does_not_keep_a_whole_reader_from_checking() -> None:
    """Pieces are bounded in number; who goes from beginning to end succeeds all the same."""
    data = bytes(range(256)) * 64
    checksum = Checksum(len(data))
    for position in range(0, len(data), 20):
        checksum.add(ByteRange(position, position + 1), crc32(data[position : position + 1]))
    for start in range(0, len(data), 100):
        for part in checksum.missing(ByteRange(start, min(start + 100, len(data)))):
            checksum.add(part, crc32(data[part.start : part.stop]))
    assert checksum.whole == crc32(data)


def test_an_empty_file_is_whole_at_once() -> None:
    """There is nothing to see."""
    assert Checksum(0).whole == 0
