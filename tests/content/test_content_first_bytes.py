"""The first bytes of a file: how many round trips follow from each other, and which connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from content.fakestore import PASSING, SCENE, ZIP, FakeStore, learn, opened, run
from msgspec.structs import replace

from satfs.content.attachments import Attachments
from satfs.content.fetch.early_bytes import BEGINNING_S
from satfs.content.fetch.fetcher import NEARLY_DONE_BYTES
from satfs.content.fetch.first_reads import BEGINNING_BYTES
from satfs.content.fetch.tails import TAIL_BYTES
from satfs.errors import Changed, NotAllowed
from satfs.model import AttachmentName, ByteRange, Link, SceneId

MIB = 1024 * 1024
LATENCY_S = 0.03


class TestVersionBeforeItsTail:
    """`stat` returns when the headers have come; the tail's body follows."""

    def test_the_version_is_known_before_the_tail_has_come(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S, bytes_per_s=TAIL_BYTES / 10.0)
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                began_s = trio.current_time()
                version = await learn(contents)
                assert version.size_bytes == content.size_bytes
                # A link and a request, each of one round trip; the body takes ten seconds.
                assert trio.current_time() - began_s <= 2 * LATENCY_S + 0.01

        run(main)

    def test_a_read_of_the_tail_waits_for_it_and_makes_no_request(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S, bytes_per_s=1e6)
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                span = ByteRange(3 * MIB - 20_000, 3 * MIB)
                assert await reader.read(span) == content.read(span.start, span.stop)
                reader.close()
                assert store.n_requests == 1

        run(main)

    def test_a_tail_that_breaks_off_is_fetched_when_it_is_read(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        content = store.add(3 * MIB)
        for fault in ("cut", "short"):
            store.break_with(fault)

            async def main() -> None:
                async with opened(store, tmp_path) as contents:
                    reader = await contents.open(SCENE, ZIP, await learn(contents))
                    span = ByteRange(3 * MIB - 20_000, 3 * MIB)
                    assert await reader.read(span) == content.read(span.start, span.stop)
                    reader.close()

            run(main)

    def test_a_version_that_nobody_waits_for_any_more_is_not_learnt(self, tmp_path: Path) -> None:
        """Given up before the headers have come, the request ends; the next one makes its own."""
        store = FakeStore(latency_s=1.0)
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                with trio.move_on_after(1.5) as given_up:
                    await learn(contents)
                assert given_up.cancelled_caught
                await trio.sleep(10)
                assert store.requests == []
                assert (await learn(contents)).size_bytes == content.size_bytes

        run(main)

    def test_the_tail_is_wanted_though_every_handle_is_closed(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S, bytes_per_s=1e5)
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                with trio.move_on_after(0.1):
                    await reader.read(ByteRange(3 * MIB - 100, 3 * MIB))
                reader.close()
                await trio.sleep(5)
                assert store.requests[0].sent == TAIL_BYTES
                reader = await contents.open(SCENE, ZIP, version)
                assert reader.is_near(ByteRange(3 * MIB - 100, 3 * MIB))
                reader.close()

        run(main)


class TestLinkBesideTheRecord:
    """A program that walks to a scene in a fresh mount has the link when the record has come."""

    @pytest.mark.parametrize("may_sign_beside", [True, False])
    def test_the_version_is_known_a_round_trip_sooner(
        self, tmp_path: Path, may_sign_beside: bool
    ) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                contents.start_early(lambda: may_sign_beside)
                contents.note_walk(SceneId(SCENE))
                await trio.sleep(LATENCY_S)  # the record of the scene
                began_s = trio.current_time()
                await learn(contents)
                n_round_trips = (trio.current_time() - began_s) / LATENCY_S
                assert round(n_round_trips) == (1 if may_sign_beside else 2)
                assert store.n_signed == 1
                contents.note_walk(SceneId("another"))
                await trio.sleep(LATENCY_S)
                assert store.n_signed == 1

        run(main)

    def test_a_refused_link_is_requested_again_by_the_look_up_that_needs_it(
        self, tmp_path: Path
    ) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        content = store.add(3 * MIB)
        sign, is_refused = store.sign, True

        async def sign_later(scene: SceneId, attachment: AttachmentName) -> Link:
            link = await sign(scene, attachment)
            if is_refused:
                raise NotAllowed("not yet")
            return link

        store.sign = sign_later  # type: ignore[method-assign]

        async def main() -> None:
            nonlocal is_refused
            async with opened(store, tmp_path) as contents:
                contents.start_early(lambda: True)
                contents.note_walk(SceneId(SCENE))
                await trio.sleep(2 * LATENCY_S)
                is_refused = False
                assert (await learn(contents)).size_bytes == content.size_bytes
                assert store.n_signed == 2

        run(main)


class TestBeginning:
    """Where programs read the beginning of what they look up, it is requested beside the size."""

    def test_both_take_one_round_trip(self, tmp_path: Path) -> None:
        """Where programs read the beginnings of files, the next takes a link and one round trip."""
        store = FakeStore(latency_s=LATENCY_S)
        contents_of = {scene: store.add(3 * MIB, scene=scene) for scene in ("first", "second")}

        async def main() -> None:
            async with in_use(store, tmp_path) as contents:
                await read_beginning(contents, "first")
                n_before, began_s = store.n_requests, trio.current_time()
                data = await read_beginning(contents, "second")
                # A link, and two requests side by side; without the habit they follow each other.
                assert trio.current_time() - began_s <= 2 * LATENCY_S + 0.01
                assert data == contents_of["second"].read(0, 16 * 1024)
                assert store.n_requests == n_before + 2
                assert sum(map(_length, store.spans()[-2:])) == BEGINNING_BYTES + TAIL_BYTES

        run(main)

    def test_a_walk_that_reads_nothing_costs_one_request_too_many(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        scenes = [f"scene-{n}" for n in range(20)]
        for scene in scenes:
            store.add(3 * MIB, scene=scene)

        async def main() -> None:
            async with in_use(store, tmp_path) as contents:
                await read_beginning(contents, scenes[0])
                n_before = store.n_requests
                for scene in scenes[1:]:
                    await learn(contents, scene)
                    await trio.sleep(0.5)
                assert store.n_requests <= n_before + len(scenes) - 1 + 1

        run(main)

    def test_halves_of_the_first_block_come_over_two_connections(self, tmp_path: Path) -> None:
        """A server sends less than one block before it waits for an acknowledgement."""
        store = FakeStore(latency_s=LATENCY_S)
        contents_of = {scene: store.add(3 * MIB, scene=scene) for scene in ("first", "second")}

        async def main() -> None:
            async with in_use(store, tmp_path, n_idle=3) as contents:
                await read_beginning(contents, "first")
                n_before, began_s = store.n_requests, trio.current_time()
                data = await read_beginning(contents, "second")
                assert trio.current_time() - began_s <= 2 * LATENCY_S + 0.01
                assert data == contents_of["second"].read(0, 16 * 1024)
                assert store.n_requests == n_before + 3
                assert set(map(_length, store.spans()[-3:])) == {8 * 1024, TAIL_BYTES}

        run(main)

    def test_the_beginning_shows_the_version_where_the_tail_is_late(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        content = store.add(3 * MIB, scene="second")
        store.add(3 * MIB, scene="first")

        async def main() -> None:
            async with in_use(store, tmp_path, n_idle=3) as contents:
                await read_beginning(contents, "first")
                store.silent_ranges.add(f"bytes=-{TAIL_BYTES}")
                began_s = trio.current_time()
                assert await read_beginning(contents, "second") == content.read(0, 16 * 1024)
                assert trio.current_time() - began_s <= 2 * LATENCY_S + 0.01

        run(main)

    # One that hangs is below: the size is waited for to the deadline of a look-up.
    @pytest.mark.parametrize("fault", [each for each in PASSING if each != "hang"])
    @pytest.mark.parametrize("which", [0, 1, 2])
    @pytest.mark.parametrize("n_idle", [2, 3])
    def test_whatever_becomes_of_any_request_the_bytes_are_right(
        self, tmp_path: Path, fault: str, which: int, n_idle: int
    ) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        store.add(3 * MIB, scene="first")
        content = store.add(3 * MIB, scene="second")

        async def main() -> None:
            async with in_use(store, tmp_path, n_idle) as contents:
                await read_beginning(contents, "first")
                store.break_with(fault, skip=which)
                assert await read_beginning(contents, "second") == content.read(0, 16 * 1024)

        run(main)

    @pytest.mark.parametrize("n_idle", [2, 3])
    @pytest.mark.parametrize("which", [1, 2])
    def test_the_beginning_of_another_version_is_not_taken(
        self, tmp_path: Path, n_idle: int, which: int
    ) -> None:
        """The object is replaced between the requests."""
        store = FakeStore(latency_s=LATENCY_S)
        store.add(3 * MIB, scene="first")
        store.add(3 * MIB, scene="second")

        async def main() -> None:
            async with in_use(store, tmp_path, n_idle) as contents:
                await read_beginning(contents, "first")
                store.break_with("changed", skip=which)
                try:
                    data = await read_beginning(contents, "second")
                except Changed:
                    return
                assert data == store.objects["second", ZIP].read(0, 16 * 1024)

        run(main)

    def test_a_silent_one_is_waited_for_two_seconds(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S)
        store.add(3 * MIB, scene="first")
        content = store.add(3 * MIB, scene="second")

        async def main() -> None:
            async with in_use(store, tmp_path) as contents:
                await read_beginning(contents, "first")
                store.silent_ranges.add("bytes=0-32767")
                began_s = trio.current_time()
                assert await read_beginning(contents, "second") == content.read(0, 16 * 1024)
                assert trio.current_time() - began_s <= BEGINNING_S + 4 * LATENCY_S

        run(main)


@asynccontextmanager
async def in_use(store: FakeStore, directory: Path, n_idle: int = 2) -> AsyncIterator[Attachments]:
    """Yield `Attachments` for which *n_idle* connections to the store are open."""
    async with opened(store, directory) as contents:
        versions = contents._versions
        versions._parts = replace(versions._parts, n_idle=lambda origin: n_idle)
        yield contents


async def read_beginning(contents: Attachments, scene: str) -> bytes:
    """Look a file up, open it and read its first block, as a program does."""
    version = await learn(contents, scene)
    reader = await contents.open(SceneId(scene), ZIP, version)
    data = bytes(await reader.read(ByteRange(0, 16 * 1024)))
    reader.close()
    return data


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


class TestNearlyDone:
    """A range of which little is missing is fetched to its end, and its connection stays."""

    def test_what_a_closed_handle_wanted_comes_to_its_end(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S, bytes_per_s=1e6)
        store.chunk_bytes = 16 * 1024
        store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                await reader.read(ByteRange(0, 32 * 1024))  # the opening window follows
                reader.close()
                await trio.sleep(2)

        run(main)
        (opening,) = [each for each in store.requests if not each.start]
        assert opening.stop - opening.start <= NEARLY_DONE_BYTES
        assert opening.sent == opening.stop - opening.start

    def test_what_lacks_more_is_given_up(self, tmp_path: Path) -> None:
        store = FakeStore(latency_s=LATENCY_S, bytes_per_s=1e6)
        store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                for start in range(0, MIB, 128 * 1024):
                    await reader.read(ByteRange(start, start + 128 * 1024))
                reader.close()
                await trio.sleep(30)

        run(main)
        wanted = sum(each.stop - each.start for each in store.requests)
        assert store.bytes_sent < wanted - 2 * MIB
