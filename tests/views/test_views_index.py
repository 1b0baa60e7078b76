"""The index of scenes: what it links to, what it costs, and what it does without the vendor."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import Unreachable
from satfs.model import PUBLISHED, Capture, CaptureId, Scene, SceneId, Task, TaskId
from satfs.views.indexer import (
    N_LATEST,
    IndexedScene,
    Links,
    SceneIndexer,
    links_of,
    read_saved,
    saved,
)

DAY_S = 86400.0

scenes = st.builds(
    IndexedScene,
    st.text("ab", min_size=1),
    st.text("cd", min_size=1),
    st.text("ef", min_size=1),
    st.sampled_from(["L1C", "L1D", "other"]),
    st.none() | st.floats(0, 4e9),
)


def leaves(links: Links | IndexedScene) -> list[IndexedScene]:
    if isinstance(links, IndexedScene):
        return [links]
    return [scene for inner in links.values() for scene in leaves(inner)]


@given(st.lists(scenes, max_size=80))
def test_each_scene_is_under_its_day_and_product(found: list[IndexedScene]) -> None:
    """A link under year, month and day in UTC, one under the product, and the newest numbered."""
    links = links_of(found)
    by_date, by_product, latest = (links[k] for k in ("by-date", "by-product", "latest"))
    timed = [scene for scene in found if scene.moment_s is not None]
    assert {s.scene for s in leaves(by_product)} == {s.scene for s in found}
    assert {s.scene for s in leaves(by_date)} == {s.scene for s in timed}
    for year, months in by_date.items():
        assert isinstance(months, Mapping)
        for month, days in months.items():
            assert isinstance(days, Mapping)
            for day, inside in days.items():
                for scene in leaves(inside):
                    at = datetime.fromtimestamp(scene.moment_s or 0.0, UTC)
                    assert at.strftime("%Y-%m-%d") == f"{year}-{month}-{day}"
    moments = [scene.moment_s or 0.0 for scene in leaves(latest)]
    assert moments == sorted((s.moment_s or 0.0 for s in timed), reverse=True)[:N_LATEST]


@given(
    st.dictionaries(st.text(), st.lists(scenes, max_size=3), max_size=3),
    st.none() | st.floats(0, 1e9),
)
def test_what_is_kept_is_read_back(
    tasks: dict[str, list[IndexedScene]], at_s: float | None
) -> None:
    """An index comes back from disk as it was; anything else is no index."""
    kept = read_saved(saved(tasks, at_s))
    assert kept is not None
    assert (kept.tasks, kept.completed_at_s) == (tasks, at_s)
    for data in (b"", b"{}", b'{"form":2,"completed_at_s":null,"tasks":{}}', b"[" * 10_000):
        assert read_saved(data) is None


class Vendor:
    """An account of *n* tasks with a capture and a scene each; counts what is requested."""

    def __init__(self, n: int) -> None:
        self.task_list = [Task(TaskId(str(k)), created_at=None) for k in range(n)]
        self.n_requests = 0
        self.n_in_flight = self.most_in_flight = 0
        self.is_away = False
        self.takes_s = 0.05

    async def _answer(self) -> None:
        self.n_requests += 1
        self.n_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.n_in_flight)
        try:
            await trio.sleep(self.takes_s)
        finally:
            self.n_in_flight -= 1
        if self.is_away:
            raise Unreachable("the vendor is away")

    async def tasks(self) -> Any:
        await self._answer()
        return self.task_list

    async def captures(self, task_id: TaskId) -> Any:
        await self._answer()
        return [Capture(CaptureId(f"c{task_id}"), PUBLISHED), Capture(CaptureId("x"), "planned")]

    async def scenes(self, capture_id: CaptureId) -> Any:
        await self._answer()
        number = int(capture_id[1:])
        at = datetime.fromtimestamp(number * DAY_S, UTC)
        return [Scene(SceneId(f"s{number}"), capture_id, "L1D", at)]


class Clock:
    """The wall clock, which goes with trio's."""

    def __call__(self) -> float:
        return 1.7e9 + trio.current_time()


async def test_it_sends_no_request_before_it_is_used(autojump_clock: trio.abc.Clock) -> None:
    vendor = Vendor(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(SceneIndexer(vendor, None, wall_clock=Clock()).run)  # type: ignore[arg-type]
        await trio.sleep(50_000)
        assert vendor.n_requests == 0
        nursery.cancel_scope.cancel()


async def test_one_listing_each_and_two_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    """1 + tasks + published captures; a program waits for a small account to be complete."""
    vendor = Vendor(20)
    indexer = SceneIndexer(vendor, None, wall_clock=Clock())  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(indexer.run)
        await trio.testing.wait_all_tasks_blocked()
        links = await indexer.links()
        assert len(leaves(links["by-product"])) == 20
        assert vendor.n_requests == 41
        assert vendor.most_in_flight == 2
        state = indexer.state()
        assert (state.n_tasks, state.n_indexed, state.n_scenes) == (20, 20, 20)
        await indexer.links()
        await trio.sleep(1)
        assert vendor.n_requests == 41
        await trio.sleep(700)
        await indexer.links()
        await trio.sleep(10)
        assert vendor.n_requests == 82
        nursery.cancel_scope.cancel()


async def test_the_next_mount_begins_with_what_was_kept(tmp_path: Path) -> None:
    """The index is on disk once it is complete, and needs no request then."""
    path = tmp_path / "account" / "scenes.json"
    counts = []
    for _ in range(2):
        vendor = Vendor(3)
        indexer = SceneIndexer(vendor, path)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(indexer.run)
            await trio.testing.wait_all_tasks_blocked()
            assert len(leaves((await indexer.links())["latest"])) == 3
            counts.append(vendor.n_requests)
            nursery.cancel_scope.cancel()
    assert counts == [7, 0]


async def test_an_index_from_the_future_is_made_again(tmp_path: Path) -> None:
    """A clock that was a year ahead is set back: the index is not kept for a year."""
    path = tmp_path / "scenes.json"
    for ahead_s in (366 * DAY_S, 0):
        vendor = Vendor(3)
        indexer = SceneIndexer(vendor, path, wall_clock=lambda ahead_s=ahead_s: 1.7e9 + ahead_s)  # type: ignore[arg-type, misc]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(indexer.run)
            await indexer.links()
            with trio.fail_after(30):
                while indexer.state().completed_at_s != 1.7e9 + ahead_s:  # noqa: ASYNC110 - a disk
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert vendor.n_requests == 7


async def test_a_large_account_shows_what_is_known(autojump_clock: trio.abc.Clock) -> None:
    """A program waits some seconds, then gets a part; the state has its size."""
    vendor = Vendor(1000)
    indexer = SceneIndexer(vendor, None, wall_clock=Clock())  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(indexer.run)
        await trio.testing.wait_all_tasks_blocked()
        began_s = trio.current_time()
        first = len(leaves((await indexer.links())["by-product"]))
        assert trio.current_time() - began_s < 4
        assert 0 < first < 1000
        assert indexer.state().is_running
        await trio.sleep(1000)
        assert len(leaves((await indexer.links())["by-product"])) == 1000
        nursery.cancel_scope.cancel()


async def test_what_is_known_stays_while_the_vendor_is_away(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A failure is reported, leaves the indexed scenes, and the index is made later."""
    vendor = Vendor(5)
    indexer = SceneIndexer(vendor, None, wall_clock=Clock())  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(indexer.run)
        await indexer.links()
        await trio.sleep(1000)
        vendor.is_away = True
        vendor.task_list.append(Task(TaskId("5")))
        await indexer.links()
        await trio.sleep(30)
        assert len(leaves((await indexer.links())["latest"])) == 5
        assert indexer.state().reason == "the vendor is away"
        vendor.is_away = False
        await trio.sleep(120)
        assert len(leaves((await indexer.links())["latest"])) == 6
        assert indexer.state().reason is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("data", [b"", b"garbage", b'{"form": 1}'])
async def test_a_broken_file_is_no_index(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "scenes.json"
    path.write_bytes(data)
    indexer = SceneIndexer(Vendor(1), path)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(indexer.run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(leaves((await indexer.links())["latest"])) == 1
        nursery.cancel_scope.cancel()
