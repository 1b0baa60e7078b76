"""Links of the content package: expired, refused, renewed, and kept secret."""

from __future__ import annotations

from pathlib import Path

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

from satfs.errors import (
    NotAllowed,
)
from satfs.model import ByteRange, RemoteReader

MIB = 1024 * 1024


class TestLinks:
    def test_one_link_serves_many_ranges(self, tmp_path: Path) -> None:
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                for start in range(0, content.size_bytes, MIB):
                    await reader.read(ByteRange(start, start + MIB))
                assert store.n_signed == 1
                assert len(store.requests) > 4

        run(main)

    def test_a_spent_link_is_renewed_once_for_all(self, tmp_path: Path) -> None:
        """Twenty ranges refused with 403 request one new link together."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                version = await learn(contents)
                readers = [await contents.open(SCENE, ZIP, version) for _ in range(20)]
                store.expire_links()

                async def read(reader: RemoteReader, start: int) -> None:
                    data = await reader.read(ByteRange(start, start + 50_000))
                    assert data == content.read(start, start + 50_000)

                async with trio.open_nursery() as nursery:
                    for n, reader in enumerate(readers):
                        nursery.start_soon(read, reader, 2 * MIB * n + MIB)
                assert store.n_signed == 2

        run(main)

    def test_keys_may_change_twice_within_a_moment(self, tmp_path: Path) -> None:
        """A new link that is refused for a moment is tried again itself."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                store.break_with("expired", count=2)
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                assert store.n_signed == 1
                store.break_with("expired", count=3)
                started_s = trio.current_time()
                read = await reader.read(ByteRange(MIB, MIB + 9))
                assert bytes(read) == content.read(MIB, MIB + 9)
                assert store.n_signed == 2
                assert trio.current_time() - started_s < 1

        run(main)

    @pytest.mark.parametrize("ahead_s", [0.02, 0.3, 1.0])
    def test_a_link_that_is_not_valid_yet_is_tried_again_itself(
        self, tmp_path: Path, ahead_s: float
    ) -> None:
        """The signer's clock is ahead: at the first look, and after each renewal."""
        store = FakeStore()
        content = store.add(64 * MIB)
        store.link_begins_s = ahead_s

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                assert store.n_signed == 1
                store.expire_links()
                read = await reader.read(ByteRange(MIB, 40 * MIB))
                assert bytes(read) == content.read(MIB, 40 * MIB)
                assert store.n_signed == 2

        run(main)

    @pytest.mark.parametrize("seconds", [0.5, 3, 20])
    def test_a_vendor_who_gives_a_dead_link_again_is_asked_now_and_then(
        self, tmp_path: Path, seconds: float
    ) -> None:
        """Its cache keeps links for longer than they live; a moment later it has another one."""
        store = FakeStore()
        content = store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.expire_links()
                store.repeats_links_until_s = trio.current_time() + seconds
                n_requested = store.n_requests
                read = await reader.read(ByteRange(MIB, MIB + 9))
                assert bytes(read) == content.read(MIB, MIB + 9)
                assert store.n_signed <= 3 + seconds
                assert store.n_requests - n_requested <= 8 + seconds

        run(main)

    def test_a_link_refused_for_good_is_not_allowed(self, tmp_path: Path) -> None:
        """403 with new links too is final, and it is raised within seconds."""
        store = FakeStore()
        store.add(64 * MIB)

        async def main() -> None:
            async with opened(store, tmp_path) as contents:
                reader = await contents.open(SCENE, ZIP, await learn(contents))
                store.break_with("forbidden-for-good", count=100)
                with trio.fail_after(4), pytest.raises(NotAllowed):
                    await reader.read(ByteRange(MIB, MIB + 1))
                assert store.n_signed <= 4

        run(main)
