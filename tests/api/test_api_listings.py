"""The entries of each directory, remembered: counted requests, staleness, restarts.

Longer than 600 lines, since all is about one class, which has memory, disk and staleness.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import httpx
import pytest
import trio
from fakes.vendor import CONTRACT, Vendor, settings_for_vendor, some_scene, some_tasks

from satfs.api import listings as listings_module
from satfs.api.client import Aleph
from satfs.api.listing_store import ListingStore
from satfs.api.listings import Listings
from satfs.errors import Garbled, NotAllowed, NotThere, Unreachable
from satfs.model import PUBLISHED, CaptureId, SceneId, TaskId
from satfs.net.http import Http
from satfs.node_locks import NodeLocks

Remember: TypeAlias = Callable[..., AbstractAsyncContextManager[Listings]]

TASK, CAPTURE = TaskId("341000"), CaptureId("c-1")


@pytest.fixture
def remember(vendor: Vendor) -> Remember:
    """Return a function that opens listings of a vendor with three tasks, captures and scenes."""
    vendor.tasks = some_tasks(3)
    vendor.captures = {
        TASK: [
            {"capture_id": "c-1", "status": "published"},
            {"capture_id": "c-2", "status": "planned"},
        ]
    }
    vendor.scenes = {CAPTURE: [some_scene("s-1", CAPTURE), some_scene("s-2", CAPTURE)]}

    @asynccontextmanager
    async def opened(store: ListingStore | None = None, **changes: Any) -> AsyncIterator[Listings]:
        settings = settings_for_vendor(**{"contract_id": CONTRACT, **changes})
        async with Http(
            connect_timeout_s=5,
            progress_timeout_s=15,
            max_connections=16,
            transport=vendor.transport(),
        ) as http:
            client = Aleph(http, settings)
            listings = Listings(client, settings, store)
            client.on_refusal(listings.note_refusal)
            yield listings

    return opened


async def walk(listings: Listings) -> None:
    """List everything there is."""
    for task in await listings.tasks():
        if task.task_id == TASK:
            for capture in await listings.captures(task.task_id):
                if capture.is_published:
                    await listings.scenes(capture.capture_id)


def stale_kinds(listings: Listings) -> set[str]:
    """Return what is served without being believed."""
    return {state.kind for state in listings.states() if state.is_stale}


# -- requests --------------------------------------------------------------------------------------


async def test_a_second_walk_within_the_ttl_costs_nothing(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """One request per page, then none until the listings may not be believed any more."""
    async with remember() as listings:
        await walk(listings)
        assert len(vendor.requests) == 4  # the token and three listings
        await trio.sleep(59)
        await walk(listings)
        assert len(vendor.requests) == 4
        await trio.sleep(2)
        await walk(listings)
        assert len(vendor.requests) == 7


async def test_many_who_list_at_once_cause_one_request(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """Refreshed once for all waiters."""
    vendor.delay_s = 1
    async with remember() as listings, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(listings.tasks)
            nursery.start_soon(listings.scenes, CAPTURE)
    assert vendor.n_requests("/tasking/tasks/") == 1
    assert vendor.n_requests("/telluric/scenes/") == 1


async def test_without_a_ttl_each_call_asks(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """`listing_ttl_s = 0` believes nothing."""
    async with remember(listing_ttl_s=0) as listings:
        for _ in range(3):
            await listings.tasks()
    assert vendor.n_requests("/tasking/tasks/") == 3


async def test_a_task_is_answered_from_the_list_while_that_is_believed(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """`stat` of a listed entry sends no request, nor does a name that is not in the list."""
    async with remember() as listings:
        listed = await listings.tasks()
        n_requests = len(vendor.requests)
        assert await listings.task(TASK) == listed[0]
        with pytest.raises(NotThere):
            await listings.task(TaskId("nobody"))
        assert len(vendor.requests) == n_requests


async def test_a_single_task_is_looked_up_by_itself(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """One path does not cost a whole listing; a second look-up within the ttl costs nothing."""
    async with remember() as listings:
        for _ in range(3):
            assert (await listings.task(TASK)).task_id == TASK
    assert vendor.paths() == ["/oauth/token", f"/tasking/tasks/{TASK}/"]


async def test_when_a_task_has_no_path_of_its_own_the_list_is_asked(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """A gateway that refuses the path proves nothing."""
    vendor.fail_next(403, path="/tasking/tasks/3", times=2)
    async with remember() as listings:
        assert (await listings.task(TASK)).task_id == TASK
        with pytest.raises(NotThere):
            await listings.task(TaskId("344444"))


async def test_absence_is_remembered_briefly(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """A name that is polled costs a request every few seconds, not each time."""
    async with remember() as listings:
        for _ in range(5):
            with pytest.raises(NotThere):
                await listings.task(TaskId("344444"))
            with pytest.raises(NotThere):
                await listings.captures(TaskId("344444"))
        n_requests = len(vendor.requests)
        assert n_requests == 3
        await trio.sleep(6)
        vendor.captures["344444"] = []
        assert await listings.captures(TaskId("344444")) == ()


async def test_a_scene_just_listed_is_not_looked_up(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """Known from its capture's listing; otherwise one request, remembered."""
    async with remember() as listings:
        listed = await listings.scenes(CAPTURE)
        n_requests = len(vendor.requests)
        assert await listings.scene(SceneId("s-2")) == listed[1]
        assert len(vendor.requests) == n_requests
    vendor.requests.clear()
    async with remember() as listings:
        for _ in range(3):
            assert (await listings.scene(SceneId("s-2"))).scene_id == "s-2"
    assert vendor.paths() == ["/oauth/token", "/telluric/scenes/s-2/"]


async def test_a_capture_is_known_from_a_listing_or_by_its_scenes(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """The vendor has no request for one capture."""
    async with remember() as listings:
        found = await listings.capture(CAPTURE)
        assert found.capture_id == CAPTURE
        assert found.status == PUBLISHED
        with pytest.raises(NotThere):
            await listings.capture(CaptureId("c-2"))
        listed = await listings.captures(TASK)
        assert await listings.capture(CAPTURE) == listed[0]
        assert (await listings.capture(CaptureId("c-2"))).status == "planned"


async def test_known_is_what_was_seen(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """`captures/` and `scenes/` list what listings and look-ups have shown, each once."""
    async with remember() as listings:
        assert listings.known_captures() == ()
        assert listings.known_scenes() == ()
        await listings.scene(SceneId("s-2"))
        assert [scene.scene_id for scene in listings.known_scenes()] == ["s-2"]
        await walk(listings)
        assert {scene.scene_id for scene in listings.known_scenes()} == {"s-1", "s-2"}
        assert [capture.capture_id for capture in listings.known_captures()] == ["c-1", "c-2"]


async def test_a_renewed_listing_that_is_equal_is_the_same_object(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """Objects that callers made of it stay good; a changed listing is another."""
    async with remember() as listings:
        before = await listings.tasks()
        await trio.sleep(61)
        assert await listings.tasks() is before
        vendor.tasks[0]["status"] = "failed"
        await trio.sleep(61)
        assert await listings.tasks() is not before


async def test_what_is_forgotten_is_asked_again(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """All of it, or one listing."""
    async with remember() as listings:
        await walk(listings)
        vendor.requests.clear()
        listings.forget_captures(TASK)
        await walk(listings)
        assert vendor.paths() == [f"/tasking/tasks/{TASK}/captures/"]
        listings.forget_tasks()
        listings.forget_scenes(CAPTURE)
        await walk(listings)
        assert len(vendor.requests) == 3
        listings.forget()
        await walk(listings)
        assert len(vendor.requests) == 6


def add_large_captures(vendor: Vendor) -> None:
    """Give the vendor twelve captures, each with 20 scenes of 25 kB."""
    random = Random(7)
    for number in range(12):
        capture = f"large-{number}"
        vendor.scenes[capture] = [
            {**some_scene(f"{capture}-{n}", capture), "text": random.randbytes(12_500).hex()}
            for n in range(20)
        ]


@pytest.mark.slow
async def test_memory_is_bounded_by_bytes(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """Few large records weigh as much as many small ones: those used least recently are dropped."""
    add_large_captures(vendor)
    async with remember(listing_memory_bytes=2 * 2**20, page_limit=1) as listings:
        for number in range(12):
            await listings.scenes(CaptureId(f"large-{number}"))
        assert 100 <= len(listings.known_scenes()) <= 160
        vendor.requests.clear()
        await listings.scenes(CaptureId("large-11"))
        assert vendor.requests == []
        await listings.scenes(CaptureId("large-0"))
        assert len(vendor.requests) == 20


async def test_listings_are_bounded_in_number(
    vendor: Vendor, remember: Remember, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those used least recently are forgotten; the list of tasks never is."""
    monkeypatch.setattr(listings_module, "MAX_REMEMBERED_LISTINGS", 10)
    vendor.tasks = some_tasks(500)
    for number in range(50):
        capture = f"many-{number}"
        vendor.scenes[capture] = [some_scene(f"{capture}-{n}", capture) for n in range(9)]
    async with remember() as listings:
        await listings.tasks()
        for number in range(50):
            await listings.scenes(CaptureId(f"many-{number}"))
        assert len(listings.known_scenes()) == 90
        vendor.requests.clear()
        await listings.scenes(CaptureId("many-49"))
        await listings.tasks()
        assert vendor.requests == []
        await listings.scenes(CaptureId("many-0"))
        assert len(vendor.requests) == 1


@pytest.mark.slow
async def test_a_long_listing_stays_known_whatever_is_listed_beside_it(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """However many records it has: one that is larger than the limit alone is kept alone."""
    vendor.scenes["huge"] = [some_scene(f"huge-{n}", "huge") for n in range(25_000)]
    async with remember() as listings:
        huge = await listings.scenes(CaptureId("huge"))
        assert len(huge) == 25_000
        await walk(listings)
        vendor.requests.clear()
        assert await listings.scenes(CaptureId("huge")) is huge
        assert vendor.requests == []
        found = await listings.scene(SceneId("huge-17"))
        assert found.scene_id == "huge-17"
        assert vendor.requests == []


@pytest.mark.slow
async def test_what_leaves_the_memory_is_read_from_disk(
    vendor: Vendor, remember: Remember, store: ListingStore, thread_clock: Any
) -> None:
    """It is believed as long as if it had stayed, and then requested again."""
    add_large_captures(vendor)
    async with remember(store, listing_memory_bytes=2 * 2**20, page_limit=1) as listings:
        for number in range(12):
            await listings.scenes(CaptureId(f"large-{number}"))
        assert 100 <= len(listings.known_scenes()) <= 160
        vendor.requests.clear()
        found = await listings.scenes(CaptureId("large-0"))
        assert [scene.scene_id for scene in found] == [f"large-0-{n}" for n in range(20)]
        assert vendor.requests == []
        listings.forget_scenes(CaptureId("large-1"))
        await listings.scenes(CaptureId("large-1"))
        assert len(vendor.requests) == 20, "what is to be requested again is not read from disk"
        await trio.sleep(61)
        await listings.scenes(CaptureId("large-2"))
        assert len(vendor.requests) == 40


async def test_a_long_listing_of_a_moment_ago_is_believed_after_a_remount(
    vendor: Vendor, remember: Remember, tmp_path: Path, thread_clock: Any
) -> None:
    """It would take many requests; when its time is over, it is requested again."""
    vendor.scenes["long"] = [some_scene(f"long-{n}", "long") for n in range(250)]
    for n_requests in (1 + 3, 0):  # the token, and three pages
        kept = ListingStore(tmp_path / "account")
        async with remember(kept) as listings:
            await listings.recall()
            vendor.requests.clear()
            assert len(await listings.scenes(CaptureId("long"))) == 250
            assert len(vendor.requests) == n_requests
        await kept.aclose()
    kept = ListingStore(tmp_path / "account")
    async with remember(kept) as listings:
        await listings.recall()
        vendor.requests.clear()
        listings.forget()
        assert len(await listings.scenes(CaptureId("long"))) == 250
        assert len(vendor.requests) == 1 + 3, "what is to be requested again is requested again"
        await trio.sleep(61)
        await listings.scenes(CaptureId("long"))
        assert len(vendor.requests) == 1 + 6
    await kept.aclose()


async def test_a_listing_that_is_known_does_not_wait_for_the_deadline(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """A long listing whose renewal takes too long is served as it was, within the call's time."""
    expect_log("listing is served stale")
    vendor.scenes["long"] = [some_scene(f"long-{n}", "long") for n in range(30)]
    async with remember(page_limit=1, api_concurrency=1, metadata_deadline_s=15) as listings:
        before = await listings.scenes(CaptureId("long"))
        await trio.sleep(61)
        vendor.delay_s = 0.6
        began = trio.current_time()
        assert await listings.scenes(CaptureId("long")) is before
        assert trio.current_time() - began <= 0.8 * 15
        assert "scenes" in stale_kinds(listings)
        vendor.delay_s = 0.6
        await trio.sleep(6)
        await listings.scenes(CaptureId("long"))
        assert not stale_kinds(listings), "the second try goes on where the first one ended"


# -- offline ---------------------------------------------------------------------------------------


async def test_what_was_listed_stays_listed_without_network(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """Stale listings are served and marked; after the first deadline nothing waits."""
    expect_log("host counts as offline")
    expect_log("listing is served stale")
    async with remember() as listings:
        await walk(listings)
        assert not stale_kinds(listings)
        await trio.sleep(61)
        vendor.is_gone = True
        await walk(listings)
        assert stale_kinds(listings) == {"tasks", "captures", "scenes"}
        began = trio.current_time()
        await walk(listings)
        assert (await listings.scene(SceneId("s-1"))).scene_id == "s-1"
        assert (await listings.task(TASK)).task_id == TASK
        assert (await listings.capture(CAPTURE)).capture_id == CAPTURE
        with pytest.raises(Unreachable):
            await listings.captures(TaskId("341001"))
        assert trio.current_time() == began

        vendor.is_gone = False
        await trio.sleep(6)
        await walk(listings)
        assert not stale_kinds(listings)


async def test_known_listings_do_not_wait_for_a_vendor_that_is_unwell(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """A vendor that sends 503 for minutes costs one deadline, then a moment per directory."""
    expect_log("listing is served stale")
    async with remember() as listings:
        await walk(listings)
        await trio.sleep(61)
        vendor.fail_next(503, times=10_000)
        began = trio.current_time()
        await listings.tasks()
        assert trio.current_time() - began > 9
        began = trio.current_time()
        await walk(listings)
        assert trio.current_time() - began < 5
        vendor._planned.clear()
        await trio.sleep(6)
        await walk(listings)
        assert not stale_kinds(listings)


async def test_a_listing_from_memory_is_no_sign_that_the_vendor_is_well(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """Between two directories that cannot be renewed, one that need not be changes nothing."""
    expect_log("listing is served stale")
    async with remember() as listings:
        await walk(listings)
        await trio.sleep(61)
        await listings.captures(TASK)
        vendor.fail_next(503, times=10_000)
        await listings.tasks()
        began = trio.current_time()
        await listings.captures(TASK)
        await listings.scenes(CAPTURE)
        assert trio.current_time() - began < 3


def two_captures(vendor: Vendor) -> None:
    """Give the vendor captures `a` and `b`, of which one fits into 8 kB and two do not."""
    for capture in ("a", "b"):
        vendor.scenes[capture] = [some_scene(f"{capture}-{n}", capture) for n in range(20)]


async def test_a_stale_listing_that_left_the_memory_is_not_shown_as_empty(
    vendor: Vendor, remember: Remember, store: ListingStore, thread_clock: Any, expect_log: Any
) -> None:
    """It is read from disk again, and no other request is sent in the next five seconds."""
    expect_log("host counts as offline")
    expect_log("listing is served stale")
    two_captures(vendor)
    async with remember(store, listing_memory_bytes=8000) as listings:
        for capture in ("b", "a"):
            await listings.scenes(CaptureId(capture))
        await trio.sleep(61)
        vendor.is_gone = True
        assert len(await listings.scenes(CaptureId("a"))) == 20
        assert len(await listings.scenes(CaptureId("b"))) == 20
        assert listings.last_scenes(CaptureId("a")) is None, "it has not left the memory"
        n_requests = len(vendor.requests)
        assert len(await listings.scenes(CaptureId("a"))) == 20
        assert len(vendor.requests) == n_requests


async def test_a_stale_listing_that_leaves_the_memory_at_a_checkpoint_is_not_shown_as_empty(
    vendor: Vendor,
    remember: Remember,
    store: ListingStore,
    thread_clock: Any,
    expect_log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another task takes its memory just when it is served."""
    expect_log("host counts as offline")
    expect_log("listing is served stale")
    two_captures(vendor)
    async with remember(store) as listings:
        await listings.scenes(CaptureId("a"))
        await trio.sleep(61)
        vendor.is_gone = True
        assert len(await listings.scenes(CaptureId("a"))) == 20

        async def checkpoint() -> None:
            assert listings._scenes(CaptureId("a")).spill()

        monkeypatch.setattr(trio.lowlevel, "checkpoint", checkpoint)
        assert len(await listings.scenes(CaptureId("a"))) == 20


async def test_an_absence_that_is_forgotten_at_a_checkpoint_is_still_an_absence(
    vendor: Vendor, remember: Remember, thread_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task has everything requested again just when it is reported."""
    async with remember() as listings:
        with pytest.raises(NotThere):
            await listings.scene(SceneId("nothing"))

        async def checkpoint() -> None:
            listings.forget()

        monkeypatch.setattr(trio.lowlevel, "checkpoint", checkpoint)
        with pytest.raises(NotThere):
            await listings.scene(SceneId("nothing"))


async def test_a_listing_that_leaves_the_memory_while_it_is_renewed_is_not_shown_as_empty(
    vendor: Vendor, remember: Remember, store: ListingStore, thread_clock: Any, expect_log: Any
) -> None:
    """Its renewal takes too long, and meanwhile another listing takes its memory."""
    expect_log("listing is served stale")
    two_captures(vendor)
    async with remember(store, listing_memory_bytes=8000) as listings:
        for capture in ("b", "a"):
            await listings.scenes(CaptureId(capture))
        await trio.sleep(61)
        vendor.fail_next(503, times=10_000)
        with pytest.raises(Unreachable):
            await listings.tasks()
        vendor.is_silent = True
        shown: list[int] = []

        async def show(capture: str) -> None:
            shown.append(len(await listings.scenes(CaptureId(capture))))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(show, "a")
            await trio.sleep(1)
            await listings._scenes(CaptureId("b")).recall()
        assert shown == [20]


@pytest.mark.parametrize("status", [401, 403])
async def test_what_was_listed_stays_listed_while_the_vendor_refuses(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any, status: int
) -> None:
    """A listing stays while the vendor refuses, marked as stale."""
    expect_log("listing is served stale")
    async with remember() as listings:
        known = await listings.tasks()
        await trio.sleep(61)
        vendor.fail_next(status, path="/tasking", times=100)
        with trio.fail_after(2.0):
            assert await listings.tasks() == known
        assert stale_kinds(listings) == {"tasks"}


async def test_the_page_that_a_mount_begins_with_is_shown_when_nothing_else_comes(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """It is stale: with a vendor that responds, the list is requested as ever."""
    expect_log("listing is served stale")
    expect_log("host counts as offline")
    async with remember() as listings:
        first = await listings.tasks()
    async with remember() as listings:
        listings.take_tasks(first)
        n_before = len(vendor.requests)
        assert await listings.tasks() == first
        assert len(vendor.requests) > n_before
    async with remember() as listings:
        listings.take_tasks(first)
        vendor.fail_next(httpx.ConnectError("no network"), times=1000)
        assert await listings.tasks() == first
        assert stale_kinds(listings) == {"tasks"}


@pytest.mark.slow
async def test_a_walk_through_what_is_known_does_not_wait_for_a_refused_credential(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """One listing tries again, for two seconds; all others are served at once."""
    for _ in range(3):
        expect_log("listing is served stale")
    async with remember() as listings:
        await walk(listings)
        scene = await listings.scene(SceneId("s-1"))
        await trio.sleep(61)
        for path in ("/tasking", "/telluric"):
            vendor.fail_next(401, path=path, times=1000)
        with trio.fail_after(2.0):
            await walk(listings)
            assert await listings.scene(SceneId("s-1")) == scene
            assert (await listings.task(TASK)).task_id == TASK


async def test_what_is_known_on_disk_does_not_wait_for_a_refused_credential(
    vendor: Vendor,
    remember: Remember,
    thread_clock: Any,
    expect_log: Any,
    store: ListingStore,
) -> None:
    """A listing of an earlier mount is served as soon as one of this mount."""
    expect_log("listing is served stale")
    async with remember(store) as listings:
        known = await listings.tasks()
    async with remember(store) as listings:
        await listings.scenes(CAPTURE)
        vendor.fail_next(401, path="/tasking", times=1000)
        with trio.fail_after(2.5):
            assert [task.task_id for task in await listings.tasks()] == [
                task.task_id for task in known
            ]


async def test_what_was_never_listed_waits_for_a_credential_that_is_refused_for_a_while(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """It is tried until the deadline: nothing else can be shown."""
    async with remember() as listings:
        await listings.tasks()
        vendor.fail_next(401, path="/tasking", times=4)
        assert await listings.captures(TASK)


async def test_what_was_never_listed_is_refused(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """Nothing is known that could be shown: the vendor's word is passed on."""
    async with remember() as listings:
        await listings.task(TASK)
        vendor.fail_next(403, path="/tasking", times=2)
        with pytest.raises(NotAllowed):
            await listings.tasks()


@pytest.mark.slow
async def test_nonsense_takes_no_listing_away(
    vendor: Vendor, remember: Remember, autojump_clock: Any, expect_log: Any
) -> None:
    """A listing stays while the vendor's responses make no sense, marked as stale."""
    expect_log("listing is served stale")
    async with remember() as listings:
        await walk(listings)
        known = await listings.tasks()
        await trio.sleep(61)
        vendor.fail_next(400, times=10_000)
        began = trio.current_time()
        assert await listings.tasks() is known
        await walk(listings)
        assert trio.current_time() - began < 5
        assert stale_kinds(listings) == {"tasks", "captures", "scenes"}
        assert (await listings.scene(SceneId("s-1"))).scene_id == "s-1"
        with pytest.raises(Garbled):
            await listings.captures(TaskId("341001"))
        vendor._planned.clear()
        await trio.sleep(6)
        await walk(listings)
        assert not stale_kinds(listings)


async def test_an_empty_listing_is_an_answer(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """Well-formed and empty: then nothing is there any more."""
    async with remember() as listings:
        assert await listings.captures(TASK)
        vendor.captures[TASK] = []
        await trio.sleep(61)
        assert await listings.captures(TASK) == ()
        assert not stale_kinds(listings)


async def test_what_is_gone_is_forgotten(
    vendor: Vendor, remember: Remember, autojump_clock: Any
) -> None:
    """A task that is withdrawn takes its captures along."""
    async with remember() as listings:
        await listings.captures(TASK)
        del vendor.captures[TASK]
        await trio.sleep(61)
        with pytest.raises(NotThere):
            await listings.captures(TASK)
        assert listings.known_captures() == ()


# -- over a restart --------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ListingStore]:
    """Return a store in a new directory."""
    kept = ListingStore(tmp_path / "account")
    yield kept
    await kept.aclose()


async def test_a_mount_without_network_comes_up_with_what_was_known(
    vendor: Vendor, remember: Remember, tmp_path: Path, thread_clock: Any, expect_log: Any
) -> None:
    """Listings and look-ups; without a setting, upon the first failure."""
    expect_log("host counts as offline")
    expect_log("listing is served stale")
    before = ListingStore(tmp_path / "account")
    async with remember(before) as listings:
        await walk(listings)
        await listings.scene(SceneId("s-1"))
        await listings.task(TASK)
        known = await listings.scenes(CAPTURE)
    await before.aclose()

    vendor.is_gone = True
    after = ListingStore(tmp_path / "account")
    async with remember(after) as listings:
        await walk(listings)
        assert await listings.scenes(CAPTURE) == known
        assert (await listings.task(TASK)).created_at is not None
        with pytest.raises(Unreachable):
            await listings.captures(TaskId("341001"))
        assert stale_kinds(listings)
    await after.aclose()


async def test_recalled_listings_are_known_at_once_and_asked_again(
    vendor: Vendor, remember: Remember, tmp_path: Path, thread_clock: Any
) -> None:
    """Recalled listings are shown as known, and not believed while the vendor can be reached."""
    before = ListingStore(tmp_path / "account")
    async with remember(before) as listings:
        await walk(listings)
    await before.aclose()
    vendor.requests.clear()
    after = ListingStore(tmp_path / "account")
    async with remember(after) as listings:
        assert await listings.recall() == 3
        assert len(listings.known_scenes()) == 2
        assert len(listings.known_captures()) == 2
        assert vendor.requests == []
        await walk(listings)
        assert len(vendor.requests) == 4
    await after.aclose()


async def test_what_another_process_requested_before_a_refresh_is_not_taken(
    vendor: Vendor, remember: Remember, tmp_path: Path, thread_clock: Any
) -> None:
    """Its response comes afterwards, and may lack what was published before the refresh."""
    stores = [ListingStore(tmp_path / "account") for _ in range(2)]
    all_locks = [NodeLocks(), NodeLocks()]
    async with remember(stores[0]) as one, remember(stores[1]) as other:
        for listings, locks in zip((one, other), all_locks, strict=True):
            locks.open(tmp_path)
            listings._terms.locks = locks
        await other.tasks()
        one.forget()
        vendor.requests.clear()
        vendor.delay_s = 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.tasks)
            await trio.sleep(3)  # the token has come, and the request is under way
            other.forget()
            await other.tasks()
        assert vendor.n_requests("/tasking/tasks/") == 2
    for store, locks in zip(stores, all_locks, strict=True):
        await store.aclose()
        locks.close()


async def test_what_stays_the_same_is_not_written_again(
    vendor: Vendor, remember: Remember, tmp_path: Path, thread_clock: Any
) -> None:
    """A mount that is looked at all day writes its listings when they change."""

    class Counting(ListingStore):
        n_saved = 0

        async def save(self, *listing: Any) -> None:
            self.n_saved += 1
            await super().save(*listing)

    store = Counting(tmp_path / "account")
    async with remember(store) as listings:
        for _ in range(5):
            await walk(listings)
            await trio.sleep(61)
        assert store.n_saved == 3
        vendor.tasks[0]["status"] = "failed"
        await walk(listings)
        assert store.n_saved == 4
    await store.aclose()


async def test_what_is_gone_is_not_recalled(
    vendor: Vendor, remember: Remember, store: ListingStore, thread_clock: Any
) -> None:
    """A withdrawn task does not come back with the next mount."""
    async with remember(store) as listings:
        await listings.captures(TASK)
        del vendor.captures[TASK]
        await trio.sleep(61)
        with pytest.raises(NotThere):
            await listings.captures(TASK)
        assert await store.load("captures", TASK) is None


async def test_nothing_kept_holds_a_link(
    vendor: Vendor, remember: Remember, tmp_path: Path, thread_clock: Any
) -> None:
    """Neither signatures nor the token nor the client's secret reach the disk."""
    kept = ListingStore(tmp_path / "account")
    async with remember(kept) as listings:
        await walk(listings)
        text = ""
        for stored in await kept.load_all(100):
            text += repr(stored)
    await kept.aclose()
    raw = b"".join(path.read_bytes() for path in (tmp_path / "account").iterdir())
    assert "s-1" in text
    for secret in ("Signature", "X-Amz", "token-number", "the-secret-of"):
        assert secret not in text
        assert secret.encode() not in raw
