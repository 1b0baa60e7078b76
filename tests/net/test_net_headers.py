"""Headers of a response that a server and a proxy before it have both set."""

from __future__ import annotations

import pytest

from satfs.net.headers import plain_headers


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([("ETag", '"a"'), ("etag", '"a"')], {"etag": '"a"'}),
        ([("ETag", '"a"'), ("ETag", '"b"')], {"etag": '"a", "b"'}),
        (
            [("Content-Range", "bytes 0-1/2"), ("content-range", "bytes 0-1/2")],
            {"content-range": "bytes 0-1/2"},
        ),
        ([("A", "1"), ("B", "2")], {"a": "1", "b": "2"}),
        ([], {}),
    ],
)
def test_a_header_that_is_sent_twice_alike_counts_once(
    sent: list[tuple[str, str]], expected: dict[str, str]
) -> None:
    """Different values are joined, which no single value equals: nothing is chosen among them."""
    assert plain_headers(sent) == expected
