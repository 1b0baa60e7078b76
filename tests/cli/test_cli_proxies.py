"""Proxies of the environment that cannot be used, through the real program."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Program

#: Not this machine: loopback addresses are reached directly.
ELSEWHERE = {"SATFS_API_URL": "https://api.test", "SATFS_AUTH_URL": "https://auth.test/token"}


class _Refusing(socketserver.StreamRequestHandler):
    """A proxy that takes no login."""

    server: _Proxy

    def handle(self) -> None:
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        self.server.n_requests += 1
        self.wfile.write(
            b"HTTP/1.1 407 Proxy Authentication Required\r\n"
            b"Proxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    n_requests = 0


@pytest.fixture
def proxy() -> Iterator[_Proxy]:
    """Return a proxy that refuses every login and counts the requests."""
    with _Proxy(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("command", ["mount", "whoami", "ls"])
@pytest.mark.parametrize("with_token", [False, True])
def test_a_wrong_proxy_password_is_sent_once(
    aleph: Program, proxy: _Proxy, tmp_path: Path, command: str, with_token: bool
) -> None:
    """Each request with it counts at the proxy, which locks the account after a few."""
    place = f"127.0.0.1:{proxy.server_address[1]}"
    arguments = [tmp_path / "mnt"] if command == "mount" else []
    (tmp_path / "mnt").mkdir()
    token = {"SATFS_TOKEN": "t"} if with_token else {}

    done = aleph(command, *arguments, https_proxy=f"http://me:secret@{place}", **ELSEWHERE, **token)

    assert done.returncode == 3, done.stderr
    assert proxy.n_requests == 1
    assert f"the proxy {place} refuses the user and password in https_proxy (407)" in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "address",
    ["socks://127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9", "http://[::1"],
)
def test_what_is_no_http_proxy_is_a_setting_that_cannot_be(
    aleph: Program, tmp_path: Path, address: str
) -> None:
    (tmp_path / "mnt").mkdir()

    for command in (["mount", tmp_path / "mnt"], ["whoami"], ["doctor"]):
        done = aleph(*command, all_proxy=address, **ELSEWHERE)
        said = done.stdout + done.stderr
        assert "all_proxy" in said
        assert "satfs failed" not in said
        if command != ["doctor"]:
            assert done.returncode == 2, said
            assert done.stderr.startswith("Error: all_proxy ")
