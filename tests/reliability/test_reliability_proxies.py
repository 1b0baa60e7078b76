"""A store that is reached through a proxy, and what proxies do in the middle of a transfer."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fakes.proxies import Proxy, running_proxy
from reliability.stand import MIB, Stand

from satfs.demo.catalogue import Catalogue, make_task
from satfs.demo.server import DemoOrigin

#: A third of the usual one, and three times what two refusals of a login that was accepted before
#: take (`satfs.net.login_refusals.PROVEN_WAITS_S`).
READ_DEADLINE_S = 20.0
SIZE_BYTES = 12 * MIB
#: How long the proxy refuses, in seconds; and more refusals than there are in that time.
MOMENT_S, MANY = 0.5, 1000


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Return a proxy that mounts use for all hosts but this machine."""
    with running_proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.address)
        yield proxy


@pytest.fixture
def stand(proxy: Proxy, tmp_path: Path) -> Iterator[Stand]:
    """Return a mount whose store has a name, which the proxy knows."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "store.test").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    origin = DemoOrigin(Catalogue([make_task(1)]), tls=server, ca_file=tmp_path / "ca.pem")
    origin.faults.add("link-by-name", "sign", host="store.test")
    with Stand(tmp_path, origin=origin, workers=2, read_deadline_s=READ_DEADLINE_S) as stand:
        yield stand


def test_a_proxy_that_forgets_a_login_for_a_moment(stand: Stand, proxy: Proxy) -> None:
    """The tunnels that were open have ended, and new ones are refused twice: right bytes."""
    scene = stand.publish(SIZE_BYTES)
    with stand.opened(scene) as file:
        proxy.n_refusals = 2
        stand.origin.drop_connections("store")
        stand.compare(file, stand.content(scene), limit_s=READ_DEADLINE_S)
    assert proxy.n_tunnels
    assert proxy.n_refused == 2


def test_a_proxy_that_forgets_a_login_as_all_tunnels_end(stand: Stand, proxy: Proxy) -> None:
    """Several requests are refused together: that is one refusal, which passes."""
    scenes = [stand.publish(SIZE_BYTES) for _ in range(6)]
    with contextlib.ExitStack() as files:
        opened = [(each, files.enter_context(stand.opened(each))) for each in scenes]
        proxy.n_refusals = MANY
        stand.origin.drop_connections("store")
        calls = [
            stand.calls.start("read", READ_DEADLINE_S, os.pread, file, MIB, SIZE_BYTES // 2)
            for _, file in opened
        ]
        stand.until(READ_DEADLINE_S, lambda: refused_once(proxy))
        time.sleep(MOMENT_S)
        proxy.n_refusals = 0
        for (scene, _), call in zip(opened, calls, strict=True):
            got = stand.calls.end("read", READ_DEADLINE_S, call)
            stand.check(got, stand.content(scene), SIZE_BYTES // 2, MIB)
    assert proxy.n_refused < MANY


def refused_once(proxy: Proxy) -> None:
    """Raise `OSError` while the proxy has refused nothing."""
    if not proxy.n_refused:
        raise OSError


@pytest.mark.parametrize("n_bytes", [100_000, 1_000_000])
def test_a_proxy_that_ends_tunnels(stand: Stand, proxy: Proxy, n_bytes: int) -> None:
    """Each after some bytes: the next one goes on where it ended."""
    scene = stand.publish(SIZE_BYTES)
    proxy.cut_after_bytes = n_bytes
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene), limit_s=READ_DEADLINE_S)
    assert proxy.n_tunnels >= SIZE_BYTES // n_bytes // 2
