"""Requests and responses through an injected transport, on a clock that jumps."""

from __future__ import annotations

import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import trio

from satfs.errors import DeadlineReached, Garbled, Unreachable
from satfs.net.http import Http
from satfs.net.responses import Response

URL = "https://store.test/bucket/key?X-Amz-Signature=5ec2e7"


def http_for(handler: Callable[[httpx.Request], Any], **changes: Any) -> Http:
    given = {"connect_timeout_s": 5, "progress_timeout_s": 15, "max_connections": 4}
    return Http(**{**given, **changes}, transport=httpx.MockTransport(handler))


class Slow(httpx.AsyncByteStream):
    """A body that comes in pieces, each after a while; a piece may be a failure."""

    def __init__(self, *pieces: tuple[float, bytes | Exception]) -> None:
        self.pieces = list(pieces)
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.pieces:
            raise StopAsyncIteration
        after_s, piece = self.pieces.pop(0)
        await trio.sleep(after_s)
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def aclose(self) -> None:
        self.is_closed = True


async def ask(http: Http, **changes: Any) -> Response:
    return await http.request("GET", URL, headers={}, **changes)


async def test_an_answer_is_passed_on_whatever_its_status(autojump_clock: Any) -> None:
    """Status, headers in lower case, and the whole body; redirects are the caller's business."""
    for status in (200, 206, 302, 404, 503):
        headers = {"ETag": '"x"', "Location": "/y"}
        responses = [httpx.Response(status, headers=headers, content=b"body")]
        async with http_for(lambda request: responses.pop()) as http:  # noqa: B023 - used up here
            got = await ask(http)
        assert (got.status, got.headers["etag"], got.body) == (status, '"x"', b"body")


async def test_nothing_is_sent_but_what_was_given(autojump_clock: Any) -> None:
    """No cookie, no password from ~/.netrc, no accepted compression."""
    sent: list[dict[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(dict(request.headers))
        return httpx.Response(200, headers={"Set-Cookie": "a=b"})

    async with http_for(handler) as http:
        for _ in range(2):
            await http.request("GET", URL, headers={"Range": "bytes=0-1"})
    for headers in sent:
        assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "range"}
        assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("failure", "ours"),
    [
        (httpx.ConnectTimeout("x"), DeadlineReached),
        (httpx.ReadTimeout("x"), DeadlineReached),
        (httpx.WriteTimeout("x"), DeadlineReached),
        (httpx.PoolTimeout("x"), DeadlineReached),
        (httpx.ConnectError("x"), Unreachable),
        (httpx.ReadError("x"), Unreachable),
        (httpx.WriteError("x"), Unreachable),
        (httpx.ProxyError("x"), Unreachable),
        (httpx.RemoteProtocolError("x"), Unreachable),
        (httpx.UnsupportedProtocol("x"), Unreachable),
        (ssl.SSLError("x"), Unreachable),
        (ConnectionResetError(104, "Connection reset by peer"), Unreachable),
        (TimeoutError(), Unreachable),
    ],
)
async def test_every_failure_leaves_as_one_of_ours(
    autojump_clock: Any, failure: Exception, ours: type[Exception]
) -> None:
    """By table, with the cause chained and without the query, at the head and in the body."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise failure

    async with http_for(handler) as http:
        with pytest.raises(ours) as raised:
            await ask(http)
    assert type(raised.value) is ours
    assert raised.value.__cause__ is failure
    assert "5ec2e7" not in str(raised.value)

    async with http_for(
        lambda request: httpx.Response(200, stream=Slow((0, b"x"), (0, failure)))
    ) as http:
        with pytest.raises(ours):
            await ask(http)


async def test_a_certificate_failure_is_plain_and_permanent(autojump_clock: Any) -> None:
    """The message has the reason; no request is tried again."""
    why = ssl.SSLCertVerificationError("certificate verify failed")
    why.verify_message = "self-signed certificate"

    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL]") from why

    async with http_for(handler) as http:
        with pytest.raises(Unreachable, match=r"not trusted.*self-signed") as raised:
            await ask(http)
    assert raised.value.is_permanent


async def test_silence_before_the_answer_ends(autojump_clock: Any) -> None:
    """Also with a transport that knows no timeouts."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with http_for(handler) as http:
        began = trio.current_time()
        with pytest.raises(DeadlineReached):
            await ask(http)
        assert trio.current_time() - began == 20


async def test_silence_within_the_body_ends_and_a_drip_does_not(autojump_clock: Any) -> None:
    """Progress is a byte within the limit, however slow the whole is."""
    drip = Slow(*[(14.0, b"x")] * 20)
    stall = Slow((14.0, b"x"), (16.0, b"y"))
    async with http_for(lambda request: httpx.Response(200, stream=drip)) as http:
        assert (await ask(http)).body == b"x" * 20
    async with http_for(lambda request: httpx.Response(200, stream=stall)) as http:
        with pytest.raises(DeadlineReached, match="sent nothing for 15 s"):
            await ask(http)
    assert stall.is_closed


async def test_silence_within_the_body_may_have_a_limit_of_its_own(autojump_clock: Any) -> None:
    """A response may take long to begin; a connection that was alive is given up sooner."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep(14)
        return httpx.Response(200, stream=Slow((4.0, b"x"), (6.0, b"y")))

    async with http_for(handler, body_timeout_s=5) as http:
        with pytest.raises(DeadlineReached, match="sent nothing for 5 s"):
            await ask(http)


async def test_a_body_is_bounded(autojump_clock: Any) -> None:
    """An endless response is given up at the limit."""
    endless = Slow(*[(0.0, b"x" * 1000)] * 10_000)
    async with http_for(lambda request: httpx.Response(200, stream=endless)) as http:
        with pytest.raises(Garbled, match="more than 5000"):
            await ask(http, max_bytes=5000)
    assert endless.is_closed
    assert len(endless.pieces) > 9000


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("gzip", gzip.compress(b"hello", mtime=0)),
        ("x-gzip", gzip.compress(b"hello", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
        ("identity", b"hello"),
        ("", b"hello"),
    ],
)
async def test_what_was_compressed_unasked_is_understood(
    autojump_clock: Any, name: str, packed: bytes
) -> None:
    """Some gateways compress JSON for any request."""

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": name}, stream=Slow((0, packed)))

    async with http_for(handler) as http:
        assert (await ask(http)).body == b"hello"


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("gzip", gzip.compress(bytes(100_000))),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-9]),
        ("gzip", b"nonsense"),
        ("br", b"hello"),
    ],
)
async def test_a_compressed_body_that_lies_is_garbled(
    autojump_clock: Any, name: str, packed: bytes
) -> None:
    """A bomb, a cut body, nonsense, and an encoding that satfs does not know."""

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": name}, stream=Slow((0, packed)))

    async with http_for(handler) as http:
        with pytest.raises(Garbled):
            await ask(http, max_bytes=1000)


async def test_a_stream_may_be_left_at_any_point(autojump_clock: Any) -> None:
    """An unread body is dropped at the end, and the connection's slot is free again."""
    bodies: list[Slow] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(Slow(*[(0.0, b"0123456789")] * 5))
        return httpx.Response(206, headers={"Content-Range": "bytes 0-49/50"}, stream=bodies[-1])

    async with http_for(handler, max_connections=1) as http:
        for n_chunks in range(7):
            async with http.stream(URL, headers={}) as response:
                assert response.status == 206
                assert response.headers["content-range"] == "bytes 0-49/50"
                got = b""
                async for chunk in response.chunks():
                    if n_chunks * 10 <= len(got):
                        break
                    got += chunk
                assert got == b"0123456789" * min(n_chunks, 5)
        with trio.move_on_after(1):
            async with http.stream(URL, headers={}):
                await trio.sleep(5)
        assert (await ask(http)).status == 206
    assert all(body.is_closed for body in bodies)


async def test_generators_as_bodies_are_ended(autojump_clock: Any) -> None:
    """An injected transport may respond with a generator; it runs its `finally`."""
    n_ended = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal n_ended
        try:
            for _ in range(5):
                yield b"x"
        finally:
            n_ended += 1

    async with http_for(lambda request: httpx.Response(200, content=body())) as http:
        assert (await ask(http)).body == b"xxxxx"
    assert n_ended == 1


async def test_an_errors_body_is_read_as_far_as_it_goes(autojump_clock: Any) -> None:
    """It only explains an error: a break in it is no error of its own, and it is bounded."""
    broken = Slow((0, b"<Error>"), (0, httpx.ReadError("reset")))
    endless = Slow(*[(0.0, b"x" * 1000)] * 1000)
    bodies = [broken, endless]
    async with http_for(lambda request: httpx.Response(403, stream=bodies.pop(0))) as http:
        async with http.stream(URL, headers={}) as response:
            assert await response.read_error_body() == b"<Error>"
        async with http.stream(URL, headers={}) as response:
            assert await response.read_error_body(2500) == b"x" * 2500


async def test_waiting_for_a_turn_is_no_timeout(autojump_clock: Any) -> None:
    """More requests than connections: each has its own limits, counted from its turn."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep(10)
        return httpx.Response(200)

    async with http_for(handler, max_connections=2) as http, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, http)
    assert trio.current_time() >= 50


@pytest.mark.parametrize("url", ["ftp://x/y", "x", "", "https://", "https://h:x/", "https://a b/"])
async def test_what_is_no_address_is_not_asked(autojump_clock: Any, url: str) -> None:
    """A host sent it, and broke the rules."""
    async with http_for(lambda request: httpx.Response(200)) as http:
        with pytest.raises(Garbled):
            await http.request("GET", url, headers={})


async def test_answers_bring_hosts_back(autojump_clock: Any) -> None:
    """A response of any status is noted: the host is there."""
    async with http_for(lambda request: httpx.Response(500)) as http:
        http.reachability.gave_up("https://store.test:443", since_s=0, now_s=0)
        await ask(http)
        assert http.reachability.offline_since("https://store.test:443") is None
