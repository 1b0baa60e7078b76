"""Proxies of the environment: which, for whom, and through them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from fakes.origin import Origin, ramp, serving

from satfs.errors import BadSettings, ProxyRefused, Unreachable
from satfs.net.http import Http
from satfs.net.login_refusals import PROVEN_REFUSED_S, PROVEN_WAITS_S, LoginForgotten
from satfs.net.proxies import Proxies, proxies_of_environment

BOTH = Proxies(
    {
        "http": "http://proxy:3128",
        "https": "proxy:3129",
        "no": "example.com, .internal.test,10.1.2.3,host:8443",
    }
)


def _address(
    proxies: Proxies, scheme: str = "https", host: str = "h", port: int = 443
) -> str | None:
    name = f"[{host}]" if ":" in host else host
    proxy = proxies.for_url(f"{scheme}://{name}:{port}/path")
    return None if proxy is None else proxy.address


@pytest.mark.parametrize(
    ("scheme", "host", "port", "proxy"),
    [
        ("http", "store.test", 80, "http://proxy:3128"),
        ("https", "store.test", 443, "http://proxy:3129"),
        ("https", "example.com", 443, None),
        ("https", "api.example.com", 443, None),
        ("https", "notexample.com", 443, "http://proxy:3129"),
        ("https", "a.internal.test", 443, None),
        ("https", "10.1.2.3", 443, None),
        ("https", "10.1.2.4", 443, "http://proxy:3129"),
        ("https", "host", 8443, None),
        ("https", "host", 443, "http://proxy:3129"),
        ("http", "localhost", 8080, None),
        ("http", "127.0.0.1", 8080, None),
        ("https", "::1", 8080, None),
    ],
)
def test_the_rules_of_curl_and_urllib(scheme: str, host: str, port: int, proxy: str | None) -> None:
    """By scheme, except for what `no_proxy` names; never for this machine itself."""
    assert _address(BOTH, scheme, host, port) == proxy


def test_one_proxy_for_all_and_none_for_any() -> None:
    """`all_proxy` stands in for both; `no_proxy=*` switches all of them off."""
    assert _address(Proxies({"all": "http://p"})) == "http://p"
    assert _address(Proxies({"all": "http://p", "no": "*"})) is None
    assert _address(Proxies()) is None


def test_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables that every program reads; a password in one is not shown."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxies_of_environment().for_url("https://h/path") is None
    monkeypatch.setenv("https_proxy", "http://user:pass@p:1")
    proxies = proxies_of_environment()
    assert _address(proxies) == "http://user:pass@p:1"
    assert "pass" not in repr(proxies)


async def test_plain_requests_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets the whole address, with its own credential."""
    async with serving() as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=2) as http:
            for _ in range(2):
                response = await http.request("GET", "http://store.test/ramp/1000", headers={})
                assert response.body == ramp(0, 1000)
        assert proxy.n_connections == 1
        assert proxy.heads[0].startswith(b"GET http://store.test/ramp/1000 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in proxy.heads[0]


@pytest.mark.slow
async def test_tls_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proxy sees a host's name and encrypted bytes, nothing else."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("store.test").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    requests: list[bytes] = []
    async with serving(context) as origin, trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

        async def handle(stream: trio.SocketStream) -> None:
            await tunnel(stream, origin, requests)

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{listener.socket.getsockname()[1]}")
        async with Http(
            connect_timeout_s=5, progress_timeout_s=5, max_connections=2, ca_file=ca_file
        ) as http:
            for _ in range(3):
                url = "https://store.test/ramp/1000000?X-Amz-Signature=5ec2e7"
                response = await http.request("GET", url, headers={"X-Secret": "1"})
                assert response.body == ramp(0, 1_000_000)
            with pytest.raises(Unreachable, match="proxy refused"):
                await http.request("GET", "https://refused.test/", headers={})
            statistics = http.statistics()
            assert statistics is not None
            assert statistics.n_in_use == 0
        nursery.cancel_scope.cancel()
    assert len(requests) == 2
    assert requests[0].startswith(b"CONNECT store.test:443 HTTP/1.1\r\n")
    assert b"ecret" not in b"".join(requests)


async def tunnel(client: trio.SocketStream, origin: Origin, requests: list[bytes]) -> None:
    """Be a proxy: connect `store.test` to *origin*, refuse other hosts."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await client.receive_some()
    requests.append(head)
    if b"store.test" not in head:
        await client.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        return
    await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
    server = await trio.open_tcp_stream("127.0.0.1", origin.port)

    async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some():
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with server, client, trio.open_nursery() as nursery:
        nursery.start_soon(copy, client, server)
        nursery.start_soon(copy, server, client)


# -- what cannot be a proxy, and proxies that refuse -----------------------------------------------


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("all_proxy", "socks://me:secret@proxy.test:1080"),
        ("all_proxy", "socks5h://proxy.test:1080"),
        ("https_proxy", "socks5://proxy.test:1080"),
        ("https_proxy", "ftp://proxy.test"),
        ("https_proxy", "http://[::1"),
        ("https_proxy", "[::1"),
        ("https_proxy", "http://me:secret@proxy.test:port"),
        ("https_proxy", "http://proxy.test:99999"),
        ("all_proxy", "http://"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_a_bad_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    """The sentence names the variable, and no password."""
    monkeypatch.setenv(variable, address)
    async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=2) as http:
        with pytest.raises(BadSettings, match=f"^{variable} ") as failure:
            await http.request("GET", "https://store.test/ramp/10", headers={})
        assert "secret" not in str(failure.value)
        with pytest.raises(BadSettings):
            async with http.stream("https://store.test/ramp/10", headers={}):
                pass


@asynccontextmanager
async def proxy_with_login(statuses: list[int], heads: list[bytes]) -> AsyncIterator[str]:
    """Run a proxy that responds with *statuses* in turn, the last one for ever; yield its place."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            heads.append(head)
            await trio.sleep(0.01)  # so that requests side by side would meet
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            await stream.send_all(
                b"HTTP/1.1 %d Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
            )

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_refused_proxy_password_is_sent_once(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Requests side by side and later ones get the same sentence, without a request."""
    heads: list[bytes] = []
    async with proxy_with_login([407], heads) as place:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@{place}")
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=9) as http:

            async def ask() -> None:
                with pytest.raises(ProxyRefused, match=f"password in {scheme}_proxy") as failure:
                    await http.request("GET", f"{scheme}://store.test/", headers={})
                assert "secret" not in str(failure.value)

            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ask)
            await ask()
            statistics = http.statistics()
            assert statistics is not None
            assert (statistics.n_in_use, statistics.n_idle) == (0, 0)
    assert len(heads) == 1


async def test_a_proxy_that_wants_a_login_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without user and password in the variable, the sentence names both."""
    heads: list[bytes] = []
    async with proxy_with_login([407], heads) as place:
        monkeypatch.setenv("https_proxy", place)
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=9) as http:
            with pytest.raises(ProxyRefused, match="export https_proxy=http://USER:PASSWORD@"):
                await http.request("GET", "https://store.test/", headers={})


async def test_a_proxy_that_refuses_for_a_moment_is_tried_again_seldom(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A login that was accepted before is tried again soon; the waits double with each 407."""
    heads: list[bytes] = []
    autojump_clock.autojump_threshold = float("inf")  # sockets are real, moments are set below
    async with proxy_with_login([204, 407, 407, 204], heads) as place:
        monkeypatch.setenv("http_proxy", f"http://me:secret@{place}")
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=9) as http:
            autojump_clock.rate = 1.0

            async def is_let_through() -> bool:
                try:
                    await http.request("GET", "http://store.test/", headers={})
                except LoginForgotten:
                    return False
                return True

            assert await is_let_through()
            assert not await is_let_through()
            autojump_clock.jump(PROVEN_WAITS_S[0])
            assert not await is_let_through()
            autojump_clock.jump(PROVEN_WAITS_S[0])
            assert not await is_let_through()
            assert len(heads) == 3
            autojump_clock.jump(PROVEN_WAITS_S[1])
            assert await is_let_through()
    assert len(heads) == 4


async def test_a_login_that_is_in_doubt_is_sent_by_one_request(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Many requests at the moment when it is tried again: one is sent, and all learn from it."""
    heads: list[bytes] = []
    autojump_clock.autojump_threshold = float("inf")  # sockets are real, moments are set below
    async with proxy_with_login([204, 407, 407, 204], heads) as place:
        monkeypatch.setenv("http_proxy", f"http://me:secret@{place}")
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=9) as http:
            autojump_clock.rate = 1.0
            n_let_through = 0

            async def ask() -> None:
                nonlocal n_let_through
                try:
                    await http.request("GET", "http://store.test/", headers={})
                except LoginForgotten:
                    return
                n_let_through += 1

            await ask()
            await ask()
            assert (n_let_through, len(heads)) == (1, 2)
            for wait_s, n_heads, n_more in [(PROVEN_WAITS_S[0], 3, 0), (PROVEN_WAITS_S[1], 11, 8)]:
                autojump_clock.jump(wait_s)
                n_let_through = 0
                async with trio.open_nursery() as nursery:
                    for _ in range(8):
                        nursery.start_soon(ask)
                assert (n_let_through, len(heads)) == (n_more, n_heads)


@pytest.mark.slow
async def test_an_open_tunnel_is_used_while_the_login_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy looks at a login when a tunnel is opened: one that is open needs none."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("store.test").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    requests: list[bytes] = []
    url = "https://store.test/ramp/1000"
    async with serving(context) as origin, trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

        async def handle(stream: trio.SocketStream) -> None:
            if not requests:
                await tunnel(stream, origin, requests)
                return
            requests.append(await stream.receive_some())
            await stream.send_all(
                b"HTTP/1.1 407 Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        place = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", f"http://me:secret@{place}")
        async with Http(
            connect_timeout_s=5, progress_timeout_s=5, max_connections=2, ca_file=ca_file
        ) as http:
            async with http.stream(url, headers={}) as response:
                with pytest.raises(LoginForgotten):
                    await http.request("GET", url, headers={})
                assert b"".join([chunk async for chunk in response.chunks()]) == ramp(0, 1000)
            response_again = await http.request("GET", url, headers={})
            assert response_again.body == ramp(0, 1000)
        nursery.cancel_scope.cancel()
    assert len(requests) == 2


async def test_a_proxy_that_goes_on_refusing_is_believed(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A login that was accepted before is a failure like others some times, then it is refused."""
    heads: list[bytes] = []
    autojump_clock.autojump_threshold = float("inf")  # sockets are real, moments are set below
    async with proxy_with_login([204, *[407] * 9], heads) as place:
        monkeypatch.setenv("http_proxy", f"http://me:secret@{place}")
        async with Http(connect_timeout_s=5, progress_timeout_s=5, max_connections=9) as http:
            autojump_clock.rate = 1.0
            await http.request("GET", "http://store.test/", headers={})
            for kind in (*[LoginForgotten] * len(PROVEN_WAITS_S), ProxyRefused, ProxyRefused):
                with pytest.raises(kind, match="407"):
                    await http.request("GET", "http://store.test/", headers={})
                autojump_clock.jump(PROVEN_REFUSED_S)
