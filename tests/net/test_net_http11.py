"""Simple heads are read as h11 reads them; of all others h11 decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import pytest
import trio
from fakes.origin import ramp
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import Unreachable
from satfs.net.http import Http
from satfs.net.http11_heads import request_head, simple_head

# -- heads -----------------------------------------------------------------------------------------

GET = h11.Request(method="GET", target="/", headers=[("Host", "a")])


def by_h11(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
    """Return status, headers, body and whether another request may follow, as h11 reads *data*."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(GET)
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    response = parser.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    is_kept = parser.their_state is h11.DONE
    return response.status_code, response.headers.raw_items(), body, is_kept


#: Pieces of heads that are simple, strange or wrong, to be put together at random.
STATUS_LINES = st.sampled_from(
    [
        *("HTTP/1.1 200 OK", "HTTP/1.1 206 Partial Content", "HTTP/1.1 503 ", "HTTP/1.1 416"),
        *("HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 103 Early Hints"),
        *("HTTP/1.0 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1  200 OK", "http/1.1 200 OK", ""),
        "HTTP/1.1 200 \x80",
    ]
)
FIELDS = st.lists(
    st.sampled_from(
        [
            *("Content-Length: 4", "content-length:4", "Content-Length: \t4 \t", 'ETag: "a"'),
            *("Content-Length: 5", "Content-Length: +4", "Content-Length: 4, 4"),
            *("Content-Length:", "Content-Length: 4_0", "Content-Length: 0", "Content-Length : 4"),
            *("Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive, CLOSE"),
            *("Connection: keep-alive", "Content-Range: bytes 0-3/9", "X: \x00", "X: \x80"),
            *(" folded", "X", ": x", "X:", "X: a\tb", "X: a\nContent-Length: 9", "Upgrade: h2c"),
        ]
    ),
    max_size=5,
)


@given(STATUS_LINES, FIELDS, st.sampled_from(["\r\n", "\n", "\r"]))
def test_a_head_that_is_simple_is_read_as_h11_reads_it(
    status: str, fields: list[str], line_end: str
) -> None:
    """Whatever is accepted without h11, h11 accepts, and reads the same in it."""
    head = "".join(line + line_end for line in [status, *fields, ""]).encode("latin-1")
    if (found := simple_head(head + b"body")) is None:
        return
    body = found.rest[: found.length_bytes]
    if len(body) < found.length_bytes:
        body = bytes(found.length_bytes)
    expected = by_h11(head + body)
    assert (found.status, found.headers, body, found.is_kept) == expected


def test_what_stores_send_is_simple() -> None:
    head = (
        b"HTTP/1.1 206 Partial Content\r\nx-amz-request-id: A\r\nDate: Mon, 30 Nov 2026"
        b'\r\nETag: "d41d8cd9-3"\r\nContent-Range: bytes 0-3/9\r\nContent-Type: \r\n'
        b"Content-Length: 4\r\n\r\n"
    )
    found = simple_head(head + b"body")
    assert found is not None
    assert (found.status, found.length_bytes, found.is_kept, found.rest) == (206, 4, True, b"body")
    assert (b"ETag", b'"d41d8cd9-3"') in found.headers
    assert (b"Content-Type", b"") in found.headers


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n",  # not all of it has come
        b"HTTP/1.1 200 OK\r\n\r\n",  # no length
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n folded\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
        b"",
    ],
)
def test_other_heads_are_not_simple(head: bytes) -> None:
    assert simple_head(head) is None


HOST = (b"Host", b"a")


def test_a_request_is_written_as_h11_writes_it() -> None:
    headers = [HOST, (b"User-Agent", b"satfs/1"), (b"Range", b"bytes=0-9"), (b"If-Match", b'"a b"')]
    expected = h11.Connection(h11.CLIENT).send(
        h11.Request(method="GET", target="/a%20b?c=d", headers=headers)
    )
    assert request_head(b"/a%20b?c=d", headers) == expected


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/a b", [HOST]),
        (b"/a\r\nX: y", [HOST]),
        (b"", [HOST]),
        (b"/\xc3\xa4", [HOST]),
        (b"/", []),
        (b"/", [HOST, HOST]),
        (b"/", [HOST, (b"X", b"a\r\nY: b")]),
        (b"/", [HOST, (b"X", b"a\nb")]),
        (b"/", [HOST, (b"X\r\nY", b"b")]),
        (b"/", [HOST, (b"X", b"a\x00")]),
        (b"/", [HOST, (b"X", b"")]),
        (b"/", [HOST, (b"X Y", b"a")]),
        (b"/", [HOST, (b"Content-Length", b"4")]),
        (b"/", [HOST, (b"transfer-encoding", b"chunked")]),
        (b"/", [HOST, (b"Connection", b"close")]),
    ],
)
def test_other_requests_are_not_simple(target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Line breaks in what is put in would end the head, or begin another field."""
    assert request_head(target, headers) is None


# -- connections -----------------------------------------------------------------------------------


@asynccontextmanager
async def sending(*responses: list[bytes]) -> AsyncIterator[tuple[Http, str, list[int]]]:
    """Serve *responses*, the pieces of each in turn, one for each request, then nothing.

    Yields a client, its URL, and the numbers of requests on each connection.
    """
    left = list(responses)
    counts: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        number = len(counts)
        counts.append(0)
        async with stream:
            while await stream.receive_some():
                counts[number] += 1
                *first, last = left.pop(0)
                for piece in first:
                    await stream.send_all(piece)
                    await trio.sleep(0.01)  # so that it is received by itself
                await stream.send_all(last)
                if last.startswith(b"cut"):
                    return

    async with (
        trio.open_nursery() as nursery,
        Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=1) as http,
    ):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield http, f"http://127.0.0.1:{listener.socket.getsockname()[1]}/", counts
        nursery.cancel_scope.cancel()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
PLAIN = [HEAD + b"\r\nbody"]


async def bodies(http: Http, url: str, n_requests: int) -> list[bytes]:
    return [(await http.request("GET", url, headers={})).body for _ in range(n_requests)]


@pytest.mark.parametrize(
    "odd",
    [
        [HEAD[:20], HEAD[20:] + b"\r\nbody"],
        [HEAD + b"\r\n", b"body"],
        [HEAD + b"\r\nbo", b"dy"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + b"\r\nbody"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n", HEAD + b"\r\nbody"],
        [HEAD + b"Content-Length: 4\r\n\r\nbody"],
        [HEAD + b"X: \xe4\r\n\r\nbody"],
    ],
)
async def test_whichever_way_a_response_is_read_others_follow_it(odd: list[bytes]) -> None:
    """On the same connection, also when h11 has read one of them."""
    async with sending(PLAIN, odd, PLAIN, odd) as (http, url, counts):
        assert await bodies(http, url, 4) == [b"body"] * 4
        assert counts == [4]


@pytest.mark.parametrize("is_h11s", [False, True])
async def test_what_comes_behind_a_response_is_not_the_next_one(*, is_h11s: bool) -> None:
    """Else the second request would get what a server, or one before it, has made up."""
    extra = b"Content-Length: 4\r\n" if is_h11s else b""
    behind = [HEAD + extra + b"\r\nbody" + HEAD + b"\r\nfake"]
    async with sending(behind, PLAIN) as (http, url, counts):
        assert await bodies(http, url, 2) == [b"body"] * 2
        assert sum(counts) == 2


@pytest.mark.parametrize("field", [b"Connection: close", b"connection: a, Close"])
async def test_a_connection_that_is_to_be_closed_is_not_used_again(field: bytes) -> None:
    async with sending([HEAD + field + b"\r\n\r\nbody"], PLAIN) as (http, url, counts):
        assert await bodies(http, url, 2) == [b"body"] * 2
        assert counts == [1, 1]


@pytest.mark.parametrize("begin", [HEAD, HEAD + b"Content-Length: 4\r\n"])
async def test_a_body_that_is_cut_is_never_taken_for_whole(begin: bytes) -> None:
    async with sending([begin + b"\r\n", b"cut"]) as (http, url, _):
        with pytest.raises(Unreachable):
            await bodies(http, url, 1)


async def test_a_body_that_comes_fast_leaves_others_their_turn() -> None:
    """However much has come already."""
    n_bytes = 20_000_000
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {n_bytes}\r\n\r\n".encode()
    n_turns = 0

    async def count() -> None:
        nonlocal n_turns
        while True:
            await trio.lowlevel.checkpoint()
            n_turns += 1

    async with sending([head + ramp(0, n_bytes)]) as (http, url, _), trio.open_nursery() as nursery:
        nursery.start_soon(count)
        async with http.stream(url, headers={}) as response:
            assert sum([len(chunk) async for chunk in response.chunks()]) == n_bytes
        nursery.cancel_scope.cancel()
    assert n_turns >= n_bytes // (4 * 1024 * 1024)
