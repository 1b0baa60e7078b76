"""Faults that take their time, or that one side has while the other lives."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from reliability.conftest import MakeStand
from reliability.stand import AT_ONCE_S, KIB, MIB, QUICK_DEADLINES, RECOVERY_S, Stand, refused

from satfs.demo.api import PageLimits
from satfs.demo.catalogue import Catalogue, make_task
from satfs.demo.contents import RampContent
from satfs.demo.sample import many_tasks
from satfs.demo.server import DemoOrigin
from satfs.errors import Unreachable

FAILS = (errno.EIO, errno.ETIMEDOUT)


@pytest.fixture(scope="module", params=[0, 2], ids=["in the loop", "by workers"])
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("sides"), workers=request.param) as stand:
        yield stand
        assert stand.origin.leaks == []


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "stand" in request.fixturenames:
        request.getfixturevalue("stand").settle()


@pytest.mark.parametrize("stand", [0], indirect=True, ids=["in the loop"])
def test_links_that_live_two_seconds_are_renewed_while_reading(stand: Stand) -> None:
    """A reader outlives many links and sees none of it."""
    scene = stand.publish(8 * MIB)
    content = stand.content(scene)
    stand.origin.faults.add("short-link", "sign", seconds=2)
    stand.origin.journal.clear()
    with stand.opened(scene) as descriptor:
        for piece in range(8):
            # From the end to the front: no read-ahead has it before its time.
            start = (7 - piece) * MIB
            stand.compare(descriptor, content, start, start + 64 * KIB)
            time.sleep(0.5)
    assert stand.origin.counts("sign") > 1


@pytest.mark.parametrize("stand", [0], indirect=True, ids=["in the loop"])
def test_links_that_die_before_their_time_are_renewed(stand: Stand) -> None:
    """A link of temporary credentials expires with these, whatever time it states."""
    scene = stand.publish(8 * MIB)
    content = stand.content(scene)
    stand.origin.faults.add("temporary-credentials", "sign", seconds=1.0)
    with stand.opened(scene) as descriptor:
        for piece in range(4):
            start = (7 - 2 * piece) * MIB
            stand.compare(descriptor, content, start, start + 64 * KIB)
            time.sleep(0.7)


def test_a_replaced_object_is_stale_and_never_mixed(stand: Stand) -> None:
    """An open file stays the version that was opened, or ends in ESTALE; a new open is the new."""
    scene = stand.publish(48 * MIB)  # more than is requested ahead of a mebibyte
    old, new = stand.content(scene), RampContent(11 * MIB, 100)
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, old, 0, MIB)
        stand.origin.catalogue.replace(scene, new)
        with refused(errno.ESTALE):
            stand.compare(descriptor, old)
    stand.until(RECOVERY_S, lambda: _reads_as(stand, scene, new))


@pytest.mark.parametrize("is_signed_anew", [False, True])
def test_a_withdrawn_scene_is_stale_to_whoever_has_it_open(
    stand: Stand, is_signed_anew: bool
) -> None:
    """Whether the store has no object any more or the API no link to it: the open file is gone."""
    scene = stand.publish(8 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, content, 7 * MIB)
        stand.origin.catalogue.remove_scene(scene)
        if is_signed_anew:
            stand.origin.expire_links()
        with refused(errno.ESTALE):
            stand.pread(descriptor, 3 * MIB, 4 * KIB)
        stand.compare(descriptor, content, 7 * MIB)  # what was read stays


def test_revoked_tokens_and_links_in_mid_read_are_not_seen(stand: Stand) -> None:
    """A reader goes on while everything it was let in with is taken away, again and again."""
    scene = stand.publish(16 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as descriptor:
        for start in range(0, 16 * MIB, 4 * MIB):
            stand.compare(descriptor, content, start, start + 4 * MIB)
            time.sleep(0.3)  # one renewal is forgiven, so one change at a time
            stand.origin.revoke_tokens()
            stand.origin.expire_links()
            stand.origin.drop_connections()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_firewall_that_refuses_the_programs_name_takes_another_one(
    make_stand: MakeStand, workers: int
) -> None:
    """API, token endpoint and store get the name that is set, in the loop and by workers."""
    origin = DemoOrigin(Catalogue([make_task(1)]))
    origin.faults.add("refused-agent", agent="satfs")
    stand = make_stand(origin=origin, workers=workers, user_agent="Imagery Reader/2.0")
    scene = stand.publish(8 * MIB)
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, stand.content(scene))


def test_bodies_that_are_always_cut_bring_each_byte_once(stand: Stand) -> None:
    """The next request begins at the cut; a worker's at the block (16 KiB) in which it was."""
    scene = stand.publish(8 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as descriptor:
        n_before = stand.origin.bytes_sent("object")
        fault = stand.origin.faults.add("cut", "object", at_byte=300_000)
        stand.compare(descriptor, content)
        assert fault.hits > 20
        n_sent = stand.origin.bytes_sent("object") - n_before
        assert n_sent <= content.size_bytes + fault.hits * 16 * KIB
        if stand.settings["SATFS_WORKERS"] == "0":
            assert n_sent <= content.size_bytes


@pytest.mark.parametrize("stand", [2], indirect=True, ids=["by workers"])
def test_what_is_listed_and_read_survives_the_api(stand: Stand) -> None:
    """API down, store alive: listings are served, and open files are read on."""
    scene = stand.publish(8 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as descriptor:
        listed = stand.list(stand.root / "tasks" / "1")
        assert stand.origin.catalogue.task_of(scene) is not None
        stand.origin.stop_listening("api")
        time.sleep(0.6)  # the listing's lifetime
        stand.compare(descriptor, content)
        assert sorted(stand.list(stand.root / "tasks" / "1")) == sorted(listed)


def test_what_is_listed_survives_the_store(make_stand: MakeStand) -> None:
    """Store down, API alive: everything is listed, sizes included, and reads fail soon."""
    stand = make_stand(workers=2, **QUICK_DEADLINES)
    scene = stand.publish(8 * MIB)
    size = stand.stat(stand.path(scene)).st_size
    with stand.opened(scene) as descriptor:
        stand.origin.stop_listening("store")
        with refused(*FAILS):
            stand.pread(descriptor, 4 * MIB, 4 * KIB)  # the beginning may have come with the size
        with refused(*FAILS):
            stand.pread(descriptor, MIB, 4 * KIB, limit_s=AT_ONCE_S + 4)
        new_task = make_task(stand.origin.journal.n_requests() + 1000)
        stand.origin.catalogue.add_task(new_task)
        time.sleep(0.6)
        assert new_task.task_id in stand.list(stand.root / "tasks")
        assert stand.stat(stand.path(scene)).st_size == size == 8 * MIB


@pytest.mark.parametrize("change", ["listing-grows", "listing-shrinks"])
def test_a_listing_that_changes_between_its_pages_loses_nothing_that_stays(
    make_stand: MakeStand, change: str
) -> None:
    """Entries that exist from the first page to the last are listed, and none twice."""
    origin = DemoOrigin(many_tasks(45), page_limits=PageLimits(10, 10))
    stand = make_stand(origin=origin, workers=0)
    stay = {task.task_id for task in origin.catalogue.tasks[1:]}
    fault = origin.faults.add(change, "tasks", entries=1)
    names = stand.list(stand.root / "tasks")
    assert fault.hits
    assert len(names) == len(set(names))
    if change == "listing-grows":
        assert stay <= set(names)
    else:  # what moved across the border of two pages is on neither: the next listing has it
        origin.faults.clear()
        time.sleep(0.6)
        assert stay <= set(stand.list(stand.root / "tasks"))


def test_pages_without_entries_end_no_listing(make_stand: MakeStand) -> None:
    """Where the API applies its filter last, many empty pages may come before the next entry."""
    origin = DemoOrigin(many_tasks(25), page_limits=PageLimits(10, 10))
    stand = make_stand(origin=origin, workers=0)
    fault = origin.faults.add("empty-pages", "tasks", pages=12)
    names = stand.list(stand.root / "tasks")
    assert fault.hits > 12
    assert {task.task_id for task in origin.catalogue.tasks} <= set(names)


@pytest.mark.parametrize("form", ["json-api", "stac", "counted"])
def test_pages_in_the_form_of_another_service_are_read(make_stand: MakeStand, form: str) -> None:
    """Other names for the list, its count and the next page, in UTF-16."""
    origin = DemoOrigin(many_tasks(25), page_limits=PageLimits(10, 10))
    faults = [
        origin.faults.add("page-form", "api", form=form),
        origin.faults.add("encoding", "api", encoding="utf-16"),
    ]
    stand = make_stand(origin=origin, workers=0)
    assert {task.task_id for task in origin.catalogue.tasks} <= set(
        stand.list(stand.root / "tasks")
    )
    with stand.opened(scene := stand.publish(MIB, task_id=100_000)) as descriptor:
        stand.compare(descriptor, stand.content(scene))
    assert all(fault.hits for fault in faults)


@pytest.mark.parametrize("by", ["offset", "page", "page-from-0", "nothing"])
def test_bare_lists_are_read_to_their_end(make_stand: MakeStand, by: str) -> None:
    """Nothing in a list tells that there are more pages, nor by which parameter they are got."""
    n_tasks = 10 if by == "nothing" else 23
    origin = DemoOrigin(many_tasks(n_tasks))
    origin.faults.add("bare-list", "tasks", by=by)
    stand = make_stand(origin=origin, workers=0)
    tasks = [task.task_id for task in origin.catalogue.tasks]
    names = stand.list(stand.root / "tasks")
    assert sorted(name for name in names if name in tasks) == sorted(tasks)


@pytest.mark.parametrize("form", ["json", "html", "xml"])
def test_an_error_document_with_status_200_is_no_object(make_stand: MakeStand, form: str) -> None:
    """Its length is never shown, though it has the ETag and the date of a file."""
    stand = make_stand(workers=0)
    scene, other = stand.publish(MIB), stand.publish(MIB)
    faults = stand.origin.faults
    fault = faults.add("error-as-object", "object", form=form, count=2)
    assert stand.stat(stand.path(scene)).st_size == MIB
    assert fault.hits == 2
    content = stand.content(scene)
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, content, stop=100)
        time.sleep(0.6)  # the version's lifetime: it is confirmed
        fault = faults.add("error-as-object", "object", form=form, count=2)
        assert stand.stat(stand.path(scene)).st_size == MIB
        stand.compare(descriptor, content)
    lasting = faults.add("error-as-object", "object", form=form)
    with pytest.raises(OSError, match="Input/output error"):
        stand.stat(stand.path(other))
    assert lasting.hits


def test_a_store_with_a_wrong_certificate_is_not_read(make_stand: MakeStand) -> None:
    """A store that cannot prove who it is gives EIO, soon; the rest of the mount lives."""
    other = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    other.issue_cert("127.0.0.1").configure_cert(server)
    stand = make_stand(workers=2)
    scene = stand.publish()
    with DemoOrigin(Catalogue([make_task(1)]), tls=server) as impostor, stand.opened(scene) as file:
        url = f"{impostor.store_url}/x?X-Amz-Date=20260101T000000Z&X-Amz-Expires=1"
        stand.origin.faults.add("foreign-link", "sign", url=url)
        stand.origin.expire_links()
        with refused(errno.EIO):
            stand.pread(file, MIB, 4 * KIB, limit_s=5.0)
        assert impostor.requests == []
    assert sorted(stand.list(stand.root / "tasks")) == ["1", "catalog.json"]


def test_where_the_system_has_no_authorities_all_of_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loop and workers trust the same authorities: what lists is read as a whole, too.

    In a slim container certifi's are the only ones; here a stand-in for certifi ships ours.
    """
    authority = trustme.CA()
    package = tmp_path / "packages" / "certifi"
    package.mkdir(parents=True)
    authority.cert_pem.write_to_path(package / "ca.pem")
    (package / "__init__.py").write_text(
        f"def where() -> str:\n    return {str(package / 'ca.pem')!r}\n"
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    origin = DemoOrigin(Catalogue([make_task(1)]), tls=server)
    with Stand(tmp_path, origin=origin, workers=2) as stand:
        scene = stand.publish(24 * MIB)
        with stand.opened(scene) as descriptor:
            stand.compare(descriptor, stand.content(scene))


def test_an_api_with_a_wrong_certificate_is_not_mounted(tmp_path: Path) -> None:
    """No credential is sent to an API that cannot prove its identity; the reason is reported."""
    from mounted.mounting import MountFailed

    other, ours = trustme.CA(), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    other.issue_cert("127.0.0.1").configure_cert(server)
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    origin = DemoOrigin(Catalogue([]), tls=server, ca_file=tmp_path / "ca.pem")
    with pytest.raises(MountFailed, match=Unreachable.__name__), Stand(tmp_path, origin=origin):
        pass
    assert origin.requests == []


def _reads_as(stand: Stand, scene: str, content: RampContent) -> None:
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, content)


def test_a_path_that_must_be_asked_for_is_answered_in_time(make_stand: MakeStand) -> None:
    """An API without any response: each look-up takes its deadline at most, then no time."""
    stand = make_stand(workers=0, **QUICK_DEADLINES)
    stand.origin.faults.add("hang", "api")
    with refused(*FAILS):
        stand.stat(stand.root / "scenes" / "nobody-knows")
    with refused(*FAILS):
        stand.stat(stand.root / "scenes" / "nobody-knows-either", AT_ONCE_S)
