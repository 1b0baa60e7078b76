"""The content package as a whole, on a store that can be broken by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from content.fakestore import (
    LASTING,
    PASSING,
    SCENE,
    ZIP,
    FakeStore,
    assert_at_rest,
    learn,
    opened,
    run,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.fetch.tails import TAIL_BYTES
from satfs.demo.contents import RampContent
from satfs.errors import (
    DeadlineReached,
    SatfsError,
)
from satfs.model import ByteRange, LimitsReadAhead, RemoteReader, SceneId
from satfs.node_locks import NodeLocks

MIB = 1024 * 1024


class Turns(trio.abc.Instrument):
    """Counts the turns in which all tasks run that can."""

    n = 0

    def before_io_wait(self, timeout: float) -> None:
        self.n += 1


class TestReads:
    def test_any_range_is_the_objects(self, tmp_path: Path) -> None:
        """A read of any alignment gives exactly the bytes that exist."""
        store = FakeStore()
        content = store.add(3 * MIB + 12_345)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                size = content.size_bytes
                for start, stop in [
                    (0, 1),
                    (size - 1, size + 50),
                    (MIB - 3, MIB + 3),
                    (5, 2 * MIB),
                ]:
                    data = bytes(await reader.read(ByteRange(start, stop)))
                    assert data == bytes(content.read(start, min(stop, size)))
                assert await reader.read(ByteRange(size, size + 10)) == b""
                reader.close()

        run(main)

    def test_readers_side_by_side_read_as_far_ahead_as_one(self, tmp_path: Path) -> None:
        """Eight programs that read one file share a window, and none has an eighth of it."""
        store = FakeStore(latency_s=0.03)
        store.add(128 * MIB)
        settings: dict[str, Any] = {"cache_bytes": 256 * MIB, "range_bytes": MIB}

        async def requested(n_readers: int, cache_dir: Path) -> int:
            """Return how many ranges are in flight or queued when all have read 10 MiB."""
            async with opened(store, cache_dir, **settings) as contents:
                version = await learn(contents)
                readers = [await contents.open(SCENE, ZIP, version) for _ in range(n_readers)]
                for start in range(0, 10 * MIB, MIB):
                    for reader in readers:
                        await reader.read(ByteRange(start, start + MIB))
                statistics = contents.statistics()
                for reader in readers:
                    reader.close()
                return int(statistics["active"] + statistics["queued"])

        async def main() -> None:
            alone = await requested(1, tmp_path / "one")
            assert alone > 8
            assert await requested(8, tmp_path / "eight") >= 0.9 * alone

        run(main)

    @pytest.mark.parametrize(("latency_s", "n_connections"), [(0.001, 4), (0.2, 53)])
    def test_the_first_question_tells_how_long_the_line_is(
        self, tmp_path: Path, latency_s: float, n_connections: int
    ) -> None:
        """Before any content was fetched, the response with the version sets how many connections.

        The store of this test says nothing of its connections, so each counts as a new one, whose
        response takes three round trips.
        """
        store = FakeStore(latency_s=latency_s)
        store.add(MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                await learn(contents)
                assert contents.statistics()["target_connections"] == n_connections

        run(main)

    def test_what_is_waited_for_is_asked_for_first(self, tmp_path: Path) -> None:
        """Of ranges that start together, the reader's own gets the connection that is open."""
        store = FakeStore()
        scenes = [SceneId(f"scene-{n}") for n in range(12)]
        for scene in scenes:
            store.add(64 * MIB, scene=scene)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                for scene in scenes:
                    reader = await contents.open(scene, ZIP, await learn(contents, scene))
                    await trio.sleep(1)  # the tail has come, and its connection is idle
                    n_before = store.n_requests
                    await reader.read(ByteRange(0, MIB))
                    sent = store.sent_ranges[n_before:]
                    assert len(sent) > 1
                    # The first block of all but the first file has come with the version.
                    start = 0 if scene == scenes[0] else BLOCK_BYTES
                    assert sent[0].startswith(f"bytes={start}-")
                    reader.close()

        run(main)

    def test_the_next_range_is_requested_in_the_turn_in_which_one_ends(
        self, tmp_path: Path
    ) -> None:
        """A connection does not wait until the responses on all others have been read."""
        turns, ended, begun = Turns(), list[int](), list[int]()

        class Noting(FakeStore):
            async def handle(self, request: httpx.Request) -> httpx.Response:
                begun.append(turns.n)
                return await super().handle(request)

            def __setattr__(self, name: str, value: object) -> None:
                if name == "n_open" and value == getattr(self, "n_open", 0) - 1:
                    ended.append(turns.n)
                super().__setattr__(name, value)

        store = Noting()
        store.add(128 * MIB)

        async def main() -> None:
            trio.lowlevel.add_instrument(turns)
            async with opened(store, tmp_path, max_connections=40) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                assert isinstance(reader, LimitsReadAhead)
                reader.limit_read_ahead(ByteRange(0, 0))
                # The first time shows how many connections the store lets through.
                for shift in (0, BLOCK_BYTES):
                    ended.clear()
                    begun.clear()
                    async with trio.open_nursery() as nursery:
                        for number in range(100):
                            start = (2 + number) * MIB + shift
                            nursery.start_soon(reader.read, ByteRange(start, start + BLOCK_BYTES))
                reader.close()

        run(main)
        assert len(begun) == 100
        assert begun[40:] == ended[:60]

    @pytest.mark.parametrize("cache_bytes", [0, 10**9])
    def test_each_byte_is_fetched_once_for_eight_readers(
        self, tmp_path: Path, cache_bytes: int
    ) -> None:
        """Eight parallel sequential readers of one file cost the file's bytes, once."""
        store = FakeStore()
        content = store.add(24 * MIB + 77)
        whole = bytes(content.read(0, content.size_bytes))

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=cache_bytes) as contents:
                version = await learn(contents)

                async def read_all(step: int) -> None:
                    reader = await contents.open(SCENE, ZIP, version)
                    for start in range(0, content.size_bytes, step):
                        data = await reader.read(ByteRange(start, start + step))
                        assert data == whole[start : start + step]
                    reader.close()

                async with trio.open_nursery() as nursery:
                    for _ in range(8):
                        nursery.start_soon(read_all, 128 * 1024)
                # The tail taught the version. Of it, a part of a block comes again; without a disk
                # all of it, since blocks in memory go with their object's last user.
                again = BLOCK_BYTES if cache_bytes else TAIL_BYTES
                assert content.size_bytes <= store.bytes_sent <= content.size_bytes + again
                assert store.n_signed == 1
                assert_at_rest(contents)

        run(main)

    def test_random_reads_fetch_little_and_start_where_asked(self, tmp_path: Path) -> None:
        """200 random reads of 64 KiB fetch at most thrice their bytes, from their own offset."""
        store = FakeStore()
        content = store.add(1024 * MIB)
        dice = random.Random(5)
        places = [dice.randrange(MIB, content.size_bytes - 64 * 1024) for _ in range(200)]

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.requests.clear()
                for place in places:
                    began_s = trio.current_time()
                    n_requests = len(store.requests)
                    data = await reader.read(ByteRange(place, place + 65536))
                    assert data == content.read(place, place + 65536)
                    first = store.requests[n_requests : n_requests + 1]
                    assert [each.start for each in first] == [place // BLOCK_BYTES * BLOCK_BYTES]
                    assert trio.current_time() - began_s < 2 * store.latency_s
                assert store.bytes_sent <= 3 * 65536 * len(places)

        run(main)

    def test_a_reader_wakes_when_its_bytes_are_there(self, tmp_path: Path) -> None:
        """The first 128 KiB do not wait for the end of the range that brings them."""
        store = FakeStore(bytes_per_s=1e6)
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                for start in range(0, 2 * MIB, 131072):
                    began_s = trio.current_time()
                    await reader.read(ByteRange(start, start + 131072))
                    assert trio.current_time() - began_s < 0.6
                longest = max(each.stop - each.start for each in store.requests)
                assert longest > 4 * 131072  # else nothing was shown
                assert content.size_bytes

        run(main)

    def test_a_random_read_does_not_queue_behind_bulk(self, tmp_path: Path) -> None:
        """While a sequential reader fills every connection, another's first byte comes at once."""
        store = FakeStore(bytes_per_s=2e6)
        store.add(256 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                bulk = await contents.open(SCENE, ZIP, version)
                other = await contents.open(SCENE, ZIP, version)
                for start in range(0, 4 * MIB, 131072):
                    await bulk.read(ByteRange(start, start + 131072))
                began_s = trio.current_time()
                await other.read(ByteRange(200 * MIB, 200 * MIB + 65536))
                assert trio.current_time() - began_s < 0.3

        run(main)

    def test_reading_in_the_middle_of_a_range_in_the_air_cuts_it(self, tmp_path: Path) -> None:
        """A read far ahead within a slow range is served by a flight of its own, nothing twice."""
        store = FakeStore(bytes_per_s=1e6)
        content = store.add(32 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                one = await contents.open(SCENE, ZIP, version)
                two = await contents.open(SCENE, ZIP, version)
                for start in range(0, 3 * MIB, 131072):
                    await one.read(ByteRange(start, start + 131072))
                place = 9 * MIB + 5
                began_s = trio.current_time()
                data = bytes(await two.read(ByteRange(place, place + 10_000)))
                assert data == bytes(content.read(place, place + 10_000))
                assert trio.current_time() - began_s < 1.0
                for start in range(3 * MIB, content.size_bytes, 131072):
                    data = bytes(await one.read(ByteRange(start, start + 131072)))
                    assert data == bytes(content.read(start, min(start + 131072, 32 * MIB)))
                assert store.bytes_sent <= content.size_bytes + 8 * store.chunk_bytes

        run(main)


def test_what_another_process_has_fetched_a_moment_ago_is_not_fetched_again(tmp_path: Path) -> None:
    """A process that was alone at its last look may not be alone any more."""
    store = FakeStore(latency_s=0.01)
    content = store.add(4 * MIB)

    async def main() -> None:
        async with opened(store, tmp_path, NodeLocks(), cache_bytes=10**9) as one:
            reader = await one.open(SCENE, ZIP, await learn(one))
            await reader.read(ByteRange(2 * MIB, 2 * MIB + 4096))  # it looks for others
            async with opened(store, tmp_path, NodeLocks(), cache_bytes=10**9) as other:
                first = await other.open(SCENE, ZIP, await learn(other))
                await first.read(ByteRange(0, MIB))
                first.close()
                await trio.sleep(0.1)  # the index has what it has fetched
                n_sent = store.bytes_sent
                data = bytes(await reader.read(ByteRange(0, MIB)))
                assert data == bytes(content.read(0, MIB))
                assert store.bytes_sent == n_sent
            reader.close()

    run(main)


def test_what_a_process_fetched_that_has_ended_is_not_fetched_again(tmp_path: Path) -> None:
    """Its last blocks are in the index, and it is gone before another process looks for them."""
    store = FakeStore(latency_s=0.01)
    content, locks = store.add(64 * MIB), NodeLocks()

    async def main() -> None:
        async with opened(store, tmp_path, NodeLocks(), cache_bytes=10**9) as one:
            reader = await one.open(SCENE, ZIP, await learn(one))
            async with opened(store, tmp_path, locks, cache_bytes=10**9) as other:
                first = await other.open(SCENE, ZIP, await learn(other))
                # Both are at work, and each knows of the other.
                await reader.read(ByteRange(40 * MIB, 40 * MIB + 4096))
                await first.read(ByteRange(0, MIB))
                first.close()
            locks.close()
            n_sent = store.bytes_sent
            data = bytes(await reader.read(ByteRange(0, MIB)))
            assert data == bytes(content.read(0, MIB))
            assert store.bytes_sent == n_sent
            reader.close()

    run(main)


def test_a_version_that_another_process_is_about_to_enter_is_not_requested_again(
    tmp_path: Path,
) -> None:
    """It was shown before the second process asked, and entered in the index after it looked."""
    store = FakeStore(latency_s=0.01)
    store.add(MIB)

    async def main() -> None:
        async with (
            opened(store, tmp_path, NodeLocks(), cache_bytes=10**9) as one,
            opened(store, tmp_path, NodeLocks(), cache_bytes=10**9) as other,
        ):
            enter = one._cache.on_index

            async def enter_late(call: Callable[[], object]) -> object:
                await trio.sleep(0.5)
                return await enter(call)

            one._cache.on_index = enter_late  # type: ignore[method-assign, assignment]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(learn, one)
                while not store.n_requests:  # noqa: ASYNC110 - until the store has responded
                    await trio.sleep(0.01)
                await trio.sleep(0.7)  # it is about to enter what the store has shown
                await learn(other)
            assert store.n_requests == 1

    run(main)


class TestFewConnections:
    """A store that lets few connections through, 100 ms away, of 10 MB/s each."""

    @pytest.mark.parametrize("n_let_through", [1, 2, 3, 4, 6])
    def test_ranges_fit_the_connections_there_are(self, tmp_path: Path, n_let_through: int) -> None:
        """Each is worth its round trip, and all connections have bytes to carry until the end."""
        store = FakeStore(latency_s=0.1, bytes_per_s=10e6)
        content = store.add(40 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**9) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.max_served = n_let_through
                began_s = trio.current_time()
                for start in range(0, content.size_bytes, MIB):
                    data = bytes(await reader.read(ByteRange(start, start + MIB)))
                    assert data == bytes(content.read(start, start + MIB))
                took_s = trio.current_time() - began_s
                reader.close()
                ideal_s = store.latency_s + content.size_bytes / (n_let_through * 10e6)
                assert took_s <= 1.5 * ideal_s
                assert store.n_refused
                # No byte was sent twice.
                assert store.bytes_sent <= content.size_bytes + TAIL_BYTES
                assert_at_rest(contents)

        run(main)

    def test_a_byte_waited_for_elsewhere_is_not_put_behind_others(self, tmp_path: Path) -> None:
        """Bytes that two readers wait for at two places have a range each."""
        store = FakeStore(latency_s=0.1, bytes_per_s=10e6)
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**9) as contents:
                version = await learn(contents)
                store.max_served = 2
                readers = [await contents.open(SCENE, ZIP, version) for _ in range(2)]
                for start in range(0, 8 * MIB, MIB):
                    await readers[0].read(ByteRange(start, start + MIB))
                began_s = trio.current_time()
                data = await readers[1].read(ByteRange(48 * MIB, 48 * MIB + 10))
                assert bytes(data) == bytes(content.read(48 * MIB, 48 * MIB + 10))
                # One range of the other reader may have to end first.
                assert trio.current_time() - began_s < 2.0
                for reader in readers:
                    reader.close()

        run(main)


class TestHandles:
    def test_close_gives_up_what_only_it_wanted(self, tmp_path: Path) -> None:
        """After close nothing more is fetched for a handle, and nothing is left behind."""
        store = FakeStore(bytes_per_s=1e6)
        store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                for start in range(0, 2 * MIB, 131072):
                    await reader.read(ByteRange(start, start + 131072))
                reader.close()
                reader.close()
                await trio.sleep(1)
                sent = store.bytes_sent
                await trio.sleep(60)
                assert store.bytes_sent == sent < 16 * MIB
                assert store.n_open == 0
                assert_at_rest(contents)

        run(main)

    def test_another_handle_keeps_what_it_wants(self, tmp_path: Path) -> None:
        """Closing one of two handles that wait for the same bytes does not harm the other."""
        store = FakeStore(bytes_per_s=1e6)
        content = store.add(8 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                one = await contents.open(SCENE, ZIP, version)
                two = await contents.open(SCENE, ZIP, version)
                got: list[bytes] = []

                async def read(reader: RemoteReader) -> None:
                    got.append(bytes(await reader.read(ByteRange(0, 300_000))))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, one)
                    nursery.start_soon(read, two)
                    await trio.sleep(0.1)
                    one.close()
                assert got == [bytes(content.read(0, 300_000))] * 2

        run(main)

    def test_what_was_asked_for_is_not_given_up_for_a_look_elsewhere(self, tmp_path: Path) -> None:
        """Beside another reader, one that looks about ends no transfer: none is made twice."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, workers=0) as contents:
                version = await learn(contents)
                one, two = [await contents.open(SCENE, ZIP, version) for _ in range(2)]
                for start in range(0, 8 * MIB, MIB):
                    await one.read(ByteRange(start, start + MIB))
                assert contents.statistics()["active"] > 2
                for start in (63 * MIB, 40 * MIB + 5, 60 * MIB + 7):
                    await one.read(ByteRange(start, start + 10))
                for start in range(0, 64 * MIB, MIB):
                    data = bytes(await two.read(ByteRange(start, start + MIB)))
                    assert data == bytes(content.read(start, start + MIB))
                one.close()
                two.close()

        run(main)
        requests = [each for each in store.requests if each.path.endswith(ZIP)]
        assert (
            sum(each.stop - each.start for each in requests) <= content.size_bytes + 2 * TAIL_BYTES
        )

    def test_a_read_that_is_given_up_leaves_nothing(self, tmp_path: Path) -> None:
        """Cancelled at any moment, a read leaves no waiter; closed, the handle leaves no flight."""
        store = FakeStore(bytes_per_s=1e6)
        content = store.add(16 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                for n in range(60):
                    reader = await contents.open(SCENE, ZIP, version)
                    with trio.move_on_after(n * 0.007):
                        await reader.read(ByteRange(n * 200_000, n * 200_000 + 150_000))
                    if n % 2:
                        reader.close()
                        await trio.sleep(1)
                        assert_at_rest(contents)
                    else:
                        data = await reader.read(ByteRange(n * 200_000, n * 200_000 + 150_000))
                        assert data == content.read(n * 200_000, n * 200_000 + 150_000)
                        reader.close()
                await trio.sleep(1)
                assert_at_rest(contents)
                assert store.n_open == 0

        run(main)

    def test_more_idle_objects_than_are_kept_open(self, tmp_path: Path) -> None:
        """Objects closed in mid transfer, more than are kept open, stay right and are closed."""
        store = FakeStore(bytes_per_s=3e6)
        scenes = [f"S{n}" for n in range(70)]
        for n, scene in enumerate(scenes):
            store.add(2 * MIB, scene=scene, seed=n)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**9) as contents:
                for _ in range(2):
                    for n, scene in enumerate(scenes):
                        reader = await contents.open(
                            SceneId(scene), ZIP, await learn(contents, scene)
                        )
                        data = await reader.read(ByteRange(1000, 200_000))
                        assert data == store.objects[scene, ZIP].read(1000, 200_000), n
                        reader.close()
                await trio.sleep(5)
                assert_at_rest(contents)
                assert contents.statistics()["open_objects"] <= 48

        run(main)


reads = st.lists(
    st.tuples(
        st.integers(0, 2),  # which handle
        st.integers(0, 5 * MIB + 1000),
        st.one_of(st.integers(1, 300_000), st.just(131072)),
        st.sampled_from(["read", "together", "give up", "reopen"]),
    ),
    max_size=12,
)
faults = st.lists(
    st.tuples(
        st.sampled_from(PASSING + LASTING), st.integers(1, 3), st.integers(0, 6),
        st.sampled_from([0, 1, 16384, 20_000, 100_000]),
    ),
    max_size=4,
)  # fmt: skip


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(reads, faults, st.booleans(), st.sampled_from([0, 3 * MIB, 10**9]))
@example(
    [(0, 0, 131072, "read")],
    [("cut", 1, 0, 0), ("stall", 1, 0, 0), ("stall", 1, 0, 0), ("stall", 2, 0, 16384)],
    False,
    0,
)
def test_right_bytes_or_an_error_in_time(
    tmp_path_factory: pytest.TempPathFactory,
    allow_log: Any,
    plan: Any,
    broken: Any,
    is_slow: bool,
    cache_bytes: int,
) -> None:
    """Any reads by several handles under any faults: the object's bytes, or one of our errors.

    Within the read deadline each, counted again from any progress (a read through the kernel ends
    within one: `fuse/deadlines.py`), and with no request or waiter left at the end.
    """
    n_steps = sum(
        count for name, count, _, at in broken if name in ("cut", "short", "stall") and at
    )
    allow_log("host counts as offline|.*: keeping new content in memory")
    store = FakeStore(bytes_per_s=400_000 if is_slow else 50e6)
    first = store.add(5 * MIB + 999)

    async def one_read(reader: RemoteReader, span: ByteRange, content: RampContent) -> None:
        with trio.fail_after(61 * (1 + n_steps)), suppress(SatfsError):
            data = bytes(await reader.read(span))
            assert data == bytes(content.read(span.start, min(span.stop, content.size_bytes)))

    async def main() -> None:
        where = tmp_path_factory.mktemp("cache")
        async with opened(store, where, cache_bytes=cache_bytes) as contents:
            version = await learn(contents)
            readers = [await contents.open(SCENE, ZIP, version) for _ in range(3)]
            for name, count, skip, at_byte in broken:
                store.break_with(name, count=count, skip=skip, at_byte=at_byte)
            async with trio.open_nursery() as nursery:
                for which, start, n_bytes, how in plan:
                    span = ByteRange(start, start + n_bytes)
                    if how == "together":
                        nursery.start_soon(one_read, readers[which], span, first)
                    elif how == "read":
                        await one_read(readers[which], span, first)
                    elif how == "give up":
                        with trio.move_on_after(0.1):
                            await one_read(readers[which], span, first)
                    else:
                        readers[which].close()
                        with suppress(SatfsError):
                            readers[which] = await contents.open(SCENE, ZIP, version)
                            continue
                        return
            for reader in readers:
                reader.close()
            await trio.sleep(90)
            assert_at_rest(contents)
            assert store.n_open == 0

    run(main)


def test_a_silent_store_is_given_up_in_time(tmp_path: Path) -> None:
    """A store that takes requests and never responds costs one deadline, not more."""
    store = FakeStore()
    store.add(3 * MIB)

    async def main() -> None:
        async with opened(store, tmp_path) as contents:
            reader = await contents.open(SCENE, ZIP, await learn(contents))
            store.break_with("hang", count=1000)
            with trio.fail_after(60), pytest.raises(DeadlineReached):
                await reader.read(ByteRange(0, 10))

    run(main)
