"""The metrics port serves a scrape, and gives no client more than a few connections."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from satfs.errors import BadSettings
from satfs.introspection import metrics as introspection_metrics
from satfs.introspection.metrics_server import (
    CONNECTION_S,
    HOST,
    MAX_CONNECTIONS,
    response_to,
    serve_metrics,
)

PORT = 9123


def free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> bytes:
    text = b"# HELP satfs_online x\n# TYPE satfs_online gauge\nsatfs_online 1.0\n"
    monkeypatch.setattr(introspection_metrics, "exposition", lambda _status: text)
    return text


def status() -> Mapping[str, Any]:
    return {}


def scrape(port: int, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request("GET", "/metrics", headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


async def test_a_scrape_is_answered(metrics: bytes) -> None:
    """In the text format, to each name of this machine."""
    port = free_port()
    async with serve_metrics(port, status):
        for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
            code, body = await trio.to_thread.run_sync(partial(scrape, port, Host=f"{name}:{port}"))
            assert (code, body) == (200, metrics)
        assert list(text_string_to_metric_families(body.decode()))


async def test_another_host_is_refused(metrics: bytes) -> None:
    """A web page whose name leads to this machine reads nothing."""
    port = free_port()
    async with serve_metrics(port, status):
        for name in (f"evil.example:{port}", "localhost", f"localhost:{port + 1}", "evil.example"):
            code, body = await trio.to_thread.run_sync(partial(scrape, port, Host=name))
            assert code == 421
            assert metrics not in body


async def test_slow_connections_take_few_descriptors_and_end(
    metrics: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """A hundred that begin a request and go no further; a scrape comes to its turn."""
    port = free_port()
    n_before = len(os.listdir("/proc/self/fd"))
    async with serve_metrics(port, status):
        slow = [await trio.open_tcp_stream(HOST, port) for _ in range(MAX_CONNECTIONS)]
        for stream in slow:
            await stream.send_all(b"GET /")
        more = [socket.socket() for _ in range(100)]
        for each in more:
            each.setblocking(False)
            each.connect_ex((HOST, port))
        await trio.sleep(CONNECTION_S / 2)
        n_ours = len(slow) + len(more)
        assert len(os.listdir("/proc/self/fd")) - n_before <= n_ours + MAX_CONNECTIONS + 3
        began_s = trio.current_time()
        for stream in slow:
            assert await stream.receive_some(10) == b""
        assert trio.current_time() - began_s <= CONNECTION_S
        for closing in (*slow,):
            await closing.aclose()
        for each in more:
            each.close()
        stream = await trio.open_tcp_stream(HOST, port)
        await stream.send_all(f"GET /metrics HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        answer = b""
        while piece := await stream.receive_some(4096):
            answer += piece
        assert answer.endswith(metrics)
        await stream.aclose()


@pytest.mark.parametrize(
    "said",
    [
        b"\r\n" * 9,
        b"\x16\x03\x01" * 50,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET" * 9000,
    ],
    ids=["blank", "tls", "two hosts", "endless"],
)
async def test_what_is_no_request_is_closed(metrics: bytes, said: bytes) -> None:
    port = free_port()
    async with serve_metrics(port, status):
        answer = b""
        async with await trio.open_tcp_stream(HOST, port) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(said)
                await stream.send_eof()
                while piece := await stream.receive_some(4096):
                    answer += piece
        assert metrics not in answer


async def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    port = free_port()
    async with serve_metrics(port, status):
        with pytest.raises(BadSettings, match=f"metrics_port {port} cannot be used"):
            async with serve_metrics(port, status):
                pass


@given(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"]),
    st.sampled_from(["/", "/metrics", "/metrics?a=b", "/x", "*", "http://evil.example/metrics"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
    | st.sampled_from([f"localhost:{PORT}", f"127.0.0.1:{PORT}", f"[::1]:{PORT}", "localhost"]),
)
def test_only_this_machine_by_its_names_is_answered(method: bytes, path: str, host: str) -> None:
    request = h11.Request(method=method, target=path, headers=[("Host", host)])
    code, sentence = response_to(request, PORT)
    is_ours = host.lower() in (f"localhost:{PORT}", f"127.0.0.1:{PORT}", f"[::1]:{PORT}")
    assert (code == 200) == (
        is_ours and method in (b"GET", b"HEAD") and path in ("/", "/metrics", "/metrics?a=b")
    )
    assert bool(sentence) == (code != 200)
