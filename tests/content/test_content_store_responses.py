"""What an answer of the store means, for any answer at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.fetch.store_responses import (
    MOST_SKIPPED_BYTES,
    Meaning,
    Verdict,
    encodings_of,
    is_object_itself,
    judge_error,
    judge_success,
    judge_tail,
    request_headers,
    total_if_unsatisfied,
    version_of,
)
from satfs.model import ByteRange, Version

V = Version('"abc"', 10_000)
ASKED = ByteRange(100, 200)
WHOLE: dict[str, str | None] = {"content-range": None}
GOOD = {"etag": '"abc"', "content-range": "bytes 100-199/10000", "content-length": "100"}

texts = st.text(max_size=40) | st.sampled_from(
    ["bytes 0-0/1", "bytes 5-3/10", f"bytes 0-{'9' * 5000}/{'9' * 6000}", "bytes */7", "9" * 5000,
     "-1", "²", "١٢", " 100 ", "identity", "gzip", "text/html; charset=x"]
)  # fmt: skip
headers = st.dictionaries(
    st.sampled_from(
        ["content-range", "content-length", "etag", "last-modified", "content-encoding",
         "content-type"]
    ),
    texts,
)  # fmt: skip
asked = st.tuples(st.integers(0, 10**7), st.integers(1, 10**6)).map(
    lambda pair: ByteRange(pair[0], sum(pair))
)


@given(st.integers(0, 999), headers, asked, st.none() | st.builds(Version, texts, st.integers(0)))
def test_any_answer_has_a_meaning(
    status: int, headers: dict[str, str], span: ByteRange, version: Version | None
) -> None:
    """No answer is an exception, and bytes are believed only where they are the bytes asked for."""
    verdict = judge_success(status, headers, span, version)
    assert isinstance(verdict, Verdict)
    if verdict.meaning is Meaning.BYTES:
        assert verdict.seen is not None
        if version is not None:
            assert verdict.seen.size_bytes == version.size_bytes
        assert verdict.skip_bytes in (0, span.start)


@given(st.integers(100, 999), headers)
def test_any_tail_has_a_meaning(status: int, headers: dict[str, str]) -> None:
    found = judge_tail(status, headers)
    if not isinstance(found, Verdict):
        version, start, length = found
        assert 0 <= start <= start + length <= version.size_bytes
    total_if_unsatisfied(headers, b"")


@given(st.integers(0, 999), st.binary(max_size=300))
def test_any_error_has_a_meaning(status: int, body: bytes) -> None:
    assert judge_error(status, body).meaning is not Meaning.BYTES


#: Table 7.2 of the facts about presigned URLs: status, S3's code, what it means.
@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (403, "AccessDenied", Meaning.RENEW),
        (400, "ExpiredToken", Meaning.RENEW),
        (400, "ExpiredRequest", Meaning.RENEW),
        (400, "RequestExpired", Meaning.RENEW),
        (400, "TokenRefreshRequired", Meaning.RENEW),
        (403, "SignatureDoesNotMatch", Meaning.RENEW),
        (403, "InvalidAccessKeyId", Meaning.RENEW),
        (403, "RequestTimeTooSkewed", Meaning.RENEW),
        (403, "InvalidObjectState", Meaning.RENEW),
        (404, "NoSuchKey", Meaning.GONE),
        (400, "InvalidArgument", Meaning.REFUSED),
        (416, "InvalidRange", Meaning.CHANGED),
        (412, "PreconditionFailed", Meaning.CHANGED),
        (503, "SlowDown", Meaning.SLOW_DOWN),
        (429, "", Meaning.SLOW_DOWN),
        (500, "InternalError", Meaning.RETRY),
        (503, "ServiceUnavailable", Meaning.RETRY),
        (502, "", Meaning.RETRY),
        (504, "", Meaning.RETRY),
        (301, "PermanentRedirect", Meaning.REDIRECT),
        (307, "TemporaryRedirect", Meaning.REDIRECT),
    ],
)
def test_the_stores_own_words(status: int, code: str, meaning: Meaning) -> None:
    body = f"<Error><Code>{code}</Code><Message>Request</Message></Error>".encode()
    assert judge_error(status, body) == Verdict(meaning, code or str(status))


@pytest.mark.parametrize(
    ("coding", "beginning", "path", "is_object"),
    [
        ("gzip", b"PK\x03\x04", "/a.zip", True),
        ("gzip", b"\x1f\x8b\x08\x00", "/a.zip", False),
        ("gzip", b"\x1f\x8b\x08\x00", "/a.tar.GZ", True),
        ("gzip, aws-chunked", b"PK\x03\x04", "/a.zip", True),
        ("aws-chunked", b"10000;chunk-signature=", "/a.zip", False),
        ("deflate", b"\x78\x9c\x03\x00", "/a.tif", False),
        ("deflate", b"II*\x00", "/a.tif", True),
        ("zstd", b"\x28\xb5\x2f\xfd", "/a.tif", False),
        ("br", b"II*\x00", "/a.tif", True),
        ("gzip", b"", "/empty", True),
    ],
)
def test_a_label_is_believed_by_how_the_object_begins(
    coding: str, beginning: bytes, path: str, *, is_object: bool
) -> None:
    """Coded content is told by its mark; an object that is meant to begin so is itself."""
    encodings = encodings_of({"content-encoding": coding})
    assert is_object_itself(encodings, beginning, path) is is_object


@pytest.mark.parametrize(
    ("status", "changes", "meaning"),
    [
        (206, {}, Meaning.BYTES),
        (206, {"content-length": None}, Meaning.BYTES),
        (206, {"etag": None}, Meaning.BYTES),
        (206, {"etag": '"new"'}, Meaning.CHANGED),
        (206, {"content-range": "bytes 100-199/10001"}, Meaning.CHANGED),
        (206, {"content-range": None}, Meaning.GARBLED),
        (206, {"content-range": "bytes 101-200/10000"}, Meaning.GARBLED),
        (206, {"content-range": "bytes 100-198/10000"}, Meaning.GARBLED),
        (206, {"content-range": "bytes 100-199/*"}, Meaning.BYTES),
        (206, {"content-range": "bytes 100-199/*", "etag": '"new"'}, Meaning.CHANGED),
        (206, {"content-range": "bytes 100-198/*"}, Meaning.GARBLED),
        (206, {"etag": 'W/"abc"'}, Meaning.BYTES),
        (206, {"etag": 'W/"new"'}, Meaning.CHANGED),
        (206, {"content-length": "101"}, Meaning.GARBLED),
        # A label alone: range and length are those of the object as it is.
        (206, {"content-encoding": "gzip"}, Meaning.BYTES),
        (206, {"content-encoding": "aws-chunked"}, Meaning.BYTES),
        (206, {"content-encoding": "br"}, Meaning.BYTES),
        (206, {"content-encoding": "identity"}, Meaning.BYTES),
        (206, {"content-encoding": "gzip", "content-length": "60"}, Meaning.GARBLED),
        (206, {"content-encoding": "gzip", "content-length": None}, Meaning.GARBLED),
        (
            206,
            {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "10000"},
            Meaning.BYTES,
        ),
        (
            206,
            {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "15"},
            Meaning.GARBLED,
        ),
        (206, {"content-encoding": "gzip", "etag": '"new"'}, Meaning.CHANGED),
        (
            200,
            {**WHOLE, "content-length": "10000", "content-encoding": "gzip"},
            Meaning.BYTES,
        ),
        (
            200,
            {**WHOLE, "content-length": "10000", "content-encoding": "gzip", "etag": None},
            Meaning.GARBLED,
        ),
        (200, {**WHOLE, "content-length": "52", "content-encoding": "gzip"}, Meaning.GARBLED),
        (200, {**WHOLE, "content-length": "10000"}, Meaning.BYTES),
        (200, {**WHOLE, "content-length": None}, Meaning.GARBLED),
        (
            200,
            {**WHOLE, "content-length": "52", "etag": None, "content-type": "text/html"},
            Meaning.GARBLED,
        ),
        (200, {**WHOLE, "content-length": "52", "etag": None}, Meaning.CHANGED),
        # A body that is called a range is one, whatever the status says of it.
        (200, {}, Meaning.BYTES),
        (200, {"content-range": "bytes 9900-9999/10000"}, Meaning.GARBLED),
        (206, {"content-range": "Bytes 100-199/10000"}, Meaning.BYTES),
        (206, {"etag": '"\xe9"'}, Meaning.BYTES),  # no name that everybody writes alike
        (204, {}, Meaning.GARBLED),
    ],
)
def test_bytes_are_checked(status: int, changes: dict[str, str | None], meaning: Meaning) -> None:
    told = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    assert judge_success(status, told, ASKED, V).meaning is meaning


@pytest.mark.parametrize(
    ("told", "body", "total"),
    [
        ({"content-range": "bytes */7"}, b"", 7),
        ({}, b"<Error><ActualObjectSize>300000</ActualObjectSize></Error>", 300_000),
        ({}, b"<Error><Code>InvalidRange</Code></Error>", None),
        ({"content-range": "bytes 0-1/7"}, b"", None),
    ],
)
def test_an_unsatisfied_range_may_tell_the_length(
    told: dict[str, str], body: bytes, total: int | None
) -> None:
    assert total_if_unsatisfied(told, body) == total


def test_a_part_is_not_the_whole() -> None:
    """A 200 with `Content-Range` is a range; its length is not the object's."""
    told = {"content-length": "65536", "content-range": "bytes 4934464-4999999/5000000"}
    assert judge_tail(200, told) == (version_of(told, 5_000_000), 4_934_464, 65_536)


def test_a_whole_body_is_skipped_only_so_far() -> None:
    far = ByteRange(MOST_SKIPPED_BYTES + 1, MOST_SKIPPED_BYTES + 2)
    big = Version('"abc"', 10**9)
    told = {"etag": '"abc"', "content-length": str(10**9)}
    assert judge_success(200, told, far, big).meaning is Meaning.GARBLED
    assert judge_success(200, told, ASKED, big) == Verdict(Meaning.BYTES, "", 100, big)


def test_a_condition_goes_with_every_range_of_a_strong_version() -> None:
    assert request_headers(ASKED, V) == {
        "Range": "bytes=100-199",
        "Accept-Encoding": "identity",
        "If-Match": '"abc"',
    }
    for etag in ('W/"abc"', "modified:x"):
        assert "If-Match" not in request_headers(ASKED, Version(etag, 5))
