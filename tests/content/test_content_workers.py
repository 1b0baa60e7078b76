"""Worker processes over real sockets: right bytes after any death, and no secret shown.

Longer than 600 lines, since all share the stand of real sockets and processes.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from fakes.processes import is_running
from fakes.tls_servers import serving_half_a_record

from satfs.content.attachments import Attachments
from satfs.content.build import open_attachments
from satfs.content.fetch.connection_controller import INITIAL_CONNECTIONS
from satfs.content.transfer import (
    messages,
    worker_connections,
    worker_process,
    worker_supervisor,
)
from satfs.content.transfer import worker_moves as pool
from satfs.content.transfer.interface import UnusableResponse
from satfs.content.transfer.messages import OutcomeReport
from satfs.content.transfer.worker_main import Worker
from satfs.demo.catalogue import (
    DELIVERY_ZIP,
    Catalogue,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import RampContent
from satfs.demo.server import DemoOrigin
from satfs.errors import Changed, Unreachable
from satfs.model import AttachmentName, ByteRange, Link, RemoteReader, SceneId
from satfs.net import permits
from satfs.net.addresses import origin_of as store_of
from satfs.net.http import Http
from satfs.net.retry_loop import Retries
from satfs.settings import load_settings

MIB = 1024 * 1024
SCENE = SceneId("20241206_081221_SN49_L1C_MS_268095")
ZIP = AttachmentName(DELIVERY_ZIP)
CONTENT = RampContent(64 * MIB + 12_345, 5)


def origin_of(**how: Any) -> DemoOrigin:
    scene = make_scene(SCENE, [make_delivery(SCENE, CONTENT)])
    return DemoOrigin(Catalogue([make_task(1, [make_capture("c", [scene])])]), **how)


@asynccontextmanager
async def opened(
    origin: DemoOrigin, directory: Path, *, has_worker: bool = True, **changes: Any
) -> AsyncIterator[tuple[Attachments, pool.WorkerPool]]:
    """Open contents whose first worker is there already: the loop moves nothing in its place."""
    given: dict[str, Any] = {
        "cache_dir": directory, "cache_bytes": 10**9, "workers": 2, "cache_free_fraction": 0.0,
        "ca_file": origin.ca_file,
    }  # fmt: skip
    settings = load_settings({}, **{**given, **changes})

    async def sign(scene: SceneId, attachment: AttachmentName) -> Link:
        return Link(origin.link(scene, attachment))

    async with (
        Http(
            connect_timeout_s=5.0,
            progress_timeout_s=settings.progress_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            max_connections=64,
            ca_file=settings.ca_file,
        ) as http,
        open_attachments(
            settings,
            http=http,
            retries=Retries(http.reachability),
            sign=sign,
            check_url=lambda url: None,
            is_proxied=lambda url: False,
            account="me",
        ) as contents,
    ):
        bulk = contents._dispatcher._bulk
        assert isinstance(bulk, pool.WorkerPool)
        if has_worker:
            await bulk.prepare(Link(origin.link(SCENE)), 4)
            await eventually(lambda: any(each.is_ready for each in bulk._workers))
        yield contents, bulk


async def read_all(
    contents: Attachments, between: Callable[[int], None] = lambda start: None, until: int = 1 << 40
) -> None:
    version = await contents.version(SCENE, ZIP, "r")
    reader = await contents.open(SCENE, ZIP, version)
    step = MIB // 2
    for start in range(0, min(until, CONTENT.size_bytes), step):
        data = bytes(await reader.read(ByteRange(start, start + step)))
        assert data == bytes(CONTENT.read(start, min(start + step, CONTENT.size_bytes)))
        between(start)
    reader.close()


async def eventually(condition: Callable[[], bool], within_s: float = 20) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - another process's doing has no event
            await trio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("cache_bytes", [0, 10**9])
async def test_bulk_goes_through_workers_once(tmp_path: Path, cache_bytes: int) -> None:
    """A sequential read is moved by workers, into a file on disk or in memory, each byte once."""
    with origin_of() as origin:
        async with opened(origin, tmp_path, cache_bytes=cache_bytes, memory_bytes=512 * MIB) as (
            contents,
            bulk,
        ):
            await read_all(contents)
            assert bulk.statistics()["workers"] >= 1
            assert contents.statistics()["requests"] > 4
        sent = origin.bytes_sent()
        assert CONTENT.size_bytes <= sent <= CONTENT.size_bytes + MIB
        assert origin.leaks == []
        if cache_bytes:
            async with opened(origin, tmp_path, cache_bytes=cache_bytes) as (contents, _):
                await read_all(contents)
            assert origin.bytes_sent() == sent


def tls_of(directory: Path) -> dict[str, Any]:
    """Return the arguments of an origin that speaks TLS, with an authority of its own."""
    authority = trustme.CA()
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return {"tls": tls, "ca_file": ca_file}


@contextmanager
def worker_thread() -> Iterator[socket.socket]:
    """Run a worker in a thread of this process, and yield the other end of its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=Worker(theirs).serve, daemon=True)
    thread.start()
    with theirs:
        with ours:
            yield ours
        thread.join()


@pytest.mark.slow
def test_a_transfer_given_up_writes_no_wrong_byte(
    tmp_path: Path, allow_log: Callable[[str], None]
) -> None:
    """Bytes that a worker receives after the order to stop are the right ones, or none.

    Shutting an `ssl.SSLSocket` down takes its TLS away: a thread in the middle of a body went on
    reading, and put ciphertext where another transfer had put the right bytes a moment ago.
    """
    allow_log("socket.send.. raised exception.")
    size = CONTENT.size_bytes
    fd = os.memfd_create("object")
    os.pwrite(fd, CONTENT.read(0, size), 0)
    with worker_thread() as ours, origin_of(**tls_of(tmp_path), bytes_per_s=100e6) as origin:
        settings = {"connect_timeout_s": 5, "progress_timeout_s": 5, "user_agent": "test"}
        ours.send(messages.pack_order("settings", {**settings, "ca_file": str(origin.ca_file)}))
        file = messages.pack_order("file", {"file": 1, "size_bytes": size})
        socket.send_fds(ours, [file], [fd])
        etag = CONTENT.etag
        for number in range(10):
            move = messages.MoveOrder(number, 1, origin.link(SCENE), 0, size, etag, size)
            ours.send(messages.pack_move(move))
            report = messages.read_report(ours.recv(messages.MAX_BYTES))
            while isinstance(report, messages.Connections):
                report = messages.read_report(ours.recv(messages.MAX_BYTES))
            assert isinstance(report, messages.ProgressReport)
            ours.send(messages.pack_order("cancel", {"move": number}))
            while not isinstance(report, messages.OutcomeReport):
                report = messages.read_report(ours.recv(messages.MAX_BYTES))
            assert os.pread(fd, size, 0) == CONTENT.read(0, size)
        while origin.n_open_connections():
            time.sleep(0.01)
    os.close(fd)


@pytest.mark.slow
def test_connections_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker keeps a connection for the next range, and not for ever."""
    monkeypatch.setattr(worker_connections, "IDLE_CONNECTION_S", 0.5)
    fd = os.memfd_create("object")
    with worker_thread() as ours, origin_of() as origin:
        size, etag = CONTENT.size_bytes, CONTENT.etag
        socket.send_fds(ours, [messages.pack_order("file", {"file": 1, "size_bytes": size})], [fd])
        for number, start in enumerate((0, MIB)):
            move = messages.MoveOrder(number, 1, origin.link(SCENE), start, start + MIB, etag, size)
            ours.send(messages.pack_move(move))
            while not isinstance(
                messages.read_report(ours.recv(messages.MAX_BYTES)), OutcomeReport
            ):
                pass
            assert origin.n_open_connections() == 1
        until = time.monotonic() + 5
        while origin.n_open_connections():
            assert time.monotonic() < until
            time.sleep(0.01)
    os.close(fd)


@pytest.mark.slow
def test_a_connection_from_before_a_suspension_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was received meanwhile, and nothing shows that the other side has forgotten it."""
    fd = os.memfd_create("object")
    with worker_thread() as ours, origin_of() as origin:
        size, etag = CONTENT.size_bytes, CONTENT.etag
        socket.send_fds(ours, [messages.pack_order("file", {"file": 1, "size_bytes": size})], [fd])
        for number, start in enumerate((0, MIB)):
            move = messages.MoveOrder(number, 1, origin.link(SCENE), start, start + MIB, etag, size)
            ours.send(messages.pack_move(move))
            while not isinstance(
                messages.read_report(ours.recv(messages.MAX_BYTES)), OutcomeReport
            ):
                pass
            now_s = worker_connections.idle_clock_s() + 3600
            monkeypatch.setattr(worker_connections, "idle_clock_s", lambda s=now_s: s)
        assert len({each.connection for each in origin.journal.requests}) == 2
    os.close(fd)


@pytest.mark.slow
def test_the_beginning_of_a_long_record_is_reported_as_a_response(tmp_path: Path) -> None:
    """Its first bytes can be decrypted a round trip later; by then more connections may be open."""
    tls, size = tls_of(tmp_path), 64 * 1024
    fd = os.memfd_create("object")
    with serving_half_a_record(tls["tls"], size) as half, worker_thread() as ours:
        ours.settimeout(10)
        settings = {"connect_timeout_s": 5, "progress_timeout_s": 5, "user_agent": "test"}
        ours.send(messages.pack_order("settings", {**settings, "ca_file": str(tls["ca_file"])}))
        file = messages.pack_order("file", {"file": 1, "size_bytes": size})
        socket.send_fds(ours, [file], [fd])
        url = f"https://127.0.0.1:{half.port}/x"
        ours.send(messages.pack_move(messages.MoveOrder(7, 1, url, 0, size, '"e"', size)))
        reports: list[object] = []
        while True:
            report = messages.read_report(ours.recv(messages.MAX_BYTES))
            if isinstance(report, messages.Connections) and report.n_idle:
                break  # the last report: the connection is idle
            if isinstance(report, messages.Connections) or report == messages.ALIVE:
                continue
            reports.append(report)
            if report == messages.LookReport(7, has_begun=True):
                assert half.half_sent.wait(5.0)  # set by a thread, right after it has sent
                half.may_go_on.set()
        assert [type(each) for each in reports[:2]] == [
            messages.LookReport,
            messages.ProgressReport,
        ]
        assert reports[-1] == OutcomeReport(7, is_kept=True)
    os.close(fd)


@pytest.mark.slow
async def test_over_tls_with_an_authority_of_its_own(tmp_path: Path) -> None:
    """Workers trust the authorities of the mount."""
    with origin_of(**tls_of(tmp_path)) as origin:
        async with opened(origin, tmp_path / "cache") as (contents, bulk):
            await read_all(contents)
            assert bulk.statistics()["workers"] >= 1
            assert contents.statistics().get("retries", 0) == 0


@pytest.mark.slow
async def test_a_certificate_that_a_worker_refuses_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_log: Callable[[str], None]
) -> None:
    """Another try meets the same certificate: the reader has the sentence that the loop has."""
    allow_log("socket.send.. raised exception.")  # what a reader leaves early is cut off
    # Otherwise the loop's connection, which is trusted, has what the worker's is opened for.
    monkeypatch.setattr(permits, "to_recall", lambda *_: [])
    with origin_of(**tls_of(tmp_path)) as origin:
        async with opened(origin, tmp_path / "cache", has_worker=False) as (contents, bulk):
            other = tmp_path / "other.pem"
            trustme.CA().cert_pem.write_to_path(str(other))
            bulk._workers._settings["ca_file"] = str(other)
            await bulk.prepare(Link(origin.link(SCENE)), 1)
            await eventually(lambda: any(each.is_ready for each in bulk._workers))
            version = await contents.version(SCENE, ZIP, "r")
            reader = await contents.open(SCENE, ZIP, version)
            with (
                trio.fail_after(10),
                pytest.raises(Unreachable, match="its certificate is not trusted") as refused,
            ):
                await read_parts(reader)
            assert refused.value.is_permanent
            assert "X-Amz" not in str(refused.value)
            assert contents.statistics().get("retries", 0) == 0
            reader.close()


@pytest.mark.slow
async def test_a_worker_opens_the_second_connection_to_an_unknown_host(tmp_path: Path) -> None:
    """Beside the first one of the loop, before the host has responded."""
    with origin_of() as origin:
        store = store_of(origin.link(SCENE))
        async with opened(origin, tmp_path / "cache", has_worker=False) as (contents, bulk):
            await bulk.start()
            await eventually(lambda: any(each.is_ready for each in bulk._workers))
            contents.start_early(lambda: True)
            origin.faults.add("latency", "object", seconds=60.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(contents.version, SCENE, ZIP, "r")
                await eventually(lambda: origin.journal.n_requests("object") == 1)
                await eventually(lambda: bulk.n_idle(store) == (0, 1))
                assert contents._dispatcher._connections.permits.room(store) == 0
                nursery.cancel_scope.cancel()


async def read_parts(reader: RemoteReader) -> None:
    for start in range(0, CONTENT.size_bytes, MIB):
        await reader.read(ByteRange(start, start + MIB))


@pytest.mark.slow
async def test_a_worker_that_cannot_read_the_ca_file_is_not_needed(
    tmp_path: Path, allow_log: Callable[[str], None]
) -> None:
    """The file was there when the mount read it: the loop moves what a worker cannot."""
    allow_log("socket.send.. raised exception.")  # what a reader leaves early is cut off
    with origin_of(**tls_of(tmp_path)) as origin:
        async with opened(origin, tmp_path / "cache", has_worker=False) as (contents, bulk):
            assert origin.ca_file is not None
            origin.ca_file.unlink()
            await bulk.prepare(Link(origin.link(SCENE)), 1)
            await eventually(lambda: any(each.is_ready for each in bulk._workers))
            await read_all(contents, until=16 * MIB)
            assert contents.statistics().get("retries", 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("n_characters", [50_000, 65_300, 65_536])
async def test_a_link_longer_than_a_packet_kills_no_worker(
    tmp_path: Path, n_characters: int
) -> None:
    """A move that does not fit into an order is made by the loop, and the workers live."""
    with origin_of() as origin:
        async with opened(origin, tmp_path) as (contents, bulk):
            link = Link(f"{origin.store_url}/x?y=".ljust(n_characters, "z"))
            version = await contents.version(SCENE, ZIP, "r")
            reader = await contents.open(SCENE, ZIP, version)
            (fetcher,) = contents._fetchers.by_place.values()
            range_request = fetcher._requests.add(ByteRange(0, 2 * MIB), None, is_bulk=True)
            pids = {each.process.pid for each in bulk._workers}
            with pytest.raises((UnusableResponse, Unreachable)):
                await bulk.move(link, range_request, version)
            assert bulk._workers._n_deaths == 0
            assert pids <= {each.process.pid for each in bulk._workers}
            fetcher._requests.remove(range_request)
            reader.close()


@pytest.mark.slow
async def test_a_killed_worker_costs_no_byte(tmp_path: Path) -> None:
    """SIGKILL in the middle of transfers, again and again: right bytes.

    Less often than makes the mount do without workers, should none move a byte in between.
    """
    with origin_of(bytes_per_s=20e6) as origin:
        async with opened(origin, tmp_path) as (contents, bulk):
            n_killed = 0

            def kill(start: int) -> None:
                nonlocal n_killed
                if start % (4 * MIB) == 2 * MIB and n_killed < worker_supervisor.MAX_DEATHS - 1:
                    for process in tuple(bulk._workers)[:1]:
                        process.process.send_signal(signal.SIGKILL)
                        n_killed += 1

            with trio.fail_after(60):
                await read_all(contents, kill)
            assert n_killed >= 2


@pytest.mark.slow
async def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    """A worker under SIGSTOP in mid transfer is killed; its ranges are moved otherwise.

    The store responds all the time: it never counts as offline.
    """
    with origin_of(bytes_per_s=20e6) as origin:
        async with opened(origin, tmp_path, progress_timeout_s=1.0, read_deadline_s=10.0) as (
            contents,
            bulk,
        ):
            stopped: list[int] = []

            def stop(start: int) -> None:
                if start == 2 * MIB:
                    for process in bulk._workers:
                        process.process.send_signal(signal.SIGSTOP)
                        stopped.append(process.process.pid)

            with trio.fail_after(60):
                await read_all(contents, stop)
            assert stopped
            await eventually(lambda: not any(is_running(pid) for pid in stopped))
            assert contents._dispatcher._attempts._reachability.offline_origins() == ()


@pytest.mark.slow
async def test_a_worker_that_has_nothing_to_report_lives(tmp_path: Path) -> None:
    """A store that is silent for longer than a worker may be costs no worker."""
    with origin_of() as origin:
        async with opened(origin, tmp_path, progress_timeout_s=3.0) as (contents, bulk):
            bulk._workers._silence_s = 1.0  # of a worker, which reports four times in three seconds
            pids = {each.process.pid for each in bulk._workers}
            origin.faults.add("stall", "object", at_byte=200_000, seconds=2.0)
            await read_all(contents, until=MIB)
            assert pids <= {each.process.pid for each in bulk._workers}


@pytest.mark.slow
async def test_workers_that_keep_dying_are_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Any
) -> None:
    """Where no worker can live, the loop does their work."""
    expect_log("worker processes keep dying: receiving in the loop from now on")
    spawn = worker_process._spawn

    def stillborn(theirs: Any) -> subprocess.Popen[bytes]:
        process = spawn(theirs)
        process.kill()
        return process

    monkeypatch.setattr(worker_process, "_spawn", stillborn)
    with origin_of() as origin:
        async with opened(origin, tmp_path, has_worker=False) as (contents, _):
            with trio.fail_after(60):
                for _ in range(worker_supervisor.MAX_DEATHS):
                    assert isinstance(contents._dispatcher._bulk, pool.WorkerPool)
                    await contents._dispatcher._bulk.prepare(Link(origin.link(SCENE)), 4)
                    await trio.sleep(0.2)
                await read_all(contents)


@pytest.mark.slow
async def test_nobody_waits_for_a_worker_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no worker is there yet, the loop moves what one would have."""
    spawn = worker_process._spawn

    def asleep(theirs: Any) -> subprocess.Popen[bytes]:
        process = spawn(theirs)
        process.send_signal(signal.SIGSTOP)
        return process

    monkeypatch.setattr(worker_process, "_spawn", asleep)
    with origin_of() as origin:
        async with opened(origin, tmp_path, has_worker=False) as (contents, bulk):
            with trio.fail_after(30):
                await read_all(contents)
            assert {each.is_ready for each in bulk._workers} == {False}
            assert origin.bytes_sent() <= CONTENT.size_bytes + MIB


#: A fraction of the object, so that on a slow machine bytes are left for the worker that comes.
GROW_AFTER_BYTES = 4 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("is_saturated", [True, False])
async def test_another_worker_comes_with_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_saturated: bool
) -> None:
    """One moves short transfers alone; a long one gets another, where a processor is the limit."""
    monkeypatch.setattr(worker_supervisor, "GROW_AFTER_BYTES", GROW_AFTER_BYTES)
    monkeypatch.setattr(worker_process, "LOOK_S", 0.0)
    monkeypatch.setattr(worker_process, "SATURATED_SHARE", 0.0 if is_saturated else 2.0)
    with origin_of(bytes_per_s=60e6) as origin:
        async with opened(origin, tmp_path) as (contents, bulk):
            seen: list[tuple[int, int]] = []  # bytes that were moved before, and workers

            def look(at: int) -> None:
                seen.append((bulk._workers._n_moved_bytes, len(bulk._workers)))

            look(0)  # on a busy machine all of that is moved before the first read returns
            await read_all(contents, look)
            assert {n for n_moved, n in seen if n_moved < GROW_AFTER_BYTES} == {1}
            if is_saturated:
                await eventually(lambda: bulk.statistics()["workers"] == 2)
            else:
                assert bulk.statistics()["workers"] == 1


async def test_the_first_bytes_come_over_the_connection_of_the_tail(tmp_path: Path) -> None:
    """The tail's body is read to its end; another connection would cost three more round trips."""
    with origin_of() as origin:
        async with opened(origin, tmp_path, has_worker=False) as (contents, _):
            version = await contents.version(SCENE, ZIP, "r")
            assert origin.journal.n_connections["store"] == 1
            reader = await contents.open(SCENE, ZIP, version)
            await reader.read(ByteRange(0, 4096))
            assert origin.journal.n_connections["store"] == 1
            reader.close()


@pytest.mark.slow
async def test_a_far_line_has_many_connections_at_once_in_one_worker(tmp_path: Path) -> None:
    """The first response shows how far it is; that needs no long range, and no other process."""
    with origin_of(latency_s=0.15, bytes_per_s=20e6) as origin:
        async with opened(origin, tmp_path, has_worker=False) as (contents, bulk):
            controller = contents._dispatcher.controller
            version = await contents.version(SCENE, ZIP, "r")
            reader = await contents.open(SCENE, ZIP, version)
            await reader.read(ByteRange(0, MIB // 2))
            assert controller.target >= 2 * INITIAL_CONNECTIONS
            await eventually(lambda: bulk.statistics()["workers"] == 1)
            reader.close()


@pytest.mark.slow
async def test_idle_workers_end_and_start_again(tmp_path: Path) -> None:
    with origin_of() as origin:
        async with opened(origin, tmp_path, worker_idle_s=2.0) as (contents, bulk):
            await read_all(contents, until=24 * MIB)
            pids = [each.process.pid for each in bulk._workers]
            assert pids
            await eventually(lambda: not bulk.statistics()["workers"])
            await eventually(lambda: not any(map(is_running, pids)))
            await read_all(contents)


@pytest.mark.slow
async def test_closed_files_are_forgotten(tmp_path: Path) -> None:
    """A worker holds no file that the mount has closed: its space would never come back."""
    with origin_of() as origin:
        async with opened(origin, tmp_path) as (contents, bulk):
            await read_all(contents, until=24 * MIB)
            assert any(each.files for each in bulk._workers)
            pids = [each.process.pid for each in bulk._workers]

            def held() -> bool:
                links = [link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()]
                return any("objects/" in os.readlink(link) for link in links)

            assert held()
            await contents._cache.commit()
            ((_, fetcher),) = contents._fetchers.by_place.items()
            contents._fetchers.by_place.clear()
            fetcher.cached.release()
            await trio.sleep(0.7)
            await contents._cache.commit()
            await eventually(lambda: not any(each.files for each in bulk._workers))
            await eventually(lambda: not held())


@pytest.mark.slow
async def test_nothing_of_a_worker_tells_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither settings nor links are in a worker's environment or on its command line."""
    monkeypatch.setenv("SATFS_TOKEN", "tell-nobody")
    with origin_of() as origin:
        async with opened(origin, tmp_path) as (contents, bulk):
            seen: list[bytes] = []

            def look(start: int) -> None:
                for each in bulk._workers:
                    proc = Path(f"/proc/{each.process.pid}")
                    seen.append((proc / "environ").read_bytes() + (proc / "cmdline").read_bytes())

            await read_all(contents, look, until=24 * MIB)
    assert seen
    for text in seen:
        assert b"SATFS_" not in text
        assert b"tell-nobody" not in text
        assert b"X-Amz" not in text
        assert b"http" not in text


_MOUNT = """
import os, sys, trio
from content.test_content_workers import opened, origin_of, read_all
import pathlib
async def main():
    with origin_of(bytes_per_s=5e6) as origin:
        async with opened(origin, pathlib.Path(sys.argv[1])) as (contents, bulk):
            def tell(start):
                if bulk._workers:
                    print('pids', *(each.process.pid for each in bulk._workers), flush=True)
            await read_all(contents, tell)
trio.run(main)
"""


@pytest.mark.slow
async def test_workers_end_with_their_mount(tmp_path: Path) -> None:
    """A mount that is killed leaves no worker behind."""
    paths = [str(Path(__file__).parents[each]) for each in (1, 2)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    mount = await trio.lowlevel.open_process(
        [sys.executable, "-c", _MOUNT, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert mount.stdout is not None
    line = b""
    with trio.fail_after(30):
        while b"pids" not in line or not line.endswith(b"\n"):
            line += await mount.stdout.receive_some()
    words = line.split(b"pids", 1)[1].split(b"\n")[0]
    pids = [int(pid) for pid in words.split()]
    mount.kill()
    await mount.wait()
    await eventually(lambda: not any(map(is_running, pids)))


@pytest.mark.slow
async def test_a_closed_handle_stops_its_workers(tmp_path: Path) -> None:
    """Ranges that only a closed handle needed are fetched no further; the workers stay."""
    with origin_of(bytes_per_s=1e6) as origin:
        async with opened(origin, tmp_path) as (contents, bulk):
            await read_all(contents, until=2 * MIB)
            await eventually(lambda: not bulk.statistics()["moves"])
            await trio.sleep(0.3)
            # Not what the origin sent: the kernel takes megabytes per connection unasked.
            received = contents.statistics()["received_bytes"]
            await trio.sleep(0.5)
            assert contents.statistics()["received_bytes"] == received < CONTENT.size_bytes // 2
            assert contents.statistics()["active"] == 0


@pytest.mark.slow
async def test_a_leap_into_a_range_is_cut_out_of_it(tmp_path: Path) -> None:
    """A range that a leap took over is not fetched by the worker that had the order."""
    with origin_of(bytes_per_s=2e6) as origin:
        async with opened(origin, tmp_path, range_bytes=32 * MIB) as (contents, _):
            version = await contents.version(SCENE, ZIP, "r")
            one = await contents.open(SCENE, ZIP, version)
            two = await contents.open(SCENE, ZIP, version)
            for start in range(0, 4 * MIB, MIB // 2):
                await one.read(ByteRange(start, start + MIB // 2))
            began_s = time.monotonic()
            for place in (11 * MIB + 5, 19 * MIB + 9):
                data = bytes(await two.read(ByteRange(place, place + 100)))
                assert data == bytes(CONTENT.read(place, place + 100))
            assert time.monotonic() - began_s < 2
            one.close()
            two.close()


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("cut", {"at_byte": 300_000}),
    ("reset", {"at_byte": 3_000_000}),
    ("stall", {"at_byte": 500_000, "seconds": 60.0}),
    ("short-body", {"bytes": 700_000}),
    ("server-error", {"status": 503}),
    ("throttled", {}),
    ("expired-link", {}),
    ("expired-token", {}),
    ("whole-for-range", {}),
    ("wrong-content-range", {}),
    ("no-content-range", {}),
    ("no-length", {}),
    ("html", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "how"), FAULTS, ids=[name for name, _ in FAULTS])
async def test_faults_under_workers(tmp_path: Path, fault: str, how: dict[str, Any]) -> None:
    """Faults of the store on bulk ranges are survived, or reported; never served."""
    with origin_of(bytes_per_s=100e6) as origin:
        async with opened(origin, tmp_path, progress_timeout_s=0.5) as (contents, bulk):
            await read_all(contents, until=8 * MIB)  # up to speed
            # A link refused twice in a row is an error by right: both could meet one range.
            times = 1 if fault.startswith("expired") else 2
            origin.faults.add(fault, "object", count=times, **how)
            with trio.fail_after(30):
                await read_all(contents, until=32 * MIB)
            assert bulk.statistics()["workers"]


@pytest.mark.slow
async def test_a_redirect_is_followed_for_bulk_too(tmp_path: Path) -> None:
    """A region that redirects is redirected to, by the loop where workers cannot."""
    with origin_of() as origin, origin_of() as other:
        other._keys[:] = origin._keys
        target = other.link(SCENE)
        async with opened(origin, tmp_path, max_connections=INITIAL_CONNECTIONS) as (contents, _):
            version = await contents.version(SCENE, ZIP, "r")
            origin.faults.add("redirect", "object", location=target, status=307)
            reader = await contents.open(SCENE, ZIP, version)
            with trio.fail_after(20):
                for start in range(0, 32 * MIB, MIB):
                    data = bytes(await reader.read(ByteRange(start, start + MIB)))
                    assert data == bytes(CONTENT.read(start, start + MIB))
            reader.close()
        n_redirected = sum("redirect" in each.faults for each in origin.journal.requests)
        n_served = sum(each.endpoint == "object" for each in other.journal.requests)
        # A worker requested the first ones, too.
        assert n_redirected <= n_served + INITIAL_CONNECTIONS


@pytest.mark.slow
async def test_a_replaced_object_is_never_mixed(tmp_path: Path) -> None:
    """Bulk in flight while the object is replaced: old bytes, then Changed."""
    with origin_of(bytes_per_s=20e6) as origin:
        async with opened(origin, tmp_path) as (contents, _):

            def replace(start: int) -> None:
                if start == 0:
                    origin.catalogue.replace(SCENE, RampContent(CONTENT.size_bytes, 77))

            with pytest.raises(Changed):
                await read_all(contents, replace)


async def test_a_worker_is_told_of_slow_addresses_once_and_before_its_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker has to learn again which addresses of a name respond."""
    sent: list[tuple[int, str, object]] = []
    monkeypatch.setattr(Http, "slow_addresses", lambda self: ("192.0.2.1", "2001:db8::1"))
    real = worker_process.WorkerProcess.send

    async def send(self: worker_process.WorkerProcess, packet: bytes, *more: Any) -> None:
        kind, fields = messages.read_order(packet)
        sent.append((self.process.pid, kind, fields.get("addresses")))
        await real(self, packet, *more)

    monkeypatch.setattr(worker_process.WorkerProcess, "send", send)
    with origin_of() as origin:
        async with opened(origin, tmp_path, workers=1) as (contents, _):
            await read_all(contents, until=24 * MIB)
    by_process: dict[int, list[tuple[str, object]]] = {}
    for pid, kind, addresses in sent:
        by_process.setdefault(pid, []).append((kind, addresses))
    for orders in by_process.values():
        kinds = [kind for kind, _ in orders]
        assert kinds.count("slow") == 1
        assert dict(orders)["slow"] == ["192.0.2.1", "2001:db8::1"]
        assert all(kinds.index("slow") < kinds.index(each) for each in ("warm", "move"))


async def test_connections_ahead_are_for_workers_that_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then they would only be missing elsewhere, where a host lets few through."""
    was_ready: list[bool] = []
    real = worker_process.WorkerProcess.send

    async def send(self: worker_process.WorkerProcess, packet: bytes, *more: Any) -> None:
        kind, _ = messages.read_order(packet)
        if kind == "warm":
            was_ready.append(self.is_ready)
        await real(self, packet, *more)

    monkeypatch.setattr(worker_process.WorkerProcess, "send", send)
    with origin_of() as origin:
        async with opened(origin, tmp_path, workers=1) as (contents, _):
            await read_all(contents, until=24 * MIB)
    assert was_ready
    assert all(was_ready)
