"""Processes of a node share links in memory, and waits that hosts require, besides bytes."""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from embedded.conftest import OpenFs, StartOrigin
from embedded.test_embedded_fsspec import MIB, content_of, path_of, ramp_catalogue
from embedded.test_embedded_one_cache import StartReader, digest, digests, go, locks_on
from embedded.test_embedded_one_cache import start_reader as start_reader  # a fixture

from satfs import node_board
from satfs.api import record_parsers
from satfs.api.listing_store import ListingStore
from satfs.api.listings import Listings
from satfs.api.record_list import RecordList, packed_page
from satfs.errors import Throttled
from satfs.model import AttachmentName, Link, SceneId, Task
from satfs.net.reachability import Reachability
from satfs.net.retry_loop import Retries
from satfs.node_board import NodeBoard
from satfs.node_sharing import MAX_PAUSE_S, MAX_TURN_S, NodeLinks, NodePauses, NodeSlots
from satfs.settings import load_settings

SCENE, ZIP = SceneId("scene"), AttachmentName("delivery_zip")


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NodeBoard]]:
    """Return the boards of two processes of one node."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    made = [NodeBoard(tmp_path) for _ in range(2)]
    yield made
    for board in made:
        board.clear()


def place_of(board: NodeBoard) -> Path:
    board.write("key", {})
    place = board._directory
    if place is None:
        pytest.skip("this machine has no tmpfs for notes")
    return place


def test_notes_are_in_memory_and_for_their_owner_alone(boards: list[NodeBoard]) -> None:
    """Links of one process reach others through memory alone, in files of mode 0600."""
    one, other = boards
    place = place_of(one)
    one.write("key", {"url": "https://store.test/?secret"})
    assert other.read("key") == {"url": "https://store.test/?secret"}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for path in place.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "key" not in path.name
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    kinds = {
        line.split(" ")[4]: line.split(" - ")[1].split(" ")[0] for line in mounts if " - " in line
    }
    nearest = next(str(each) for each in (place, *place.parents) if str(each) in kinds)
    assert kinds[nearest] == "tmpfs"
    one.clear()
    assert not place.exists()
    assert other.read("key") is None


def test_notes_take_bounded_memory_however_many_are_written(
    boards: list[NodeBoard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest are read, and no kind of note takes the place of another kind."""
    monkeypatch.setattr(node_board, "MAX_NOTES", 64)
    one, other = boards
    place = place_of(one)
    one.write("pause https://api.test", {"until_s": 5})
    for number in range(1000):
        one.write(f"link {number}", {"number": number})
    assert len(list(place.iterdir())) <= 2 + 64
    assert other.read("link 999") == {"number": 999}
    assert other.read("pause https://api.test") == {"until_s": 5}
    found = [other.read(f"link {number}") for number in range(1000)]
    assert all(note in (None, {"number": number}) for number, note in enumerate(found))


def test_a_board_that_another_process_removed_is_made_again(boards: list[NodeBoard]) -> None:
    """A process that ends may not have noticed one that has just begun."""
    one, other = boards
    place_of(other)
    one.read("link")
    one.clear()
    other.write("link", {"n": 1})
    other.write("link", {"n": 2})
    assert one.read("link") == {"n": 2}


def test_a_note_of_somebody_else_is_not_read(boards: list[NodeBoard], tmp_path: Path) -> None:
    one, other = boards
    place = place_of(one)
    link = place.parent / "elsewhere"
    one.clear()
    (tmp_path / "trap").mkdir()
    place.symlink_to(tmp_path / "trap")
    try:
        other.write("key", {"a": 1})
        assert list((tmp_path / "trap").iterdir()) == []
    finally:
        place.unlink()
        link.unlink(missing_ok=True)


async def test_a_node_signs_once_and_a_link_is_taken_once(
    boards: list[NodeBoard], tmp_path: Path
) -> None:
    n_signed = 0

    async def sign(scene: SceneId, attachment: AttachmentName) -> Link:
        nonlocal n_signed
        n_signed += 1
        await trio.sleep(0.05)
        return Link(f"https://store.test/{n_signed}", time.time() + 100)

    place_of(boards[0])
    locks = [locks_on(tmp_path) for _ in range(2)]
    try:
        one, other = (
            NodeLinks(sign, lock, board, "account")
            for lock, board in zip(locks, boards, strict=True)
        )
        found: list[str] = []

        async def get(links: NodeLinks) -> None:
            found.append((await links.sign(SCENE, ZIP)).url)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, one)
            nursery.start_soon(get, other)
        assert found == ["https://store.test/1"] * 2
        # Refused or expired: the process that used it does not get it again, the other gets the new
        # one.
        assert (await one.sign(SCENE, ZIP)).url == "https://store.test/2"
        assert (await other.sign(SCENE, ZIP)).url == "https://store.test/2"
        assert n_signed == 2
    finally:
        for lock in locks:
            lock.close()


@pytest.mark.parametrize("expires_in_s", [None, 1.0, -5.0, math.inf])
async def test_a_link_near_its_end_or_of_unknown_life_is_not_taken(
    boards: list[NodeBoard], tmp_path: Path, expires_in_s: float | None
) -> None:
    n_signed = 0

    async def sign(scene: SceneId, attachment: AttachmentName) -> Link:
        nonlocal n_signed
        n_signed += 1
        until_s = None if expires_in_s is None else time.time() + expires_in_s
        return Link(f"https://store.test/{n_signed}", until_s)

    place_of(boards[0])
    locks = [locks_on(tmp_path) for _ in range(2)]
    try:
        for lock, board in zip(locks, boards, strict=True):
            await NodeLinks(sign, lock, board, "account").sign(SCENE, ZIP)
        assert n_signed == (1 if expires_in_s == math.inf else 2)
    finally:
        for lock in locks:
            lock.close()


async def test_a_wait_that_one_process_is_asked_for_is_kept_by_all(
    boards: list[NodeBoard], tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A `Retry-After` that one process receives is obeyed by every process of the node."""
    place_of(boards[0])
    locks = [locks_on(tmp_path) for _ in range(2)]
    began_s = trio.current_time()

    def wall_clock() -> float:
        return 1_800_000_000 + trio.current_time() - began_s

    try:
        one, other = (
            NodePauses(lock, board, wall_clock) for lock, board in zip(locks, boards, strict=True)
        )
        one.note("https://api.test", 7.0)
        assert other.left_s("https://api.test") == pytest.approx(7.0)
        assert other.left_s("https://store.test") == 0.0
        answered_s: list[float] = []

        async def attempt() -> None:
            answered_s.append(trio.current_time() - began_s)

        retries = Retries(Reachability(), draw=lambda: 0.5, pauses=other)
        await retries.run(
            attempt, origin="https://api.test", deadline_at=began_s + 60, what="list tasks"
        )
        assert answered_s[0] >= 7.0
        one.note("https://api.test", 1e9)
        assert other.left_s("https://api.test") <= MAX_PAUSE_S
        with pytest.raises(Throttled, match="requires a wait"):
            await retries.run(
                attempt,
                origin="https://api.test",
                deadline_at=trio.current_time() + 20,
                what="list tasks",
            )
        assert len(answered_s) == 1
    finally:
        for lock in locks:
            lock.close()


async def test_a_node_sends_no_more_requests_at_once_than_a_process(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The processes of a node send the API no more requests at once than `api_concurrency`.

    Slots are for one account; a process alone takes none. Where none becomes free, others go on.
    """
    locks = [locks_on(tmp_path) for _ in range(3)]
    await trio.sleep(1)  # they know of each other
    n_now = most = n_done = 0

    async def request(slots: NodeSlots) -> None:
        nonlocal n_now, most, n_done
        async with slots.held():
            n_now += 1
            most = max(most, n_now)
            await trio.sleep(0.1)
            n_now -= 1
            n_done += 1

    try:
        ours = [NodeSlots(each, "account", 4) for each in locks]
        async with trio.open_nursery() as nursery:
            for slots in ours:
                for _ in range(10):
                    nursery.start_soon(request, slots)
        assert (most, n_done) == (4, 30)

        most = 0
        async with ours[0].held(), ours[0].held(), ours[1].held(), ours[1].held():
            began_s = trio.current_time()
            await request(ours[2])
            assert trio.current_time() - began_s == pytest.approx(MAX_TURN_S + 0.1, abs=0.03)
            began_s = trio.current_time()
            await request(NodeSlots(locks[2], "another account", 4))
            assert trio.current_time() - began_s == pytest.approx(0.1)
    finally:
        for lock in locks[1:]:
            lock.close()
    await trio.sleep(1)
    alone = NodeSlots(locks[0], "account", 1)
    with trio.testing.assert_no_checkpoints():
        async with alone.held(), alone.held():
            pass
    locks[0].close()


@pytest.mark.slow
def test_four_processes_sign_each_object_and_look_up_each_scene_once(
    start_origin: StartOrigin, start_reader: StartReader
) -> None:
    """Processes of a node request a record or a listing once, and sign each object once."""
    origin = start_origin(ramp_catalogue(2, 4 * MIB), latency_s=0.1)
    paths = [path_of(n) for n in range(2)]
    readers = [start_reader(paths) for _ in range(4)]
    go(*readers)
    for reader in readers:
        assert digests(reader) == [digest(content_of(origin, n)) for n in range(2)]
    assert origin.counts("sign") == 2
    assert origin.counts("scene") == 2


@dataclass
class _Vendor:
    """Answers with one task more each time."""

    n_asked: int = 0

    async def tasks(self) -> RecordList[Task]:
        self.n_asked += 1
        await trio.sleep(0.1)
        ids = [str(n) for n in range(self.n_asked)]
        contents = [json.dumps({"task_id": each}).encode() for each in ids]
        return RecordList(record_parsers.task, (packed_page(ids, contents),))


async def test_a_listing_of_another_process_is_believed_for_the_rest_of_its_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    locks = [locks_on(tmp_path) for _ in range(2)]
    stores = [ListingStore(tmp_path / "account") for _ in range(2)]
    vendor = _Vendor()
    settings = load_settings({}, listing_ttl_s=60)
    began_s, began_wall_s = trio.current_time(), time.time()  # what is kept has the real time

    def wall_clock() -> float:
        return began_wall_s + trio.current_time() - began_s

    one, other = (
        Listings(
            vendor,  # type: ignore[arg-type]  # it lists tasks, and nothing else is requested
            settings,
            store,
            wall_clock=wall_clock,
            locks=lock,
            account="account",
        )
        for lock, store in zip(locks, stores, strict=True)
    )
    try:
        assert len(await one.tasks()) == 1
        await trio.sleep(40)
        assert len(await other.tasks()) == 1
        await trio.sleep(15)
        assert len(await other.tasks()) == 1
        assert vendor.n_asked == 1
        await trio.sleep(10)  # 65 s after it was requested
        assert len(await other.tasks()) == 2
        # A process does not take an entry that it has forgotten from another process.
        await trio.sleep(1)
        one.forget()
        assert len(await one.tasks()) == 3
    finally:
        for store in stores:
            await store.aclose()
        for lock in locks:
            lock.close()


def test_links_of_a_process_alone_are_written_nowhere(
    start_origin: StartOrigin, open_fs: OpenFs, cache_dir: Path
) -> None:
    origin = start_origin(ramp_catalogue(1, MIB))
    fs = open_fs()
    assert fs.cat(path_of()) == content_of(origin)
    thread = fs._access.thread
    assert thread is not None
    for directory, _, names in os.walk(cache_dir):
        for name in names:
            assert b"X-Amz-Signature" not in Path(directory, name).read_bytes()
    board = NodeBoard(cache_dir)
    assert board.read("link") is None
    place = board._directory
    assert place is None or list(place.iterdir()) == []
    board.clear()
