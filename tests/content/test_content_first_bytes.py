"""The first bytes of a file: how many round trips follow from each other, and which connections."""

from __future__ import annotations

from pathlib import Path

import trio
from content.fakestore import SCENE, ZIP, FakeStore, learn, opened, run

from satfs.content.fetch.fetcher import NEARLY_DONE_BYTES
from satfs.content.fetch.probe import TAIL_BYTES
from satfs.model import ByteRange

MIB = 1024 * 1024
LATENCY_S = 0.03


class TestVersionBeforeItsTail:
    """`stat` is answered when the headers have come; the tail's body follows."""

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
                assert store.asked == []
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
                assert store.asked[0].sent == TAIL_BYTES
                reader = await contents.open(SCENE, ZIP, version)
                assert reader.is_near(ByteRange(3 * MIB - 100, 3 * MIB))
                reader.close()

        run(main)


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
        (opening,) = [each for each in store.asked if not each.start]
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
        wanted = sum(each.stop - each.start for each in store.asked)
        assert store.bytes_sent < wanted - 2 * MIB
