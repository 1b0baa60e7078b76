"""Answers of the object store, as a worker process takes them in."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fuzz.target import Target
from hypothesis import strategies as st

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.transfer.exchange import Exchange
from satfs.content.transfer.messages import (
    MoveOrder,
    OutcomeReport,
    ProgressReport,
    read_report,
)
from satfs.content.transfer.store_responses import (
    classify_error,
    classify_success,
    classify_tail,
    total_if_unsatisfied,
)
from satfs.model import ByteRange, Version

SIZE_BYTES = 3 * BLOCK_BYTES + 5
_DATA = bytes(n % 251 for n in range(SIZE_BYTES))
_VERSION = Version('"e"', SIZE_BYTES)

_GOOD = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n"
    b'ETag: "e"\r\n\r\n' % (SIZE_BYTES - 1, SIZE_BYTES, SIZE_BYTES)
)
_LINES = st.sampled_from(
    [b"HTTP/1.1 206 Partial Content", b"HTTP/1.1 200 OK", b"HTTP/1.0 206 x", b"HTTP/1.1 103 Early",
     b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 x", b"HTTP/1.1 304 x", b"HTTP/1.1 403 Forbidden",
     b"HTTP/1.1 416 x", b"HTTP/2 206", b"Content-Length: %d" % SIZE_BYTES, b"Content-Length: 5",
     b"Content-Length: " + b"9" * 5000, b"Content-Length: -1", b"Transfer-Encoding: chunked",
     b"Content-Range: bytes 0-%d/%d" % (SIZE_BYTES - 1, SIZE_BYTES),
     b"Content-Range: bytes 0-%d/*" % (SIZE_BYTES - 1), b"Content-Range: bytes */7",
     b'ETag: "e"', b'ETag: W/"e"', b"ETag: \xff", b"Content-Encoding: gzip",
     b"Content-Encoding: aws-chunked", b"Connection: close", b"Retry-After: 1", b": x", b" folded",
     b"", b"x" * 70_000]
)  # fmt: skip
_heads = st.lists(_LINES | st.binary(max_size=30), max_size=10).map(b"\r\n".join)
responses = st.tuples(
    st.one_of(_heads, _heads.map(lambda head: head + b"\r\n\r\n"), st.just(_GOOD)),
    st.sampled_from([b"", _DATA, _DATA[:-1], _DATA + b"x", b"<Error><Code>SlowDown</Code>"])
    | st.binary(max_size=200),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=20),
)


def check_exchange(given: tuple[bytes, bytes, list[int]]) -> None:
    """For any response, the order ends with an outcome, and only received blocks are reported."""
    head, body, sizes = given
    fd = os.memfd_create("fuzz")
    reports: list[ProgressReport] = []

    def tell(packet: bytes) -> None:
        report = read_report(packet)
        assert isinstance(report, ProgressReport)
        reports.append(report)

    move = MoveOrder(
        1, 1, "https://store.example/x?X-Amz-Signature=1", 0, SIZE_BYTES, '"e"', SIZE_BYTES
    )
    exchange = Exchange(move, fd, tell, 0.0)
    try:
        exchange.request("fuzz")
        for piece in _pieces(head + body, sizes):
            if exchange.is_over:
                break
            _feed(exchange, piece)
        if not exchange.is_over:
            exchange.receive(lambda _room: 0, lambda: 1.0)
        assert isinstance(exchange.outcome, OutcomeReport)
        front = reports[-1].front if reports else 0
        assert os.pread(fd, front, 0) == (head + body)[-len(body) :][:front] if front else True
    finally:
        os.close(fd)


def _pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at, turn = 0, 0
    while at < len(data):
        n_bytes = sizes[turn % len(sizes)]
        yield data[at : at + n_bytes]
        at, turn = at + n_bytes, turn + 1


def _feed(exchange: Exchange, piece: bytes) -> None:
    left = memoryview(piece)

    def recv_into(room: memoryview) -> int:
        nonlocal left
        if not left:
            raise BlockingIOError
        n_bytes = min(len(room), len(left))
        room[:n_bytes] = left[:n_bytes]
        left = left[n_bytes:]
        return n_bytes

    while left and not exchange.is_over:
        exchange.receive(recv_into, lambda: 1.0)


_headers = st.dictionaries(
    st.sampled_from(
        ["content-range", "content-length", "content-encoding", "content-type", "etag",
         "last-modified", "x-amz-decoded-content-length", "retry-after"]
    ),
    st.text(max_size=40)
    | st.sampled_from(
        ["bytes 0-9/10", "bytes 0-9/*", "bytes */10", "bytes 5-3/10", f"bytes 0-{'9' * 5000}/1",
         "10", "aws-chunked", "gzip, aws-chunked", "identity", 'W/"e"', '"e"', "text/html"]
    ),
)  # fmt: skip


def check_verdicts(given: tuple[int, dict[str, str], bytes]) -> None:
    """Every status, headers and body have a meaning, and none is an exception."""
    status, headers, body = given
    classify_success(status, headers, ByteRange(0, SIZE_BYTES), _VERSION)
    classify_tail(status, headers)
    classify_error(status, body)
    total_if_unsatisfied(headers, body)


TARGETS = (
    Target(
        "exchange",
        "the head and body of a response, in a worker process (transfer/exchange.py)",
        responses,
        check_exchange,
        ((_GOOD, _DATA, [100]), (b"", b"", [1])),
    ),
    Target(
        "verdicts",
        "status, headers and error document of the store (content/transfer/store_responses.py)",
        st.tuples(st.integers(0, 999), _headers, st.binary(max_size=300)),
        check_verdicts,
    ),
)
