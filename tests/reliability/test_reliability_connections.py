"""A host that lets few connections through: right bytes, soon, and few of its refusals."""

from __future__ import annotations

import itertools
import os
import ssl
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from reliability.conftest import MakeStand
from reliability.stand import KIB, MIB

from satfs.demo.catalogue import Catalogue, make_task
from satfs.demo.server import DemoOrigin

#: A request of a look-up and one of its listing, each of which may meet a lost connection, and the
#: time of a busy machine: far less than the silence of a slow host, 30 s here.
LOST_LIMIT_S = 15.0
#: A call over the only connection: it waits for silence once or twice, of a second at most, and for
#: no deadline of `LONG`.
ONE_LIMIT_S = 4.0
LONG = {"read_deadline_s": 20, "metadata_deadline_s": 10, "progress_timeout_s": 5}


@pytest.mark.parametrize("how", ["reset", "close", "503", "queue"])
@pytest.mark.parametrize("n_let_through", [1, 2, 4])
def test_a_file_is_read_over_the_connections_there_are(
    make_stand: MakeStand, n_let_through: int, how: str
) -> None:
    """Every byte is right, at most 3 N connections are refused, and the store is not away.

    Meanwhile another file's size and bytes are got over the same connections.
    """
    stand = make_stand(workers=2, range_bytes="8MiB", **LONG)
    stand.origin.store_line.bytes_per_s = 10e6
    scene, other = stand.publish(24 * MIB), stand.publish(MIB)
    limit = stand.origin.faults.add(
        "connection-limit", "object", connections=n_let_through, how=how
    )
    content = stand.content(scene)
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=8 * MIB, limit_s=20)
        assert stand.stat(stand.path(other), 20).st_size == MIB
        stand.compare(file, content, start=8 * MIB, limit_s=20)
    with stand.opened(other) as file:
        stand.compare(file, stand.content(other), limit_s=20)
    assert limit.hits, "the limit was never met"
    assert limit.hits <= 3 * n_let_through
    assert not stand.current.events("host counts as offline")
    assert os.stat(stand.path(scene)).st_size == content.size_bytes


@pytest.mark.parametrize("how", ["reset", "close", "503", "queue"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_api_and_the_objects_share_the_only_connection(
    make_stand: MakeStand, name: str, workers: int, how: str
) -> None:
    """One host serves both, and one connection at a time: no request waits for an idle one.

    Also where the host has another name for the objects.
    """
    origin = DemoOrigin(Catalogue([make_task(1)]), one_port=True)
    origin.faults.add("connection-limit", connections=1, how=how)
    origin.faults.add("link-by-name", "sign", host=name)
    stand = make_stand(origin=origin, workers=workers, listing_ttl_s=0, **LONG)
    scenes = [stand.publish(size) for size in (12 * MIB, MIB, 3 * MIB)]
    assert stand.list(stand.root / "tasks" / "1", ONE_LIMIT_S)
    for scene in scenes:
        content = stand.content(scene)
        assert stand.stat(stand.path(scene), ONE_LIMIT_S).st_size == content.size_bytes
        with stand.opened(scene) as file:
            stand.compare(file, content, limit_s=ONE_LIMIT_S)
        assert stand.list(stand.root / "tasks" / "1", ONE_LIMIT_S)
    assert not stand.current.events("host counts as offline")


def test_another_program_gets_the_only_connection_of_a_mount_at_rest(
    make_stand: MakeStand,
) -> None:
    """The host lets it wait until the mount closes its idle connections."""
    origin = DemoOrigin(Catalogue([make_task(1)]), one_port=True)
    limit = origin.faults.add("connection-limit", connections=1, how="queue")
    stand = make_stand(origin=origin, **LONG)
    stand.publish(MIB)
    assert stand.list(stand.root / "tasks" / "1", ONE_LIMIT_S)
    assert origin.n_open_connections()
    address = urlsplit(origin.api_url)
    other = HTTPConnection(address.hostname or "", address.port, timeout=15)
    n_before = limit.hits
    other.request("GET", "/contracts")
    assert other.getresponse().status == 401
    other.close()
    assert limit.hits > n_before, "it had to wait"
    assert stand.list(stand.root / "tasks" / "1", ONE_LIMIT_S)


@pytest.mark.parametrize("workers", [0, 2])
def test_connections_that_end_as_the_next_request_is_sent(
    make_stand: MakeStand, workers: int
) -> None:
    """A store that keeps idle ones for a tenth of a second: right bytes, whoever is first."""
    origin = DemoOrigin(Catalogue([make_task(1)]), keepalive_s=0.1)
    stand = make_stand(origin=origin, workers=workers, range_bytes="256KiB")
    scene = stand.publish(24 * MIB)
    content = stand.content(scene)
    pauses_s = itertools.cycle([0.098, 0.1, 0.102, 0.0, 0.096, 0.104])
    with stand.opened(scene) as file:
        for start in range(0, content.size_bytes, MIB):
            stand.compare(file, content, start=start, stop=start + 300 * KIB)
            time.sleep(next(pauses_s))
    assert not stand.current.events("host counts as offline")


@pytest.mark.parametrize("workers", [0, 2])
def test_connections_that_are_lost_in_silence(make_stand: MakeStand, workers: int) -> None:
    """A box on the way has forgotten all of them: nothing is acknowledged, and nothing is reset.

    A listing, a size and bytes come over new ones, before any call has waited for the time in which
    a slow host may be silent.
    """
    patience = {"progress_timeout_s": 30, "read_deadline_s": 40, "metadata_deadline_s": 30}
    stand = make_stand(workers=workers, range_bytes="1MiB", listing_ttl_s=0, **patience)
    scene, other = stand.publish(96 * MIB), stand.publish(MIB)
    content = stand.content(scene)
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=8 * MIB)
        # A body that is on its way would stand still, as that of a slow host does.
        assert stand.origin.journal.wait_until_idle()
        assert stand.origin.n_open_connections("store")
        assert stand.origin.n_open_connections("api")
        n_before = stand.origin.journal.n_requests("object")
        stand.origin.lose_connections()
        listed = stand.calls.start("ls", LOST_LIMIT_S, os.listdir, stand.root / "tasks" / "1")
        size = stand.calls.start("stat", LOST_LIMIT_S, os.stat, stand.path(other))
        stand.compare(file, content, start=88 * MIB, limit_s=LOST_LIMIT_S)
        assert stand.calls.end("ls", LOST_LIMIT_S, listed)
        assert stand.calls.end("stat", LOST_LIMIT_S, size).st_size == MIB
    assert stand.origin.journal.n_requests("object") > n_before + 1  # the size, and bytes
    assert not stand.current.events("host counts as offline")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_announced", [False, True])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bodies_that_end_early_over_tls(
    make_stand: MakeStand,
    tmp_path: Path,
    version: ssl.TLSVersion,
    is_announced: bool,
    workers: int,
) -> None:
    """With TLS's close_notify or without it: what is missing is requested, also of a listing."""
    stand = make_stand(origin=tls_origin(tmp_path, version), workers=workers, listing_ttl_s=0)
    scene = stand.publish(12 * MIB)
    faults = stand.origin.faults
    early = {"at_byte": 100, "announced": is_announced, "count": 2}
    with stand.opened(scene) as file:
        cut = faults.add("cut", "object", **early)
        stand.compare(file, stand.content(scene))
        assert cut.hits == 2
        listings = faults.add("cut", "captures", **early)
        assert stand.list(stand.root / "tasks" / "1")
        assert listings.hits == 2


def tls_origin(directory: Path, version: ssl.TLSVersion) -> DemoOrigin:
    """Return an origin of that version of TLS, with an authority in *directory*."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.minimum_version = server.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    return DemoOrigin(Catalogue([make_task(1)]), tls=server, ca_file=directory / "ca.pem")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_and_an_api_of_tls_1_2(make_stand: MakeStand, tmp_path: Path, workers: int) -> None:
    """Sessions are resumed, connections end without TLS's farewell, and the bytes are right."""
    stand = make_stand(origin=tls_origin(tmp_path, ssl.TLSVersion.TLSv1_2), workers=workers)
    scene = stand.publish(12 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=4 * MIB)
        stand.origin.drop_connections("store")
        stand.origin.faults.add("cut", "object", at_byte=100_000, count=3)
        stand.compare(file, content, start=4 * MIB)
