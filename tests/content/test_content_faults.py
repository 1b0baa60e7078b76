"""Reads of the content package on a store that fails, and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from content.fakestore import (
    PASSING,
    SCENE,
    ZIP,
    FakeStore,
    assert_at_rest,
    learn,
    opened,
    run,
)

from satfs.content.fetch.links import BELIEVED_S
from satfs.errors import (
    Changed,
    Garbled,
    NotAllowed,
    Throttled,
    Unreachable,
)
from satfs.model import ByteRange, RemoteReader
from satfs.net.retry import MAX_GARBLED
from satfs.settings import load_settings

MIB = 1024 * 1024


class TestFaults:
    @pytest.mark.parametrize("fault", PASSING)
    @pytest.mark.parametrize("skip", [0, 1])
    def test_a_passing_fault_costs_no_byte(self, tmp_path: Path, fault: str, skip: int) -> None:
        """A fault that comes once is not seen by the reader."""
        store = FakeStore()
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.break_with(fault, skip=skip)
                with trio.fail_after(60):
                    for start in range(0, content.size_bytes, 131072):
                        data = await reader.read(ByteRange(start, start + 131072))
                        assert data == content.read(start, min(start + 131072, content.size_bytes))
                reader.close()
                await trio.sleep(1)
                assert_at_rest(contents)

        run(main)

    def test_a_stall_leaves_a_call_the_time_for_another_try(self, tmp_path: Path) -> None:
        """`ls contents` and `stat` read too, and have less time than a read."""
        store = FakeStore()
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.break_with("stall", count=2)
                tail = ByteRange(content.size_bytes - MIB, content.size_bytes)
                with trio.fail_after(load_settings({}).metadata_deadline_s):
                    assert await reader.read(tail) == content.read(tail.start, tail.stop)
                reader.close()

        run(main)

    def test_the_end_of_a_body_that_is_complete_is_not_waited_for(self, tmp_path: Path) -> None:
        """A server that announces no length and keeps the connection open holds no read up."""
        store = FakeStore()
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                store.break_with("open-end", count=10_000)
                began_s = trio.current_time()
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                for start in range(0, content.size_bytes, 131072):
                    data = await reader.read(ByteRange(start, start + 131072))
                    assert data == content.read(start, min(start + 131072, content.size_bytes))
                assert trio.current_time() - began_s < 3
                reader.close()
                await trio.sleep(2)
                assert_at_rest(contents)
                assert store.n_open == 0

        run(main)

    @pytest.mark.parametrize("fault", ["precondition", "unsatisfied", "missing", "changed"])
    def test_a_replaced_object_is_stale(self, tmp_path: Path, fault: str) -> None:
        """Each sign that the object is another one ends in Changed, never in other bytes."""
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.break_with(fault, count=1000)  # for good: each request gets it
                with trio.fail_after(60), pytest.raises(Changed):
                    await reader.read(ByteRange(0, 131072))

        run(main)

    @pytest.mark.parametrize("stays_open", [False, True])
    def test_a_changed_object_is_learnt_anew(self, tmp_path: Path, stays_open: bool) -> None:
        """Once a handle met Changed, the name leads to the new version, open or not."""
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                new = store.add(2 * MIB, seed=99)
                with pytest.raises(Changed):
                    await reader.read(ByteRange(0, 131072))
                if not stays_open:
                    reader.close()
                learnt = await learn(contents)
                assert (learnt.etag, learnt.size_bytes) == (new.etag, new.size_bytes)
                with pytest.raises(Changed):
                    await contents.open(SCENE, ZIP, version)
                reader = await contents.open(SCENE, ZIP, learnt)
                assert await reader.read(ByteRange(0, 99)) == new.read(0, 99)

        run(main)

    def test_a_line_that_breaks_after_a_minute_of_progress_is_not_given_up(
        self, tmp_path: Path
    ) -> None:
        """Time to give up is counted from the last progress, not from the start of the range."""
        store = FakeStore(bytes_per_s=15_000)
        content = store.add(16 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.break_with("cut", at_byte=1_000_000)
                data = bytes(await reader.read(ByteRange(5, MIB)))
                assert data == bytes(content.read(5, MIB))
                assert store.faults[0].count < 1

        run(main)

    @pytest.mark.parametrize("is_open", [True, False])
    def test_a_redirect_to_no_address_is_reported_as_such(
        self, tmp_path: Path, is_open: bool
    ) -> None:
        """S3 sends one where the bucket is in another region; no other request can help."""
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents) if is_open else None

                async def look() -> None:
                    if version is None:
                        await learn(contents)
                    else:
                        reader = await contents.open(SCENE, ZIP, version)
                        await reader.read(ByteRange(0, 1))

                store.break_with("nowhere", count=99)
                began_s, n_before = trio.current_time(), store.n_requests
                with pytest.raises(Garbled, match="to no address: PermanentRedirect"):
                    await look()
                assert trio.current_time() < began_s + 2
                assert store.n_requests == n_before + 1 + MAX_GARBLED

        run(main)

    def test_throttling_is_waited_out_and_then_reported(self, tmp_path: Path) -> None:
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.break_with("throttled", count=10_000)
                with trio.fail_after(60), pytest.raises(Throttled):
                    await reader.read(ByteRange(0, 65536))  # earns no window: one range at a time
                assert store.n_requests < 80  # once a second, as it required

        run(main)

    def test_without_etag_the_date_tells_versions_apart(self, tmp_path: Path) -> None:
        store = FakeStore()
        store.sends_etag = False
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                assert await reader.read(ByteRange(0, 10)) == content.read(0, 10)
                store.add(3 * MIB, seed=8)
                with pytest.raises(Changed):
                    await reader.read(ByteRange(2 * MIB, 2 * MIB + 9))

        run(main)


class TestOffline:
    def test_cached_bytes_stay_readable_and_the_rest_fails_fast(self, tmp_path: Path) -> None:
        """After one deadline the store counts as away: no read waits for it again."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, listing_ttl_s=0) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                await reader.read(ByteRange(0, 131072))
                await trio.sleep(5)
                store.is_down = True
                with trio.fail_after(60), pytest.raises(Unreachable):
                    await reader.read(ByteRange(32 * MIB, 32 * MIB + 10))
                for n in range(20):
                    began_s = trio.current_time()
                    assert await reader.read(ByteRange(n, 131072)) == content.read(n, 131072)
                    with pytest.raises(Unreachable):
                        await reader.read(ByteRange(40 * MIB, 40 * MIB + 10))
                    assert trio.current_time() - began_s < 5
                other = await contents.open(SCENE, ZIP, version)
                assert await other.read(ByteRange(0, 50)) == content.read(0, 50)
                store.is_down = False
                await trio.sleep(3)
                place = 40 * MIB
                assert await other.read(ByteRange(place, place + 9)) == content.read(
                    place, place + 9
                )

        run(main)

    def test_cached_bytes_stay_readable_while_the_store_refuses(self, tmp_path: Path) -> None:
        """Cached bytes are read while all is refused; the rest is refused, and back later."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, listing_ttl_s=0) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                await reader.read(ByteRange(0, 131072))
                await trio.sleep(5)
                store.break_with("forbidden-for-good", count=10_000)
                # Opened afresh, with an old and with a new revision of its record.
                assert await learn(contents, revision="r2") == version
                other = await contents.open(SCENE, ZIP, version)
                assert await other.read(ByteRange(7, 131072)) == content.read(7, 131072)
                with pytest.raises(NotAllowed):
                    await other.read(ByteRange(40 * MIB, 40 * MIB + 10))
                assert await other.read(ByteRange(0, 50)) == content.read(0, 50)
                store.faults.clear()
                await trio.sleep(61)  # an object in an archive is not requested in that time
                data = await other.read(ByteRange(40 * MIB, 40 * MIB + 10))
                assert data == content.read(40 * MIB, 40 * MIB + 10)

        run(main)

    def test_cached_bytes_stay_readable_while_the_store_responds_with_nonsense(
        self, tmp_path: Path
    ) -> None:
        """A page of maintenance with status 200, say, in place of every object."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, listing_ttl_s=0) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                await reader.read(ByteRange(0, 131072))
                await trio.sleep(5)
                store.break_with("html", count=10_000)
                # Opened afresh, with an old and with a new revision of its record.
                assert await learn(contents, revision="r2") == version
                other = await contents.open(SCENE, ZIP, version)
                assert await other.read(ByteRange(7, 131072)) == content.read(7, 131072)
                with pytest.raises(Garbled):
                    await other.read(ByteRange(40 * MIB, 40 * MIB + 10))

        run(main)

    @pytest.mark.slow
    def test_a_refused_object_is_not_requested_at_each_look(self, tmp_path: Path) -> None:
        """Whatever the code: none for a while, then one; a permission shows then."""
        store = FakeStore()
        content = store.add(MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                store.break_with("expired", count=10_000)
                with pytest.raises(NotAllowed):
                    await learn(contents)
                n_signed, n_met = store.n_signed, store.faults[0].count
                for _ in range(20):
                    with pytest.raises(NotAllowed):
                        await learn(contents)
                assert (store.n_signed, store.faults[0].count) == (n_signed, n_met)
                await trio.sleep(BELIEVED_S)
                with pytest.raises(NotAllowed):
                    await learn(contents)
                assert store.n_signed == n_signed + 1
                assert store.faults[0].count == n_met - 1
                store.faults.clear()
                await trio.sleep(BELIEVED_S)
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                assert await reader.read(ByteRange(0, 10)) == content.read(0, 10)

        run(main)

    def test_a_refusal_is_forgotten_with_the_version(self, tmp_path: Path) -> None:
        """A user who refreshes a file has it looked at without a wait."""
        store = FakeStore()
        store.add(MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                store.break_with("expired", count=10_000)
                with pytest.raises(NotAllowed):
                    await learn(contents)
                store.faults.clear()
                contents.forget(SCENE, ZIP)
                assert (await learn(contents)).size_bytes == MIB

        run(main)

    def test_a_refusal_is_not_believed_by_a_refresh(self, tmp_path: Path) -> None:
        """A user who refreshes a file a moment after a refusal has the store looked at."""
        store = FakeStore()
        store.add(MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                store.break_with("expired", count=10_000)
                with pytest.raises(NotAllowed):
                    await learn(contents)
                with pytest.raises(NotAllowed):
                    await contents.renew(SCENE, ZIP, "r1")
                store.faults.clear()
                assert (await contents.renew(SCENE, ZIP, "r1")).size_bytes == MIB
                assert (await learn(contents)).size_bytes == MIB

        run(main)

    def test_many_reads_fail_together(self, tmp_path: Path) -> None:
        """Fifty reads of a store that is away return within one deadline, not fifty."""
        store = FakeStore()
        store.add(640 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                readers = [await contents.open(SCENE, ZIP, version) for _ in range(50)]
                store.is_down = True
                began_s = trio.current_time()
                n_failed = 0

                async def read(reader: RemoteReader, start: int) -> None:
                    nonlocal n_failed
                    with pytest.raises(Unreachable):
                        await reader.read(ByteRange(start, start + 10))
                    n_failed += 1

                async with trio.open_nursery() as nursery:
                    for n, reader in enumerate(readers):
                        nursery.start_soon(read, reader, (n + 1) * 8 * MIB)
                assert n_failed == 50
                assert trio.current_time() - began_s <= 60
                assert_at_rest(contents)

        run(main)
