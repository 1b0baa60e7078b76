"""The words: byte ranges, and records that keep their secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.model import (
    DELIVERY_ZIP,
    ByteRange,
    Capture,
    CaptureId,
    Link,
    Scene,
    SceneId,
    Version,
)

offsets = st.integers(min_value=0, max_value=2**63)
spans = st.tuples(offsets, offsets).map(lambda pair: ByteRange(min(pair), max(pair)))
small_spans = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
    lambda pair: ByteRange(min(pair), max(pair))
)


@given(offsets, offsets)
def test_a_range_has_as_many_bytes_as_lie_between_its_ends(start: int, length: int) -> None:
    span = ByteRange(start, start + length)

    assert span.stop - span.start == length
    assert bool(span) is (length > 0)


@given(st.integers(), st.integers())
def test_a_range_never_runs_backwards_nor_starts_before_the_file(start: int, stop: int) -> None:
    if 0 <= start <= stop:
        assert ByteRange(start, stop).start == start
    else:
        with pytest.raises(ValueError, match="not a byte range"):
            ByteRange(start, stop)


@given(small_spans, st.integers(0, 50))
def test_clipping_keeps_exactly_the_bytes_that_the_file_has(span: ByteRange, size: int) -> None:
    clipped = span.clip(size)

    wanted = [offset for offset in range(span.start, span.stop) if offset < size]
    assert list(range(clipped.start, clipped.stop)) == wanted
    assert len(clipped) == len(wanted)


@given(small_spans, small_spans)
def test_ranges_overlap_when_a_byte_is_in_both(one: ByteRange, other: ByteRange) -> None:
    common = set(range(one.start, one.stop)) & set(range(other.start, other.stop))

    assert one.overlaps(other) is bool(common)
    assert other.overlaps(one) is one.overlaps(other)


@given(spans)
def test_an_empty_range_overlaps_nothing(span: ByteRange) -> None:
    assert not ByteRange(span.start, span.start).overlaps(span)


@pytest.mark.parametrize(
    ("status", "is_published"),
    [("published", True), (" PUBLISHED", True), ("processing", False), ("", False), (None, True)],
)
def test_a_capture_without_status_or_with_the_documented_one_is_published(
    status: str | None, is_published: bool
) -> None:
    assert Capture(CaptureId("c"), status=status).is_published is is_published


def test_a_link_is_not_shown_by_its_repr() -> None:
    """A presigned URL lets its holder read the object: it must not reach a log by accident."""
    link = Link("https://store.example/o.zip?X-Amz-Signature=feed", expires_at_s=12.0)

    assert "feed" not in f"{link} {link!r} {[link]}"
    assert "12.0" in repr(link)


@pytest.mark.parametrize(
    ("etag", "is_strong"),
    [('"d41d8cd9"', True), ('"d41d8cd9-12"', True), ('W/"d41d8cd9"', False), ("", False)],
)
def test_only_a_strong_etag_may_guard_a_request(etag: str, is_strong: bool) -> None:
    """RFC 9110 §8.8.3: a weak ETag starts with W/, and If-Match never matches it."""
    assert Version(etag, 1).is_strong is is_strong


def test_versions_are_equal_when_their_bytes_are() -> None:
    assert Version('"a"', 1) == Version('"a"', 1)
    assert Version('"a"', 1) != Version('"b"', 1)
    assert Version('"a"', 1) != Version('"a"', 2)


def test_records_need_nothing_but_their_id() -> None:
    """Every other field may be missing from what the vendor sends."""
    scene = Scene(SceneId("s"))

    assert scene.attachments == ()
    assert scene.record == {}
    assert DELIVERY_ZIP == "delivery_zip"
