"""satfs on real Dask workers, each a process: short links, killed workers, many readers."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from embedded.conftest import StartOrigin
from embedded.test_embedded_fsspec import MIB, content_of, path_of, ramp_catalogue
from fakes.processes import wait_until
from hypothesis import given
from hypothesis import strategies as st

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

import satfs.dask  # noqa: E402 - distributed may be missing

pytestmark = [
    # Dask's own: it closes its event loop and its sockets when they are collected.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

StartCluster = Callable[..., Any]


@pytest.fixture
def start_cluster(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StartCluster]:
    """Return a function that starts a cluster of worker processes and returns its client."""
    # Dask warns of its own slowness where the machine is busy, and of workers that were killed.
    for name in ("distributed", "tornado", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    with ExitStack() as stack:
        # As in Dask's own tests, a worker is a fork of a process that has imported all of it.
        method = {"distributed.worker.multiprocessing-method": "forkserver"}
        stack.enter_context(dask.config.set(method))
        imported = ["distributed", "satfs.dask", "satfs.embedded.tree"]
        distributed.utils.get_mp_context().set_forkserver_preload(imported)

        def start(n_workers: int = 2, **options: Any) -> Any:
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=2,
                    processes=True,
                    dashboard_address=None,
                    local_directory=str(tmp_path / "dask"),
                    silence_logs=50,
                    env=dict(os.environ),
                    **options,
                )
            )
            return stack.enter_context(distributed.Client(cluster))

        yield start


def digest_of(path: str, start: int, stop: int) -> str:
    """Return the digest of a range, read on a worker."""
    return hashlib.sha256(
        satfs.dask.filesystem(mount="never").cat_file(path, start, stop)
    ).hexdigest()


def expected(data: bytes, start: int, stop: int) -> str:
    return hashlib.sha256(data[start:stop]).hexdigest()


@pytest.mark.slow
def test_workers_of_a_node_fetch_each_byte_once_and_report_it(
    start_origin: StartOrigin, start_cluster: StartCluster
) -> None:
    origin = start_origin(ramp_catalogue(2, 8 * MIB), store_latency_s=0.02)
    client = start_cluster(3)
    satfs.dask.prepare(client, mount="never")
    pieces = [(n, start) for start in range(0, 8 * MIB, MIB) for n in range(2)] * 3
    futures = [
        client.submit(digest_of, path_of(n), start, start + MIB, pure=False) for n, start in pieces
    ]
    contents = [content_of(origin, n) for n in range(2)]
    assert client.gather(futures) == [
        expected(contents[n], start, start + MIB) for n, start in pieces
    ]
    origin.journal.wait_until_idle()
    assert origin.bytes_sent() <= 1.02 * 16 * MIB
    (node,) = satfs.dask.report(client, mount="never")
    assert node.n_workers == 3
    assert node.fetched_bytes == pytest.approx(origin.bytes_sent(), rel=0.02)
    assert node.served_bytes >= 3 * 16 * MIB
    assert "fetched MB" in str(satfs.dask.report(client, mount="never"))

    def shown(title: str) -> float:
        """Return the sum of a column of the dashboard, as of the workers' last heartbeats."""
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        return float(sum(each["metrics"].get(title, 0.0) for each in workers))

    wait_until(lambda: abs(shown("satfs fetched MB") - node.fetched_bytes / 1e6) < 0.3)
    wait_until(lambda: shown("satfs served MB") >= node.served_bytes / 1e6 - 0.3)
    wait_until(lambda: shown("satfs requests") == node.requests)


@pytest.mark.slow
def test_links_of_five_seconds_fail_no_task(
    start_origin: StartOrigin, start_cluster: StartCluster
) -> None:
    """A graph holds paths: links are made on the worker, and again when they expire."""
    origin = start_origin(ramp_catalogue(1, 16 * MIB), link_lifetime_s=5)
    client = start_cluster(2)
    satfs.dask.prepare(client, mount="never")
    data = content_of(origin)

    def later(path: str, start: int, wait_s: float) -> str:
        time.sleep(wait_s)
        return digest_of(path, start, start + 1000)

    starts = [n * MIB for n in range(16)]
    futures = [client.submit(later, path_of(), start, 0.8) for start in starts]
    assert client.gather(futures) == [expected(data, start, start + 1000) for start in starts]
    origin.advance_clock(6)
    again = [start + 500_000 for start in starts]
    futures = [client.submit(digest_of, path_of(), start, start + 1000) for start in again]
    assert client.gather(futures) == [expected(data, start, start + 1000) for start in again]
    assert origin.counts("sign") >= 2


@pytest.mark.slow
def test_a_killed_worker_costs_no_task(
    start_origin: StartOrigin, start_cluster: StartCluster
) -> None:
    origin = start_origin(ramp_catalogue(1, 16 * MIB), bytes_per_s=4 * MIB)
    client = start_cluster(2)
    satfs.dask.prepare(client, mount="never")
    data = content_of(origin)
    pids = client.run(os.getpid)
    starts = [n * 2 * MIB for n in range(8)]
    futures = [
        client.submit(digest_of, path_of(), start, start + 2 * MIB, retries=3) for start in starts
    ]
    wait_until(origin.bytes_sent, 20)
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    assert client.gather(futures) == [expected(data, start, start + 2 * MIB) for start in starts]


@pytest.mark.slow
def test_many_readers_are_bounded(start_origin: StartOrigin, start_cluster: StartCluster) -> None:
    """Five hundred tasks that read at once open no more connections than the settings allow."""
    origin = start_origin(ramp_catalogue(1, 16 * MIB), store_latency_s=0.02)
    client = start_cluster(2)
    satfs.dask.prepare(client, mount="never")
    data = content_of(origin)
    starts = [(n * 33_333) % (16 * MIB - 1000) for n in range(500)]
    futures = [client.submit(digest_of, path_of(), start, start + 1000) for start in starts]
    assert client.gather(futures) == [expected(data, start, start + 1000) for start in starts]
    ranged = origin.journal.of("object")
    most = max(
        sum(one.started_s <= each.started_s < (one.ended_s or 0.0) for one in ranged)
        for each in ranged
    )
    assert most <= 2 * 64
    assert origin.bytes_sent() <= 1.02 * 16 * MIB


@pytest.mark.slow
def test_a_raster_tends_to_one_node(start_origin: StartOrigin, start_cluster: StartCluster) -> None:
    start_origin(ramp_catalogue())
    client = start_cluster(2)
    with satfs.dask.near(client, path_of()):
        assert client.submit(abs, -1).result() == 1


@given(st.sets(st.text(max_size=8), min_size=2, max_size=8), st.lists(st.text(), max_size=30))
def test_a_node_that_leaves_moves_only_its_own_rasters(nodes: set[str], rasters: list[str]) -> None:
    gone = sorted(nodes)[0]
    for raster in rasters:
        before = satfs.dask.node_for(raster, nodes)
        if before != gone:
            assert satfs.dask.node_for(raster, nodes - {gone}) == before
