"""Listings under any order of requests, changes and faults: what is shown was listed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from fakes.vendor import CONTRACT, Vendor, settings_for_vendor, some_scene, some_tasks

from satfs.api.client import Aleph
from satfs.api.listing_store import ListingStore
from satfs.api.listings import Listings
from satfs.errors import NotThere, SatfsError
from satfs.model import CaptureId, SceneId
from satfs.net.http import Http

CAPTURES = ("a", "b", "c", "d")


class Site:
    """A vendor that changes and fails at random, and everything that it has ever listed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.vendor = Vendor(tasks=some_tasks(5))
        self.listed: dict[str, set[tuple[str, ...]]] = {capture: set() for capture in CAPTURES}
        for capture in CAPTURES:
            self.publish(capture)

    def publish(self, capture: str) -> None:
        """List other scenes of *capture* from now on."""
        n_scenes = self.random.randint(1, 25)
        ids = tuple(f"{capture}-{self.random.randint(0, 5)}-{n}" for n in range(n_scenes))
        self.vendor.scenes[capture] = [some_scene(id, capture) for id in ids]
        self.listed[capture].add(ids)

    def change(self, listings: Listings) -> None:
        """Do one of the things that happen."""
        vendor, capture = self.vendor, self.random.choice(CAPTURES)
        match self.random.randint(0, 10):
            case 0:
                self.publish(capture)
            case 1:
                vendor.is_gone = not vendor.is_gone
            case 2:
                vendor.is_silent = not vendor.is_silent
            case 3:
                status = self.random.choice([200, 401, 403, 500, 503])
                vendor.fail_next(status, times=self.random.randint(1, 30))
            case 4:
                vendor.is_gone = vendor.is_silent = False
                vendor.delay_s = 0
                vendor._planned.clear()
            case 5:
                listings.forget()
            case 6:
                listings.forget_scenes(CaptureId(capture))
            case 7:
                vendor.delay_s = self.random.choice([0, 0.4, 2])

    async def list(self, listings: Listings) -> None:
        """List a capture; the caller may give up, and errors are right."""
        capture = self.random.choice(CAPTURES)
        with trio.move_on_after(self.random.choice([0.5, 15, 15])):
            try:
                scenes = await listings.scenes(CaptureId(capture))
            except NotThere:
                pytest.fail("a capture that is there was reported as missing")
            except SatfsError:
                return
            assert tuple(scene.scene_id for scene in scenes) in self.listed[capture]

    async def look_up(self, listings: Listings) -> None:
        """Look a scene up that was there once."""
        ids = self.random.choice(sorted(self.listed[self.random.choice(CAPTURES)]))
        id = SceneId(self.random.choice(ids))
        with trio.move_on_after(self.random.choice([0.5, 15])), suppress(SatfsError):
            assert (await listings.scene(id)).scene_id == id


@pytest.fixture
def any_log(log_book: Any) -> Iterator[None]:
    """Expect any line of the log."""
    yield
    log_book.lines.clear()


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("seed", range(16))
async def test_what_is_shown_was_listed_by_the_vendor(
    seed: int, thread_clock: Any, tmp_path: Path
) -> None:
    """Never a part, a mixture or nothing: with little memory, most of it is read from disk."""
    site = Site(seed)
    settings = settings_for_vendor(contract_id=CONTRACT, listing_memory_bytes=9000)
    store = ListingStore(tmp_path / "account")
    async with Http(
        connect_timeout_s=5,
        progress_timeout_s=15,
        max_connections=16,
        transport=site.vendor.transport(),
    ) as http:
        aleph = Aleph(http, settings)
        listings = Listings(aleph, settings, store)
        aleph.on_refusal(listings.note_refusal)
        for _ in range(60):
            site.change(listings)
            await trio.sleep(site.random.choice([0, 0, 0, 0, 0.1, 3, 6, 61]))
            async with trio.open_nursery() as nursery:
                for _ in range(site.random.randint(1, 4)):
                    call = site.random.choice([site.list, site.list, site.look_up])
                    nursery.start_soon(call, listings)
        assert listings._terms.waiting == {}
        assert aleph._progress.n_bytes == 0
    await store.aclose()
