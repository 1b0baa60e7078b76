"""Which version an attachment has: learnt, replaced, and remembered over a remount."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from content.fakestore import (
    SCENE,
    ZIP,
    FakeStore,
    learn,
    opened,
    run,
)

from satfs.content.attachments import Attachments
from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.fetch.tails import TAIL_BYTES
from satfs.errors import (
    Changed,
    NotThere,
    Unreachable,
)
from satfs.model import ByteRange, SceneId
from satfs.net.permits import Permits

MIB = 1024 * 1024


class TestProbes:
    def test_a_probe_that_is_given_up_is_not_the_last(self, tmp_path: Path) -> None:
        """A store is not away for ever because the read that tried it again was given up."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                store.is_down = True
                with pytest.raises(Unreachable):
                    await reader.read(ByteRange(32 * MIB, 32 * MIB + 10))
                for n in range(10):
                    await trio.sleep(3)
                    other = await contents.open(SCENE, ZIP, version)
                    with trio.move_on_after(n * 0.01), suppress(Unreachable):
                        await other.read(ByteRange(n * MIB, n * MIB + 10))
                    other.close()
                store.is_down = False
                await trio.sleep(3)
                assert await reader.read(ByteRange(5, 50)) == content.read(5, 50)

        run(main)

    def test_nor_one_that_is_given_up_before_it_has_a_connection(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FakeStore()
        content = store.add(64 * MIB)

        async def wait(*_: object, **__: object) -> None:
            await trio.sleep_forever()

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                version = await learn(contents)
                reader = await contents.open(SCENE, ZIP, version)
                store.is_down = True
                with pytest.raises(Unreachable):
                    await reader.read(ByteRange(32 * MIB, 32 * MIB + 10))
                await trio.sleep(3)
                other = await contents.open(SCENE, ZIP, version)
                with monkeypatch.context() as patch, trio.move_on_after(1):
                    patch.setattr(Permits, "take", wait)  # all that the host lets through are busy
                    await other.read(ByteRange(MIB, MIB + 10))
                other.close()
                store.is_down = False
                await trio.sleep(3)
                assert await reader.read(ByteRange(5 * MIB, 5 * MIB + 9)) == content.read(
                    5 * MIB, 5 * MIB + 9
                )

        run(main)


class TestVersions:
    def test_a_clock_that_is_set_back_confirms_nothing(self, tmp_path: Path) -> None:
        """A version that was seen in the future, by a wrong clock, is confirmed like an old one."""
        store = FakeStore()
        store.add(MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                contents._versions._known.now = lambda: 2e9
                version = await learn(contents)
                contents._versions._known.now = lambda: 1.9e9
                store.add(MIB, seed=99)
                with pytest.raises(Changed):
                    await contents.open(SCENE, ZIP, version)

        run(main)

    def test_one_request_teaches_version_and_tail(self, tmp_path: Path) -> None:
        """Token aside, learning costs one link and one range; the tail is not fetched again."""
        store = FakeStore()
        content = store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                version = await learn(contents)
                assert (version.etag, version.size_bytes) == (content.etag, content.size_bytes)
                assert (store.n_signed, store.n_requests) == (1, 1)
                assert store.spans() == [(3 * MIB - TAIL_BYTES, 3 * MIB)]
                reader = await contents.open(SCENE, ZIP, version)
                data = await reader.read(ByteRange(3 * MIB - 22, 3 * MIB))
                assert data == content.read(3 * MIB - 22, 3 * MIB)
                assert store.n_requests == 1

        run(main)

    @pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, TAIL_BYTES, TAIL_BYTES + 1])
    def test_small_objects(self, tmp_path: Path, size: int) -> None:
        store = FakeStore()
        content = store.add(size)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                assert version.size_bytes == size
                reader = await contents.open(SCENE, ZIP, version)
                data = bytes(await reader.read(ByteRange(0, size + 5)))
                assert data == bytes(content.read(0, size))
                reader.close()

        if size == 0:  # a store without an object's last byte has no ETag to give with its 416
            store.sends_etag = False
        run(main)

    @pytest.mark.parametrize("size", [0, 1, 300_000])
    @pytest.mark.parametrize(
        "refusal", [(416, "InvalidRange"), (400, "InvalidArgument"), (501, "NotImplemented")]
    )
    def test_a_store_without_suffixes_is_asked_otherwise(
        self, tmp_path: Path, size: int, refusal: tuple[int, str]
    ) -> None:
        """Silence about the length is no length of 0, and an object of 0 bytes has that length."""
        store = FakeStore()
        content = store.add(size)
        store.refuses_suffix = refusal
        store.tells_length = False

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                assert version.size_bytes == size
                reader = await contents.open(SCENE, ZIP, version)
                data = bytes(await reader.read(ByteRange(0, size)))
                assert data == bytes(content.read(0, size))
                reader.close()

        run(main)

    def test_a_passing_416_does_not_empty_a_file(self, tmp_path: Path) -> None:
        """One that comes when a known version is confirmed neither."""
        store = FakeStore()
        store.add(300_000)

        async def main() -> None:
            async with opened(store, tmp_path, listing_ttl_s=0) as contents:
                version = await learn(contents)
                store.break_with("unsatisfied")
                assert await contents.renew(SCENE, ZIP, "r2") == version
                store.break_with("unsatisfied")
                reader = await contents.open(SCENE, ZIP, version)
                assert not store.faults[-1].meets()  # that request was sent
                assert len(await reader.read(ByteRange(0, 300_000))) == 300_000
                reader.close()

        run(main)

    @pytest.mark.parametrize(("who_gives_up", "n_requests"), [(0, 2), (30, 1)])
    def test_many_askers_learn_together(
        self, tmp_path: Path, who_gives_up: int, n_requests: int
    ) -> None:
        """Fifty calls at once cost one request, also when some of them are cancelled.

        When the first one is cancelled, whose request it is, another call makes it again.
        """
        store = FakeStore(latency_s=1)
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                versions = []

                async def on_index(patience_s: float) -> None:
                    with trio.move_on_after(patience_s):
                        versions.append(await learn(contents))

                async with trio.open_nursery() as nursery:
                    for n in range(50):
                        nursery.start_soon(on_index, 1.5 if n == who_gives_up else math.inf)
                        if n == 0:  # tasks that start together run in any order
                            await trio.testing.wait_all_tasks_blocked()
                    await trio.sleep(1.6)
                    for _ in range(3):
                        nursery.start_soon(on_index, math.inf)
                assert len(versions) == 52
                assert len(set(versions)) == 1
                assert store.n_requests == n_requests

        run(main)

    def test_versions_survive_a_remount(self, tmp_path: Path) -> None:
        """A second mount sends no request for a known version; a new revision is requested."""
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                known = await learn(contents)
            n_requests = store.n_requests
            async with opened(store, tmp_path, cache_bytes=10**8) as contents:
                assert await learn(contents) == known
                assert store.n_requests == n_requests
                assert await learn(contents, revision="r2") == known
                assert store.n_requests == n_requests + 1

        run(main)

    def test_a_version_is_confirmed_after_its_time(self, tmp_path: Path) -> None:
        """Opened again after the time to live, a version is checked, at no content bytes."""
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path, listing_ttl_s=0) as contents:
                version = await learn(contents)
                await trio.sleep(1)  # the tail comes behind the version
                sent = store.bytes_sent
                for _ in range(3):
                    (await contents.open(SCENE, ZIP, version)).close()
                assert store.n_requests == 4
                assert store.bytes_sent == sent
                store.add(4 * MIB, seed=3)
                with pytest.raises(Changed):
                    await contents.open(SCENE, ZIP, version)
                assert (await learn(contents)).size_bytes == 4 * MIB

        run(main)

    @pytest.mark.parametrize("what", ["time", "revision", "refresh", "no memory"])
    def test_what_is_not_there_is_believed_for_a_while(self, tmp_path: Path, what: str) -> None:
        """One request for many looks; a new record, a refresh or some time ends it."""
        store = FakeStore()
        negative_ttl_s = 0.0 if what == "no memory" else 5.0

        async def main() -> None:
            async with opened(store, tmp_path, negative_ttl_s=negative_ttl_s) as contents:
                for _ in range(5):
                    with pytest.raises(NotThere, match="the object store has no"):
                        await learn(contents)
                assert store.n_requests == (5 if what == "no memory" else 1)
                store.add(99)
                match what:
                    case "time":
                        await trio.sleep(14)
                        with pytest.raises(NotThere):
                            await learn(contents)
                        await trio.sleep(2)
                    case "refresh":
                        contents.forget(SceneId(SCENE), ZIP)
                revision = "r2" if what == "revision" else "r1"
                assert (await learn(contents, revision=revision)).size_bytes == 99

        run(main)

    def test_a_known_version_outlives_the_network(self, tmp_path: Path, expect_log: Any) -> None:
        expect_log("host counts as offline")
        store = FakeStore()
        store.add(3 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                await trio.sleep(1)  # the tail comes behind the version
                store.is_down = True
                with trio.fail_after(20):
                    assert await learn(contents, revision="r2") == version

        run(main)


class TestRemount:
    def test_a_second_mount_fetches_no_content(self, tmp_path: Path) -> None:
        """Everything read once comes from the disk afterwards."""
        store = FakeStore()
        content = store.add(9 * MIB + 5)

        async def read_all(contents: Attachments) -> None:
            reader = await contents.open(SCENE, ZIP, await learn(contents))
            for start in range(0, content.size_bytes, MIB):
                data = bytes(await reader.read(ByteRange(start, start + MIB)))
                assert data == bytes(content.read(start, min(start + MIB, content.size_bytes)))
            reader.close()

        async def main() -> None:
            async with opened(store, tmp_path, cache_bytes=10**9) as contents:
                await read_all(contents)
            sent = store.bytes_sent
            async with opened(store, tmp_path, cache_bytes=10**9) as contents:
                await read_all(contents)
            assert store.bytes_sent == sent

        run(main)

    def test_a_long_read_of_what_an_earlier_mount_left(self, tmp_path: Path) -> None:
        """A read longer than what is checked at once returns, and does not wait for ever."""
        store = FakeStore()
        content = store.add(20 * MIB)

        async def main() -> None:
            for _ in range(2):
                async with opened(store, tmp_path, cache_bytes=10**9) as contents:
                    reader = await contents.open(SCENE, ZIP, await learn(contents))
                    with trio.fail_after(60):
                        data = await reader.read(ByteRange(1, 20 * MIB))
                    assert bytes(data) == bytes(content.read(1, 20 * MIB))
            assert store.bytes_sent <= content.size_bytes

        run(main)
