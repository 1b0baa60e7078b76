"""`satfs watch --webhook`: what a receiver gets, and what becomes of one that does not take it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from cli.conftest import Program
from cli.mounts import Mounted, vendor
from cli.receiver import Received, Receiver
from stac.catalogue import TASK, product, scene_of

from satfs.cli.webhook import Poster, Refusal
from satfs.demo.catalogue import Catalogue, make_capture, make_task
from satfs.net.http import Http


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@asynccontextmanager
async def poster(url: str, *, progress_s: float, total_s: float) -> AsyncIterator[Poster]:
    limits = {"connect_timeout_s": 5.0, "progress_timeout_s": progress_s}
    async with Http(**limits, max_connections=1) as http:  # type: ignore[arg-type]
        yield Poster(http, url, total_s=total_s)


async def test_a_receiver_takes_it_with_2xx(receiver: Receiver) -> None:
    async with poster(receiver.url, progress_s=5, total_s=5) as post:
        for status in (200, 201, 202, 204):
            receiver.answers = [status]
            assert await post.post({"id": status}) is None
    assert [each.json["id"] for each in receiver.received] == [200, 201, 202, 204]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 503])
async def test_any_other_status_is_a_refusal(receiver: Receiver, status: int) -> None:
    """A redirect is one, too: the item goes to the address that the user gave, and nowhere else."""
    receiver.answers = [status]
    async with poster(receiver.url, progress_s=5, total_s=5) as post:
        assert await post.post({}) == Refusal(f"HTTP {status}")
    assert [each.path for each in receiver.received] == ["/hook?key=of-the-user"]


@pytest.mark.parametrize("kind", ["silent", "dripping"])
async def test_no_receiver_holds_up_a_watch(receiver: Receiver, kind: str) -> None:
    """Neither one that never responds, nor one whose response never ends."""
    receiver.is_silent, receiver.is_dripping = kind == "silent", kind == "dripping"
    receiver.answers = [200]
    limits = {"progress_s": 0.1, "total_s": 30} if kind == "silent" else {"progress_s": 30}
    async with poster(receiver.url, **{"total_s": 0.3, **limits}) as post:
        assert await post.post({}) == Refusal("no response in time", is_absent=True)


async def test_a_receiver_that_is_not_there_is_absent(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "127.0.0.2")
    async with poster(url, progress_s=5, total_s=5) as post:
        assert await post.post({}) == Refusal("no connection", is_absent=True)


# -- with the real program -------------------------------------------------------------------------


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return a mounted account with one task, which has nothing yet; a watch knows that."""
    with vendor(satfs, place, tmp_path / "cache", Catalogue([make_task(TASK, [])])) as mounted:
        mounted.mount("-o", "listing_ttl_s=0")
        assert mounted.program("watch", "--once", place).returncode == 0
        yield mounted


def publish(aleph: Mounted, directory: Path, *numbers: int) -> list[str]:
    """Publish a capture with a scene for each of *numbers*, and return their ids."""
    scenes = [scene_of(directory, product(number)) for number in numbers]
    aleph.origin.catalogue.add_capture(TASK, make_capture("cap-new", scenes))
    return [scene.scene_id for scene in scenes]


def watch(
    aleph: Mounted, receiver: Receiver, **environment: str
) -> subprocess.CompletedProcess[str]:
    words = ("watch", "--once", "--stac", "--webhook", receiver.url, aleph.place)
    return aleph.program(*words, **environment)


@pytest.mark.mounts
def test_items_are_posted_until_they_are_taken(
    aleph: Mounted, receiver: Receiver, tmp_path: Path
) -> None:
    """A receiver that fails is sent the item again by the next look, and then no more."""
    (scene_id,) = publish(aleph, tmp_path / "new", 67)
    receiver.answers = [302, 500]

    failed, redirected, taken, last = (watch(aleph, receiver) for _ in range(4))

    assert (failed.returncode, redirected.returncode, taken.returncode, last.returncode) == (
        *(1, 1),
        *(0, 0),
    )
    assert "HTTP 500" in failed.stderr
    assert "HTTP 302" in redirected.stderr
    assert [each.json["id"] for each in receiver.received] == [scene_id] * 3
    assert {each.path for each in receiver.received} == {"/hook?key=of-the-user"}
    assert json.loads(taken.stdout) == receiver.received[-1].json
    assert not failed.stdout
    assert not last.stdout
    for done in (failed, redirected, taken):
        assert "of-the-user" not in done.stderr + done.stdout


@pytest.mark.mounts
def test_the_authority_of_a_company_is_trusted(aleph: Mounted, tmp_path: Path) -> None:
    """`ca_file` holds for the receiver, too: a proxy that looks into TLS stands before both."""
    (scene_id,) = publish(aleph, tmp_path / "new", 69)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "company.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Receiver(context) as receiver:
        unknown = watch(aleph, receiver)
        trusted = watch(aleph, receiver, SATFS_CA_FILE=str(tmp_path / "company.pem"))
    assert (unknown.returncode, trusted.returncode) == (1, 0), trusted.stderr
    assert [each.json["id"] for each in receiver.received] == [scene_id]


@pytest.mark.mounts
@pytest.mark.parametrize("is_mounted", [True, False], ids=["mount", "api"])
def test_a_request_holds_no_secret(
    aleph: Mounted, receiver: Receiver, tmp_path: Path, is_mounted: bool
) -> None:
    """Neither a credential, nor a token, nor a link of the vendor is in what a receiver gets."""
    (scene_id,) = publish(aleph, tmp_path / "new", 68)
    target = (aleph.place,) if is_mounted else ()
    state = ("--state", tmp_path / "state.json")
    if not is_mounted:
        aleph.origin.catalogue.set_status("cap-new", "planned")
        assert aleph.program("watch", "--once", *state).returncode == 0
        aleph.origin.catalogue.set_status("cap-new", "published")
    else:
        (tmp_path / "state.json").write_bytes(_state_of(aleph))
    for how in (("--stac",), ("--json",)):
        copy = tmp_path / f"state{how[0]}.json"
        copy.write_bytes((tmp_path / "state.json").read_bytes())
        done = aleph.program(
            *("watch", "--once", *how, "--state", copy, "--webhook", receiver.url), *target
        )
        assert done.returncode == 0, done.stderr
    assert scene_id in {each.json.get("id") or each.json["scene_id"] for each in receiver.received}
    secrets = [aleph.origin.environment()["SATFS_CLIENT_SECRET"], "X-Amz", "Bearer", "token"]
    for each in receiver.received:
        assert {name.lower() for name in each.headers} <= {
            *("host", "user-agent", "accept", "accept-encoding", "connection"),
            *("content-type", "content-length"),
        }
        text = f"{each.path}{each.headers}{each.body.decode()}"
        assert not [secret for secret in secrets if secret in text]


def _state_of(aleph: Mounted) -> bytes:
    """Return what the first look of a watch, which only remembers, has written."""
    home = Path(aleph.program.environment["HOME"])
    (state,) = (home / ".local/state/satfs/watch").glob("*.json")
    return state.read_bytes()


@pytest.mark.mounts
def test_no_item_is_lost_when_a_watch_is_killed_while_it_sends(
    aleph: Mounted, receiver: Receiver, tmp_path: Path
) -> None:
    """Killed with an item sent and not noted, a watch sends it again, and then all others once."""
    ids = publish(aleph, tmp_path / "new", 63, 64, 65)
    processes: list[subprocess.Popen[str]] = []

    def kill(_: Received) -> None:
        if len(receiver.received) == 2:
            os.kill(processes[0].pid, signal.SIGKILL)

    receiver.before_answer = kill
    command = ("watch", "--once", "--stac", "--webhook", receiver.url, aleph.place)
    processes.append(aleph.program.start(*command))
    printed, _ = processes[0].communicate(timeout=60)
    assert processes[0].returncode == -signal.SIGKILL
    rest = watch(aleph, receiver)
    assert rest.returncode == 0, rest.stderr

    sent = [each.json["id"] for each in receiver.received]

    assert set(sent) == set(ids)
    assert len(sent) == len(ids) + 1  # the one in flight, twice
    reported = [json.loads(line)["id"] for line in (printed + rest.stdout).splitlines()]
    assert sorted(reported) == sorted(ids)


@pytest.mark.mounts
def test_a_receiver_that_is_not_there_ends_the_handing_over_of_a_look(
    aleph: Mounted, receiver: Receiver, tmp_path: Path
) -> None:
    """One attempt a look: no command runs for scenes that the receiver will not get."""
    publish(aleph, tmp_path / "new", 61, 62, 63)
    written = tmp_path / "written"
    nobody = receiver.url.replace("127.0.0.1", "127.0.0.2")
    hook = f"sh -c 'cat >> {written}'"
    command = ("watch", "--once", "--stac", "--exec", hook, aleph.place, "--webhook")

    refused = aleph.program(*command, nobody)

    assert refused.returncode == 1
    assert refused.stderr.count("no connection") == 1
    assert len(written.read_text().splitlines()) == 1
    assert aleph.program(*command, receiver.url).returncode == 0
    assert len({each.json["id"] for each in receiver.received}) == 3
