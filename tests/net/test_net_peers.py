"""Names that resolve to addresses that links may not lead to: nothing is connected to."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from fakes.origin import serving

from satfs.content.transfer.opener import Opener
from satfs.errors import NotAllowed
from satfs.net.addresses import LinkRule
from satfs.net.http import Http

PUBLIC = LinkRule("https://api.example.com")
LOCAL = LinkRule("http://127.0.0.1:8080")


@pytest.mark.parametrize("rule", [PUBLIC, LOCAL])
async def test_a_name_that_leads_to_loopback_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, rule: LinkRule
) -> None:
    """Beside a public API no connection is opened; beside a local one it is as before."""

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]

    monkeypatch.setattr("satfs.net.connecting.socket.getaddrinfo", getaddrinfo)
    async with (
        serving() as origin,
        Http(
            connect_timeout_s=5,
            progress_timeout_s=5,
            max_connections=1,
            check_peer=rule.check_peer,
        ) as http,
    ):
        url = origin.url("/ramp/1").replace("localhost", "rebind.example")
        if rule is LOCAL:
            assert (await http.request("GET", url, headers={})).body == b"\0"
            return
        with pytest.raises(NotAllowed, match="SATFS_ALLOW_PRIVATE_STORE"):
            await http.request("GET", url, headers={})
        assert origin.n_connections == 0


@pytest.mark.parametrize("allows_private", [False, True])
def test_a_worker_connects_by_the_same_rule(
    monkeypatch: pytest.MonkeyPatch, *, allows_private: bool
) -> None:
    """A worker has no other way to an address than the loop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = server.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", end)]
        with monkeypatch.context() as patch:
            patch.setattr(
                "satfs.content.transfer.opener.socket.getaddrinfo", lambda *_, **__: found
            )
            opener = Opener()
            opener.allows_private = allows_private
            origin = ("http", f"rebind.example:{end[1]}")
            opener.open(origin)
            ((_, opened),) = opener.opened()
        if allows_private:
            assert isinstance(opened, socket.socket)
            opened.close()
        else:
            assert isinstance(opened, NotAllowed)
        opener.close()
