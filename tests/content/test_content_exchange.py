"""One order from request to file, without a socket, for any pieces of the response."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.transfer import exchange as module
from satfs.content.transfer.exchange import Exchange, FileFailure
from satfs.content.transfer.messages import MoveOrder, ProgressReport, read_report
from satfs.content.transfer.store_responses import ResponseKind

SIZE = 40 * BLOCK_BYTES + 777
OBJECT = bytes(os.urandom(SIZE))
URL = "https://store.example:8443/a%20b/c?X-Amz-Signature=0123&x=a%2Fb"


class Stand:
    """An exchange, its file, and its reports."""

    def __init__(self, start: int, stop: int, url: str = URL, etag: str = '"e"') -> None:
        self.fd = os.memfd_create("cache")
        os.ftruncate(self.fd, SIZE)
        self.reports: list[ProgressReport] = []
        self.now_s = 100.0
        move = MoveOrder(7, 1, url, start, stop, etag, SIZE)
        self.exchange = Exchange(move, self.fd, self._hear, self.now_s)

    def _hear(self, packet: bytes) -> None:
        report = read_report(packet)
        assert isinstance(report, ProgressReport)
        assert report.move == 7
        before = self.front
        self.reports.append(report)
        self.check([report], before)

    def check(self, reports: Iterable[ProgressReport], at: int) -> None:
        """Reported bytes are in the file, whole blocks or up to the object's end, in order."""
        for report in reports:
            for number, found in enumerate(report.hashes):
                block = OBJECT[at : at + BLOCK_BYTES]
                assert os.pread(self.fd, len(block), at) == block
                assert xxhash.xxh3_64_intdigest(block) == found, number
                at += len(block)
            assert at == report.front

    @property
    def front(self) -> int:
        return self.reports[-1].front if self.reports else self.exchange.move.start

    def feed(self, data: bytes, sizes: Iterator[int], step_s: float = 0.0) -> None:
        """Hand *data* over in pieces, as a socket would, until the exchange is over."""
        left = memoryview(data)

        def recv_into(room: memoryview) -> int:
            nonlocal left
            assert len(room) > 0
            if not left:
                raise BlockingIOError
            n_bytes = min(len(room), next(sizes), len(left))
            room[:n_bytes] = left[:n_bytes]
            left = left[n_bytes:]
            self.now_s += step_s
            return n_bytes

        while not self.exchange.is_over:
            # A short piece is the last one for the moment; the selector reports the next.
            if not self.exchange.receive(recv_into, lambda: self.now_s) and not left:
                break

    def end(self) -> None:
        """Close the connection."""
        self.exchange.receive(lambda _room: 0, lambda: self.now_s)

    def close(self) -> None:
        """Close the file, in which all reported bytes still are."""
        try:
            self.check(self.reports, self.exchange.move.start)
        finally:
            os.close(self.fd)


@pytest.fixture
def stands() -> Iterator[Any]:
    made: list[Stand] = []

    def make(*args: Any, **more: Any) -> Stand:
        made.append(Stand(*args, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def head(start: int, stop: int, status: str = "206 Partial Content", **more: str) -> bytes:
    lines = {
        "Content-Range": f"bytes {start}-{stop - 1}/{SIZE}",
        "Content-Length": str(stop - start),
        "ETag": '"e"',
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status}\r\n{text}\r\n".encode()


def forever(n_bytes: int) -> Iterator[int]:
    while True:
        yield n_bytes


SPANS = st.tuples(st.integers(0, 38), st.integers(1, 41)).map(
    lambda each: (each[0] * BLOCK_BYTES, min(SIZE, (each[0] + each[1]) * BLOCK_BYTES))
)
PIECES = st.lists(st.integers(1, 3 * BLOCK_BYTES), min_size=1, max_size=50)


def cycled(pieces: list[int], n_bytes: int = SIZE) -> Iterator[int]:
    """Yield *pieces* again and again, each time with a longer one that ends after 100 rounds.

    Half a megabyte in pieces of one byte would take a minute, and show nothing more.
    """
    while True:
        yield from pieces
        yield n_bytes // 100 + 1


class TestBytes:
    @pytest.mark.slow
    @settings(max_examples=150, deadline=None)
    @given(SPANS, PIECES, st.floats(0, 0.05), st.sampled_from([1, 2, 16, 1 << 20]))
    def test_any_pieces_give_the_same_bytes(
        self, span: tuple[int, int], pieces: list[int], step_s: float, report_blocks: int
    ) -> None:
        """A response cut into any pieces is in the file, and all of it was reported."""
        stand = Stand(*span)
        limit, module.REPORT_BYTES = module.REPORT_BYTES, report_blocks * BLOCK_BYTES  # type: ignore[misc]
        try:
            stand.exchange.request("test")
            stand.feed(head(*span) + OBJECT[slice(*span)], cycled(pieces), step_s)
            outcome = stand.exchange.outcome
            assert outcome is not None
            assert outcome.response_class is None
            assert outcome.broken is None
            assert stand.front == span[1]
            assert stand.exchange.may_follow
        finally:
            module.REPORT_BYTES = limit  # type: ignore[misc]
            stand.close()

    @pytest.mark.slow
    @settings(max_examples=150, deadline=None)
    @given(SPANS, PIECES, st.floats(0, 1), st.booleans())
    def test_what_came_before_a_break_is_kept(
        self, span: tuple[int, int], pieces: list[int], share: float, is_closed: bool
    ) -> None:
        """A connection that ends early leaves whole blocks that were reported, and a reason."""
        stand = Stand(*span)
        try:
            stand.exchange.request("test")
            body = OBJECT[slice(*span)]
            n_sent = min(int(len(body) * share), len(body) - 1)
            stand.feed(head(*span) + body[:n_sent], cycled(pieces))
            if is_closed:
                stand.end()
            else:
                stand.exchange.broke("gone", now_s=stand.now_s)
            outcome = stand.exchange.outcome
            assert outcome is not None
            assert outcome.broken
            assert not stand.exchange.may_follow
            assert stand.front == span[0] + n_sent // BLOCK_BYTES * BLOCK_BYTES
        finally:
            stand.close()

    @pytest.mark.slow
    @settings(max_examples=100, deadline=None)
    @given(PIECES, st.integers(0, 40), st.integers(0, 40))
    def test_a_cut_ends_it_there(self, pieces: list[int], when: int, at: int) -> None:
        """After a cut no more than the requested bytes are waited for; reports are right."""
        stand = Stand(0, SIZE)
        try:
            stand.exchange.request("test")
            data = head(0, SIZE) + OBJECT
            first = len(head(0, SIZE)) + when * BLOCK_BYTES
            stand.feed(data[:first], cycled(pieces))
            stand.exchange.stop = min(stand.exchange.stop, max(at * BLOCK_BYTES, 0))
            stand.feed(data[first:], cycled(pieces))
            assert stand.exchange.outcome is not None
            assert stand.front >= at * BLOCK_BYTES
        finally:
            stand.close()

    def test_a_part_of_the_range_is_kept_and_the_connection_is_used_again(
        self, stands: Any
    ) -> None:
        """A server may send less than was requested: the rest is another request's."""
        stand = stands(0, 8 * BLOCK_BYTES)
        stand.exchange.request("test")
        n_sent = 3 * BLOCK_BYTES + 100
        stand.feed(head(0, n_sent) + OBJECT[:n_sent], forever(1 << 20))
        outcome = stand.exchange.outcome
        assert outcome is not None
        assert outcome.response_class is not None
        assert outcome.response_class.kind is ResponseKind.RETRY
        assert stand.front == 3 * BLOCK_BYTES
        assert stand.exchange.may_follow

    def test_blocks_do_not_wait_for_what_does_not_come(self, stands: Any) -> None:
        """Received bytes are reported a moment later, though no more follow."""
        stand = stands(0, SIZE)
        stand.exchange.request("test")
        stand.feed(head(0, SIZE) + OBJECT[:BLOCK_BYTES], forever(1 << 20))
        assert stand.front == BLOCK_BYTES
        stand.feed(OBJECT[BLOCK_BYTES : 3 * BLOCK_BYTES + 5], forever(1 << 20), 0.001)
        stand.exchange.look_at_clock(stand.now_s + 0.03)
        assert stand.front == 3 * BLOCK_BYTES

    def test_all_connections_report_at_the_same_tick(self, stands: Any) -> None:
        """The first block is reported at once, those that follow when the worker's clock ticks."""
        stand = stands(0, SIZE)
        stand.exchange.request("test")
        stand.feed(head(0, SIZE) + OBJECT[: 9 * BLOCK_BYTES], forever(BLOCK_BYTES), 0.005)
        assert stand.front == BLOCK_BYTES
        stand.exchange.look_at_clock(stand.now_s)
        assert [each.front for each in stand.reports] == [BLOCK_BYTES, 9 * BLOCK_BYTES]


def chunked(body: bytes, sizes: Iterator[int], *, extension: str = "", trailers: str = "") -> bytes:
    """Return *body* in chunks of *sizes* (RFC 9112 §7.1)."""
    pieces, at = [], 0
    while at < len(body):
        piece = body[at : at + next(sizes)]
        pieces.append(f"{len(piece):x}{extension}\r\n".encode() + piece + b"\r\n")
        at += len(piece)
    return b"".join(pieces) + f"0\r\n{trailers}\r\n".encode()


#: A part of an object of which the length is in its range alone.
CHUNKED: Any = {"Content_Length": "", "Transfer_Encoding": "chunked"}


class TestBodiesWithoutLength:
    @pytest.mark.slow
    @settings(max_examples=150, deadline=None)
    @given(
        SPANS,
        PIECES,
        st.lists(st.integers(1, 3 * BLOCK_BYTES), min_size=1, max_size=20),
        st.sampled_from(["", ";x", ';a="b;c"']),
        st.sampled_from(["", "x-check: 1\r\n", 'ETag: "other"\r\n']),
    )
    def test_any_chunks_give_the_same_bytes(
        self,
        span: tuple[int, int],
        pieces: list[int],
        chunks: list[int],
        extension: str,
        trailers: str,
    ) -> None:
        """Chunks, in any pieces, are in the file once, and the connection is used again."""
        stand = Stand(*span)
        try:
            stand.exchange.request("test")
            body = chunked(
                OBJECT[slice(*span)], cycled(chunks), extension=extension, trailers=trailers
            )
            stand.feed(head(*span, **CHUNKED) + body, cycled(pieces))
            outcome = stand.exchange.outcome
            assert outcome is not None
            assert outcome.response_class is None
            assert outcome.broken is None
            assert stand.front == span[1]
            assert stand.exchange.may_follow
        finally:
            stand.close()

    @pytest.mark.slow
    @settings(max_examples=100, deadline=None)
    @given(SPANS, PIECES, st.floats(0, 1), st.booleans())
    def test_a_body_that_is_cut_short_leaves_what_came(
        self, span: tuple[int, int], pieces: list[int], share: float, is_chunked: bool
    ) -> None:
        """A body without a length that ends before its range does is not taken for whole."""
        stand = Stand(*span)
        try:
            stand.exchange.request("test")
            body = OBJECT[slice(*span)]
            n_sent = min(int(len(body) * share), len(body) - 1)
            sent = body[:n_sent]
            if is_chunked:
                sent = chunked(sent, cycled(pieces)).removesuffix(b"0\r\n\r\n")
            how: Any = CHUNKED if is_chunked else {"Content_Length": ""}
            stand.feed(head(*span, **how) + sent, cycled(pieces))
            stand.end()
            outcome = stand.exchange.outcome
            assert outcome is not None
            assert outcome.broken
            assert not stand.exchange.may_follow
            assert stand.front == span[0] + n_sent // BLOCK_BYTES * BLOCK_BYTES
        finally:
            stand.close()

    def test_chunks_that_end_early_are_a_part(self, stands: Any) -> None:
        """The connection is used again for the rest of the range."""
        stand = stands(0, 8 * BLOCK_BYTES)
        stand.exchange.request("test")
        body = chunked(OBJECT[: 3 * BLOCK_BYTES + 100], forever(1000))
        stand.feed(head(0, 8 * BLOCK_BYTES, **CHUNKED) + body, forever(1 << 20))
        assert stand.exchange.outcome.response_class.kind is ResponseKind.RETRY
        assert stand.front == 3 * BLOCK_BYTES
        assert stand.exchange.may_follow

    def test_the_end_of_the_connection_is_the_end_of_the_body(self, stands: Any) -> None:
        """What is requested is there, and the connection is not used again."""
        stand = stands(0, SIZE)
        stand.exchange.request("test")
        stand.feed(head(0, SIZE, Content_Length="") + OBJECT, forever(5000))
        assert stand.exchange.outcome.broken is None
        assert stand.front == SIZE
        assert not stand.exchange.may_follow

    @pytest.mark.parametrize("ending", ["silence", "close", "nonsense"])
    def test_chunks_without_an_end_are_whole(self, stands: Any, ending: str) -> None:
        """All bytes are reported at once; the missing end costs the connection alone."""
        stand = stands(0, SIZE)
        stand.exchange.request("test")
        body = chunked(OBJECT, forever(9999)).removesuffix(b"0\r\n\r\n")
        stand.feed(head(0, SIZE, **CHUNKED) + body, forever(1 << 20))
        assert stand.front == SIZE
        assert not stand.exchange.is_over
        if ending == "close":
            stand.end()
        elif ending == "nonsense":
            stand.feed(b"no chunk\r\n", forever(100))
        else:
            stand.exchange.look_at_clock(stand.now_s + module.END_S / 2)
            assert not stand.exchange.is_over
            stand.exchange.look_at_clock(stand.now_s + module.END_S)
        assert stand.exchange.outcome.broken is None
        assert stand.exchange.outcome.response_class is None
        assert not stand.exchange.may_follow

    def test_more_chunks_than_the_range_has_are_not_taken(self, stands: Any) -> None:
        """Bytes behind the range are not written, and the connection is not used again."""
        stand = stands(0, 2 * BLOCK_BYTES)
        stand.exchange.request("test")
        body = chunked(OBJECT[: 4 * BLOCK_BYTES], forever(5000))
        stand.feed(head(0, 2 * BLOCK_BYTES, **CHUNKED) + body, forever(1 << 20))
        assert stand.front == 2 * BLOCK_BYTES
        assert stand.exchange.outcome.broken is None
        assert not stand.exchange.may_follow
        assert os.pread(stand.fd, BLOCK_BYTES, 2 * BLOCK_BYTES) == bytes(BLOCK_BYTES)


class TestAnswers:
    def test_the_request(self, stands: Any) -> None:
        """The link goes out as it is, with its range and its version, and no credential."""
        request = stands(0, 16384).exchange.request("satfs/1")
        lines = request.decode().split("\r\n")
        assert lines[0] == "GET /a%20b/c?X-Amz-Signature=0123&x=a%2Fb HTTP/1.1"
        assert set(lines[1:-2]) == {
            "Host: store.example:8443",
            "User-Agent: satfs/1",
            "Accept: */*",
            "Range: bytes=0-16383",
            "Accept-Encoding: identity",
            'If-Match: "e"',
        }

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("https://s.example:443/x", "s.example"),
            ("http://s.example:80/x", "s.example"),
            ("http://[::1]:9000/x", "[::1]:9000"),
        ],
    )
    def test_the_usual_port_is_not_named(self, stands: Any, url: str, host: str) -> None:
        assert f"Host: {host}\r\n".encode() in stands(0, 16384, url).exchange.request("t")

    def test_a_target_that_cannot_be_asked_for(self, stands: Any) -> None:
        with pytest.raises(ValueError, match="target"):
            stands(0, 16384, "https://s.example/a b").exchange.request("t")

    @pytest.mark.parametrize(
        ("response", "kind"),
        [
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", ResponseKind.RENEW),
            (b"HTTP/1.1 412 No\r\nContent-Length: 2\r\n\r\nno", ResponseKind.CHANGED),
            (
                b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1c\r\n<Error><Code>SlowDown</Code>\r\n0\r\n\r\n",
                ResponseKind.SLOW_DOWN,
            ),
            (
                b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
                ResponseKind.REDIRECT,
            ),
            (b"SSH-2.0-OpenSSH\r\n\r\n", ResponseKind.GARBLED),
            (head(32768, 65536), ResponseKind.GARBLED),
            (head(0, 16384, ETag='"other"'), ResponseKind.CHANGED),
            (
                head(
                    0,
                    16384,
                    "200 OK",
                    Content_Range="",
                    Content_Length="",
                    Transfer_Encoding="chunked",
                ),
                ResponseKind.GARBLED,
            ),
            (head(0, SIZE, status="200 OK", Content_Range=""), ResponseKind.BYTES),
        ],
    )
    def test_what_an_answer_means(self, stands: Any, response: bytes, kind: ResponseKind) -> None:
        """Bytes that were not requested are refused, and never put in the file."""
        stand = stands(0, 16384)
        stand.exchange.request("t")
        stand.feed(response + OBJECT[:16384], forever(7))
        if kind is ResponseKind.BYTES:
            return  # a whole object, where its beginning was requested
        assert stand.exchange.outcome.response_class.kind is kind
        assert os.pread(stand.fd, 16384, 0) == bytes(16384)
        assert not stand.reports

    def test_a_busy_store_says_for_how_long(self, stands: Any) -> None:
        stand = stands(0, 16384)
        stand.exchange.request("t")
        stand.feed(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", forever(99))
        assert stand.exchange.outcome.retry_after_s == 7

    def test_a_busy_store_may_say_until_when_by_its_own_clock(self, stands: Any) -> None:
        """That clock may be hours away from ours; the response's own date shows it."""
        stand = stands(0, 16384)
        stand.exchange.request("t")
        stand.feed(
            b"HTTP/1.1 503 Busy\r\nDate: Fri, 01 Jan 2100 00:00:00 GMT\r\n"
            b"Retry-After: Fri, 01 Jan 2100 00:00:07 GMT\r\nContent-Length: 0\r\n\r\n",
            forever(99),
        )
        assert stand.exchange.outcome.retry_after_s == 7

    def test_a_connection_that_is_to_close_is_not_used_again(self, stands: Any) -> None:
        stand = stands(0, 16384)
        stand.exchange.request("t")
        stand.feed(head(0, 16384, Connection="Close") + OBJECT[:16384], forever(1 << 20))
        assert stand.exchange.outcome.broken is None
        assert not stand.exchange.may_follow

    def test_a_connection_with_bytes_behind_the_body_is_not_used_again(self, stands: Any) -> None:
        """They belong to no response; the next one would be looked for among them."""
        start = SIZE // BLOCK_BYTES * BLOCK_BYTES
        stand = stands(start, SIZE)
        stand.exchange.request("test")
        stand.feed(head(start, SIZE) + OBJECT[start:] + b"HTTP/1.1 206", forever(1 << 20))
        assert stand.front == SIZE
        assert not stand.exchange.may_follow

    def test_closed_without_an_answer(self, stands: Any) -> None:
        stand = stands(0, 16384)
        stand.exchange.request("t")
        stand.end()
        assert stand.exchange.outcome.broken
        assert not stand.exchange.has_begun

    def test_a_file_that_takes_nothing(self, stands: Any) -> None:
        """A disk that fails is not taken for a network that does."""
        stand = stands(0, 16384)
        stand.exchange.request("t")
        read_only = os.open("/dev/null", os.O_RDONLY)
        stand.exchange._fd = read_only
        with pytest.raises(FileFailure):
            stand.feed(head(0, 16384) + OBJECT[:16384], forever(1 << 20))
        os.close(read_only)


def test_informational_answers_without_end_are_refused(stands: Any) -> None:
    """A flood of 103 neither keeps a worker busy nor its connection for ever."""
    stand = stands(0, SIZE)
    stand.exchange.request("test")
    stand.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, forever(1000))
    assert stand.exchange.outcome.response_class.kind is ResponseKind.GARBLED


def test_some_informational_answers_are_passed_over(stands: Any) -> None:
    """One or two come before responses of real servers."""
    stand = stands(0, SIZE)
    stand.exchange.request("test")
    stand.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2 + head(0, SIZE) + OBJECT, forever(5000))
    assert stand.exchange.is_over
    assert stand.front == SIZE
