"""Resources of satfs: none is left of cancelled reads, and memory keeps its limit."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
import trio
from reliability.conftest import MakeStand
from reliability.loading import (
    Peak,
    cancel_reads,
    files_to_cancel,
    large_catalogue,
    open_files,
    read_sequentially,
    read_slowly,
    settled_usage,
    walk,
)
from reliability.measuring import usage_of
from reliability.stand import MIB

from satfs.demo.catalogue import Catalogue, make_task
from satfs.demo.server import DemoOrigin
from satfs.net.http import Http
from satfs.net.idle_list import IDLE_EXPIRY_S

#: The ceiling of docs/RELIABILITY.md: all processes of a mount, mapped cache pages aside.
CEILING_BYTES = 200 * MIB


@pytest.mark.timeout(180)
def test_two_thousand_cancelled_reads_leave_nothing_behind(make_stand: MakeStand) -> None:
    """Readers killed in mid read: descriptors, sockets and threads are what they were before."""
    stand = make_stand(workers=2, read_deadline_s=1)
    scenes = files_to_cancel(stand)
    cancel_reads(stand, len(scenes), scenes)
    before = settled_usage(stand)
    cancel_reads(stand, 2000, scenes)
    after = settled_usage(stand)
    if after.n_sockets > before.n_sockets + 8:
        # Idle connections are kept a while for the next request, and closed by the one after that.
        time.sleep(IDLE_EXPIRY_S + 1)
        stand.settle()
        after = settled_usage(stand)
    assert after.n_descriptors <= before.n_descriptors + 10
    assert after.n_sockets <= before.n_sockets + 8
    assert after.n_threads <= before.n_threads + 4
    assert after.memory_bytes <= before.memory_bytes + 60 * MIB
    stand.settle()


async def test_two_thousand_cancelled_requests_leave_the_pool_as_it_was() -> None:
    """Given up at any moment, a request leaves no connection in use and no task behind.

    httpcore's own pool leaks here (encode/httpcore issue 1093), until it is full for ever.
    """
    dice = random.Random(3)
    with DemoOrigin(Catalogue([make_task(1)])) as origin:
        origin.faults.add("hang", "other", every=3)
        origin.faults.add("stall", "other", every=2, at_byte=5)
        async with Http(connect_timeout_s=5, progress_timeout_s=60, max_connections=8) as http:
            n_tasks = trio.lowlevel.current_statistics().tasks_living

            async def ask() -> None:
                with trio.move_on_after(dice.random() * 0.02), contextlib.suppress(Exception):
                    url = f"{origin.api_url}/nothing/here"
                    async with http.stream(url, headers={}) as response:
                        async for _ in response.chunks():
                            pass

            for _ in range(100):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(ask)
            statistics = http.statistics()
            assert statistics is not None
            assert statistics.n_in_use == 0
            assert statistics.n_idle <= 8
            assert trio.lowlevel.current_statistics().tasks_living == n_tasks
            origin.faults.clear()
            with trio.fail_after(5):  # and the pool still works
                assert (await http.request("GET", f"{origin.api_url}/x", headers={})).status


@pytest.mark.timeout(180)
def test_memory_stays_below_its_ceiling(make_stand: MakeStand) -> None:
    """A hundred open files, fifty readers at once, one slow reader: each below the ceiling."""
    # Fifty readers at once reach the stand's deadlines on a busy machine.
    stand = make_stand(workers=2, metadata_deadline_s=60, read_deadline_s=60)
    with Peak(stand) as peak:
        with open_files(stand, 100):
            read_sequentially(stand, 50, 4 * MIB)
        read_slowly(stand, 16 * MIB, bytes_per_s=16 * MIB)
    assert 20 * MIB < peak.memory_bytes < CEILING_BYTES


@pytest.mark.timeout(180)
def test_memory_of_a_long_walk_stays_below_its_ceiling(make_stand: MakeStand) -> None:
    """Looking at many thousand entries costs memory for those the kernel remembers, and no more."""
    origin = DemoOrigin(large_catalogue(1000))
    stand = make_stand(origin=origin, workers=0, page_limit=100, listing_ttl_s=60)
    with Peak(stand) as peak:
        assert walk(stand) > 1000 * 3
    assert peak.memory_bytes < CEILING_BYTES
    assert usage_of(stand.current.process.pid).n_descriptors < 100
