"""The origin as a test sees it: its records, and the changes that a test makes while it runs."""

from __future__ import annotations

import ssl
import threading
import time
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import trustme
from demo.asking import Customer, ask

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import FileContent, RampContent
from satfs.demo.sample import many_tasks, sample_catalogue, sample_zip
from satfs.demo.server import DemoOrigin


def test_environment_leads_here(origin: DemoOrigin) -> None:
    """The environment has the variables that a client needs, and no authority file without TLS."""
    environment = origin.environment()
    assert environment["SATFS_API_URL"] == origin.api_url
    assert environment["SATFS_AUTH_URL"] == origin.auth_url
    assert environment["SATFS_CONTRACT_ID"] == origin.account.contract_id
    assert "SATFS_CA_FILE" not in environment


def test_requests_are_written_down(origin: DemoOrigin, customer: Customer, scene_id: str) -> None:
    """Each request is in the journal with endpoint, path, range, status, bytes and moments."""
    origin.journal.clear()
    customer.get("/tasking/tasks/?limit=1")
    before_s = time.time()
    ask(origin.link(scene_id), headers={"Range": "bytes=5-14"})
    assert origin.journal.wait_until_idle()
    listing, read = origin.requests
    assert (listing.endpoint, listing.path, listing.range) == ("tasks", "/tasking/tasks/", None)
    assert (read.endpoint, read.method, read.range) == ("object", "GET", "bytes=5-14")
    assert (read.status, read.bytes_sent) == (206, 10)
    assert read.path.endswith(f"{scene_id}.zip")
    assert read.ended_s is not None
    assert before_s <= read.started_s <= read.ended_s <= time.time()
    assert (origin.counts(), origin.counts("tasks"), origin.counts("token")) == (2, 1, 0)
    assert origin.bytes_sent() == 10


def test_connections_are_counted(origin: DemoOrigin, scene_id: str) -> None:
    """Every connection is one, however many requests it carries."""
    for _ in range(3):
        ask(origin.link(scene_id))
    assert origin.journal.n_connections["store"] == 3
    assert len({request.connection for request in origin.requests}) == 3


def test_stop_and_resume(origin: DemoOrigin, scene_id: str) -> None:
    """One side can be down while the other lives, and comes back on the same port."""
    link, api_url = origin.link(scene_id), origin.api_url
    origin.stop_listening("store")
    with pytest.raises(ConnectionRefusedError):
        ask(link)
    assert ask(f"{api_url}/contracts").status == 401
    origin.resume_listening("store")
    assert ask(link).status == 200
    origin.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        ask(f"{api_url}/contracts")
    origin.resume_listening()
    assert Customer(origin).get("/contracts").status == 200


def test_stopping_drops_what_is_under_way(origin: DemoOrigin, scene_id: str) -> None:
    """A transfer under way breaks when its side goes down, or its connections are dropped."""
    origin.catalogue.replace(scene_id, RampContent(100_000))
    for strike in (origin.stop_listening, origin.drop_connections):
        fault = origin.faults.add("stall", "object", at_byte=1000)
        outcome: list[object] = []

        def fetch(outcome: list[object] = outcome) -> None:
            try:
                outcome.append(ask(origin.link(scene_id)).is_whole)
            except ConnectionResetError:
                outcome.append(False)

        reader = threading.Thread(target=fetch)
        reader.start()
        deadline_s = time.monotonic() + 5
        while not any(r.bytes_sent for r in origin.requests) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        strike("store")
        reader.join(5)
        assert outcome == [False]
        origin.faults.remove(fault)
        origin.journal.clear()
        origin.resume_listening()


def test_open_connections_return_to_none(origin: DemoOrigin, scene_id: str) -> None:
    """Connections that clients closed are not held open here."""
    ask(origin.link(scene_id))
    deadline_s = time.monotonic() + 5
    while origin.n_open_connections() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert origin.n_open_connections() == 0


def test_publish_withdraw_replace(origin: DemoOrigin, customer: Customer) -> None:
    """Tasks, captures and scenes come and go while the origin runs."""
    catalogue = origin.catalogue
    catalogue.add_task(make_task(7), position=0)
    assert customer.results("/tasking/tasks/")[0]["task_id"] == 7
    catalogue.add_capture(7, make_capture("c", status="planned"))
    catalogue.add_scene("c", make_scene("s", [make_delivery("s", b"one")]))
    assert customer.results("/telluric/scenes/?sceneset_id=c") == []
    catalogue.set_status("c", "published")
    assert len(customer.results("/telluric/scenes/?sceneset_id=c")) == 1
    link = origin.link("s")
    catalogue.replace("s", b"two")
    assert ask(link).body == b"two"
    catalogue.remove_scene("s")
    assert ask(link).status == 404
    assert customer.get("/telluric/scenes/s/").status == 404
    catalogue.remove_capture("c")
    assert customer.results("/tasking/tasks/7/captures/") == []
    catalogue.remove_task(7)
    assert customer.get("/tasking/tasks/7/").status == 404


def test_another_origin_watches_for_secrets(origin: DemoOrigin, customer: Customer) -> None:
    """A second origin can play the foreign host, and notices what must not arrive there."""
    bearer = customer.headers["authorizationToken"].removeprefix("Bearer ")
    with DemoOrigin(Catalogue()) as foreign:
        foreign.api.watched.append(bearer)
        ask(f"{foreign.api_url}/x", headers={"authorizationToken": f"Bearer {bearer}"})
        ask(f"{foreign.store_url}/x", headers={"X-Other": bearer})
        assert [leak.side for leak in foreign.leaks] == ["api", "store"]
    assert origin.leaks == []


@pytest.mark.slow
def test_thousands_of_tasks() -> None:
    """A catalogue of ten thousand tasks is listed in pages of a hundred without delay."""
    with DemoOrigin(many_tasks(10_000)) as origin:
        customer = Customer(origin)
        body = customer.get("/tasking/tasks/?limit=100&offset=9900").json()
        assert (body["count"], len(body["results"]), body["next"]) == (10_000, 100, None)


def test_file_is_served_whole_and_in_parts(
    origin: DemoOrigin, scene_id: str, tmp_path: Path
) -> None:
    """A file on disk comes over the wire as it is, by sendfile or, when slowed, in pieces."""
    path = tmp_path / "x.zip"
    data = bytes(RampContent(3_000_000).read(0, 3_000_000))
    path.write_bytes(data)
    origin.catalogue.replace(scene_id, FileContent(path))
    link = origin.link(scene_id)
    assert ask(link).body == data
    assert ask(link, headers={"Range": "bytes=1000000-1999999"}).body == data[1_000_000:2_000_000]
    assert origin.bytes_sent() == 4_000_000
    origin.faults.add("drip", "object", bytes_per_s=30_000_000)
    assert ask(link).body == data


@pytest.mark.slow
def test_connection_has_a_speed(tmp_path: Path) -> None:
    """A speed limit holds from the first byte on, for files and for bytes in memory."""
    path = tmp_path / "x.zip"
    path.write_bytes(bytes(3_000_000))
    scenes = [
        make_scene("file", [make_delivery("file", FileContent(path))]),
        make_scene("ramp", [make_delivery("ramp", RampContent(3_000_000))]),
    ]
    catalogue = Catalogue([make_task(1, [make_capture("c", scenes)])])
    with DemoOrigin(catalogue, bytes_per_s=10_000_000) as origin:
        for name in ("file", "ramp"):
            start_s = time.monotonic()
            assert len(ask(origin.link(name)).body) == 3_000_000
            assert 0.2 < time.monotonic() - start_s < 2


def test_latency_of_each_side(scene_id: str) -> None:
    """API and store can be apart from the client by different times."""
    with DemoOrigin(latency_s=0.15, store_latency_s=0.0) as origin:
        start_s = time.monotonic()
        ask(f"{origin.api_url}/contracts")
        middle_s = time.monotonic()
        ask(origin.link(scene_id))
        assert middle_s - start_s >= 0.15
        assert time.monotonic() - middle_s < 0.15


def test_tls(tmp_path: Path) -> None:
    """With a certificate given, both ports speak TLS, and links say https."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    path = tmp_path / "x.zip"
    path.write_bytes(bytes(range(256)) * 4000)
    with DemoOrigin(tls=context, ca_file=ca_file) as origin:
        scene_id = origin.catalogue.published_scenes()[0].scene_id
        origin.catalogue.replace(scene_id, FileContent(path))
        assert origin.environment()["SATFS_CA_FILE"] == str(ca_file)
        link = origin.link(scene_id)
        assert link.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(ca_file))
        with urllib.request.urlopen(link, context=trusting) as response:
            assert response.read() == path.read_bytes()


def test_sample_is_the_same_every_time() -> None:
    """Two catalogues from the same seed hold the same records and the same bytes."""
    one, other = sample_catalogue(), sample_catalogue()
    assert [t.record for t in one.tasks] == [t.record for t in other.tasks]
    ids = [scene.scene_id for scene in one.published_scenes()]
    assert ids == [scene.scene_id for scene in other.published_scenes()]
    assert [one.content(i).etag for i in ids] == [other.content(i).etag for i in ids]
    assert sample_zip(3) != sample_zip(4)


def test_answers_tell_the_time_of_the_origins_own_clock(origin: DemoOrigin) -> None:
    """Date is what a client sets its own clock against; the origin's may be set to any."""
    origin.advance_clock(7200)

    for url in (origin.api_url, origin.store_url):
        date_s = parsedate_to_datetime(ask(url).headers["date"]).timestamp()
        assert date_s - time.time() == pytest.approx(7200, abs=10)


def test_origin_can_be_started_again() -> None:
    """A stopped origin can be started again; stopping twice does no harm."""
    origin = DemoOrigin()
    for _ in range(2):
        origin.start()
        assert ask(f"{origin.api_url}/contracts").status == 401
        origin.stop()
        origin.stop()
