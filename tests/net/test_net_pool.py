"""Our own connections, against a real server on loopback, over plain TCP and TLS."""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import h11
import pytest
import trio
import trustme
from fakes.origin import Origin, ramp, serving

from satfs.errors import BadSettings, DeadlineReached, NotAllowed, Unreachable
from satfs.net.addresses import origin_of
from satfs.net.http import Http
from satfs.net.pool import PoolStatistics
from satfs.net.pooled_connection import HALVED_AFTER_S

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Http, Origin]]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a certificate authority that no system knows."""
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
def serve(request: Any, authority: trustme.CA, tmp_path: Path) -> Serve:
    """Return a function that runs a server and a client of it."""
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context: ssl.SSLContext | None = None
    if request.param == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)

    @asynccontextmanager
    async def running(**changes: Any) -> AsyncIterator[tuple[Http, Origin]]:
        given = {"connect_timeout_s": 5, "progress_timeout_s": 5, "max_connections": 8}
        async with (
            serving(context) as origin,
            Http(**{**given, "ca_file": ca_file, **changes}) as http,
        ):
            # Of a host that is not known yet fewer would be opened at once (`net/host_limit.py`).
            http.permits.known(origin_of(origin.url("/"))).note_responding(0.0, 64)
            yield http, origin

    return running


def figures(http: Http) -> PoolStatistics:
    """Return the pool's figures."""
    statistics = http.statistics()
    assert statistics is not None
    return statistics


async def get(http: Http, url: str) -> bytes:
    return (await http.request("GET", url, headers={})).body


@pytest.mark.parametrize("n_bytes", [0, 1, 1000, 65_536, 3_000_001])
@pytest.mark.parametrize("framing", ["ramp", "chunked", "unframed"])
async def test_bodies_arrive_byte_for_byte(serve: Serve, framing: str, n_bytes: int) -> None:
    """However the server frames them, and however long they are."""
    async with serve() as (http, origin):
        assert await get(http, origin.url(f"/{framing}/{n_bytes}")) == ramp(0, n_bytes)


async def test_large_bodies_come_in_large_pieces(serve: Serve) -> None:
    """The reason for our own backend: fewer, larger steps through Python."""
    async with (
        serve() as (http, origin),
        http.stream(origin.url("/ramp/20000000"), headers={}) as response,
    ):
        sizes = [len(chunk) async for chunk in response.chunks()]
    assert sum(sizes) == 20_000_000
    assert max(sizes) > 100_000


async def test_requests_wait_for_connections_that_are_opened_ahead(serve: Serve) -> None:
    """No more are opened beside them."""
    async with serve() as (http, origin):
        url = origin.url("/ramp/1000000")
        await get(http, url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.keep_ready, origin_of(url), 3)
            while http.holder.n_idle(origin_of(url)) != (1, 2):
                await trio.lowlevel.checkpoint()
            for _ in range(3):
                nursery.start_soon(get, http, url)
        assert origin.n_connections == 3
        assert sum(http.holder.n_idle(origin_of(url))) == 3


async def test_a_connection_that_is_opened_ahead_in_vain_holds_no_request_up(serve: Serve) -> None:
    """The request that waits for it opens its own."""
    bodies: list[bytes] = []
    async with serve() as (http, origin):
        url = origin.url("/ramp/10")
        await get(http, url)
        http.close_idle()

        async def request() -> None:
            bodies.append(await get(http, url))

        async with trio.open_nursery() as nursery, trio.open_nursery() as opening:
            opening.start_soon(http.keep_ready, origin_of(url), 1)
            while http.holder.n_idle(origin_of(url)) == (0, 0):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(request)
            opening.cancel_scope.cancel()
        assert bodies == [ramp(0, 10)]
        assert figures(http).n_in_use == 0


async def test_a_connection_is_used_again(serve: Serve) -> None:
    """One after the other they share one connection; side by side each has its own."""
    async with serve() as (http, origin):
        for _ in range(5):
            await get(http, origin.url("/ramp/10"))
        assert origin.n_connections == 1
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(get, http, origin.url("/ramp/1000000"))
        assert origin.n_connections == 5
        assert figures(http).n_in_use == 0
        assert figures(http).n_idle == 5


async def test_the_connection_that_has_received_most_is_used_next(serve: Serve) -> None:
    """Its other side sends most at once; after a pause it begins slowly again, as any other."""
    async with serve() as (http, origin):
        async with http.stream(origin.url("/ramp/3000000"), headers={}) as response:
            await get(http, origin.url("/ramp/10"))  # on a connection of its own
            assert len([chunk async for chunk in response.chunks()]) > 1
        await get(http, origin.url("/ramp/10"))
        assert origin.used == [1, 2, 1]
        async with contextlib.AsyncExitStack() as both:
            url = origin.url("/ramp/400000")
            short, long = [
                await both.enter_async_context(http.stream(each, headers={}))
                for each in (origin.url("/ramp/10"), url)
            ]
            assert origin.used[3:] == [1, 2]
            assert [chunk async for chunk in short.chunks()] == [ramp(0, 10)]
            await trio.sleep(5 * HALVED_AFTER_S)
            assert b"".join([bytes(chunk) async for chunk in long.chunks()]) == ramp(0, 400_000)
        await get(http, origin.url("/ramp/10"))
        assert origin.used[5:] == [2]


async def test_a_request_notes_whether_its_connection_is_new(serve: Serve) -> None:
    """The request that begins first takes an idle connection, with any permit."""
    async with serve() as (http, origin):
        url = origin.url("/ramp/10")
        permits = [await http.permits.take(origin_of(url), [http.holder]) for _ in range(2)]
        for permit, is_new in zip(permits, (True, False), strict=True):
            assert permit.is_new
            async with http.stream(url, headers={}, permit=permit) as response:
                assert permit.is_new is is_new
                assert [chunk async for chunk in response.chunks()] == [ramp(0, 10)]
            permit.end()


async def test_no_more_connections_than_allowed(serve: Serve) -> None:
    """The others wait their turn."""
    async with serve(max_connections=3) as (http, origin), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(get, http, origin.url("/ramp/300000"))
        while figures(http).n_idle < 3:
            assert figures(http).n_in_use + figures(http).n_idle <= 3
            await trio.sleep(0.001)
    assert origin.n_connections == 3


async def test_close_means_close(serve: Serve) -> None:
    """A connection that the server ends is not kept."""
    async with serve() as (http, origin):
        for _ in range(3):
            await get(http, origin.url("/close"))
        assert figures(http).n_idle == 0
        assert origin.n_connections == 3


async def test_a_connection_that_died_idle_costs_nobody_an_error(serve: Serve) -> None:
    """The server stated that it stays, and closed it: the next request goes on a new one."""
    async with serve() as (http, origin):
        for _ in range(5):
            await get(http, origin.url("/goodbye"))
            await get(http, origin.url("/ramp/10"))


async def test_a_request_that_meets_the_closing_is_sent_once_more(serve: Serve) -> None:
    """The close crosses the request on the wire: seen only when the response fails to come."""
    async with serve() as (http, origin):
        await get(http, origin.url("/ramp/10"))
        # The server closes upon this request, as if it had been late.
        with pytest.raises(Unreachable):
            await get(http, origin.url("/garbage"))
        assert len(origin.heads) == 3, "once on the old connection, once on a new one, no more"
        with pytest.raises(Unreachable):
            await http.request("POST", origin.url("/garbage"), headers={}, content=b"x")
        assert len(origin.heads) == 4, "what is no GET is never sent twice"


@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_a_body_that_breaks_is_never_taken_for_whole(serve: Serve, kind: str) -> None:
    """Bytes that came are right; the break is an error, and the connection is gone."""
    async with serve() as (http, origin):
        got = b""

        async def read() -> None:
            nonlocal got
            async with http.stream(origin.url(f"/{kind}/2000000/1500000"), headers={}) as response:
                async for chunk in response.chunks():
                    got += chunk

        with pytest.raises(Unreachable):
            await read()
        assert got == ramp(0, len(got))
        assert figures(http) == PoolStatistics(0, 0, 1, 0, 1)


@pytest.mark.slow
async def test_stalls_end(serve: Serve) -> None:
    """No byte for longer than the limit, before the response or within it."""
    async with serve(progress_timeout_s=0.2) as (http, origin):
        for path in ("/silent", "/stall/1000/500"):
            with pytest.raises(DeadlineReached):
                await get(http, origin.url(path))
        assert figures(http).n_in_use == figures(http).n_idle == 0


async def test_a_handshake_that_stalls_ends_in_the_time_of_connecting() -> None:
    """The limit for a new connection covers TCP and TLS together."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    url = f"https://localhost:{listener.socket.getsockname()[1]}/"
    async with (
        listener,
        Http(connect_timeout_s=0.3, progress_timeout_s=5, max_connections=1) as http,
    ):
        began = trio.current_time()
        with pytest.raises(DeadlineReached, match="no connection in time"):
            await get(http, url)
        assert 0.25 < trio.current_time() - began < 4
        assert figures(http).n_in_use == 0


async def test_refused_connections_are_reported(serve: Serve) -> None:
    """In the words of the system, without the query."""
    async with serve() as (http, origin):
        url = origin.url("/x?secret")
    async with serve() as (http, _):
        with pytest.raises(Unreachable, match="no connection: Connection refused") as failure:
            await get(http, url)
        assert "secret" not in str(failure.value)
        assert not failure.value.is_permanent


async def test_idle_connections_expire(serve: Serve) -> None:
    """On the wall clock too: a machine that slept has only dead connections."""
    async with serve() as (http, origin):
        await get(http, origin.url("/ramp/1"))
        pool = http._pool
        assert pool is not None
        pool._idle.wall_clock = lambda: 1e12
        await get(http, origin.url("/ramp/1"))
        assert origin.n_connections == 2
        http.close_idle()
        assert figures(http).n_idle == 0


async def test_a_request_takes_a_connection_that_is_ready(serve: Serve) -> None:
    """It was opened before, TLS included: the request waits for no handshake."""
    async with serve() as (http, origin):
        await get(http, origin.url("/ramp/10"))
        assert http.origins_in_use(10) == [origin_of(origin.url("/"))]
        assert await http.keep_ready(origin_of(origin.url("/")), 2)
        assert figures(http).n_idle == 2
        async with (
            http.stream(origin.url("/ramp/10"), headers={}) as used,
            http.stream(origin.url("/ramp/20"), headers={}) as ready,
        ):
            assert not used.is_new_connection
            assert ready.is_new_connection
            assert not ready.has_connected
            assert b"".join([chunk async for chunk in ready.chunks()]) == ramp(0, 20)
        assert origin.n_connections == 2
        assert await http.keep_ready(origin_of(origin.url("/")), 1)
        assert origin.n_connections == 2, "one is there already"


async def test_nothing_is_opened_ahead_to_a_host_that_keeps_nothing(serve: Serve) -> None:
    """A server of one connection at a time would serve no other client meanwhile."""
    async with serve() as (http, origin):
        await get(http, origin.url("/close"))
        assert http.origins_in_use(10) == []
        assert await http.keep_ready(origin_of(origin.url("/")), 2)
        assert origin.n_connections == 1


async def test_the_first_response_shows_that_a_host_keeps_connections(serve: Serve) -> None:
    """It is reported with the head, while the body still comes, and once."""
    seen: list[str] = []
    async with serve() as (http, origin):
        http.on_keeping(seen.append)
        await get(http, origin.url("/close"))
        assert seen == []
        async with http.stream(origin.url("/ramp/1000000"), headers={}) as response:
            assert seen == [origin_of(origin.url("/"))]
            assert len(b"".join([chunk async for chunk in response.chunks()])) == 1_000_000
        await get(http, origin.url("/ramp/10"))
        assert len(seen) == 1


async def test_a_host_that_refuses_connections_ahead_of_need_lets_few_through(serve: Serve) -> None:
    """As many as are there; a request opens no more of them, which would be refused as well."""
    async with (
        serve() as (http, origin),
        http.stream(origin.url("/ramp/1000000"), headers={}) as response,
    ):
        name = origin_of(origin.url("/"))
        await origin.stop_listening()
        assert not await http.keep_ready(name, 3)
        assert http.permits.limit(name) == 1
        assert len(b"".join([chunk async for chunk in response.chunks()])) == 1_000_000


async def test_a_connection_ahead_of_need_that_the_host_ends_is_a_refusal(serve: Serve) -> None:
    """Another one in its place would be refused as well: the request uses what is let through."""
    async with (
        serve() as (http, origin),
        trio.open_nursery() as nursery,
        http.stream(origin.url("/ramp/3000000"), headers={}) as response,
    ):
        name = origin_of(origin.url("/"))
        origin.n_let_through = 1
        await http.keep_ready(name, 3)
        nursery.start_soon(get, http, origin.url("/ramp/10"))
        assert len(b"".join([chunk async for chunk in response.chunks()])) == 3_000_000
    assert origin.n_connections == 1
    assert origin.n_refused <= 2


async def test_requests_that_wait_for_refused_connections_open_no_others(serve: Serve) -> None:
    """They were refused with them, and wait for what is let through."""
    async with (
        serve() as (http, origin),
        trio.open_nursery() as nursery,
        http.stream(origin.url("/ramp/3000000"), headers={}) as response,
    ):
        name = origin_of(origin.url("/"))
        origin.n_let_through = 1
        nursery.start_soon(http.keep_ready, name, 3)
        while http.holder.n_idle(name) != (0, 2):
            await trio.lowlevel.checkpoint()
        for _ in range(2):
            nursery.start_soon(get, http, origin.url("/ramp/10"))
        while http.permits.limit(name) != 1:
            await trio.lowlevel.checkpoint()
        assert len(b"".join([chunk async for chunk in response.chunks()])) == 3_000_000
    assert origin.n_refused == 2


async def test_a_ready_connection_that_the_host_closed_is_not_used(serve: Serve) -> None:
    """Hosts close idle connections; the request uses another one, and no caller sees a failure."""
    async with serve() as (http, origin):
        await get(http, origin.url("/ramp/10"))
        http.close_idle()
        assert await http.keep_ready(origin_of(origin.url("/")), 1)
        while origin.n_connections < 2:  # it is open before the host has accepted it
            await trio.lowlevel.checkpoint()
        await origin.close_all()
        assert await get(http, origin.url("/ramp/10")) == ramp(0, 10)
        assert origin.n_connections == 3


async def test_a_connection_that_cannot_be_opened_ahead_is_no_failure(serve: Serve) -> None:
    """A request that needs a connection later gets the reason."""
    async with serve() as (http, origin):
        await get(http, origin.url("/ramp/10"))
        name = origin_of(origin.url("/"))
        http.close_idle()
        await origin.stop_listening()
        assert not await http.keep_ready(name, 2)
        assert figures(http).n_in_use == figures(http).n_idle == 0
        assert http.holder.n_idle(name) == (0, 0)


#: Turns of the loop, one of which cancels each request. Before the last one some have their body.
N_TURNS = 41


@pytest.mark.slow
async def test_nothing_is_left_of_two_thousand_cancelled_requests(serve: Serve) -> None:
    """The leak of httpcore's own pool (its issue 1093) cannot happen here.

    Requests are cancelled at every stage: while connecting, shaking hands, waiting for the head and
    in the middle of the body. Afterwards pool, sockets and file descriptors are where they were.
    The time of each is counted in turns of the loop, which are as many on a busy machine.
    """
    async with serve(max_connections=32) as (http, origin):
        await get(http, origin.url("/ramp/1"))
        http.close_idle()
        await settle(origin)
        n_files = len(os.listdir("/proc/self/fd"))

        async def read(number: int, scope: trio.CancelScope) -> None:
            path = ("/ramp/300000", "/silent", "/stall/100000/50000", "/chunked/200000")[number % 4]
            with scope:
                async with http.stream(origin.url(path), headers={}) as response:
                    async for _ in response.chunks():
                        await trio.lowlevel.checkpoint()

        for n_before in range(0, 2000, 50):
            scopes = {number: trio.CancelScope() for number in range(n_before, n_before + 50)}
            async with trio.open_nursery() as nursery:
                for number, scope in scopes.items():
                    nursery.start_soon(read, number, scope)
                for turn in range(N_TURNS):
                    await trio.lowlevel.checkpoint()
                    for number, scope in scopes.items():
                        if number % N_TURNS == turn:
                            scope.cancel()
            assert figures(http).n_in_use == 0
            assert figures(http).n_idle <= 32
        assert figures(http).n_abandoned > 1000
        # The pool still works, all of it at once.
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(get, http, origin.url("/ramp/1000"))
        http.close_idle()
        await settle(origin)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == n_files


async def settle(origin: Origin) -> None:
    """Wait until the server has noticed that everybody left."""
    with trio.fail_after(10):
        while origin.n_open:  # noqa: ASYNC110 - real sockets, real time
            await trio.sleep(0.01)


async def test_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    """A certificate without a trusted authority: a clear message, and no second try."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with (
        serving(context) as origin,
        Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=1) as http,
    ):
        with pytest.raises(Unreachable, match="certificate is not trusted") as failure:
            await get(http, origin.url("/ramp/1"))
        assert failure.value.is_permanent


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, tmp_path: Path
) -> None:
    """The name in the address must be the one in the certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        serving(context) as origin,
        Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=1, ca_file=ca_file) as http,
    ):
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await get(http, origin.url("/ramp/1"))


@pytest.mark.slow
async def test_a_server_that_speaks_no_tls_is_reported() -> None:
    """TLS to a plain server is an error, not a hang."""
    async with (
        serving() as origin,
        Http(connect_timeout_s=1, progress_timeout_s=1, max_connections=1) as http,
    ):
        with pytest.raises(Unreachable):
            await get(http, origin.url("/ramp/1").replace("http:", "https:"))
        assert figures(http).n_in_use == 0


@pytest.mark.slow
def test_a_ca_file_without_certificates_is_reported(tmp_path: Path) -> None:
    """Before anything is mounted, and with the setting's name."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(BadSettings, match="SATFS_CA_FILE"):
            Http(connect_timeout_s=1, progress_timeout_s=1, max_connections=1, ca_file=path)


@asynccontextmanager
async def served(
    serve: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[tuple[Http, str]]:
    """Run *serve* for each connection; yield a client with one connection, and the URL."""
    async with (
        trio.open_nursery() as nursery,
        Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=1) as http,
    ):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield http, f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_chunks_of_one_byte_leave_others_their_turn() -> None:
    """A body in the smallest chunks neither blocks the loop nor outlasts a deadline."""
    n_bytes = 20_000

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            await stream.send_all(head + b"1\r\nx\r\n" * n_bytes + b"0\r\n\r\n")

    n_turns = 0

    async def count() -> None:
        nonlocal n_turns
        while True:
            await trio.lowlevel.checkpoint()
            n_turns += 1

    async with (
        served(serve) as (http, url),
        http.stream(url, headers={}) as response,
        trio.open_nursery() as nursery,
    ):
        chunks = response.chunks()
        assert await anext(chunks) == b"x"
        nursery.start_soon(count)
        assert sum([len(chunk) async for chunk in chunks]) == n_bytes - 1
        nursery.cancel_scope.cancel()
    assert n_turns > n_bytes // 100


@asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[tuple[Http, str, list[bytes]]]:
    """Run a server that gives *response* to each request; yield a client, its URL, the requests."""
    requests: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            requests.append(bytes(await stream.receive_some()))
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(response)

    async with served(serve) as (http, url):
        yield http, url, requests


class LongestTurn(trio.abc.Instrument):
    """Counts the calls of h11's parser within each turn of a task."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self._n_events = 0
        next_event = h11.Connection.next_event

        def counted(connection: h11.Connection) -> Any:
            self._n_events += 1
            return next_event(connection)

        monkeypatch.setattr(h11.Connection, "next_event", counted)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, self._n_events)
        self._n_events = 0


@pytest.mark.slow
async def test_a_flood_of_informational_responses_leaves_others_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are read in pieces of 16 KiB, and given up after 256 KiB."""
    flood = b"HTTP/1.1 103 E\r\n\r\n" * 200_000
    turn = LongestTurn(monkeypatch)
    trio.lowlevel.add_instrument(turn)
    async with answering(flood) as (http, url, _):
        with pytest.raises(Unreachable):
            await get(http, url)
    trio.lowlevel.remove_instrument(turn)
    assert 0 < turn.most <= 1000


async def test_a_few_informational_responses_are_read_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3
    body = ramp(0, 100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    async with answering(early + head + body) as (http, url, _):
        assert await get(http, url) == body


@pytest.mark.parametrize(
    "target",
    ["/a/./b", "/a/../b", "/a//b/", "//a", "/%7Ea/%2f%2F?x=%2f&y=a+b", "/.", "/..", "/?a='\"|"],
)
async def test_an_address_is_asked_for_as_it_is_written(target: str) -> None:
    """Nothing in a path or query is normalised: a signature holds for what was signed."""
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (http, url, requests):
        await get(http, url + target)
    assert requests[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())


async def test_two_clients_need_one_connection_between_them(serve: Serve) -> None:
    """A host that serves one connection at a time would let the second client wait for an end."""
    async with serve() as (first, origin):
        second = Http(
            connect_timeout_s=5,
            progress_timeout_s=5,
            max_connections=2,
            permits=first.permits,
            shares_pool_of=first,
        )
        async with second:
            await get(first, origin.url("/ramp/10"))
            await get(second, origin.url("/ramp/10"))
            assert first.holder is second.holder
            assert sum(first.holder.n_idle(origin_of(origin.url("/")))) == 1
        await get(first, origin.url("/ramp/10"))
        assert origin.used == [1, 1, 1], "one connection, also after the second client's end"


async def test_each_client_judges_the_peers_of_its_own_connections(serve: Serve) -> None:
    """The addresses of objects are checked where a connection to them is opened, and no others."""

    def refuse(host: str, address: str) -> None:
        raise NotAllowed(f"{host} is at {address}")

    async with serve() as (first, origin):
        second = Http(
            connect_timeout_s=5,
            progress_timeout_s=5,
            max_connections=2,
            permits=first.permits,
            check_peer=refuse,
            shares_pool_of=first,
        )
        async with second:
            with pytest.raises(NotAllowed):
                await get(second, origin.url("/ramp/10"))
            assert origin.n_connections == 0
            await get(first, origin.url("/ramp/10"))
            assert second.origins_in_use(10) == []
