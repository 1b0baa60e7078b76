"""A store that is reached through a proxy, and what proxies do in the middle of a transfer."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fakes.proxies import Proxy, running_proxy
from reliability.stand import MIB, Stand

from satfs.demo.catalogue import Catalogue, make_task
from satfs.demo.server import DemoOrigin

#: Longer than the times after which a proxy that accepted the login before is tried again (5 s, and
#: 10 s more).
READ_DEADLINE_S = 20.0
SIZE_BYTES = 12 * MIB


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
    content = stand.content(scene)
    stand.origin.store_line.bytes_per_s = 2e6  # not all of it is read ahead by then
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=SIZE_BYTES // 3)
        proxy.n_refusals = 2
        stand.origin.store_line.bytes_per_s = None
        stand.origin.drop_connections("store")
        stand.compare(file, content, start=SIZE_BYTES // 3, limit_s=READ_DEADLINE_S)
    assert proxy.n_tunnels
    assert proxy.n_refused == 2


@pytest.mark.parametrize("n_bytes", [100_000, 1_000_000])
def test_a_proxy_that_ends_tunnels(stand: Stand, proxy: Proxy, n_bytes: int) -> None:
    """Each after some bytes: the next one goes on where it ended."""
    scene = stand.publish(SIZE_BYTES)
    proxy.cut_after_bytes = n_bytes
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene), limit_s=READ_DEADLINE_S)
    assert proxy.n_tunnels >= SIZE_BYTES // n_bytes // 2
