"""The cache against a model: bytes served are the object's, limits hold, damage is found."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import trio
import trio.testing
from content.fakestore import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import BLOCK_BYTES, SEGMENT_BYTES, align, hash_blocks
from satfs.content.cache.blocks import COMMIT_INTERVAL_S, BlockCache
from satfs.content.cache.capacity import LOOK_INTERVAL_S
from satfs.content.cache.directory import path_of
from satfs.content.cache.objects import CachedObject, Spilled
from satfs.demo.contents import RampContent
from satfs.model import ByteRange

MIB = 1024 * 1024
SIZE = 5 * MIB + 777


def name_of(n: int) -> str:
    return f"{n:02d}" * 10


def content_of(n: int, size: int = SIZE) -> RampContent:
    return RampContent(size, n)


@asynccontextmanager
async def opened(directory: Path, **changes: Any) -> AsyncIterator[BlockCache]:
    how: dict[str, Any] = {"limit_bytes": 10**9, "free_fraction": 0.0, "memory_bytes": 16 * MIB}
    cache = await BlockCache.open(directory, **{**how, **changes})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        try:
            yield cache
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await cache.close()


async def fetch(cache: BlockCache, cached: CachedObject, n: int, span: ByteRange) -> None:
    """Bring *span* of object *n* as a transfer does, in pieces that are no whole blocks."""
    whole = align(span, cached.size_bytes)
    landing = cache.begin_landing(cached, whole)
    try:
        while True:
            await cache.reserve(cached, whole)
            layer, front = cached.top, whole.start
            try:
                held = front
                while front < whole.stop:
                    stop = min(front + 5000, whole.stop)
                    cache.put(cached, layer, front, content_of(n).read(front, stop))
                    front = stop
                    await trio.lowlevel.checkpoint()
                    done = front if front == whole.stop else front // BLOCK_BYTES * BLOCK_BYTES
                    if done > held:
                        cache.hold(cached, layer, held // BLOCK_BYTES, None, done)
                        held = done
                return
            except Spilled:
                continue
    finally:
        landing.end()


async def evict(cache: BlockCache, needed_bytes: int) -> None:
    """Give back at least *needed_bytes* of disk, if possible, as a transfer does."""
    async with cache.eviction.lock:
        await cache.eviction.evict(needed_bytes)


async def read(cache: BlockCache, cached: CachedObject, n: int, span: ByteRange) -> bool:
    """Compare what is served of *span*; return whether anything was."""
    await cache.check(cached, span)
    if not cached.holds(span):
        return False
    view = cached.view(span)
    data = cached.read_from_disk(span) if view is None else view
    assert bytes(data) == bytes(content_of(n).read(span.start, span.stop))
    cache.touch(cached, span)
    return True


spans = st.builds(
    lambda start, n: ByteRange(start, min(start + n, SIZE)),
    st.integers(0, SIZE - 1),
    st.integers(1, MIB),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["fetch", "fetch", "read", "fetch together", "evict", "commit", "reopen", "remount",
             "flip", "cut", "delete", "zero"]
        ),
        st.integers(0, 2),
        spans,
    ),
    max_size=25,
)  # fmt: skip


def damage(path: Path, how: str, at: int) -> None:
    if not path.exists():
        return
    if how == "delete":
        path.unlink()
    elif how == "cut":
        os.truncate(path, at)
    elif how == "zero":
        os.truncate(path, 0)
        os.truncate(path, SIZE)
    else:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 0xFF]))


@pytest.mark.slow
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps, st.sampled_from([0, 3 * MIB, 10**9]))
def test_whatever_happens_the_bytes_are_the_objects(
    tmp_path_factory: pytest.TempPathFactory, allow_log: Any, plan: list[Any], limit: int
) -> None:
    """Any order of fetching, reading, evicting, remounting and damage between mounts.

    Served bytes equal the object's; held bytes stay within the limit.
    """
    allow_log("cached blocks were damaged.*|cache file could not.*")
    allow_log(".*: keeping new content in memory")  # a disk that fails, or has no room left
    directory = tmp_path_factory.mktemp("cache")

    async def mount(plan: Iterator[tuple[str, int, ByteRange]]) -> tuple[str, int, int] | None:
        async with opened(directory, limit_bytes=limit) as cache:
            held = [await cache.acquire(name_of(n), "", SIZE) for n in range(3)]
            for what, n, span in plan:
                if what == "fetch":
                    await fetch(cache, held[n], n, span)
                elif what == "fetch together":
                    async with trio.open_nursery() as nursery:
                        for each in range(3):
                            nursery.start_soon(fetch, cache, held[each], each, span)
                elif what == "evict":
                    await evict(cache, len(span))
                elif what == "commit":
                    await cache.commit()
                elif what == "reopen":
                    held[n].release()
                    await trio.sleep(1)
                    held[n] = await cache.acquire(name_of(n), "", SIZE)
                elif what != "read":
                    return what, n, span.start
                await read(cache, held[n], n, span)
                statistics = cache.statistics()
                assert statistics["disk_bytes"] <= max(limit, 0)
                assert statistics["memory_bytes"] <= statistics["memory_limit_bytes"]
        return None

    remaining = iter(plan)
    while (ended := run(lambda: mount(remaining))) is not None:
        how, n, at = ended
        if how != "remount":
            damage(path_of(directory, name_of(n)), how, at)


def blocks_on_disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("objects/*/*"))


class TestEviction:
    def test_it_frees_the_disk(self, tmp_path: Path) -> None:
        """The disk has the space again that eviction counts as free."""

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, SIZE))
                before = blocks_on_disk(tmp_path)
                assert before >= SIZE
                await evict(cache, 2 * MIB - SIZE)
                await evict(cache, 3 * MIB)
                assert blocks_on_disk(tmp_path) <= before - 3 * MIB
                assert cache.statistics()["disk_bytes"] <= SIZE - 3 * MIB + BLOCK_BYTES

        run(main)

    def test_what_was_used_last_stays(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path, limit_bytes=20 * MIB) as cache:
                old = await cache.acquire(name_of(1), "", SIZE)
                new = await cache.acquire(name_of(2), "", SIZE)
                for cached, n in ((old, 1), (new, 2)):
                    await fetch(cache, cached, n, ByteRange(0, MIB))
                    await cache.commit()
                await evict(cache, 1)
                assert not old.holds(ByteRange(0, MIB))
                assert new.holds(ByteRange(0, MIB))

        run(main)

    def test_a_segment_in_the_middle_of_a_transfer_stays(self, tmp_path: Path) -> None:
        """Half a block has arrived; eviction of everything must not make zeros of it."""

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, BLOCK_BYTES))
                landing = cache.begin_landing(one, ByteRange(BLOCK_BYTES, 2 * BLOCK_BYTES))
                half = BLOCK_BYTES + BLOCK_BYTES // 2
                cache.put(one, one.top, BLOCK_BYTES, content_of(1).read(BLOCK_BYTES, half))
                await evict(cache, 10**9)
                cache.put(one, one.top, half, content_of(1).read(half, 2 * BLOCK_BYTES))
                cache.hold(one, one.top, 1, None, 2 * BLOCK_BYTES)
                landing.end()
                assert await read(cache, one, 1, ByteRange(0, 2 * BLOCK_BYTES))
                await evict(cache, 10**9)
                assert not one.holds(ByteRange(0, 1))

        run(main)

    def test_the_same_in_memory(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path, limit_bytes=0) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, BLOCK_BYTES))
                landing = cache.begin_landing(one, ByteRange(BLOCK_BYTES, 2 * BLOCK_BYTES))
                half = BLOCK_BYTES + 1000
                cache.put(one, one.top, BLOCK_BYTES, content_of(1).read(BLOCK_BYTES, half))
                cache._memory.make_room(10**9)
                cache.put(one, one.top, half, content_of(1).read(half, 2 * BLOCK_BYTES))
                cache.hold(one, one.top, 1, None, 2 * BLOCK_BYTES)
                landing.end()
                assert await read(cache, one, 1, ByteRange(0, 2 * BLOCK_BYTES))

        run(main)

    def test_nothing_is_written_where_space_is_leaving(self, tmp_path: Path) -> None:
        """A block wanted again while its segment is being punched arrives after the punch."""

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                in_thread = trio.to_thread.run_sync

                async def slow(work: Any, *args: Any, **how: Any) -> Any:
                    if getattr(work, "__name__", "") == "punch":
                        await trio.sleep(3)
                    return await in_thread(work, *args, **how)

                # Undone before `run` undoes its own.
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(trio.to_thread, "run_sync", slow)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(evict, cache, 10**9)
                        await trio.sleep(1)
                        await fetch(cache, one, 1, ByteRange(0, MIB))
                assert await read(cache, one, 1, ByteRange(0, MIB))

        run(main)

    @pytest.mark.parametrize("is_open", [True, False])
    def test_a_commit_under_way_promises_nothing_that_goes(
        self, tmp_path: Path, is_open: bool
    ) -> None:
        """What was to be entered before the eviction is forgotten after it was entered."""

        async def main() -> None:
            async with opened(tmp_path, limit_bytes=10 * MIB) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                for start in (0, MIB):
                    await fetch(cache, one, 1, ByteRange(start, start + MIB // 2))
                    await cache.commit()
                in_thread = trio.to_thread.run_sync
                may_write = trio.Event()

                async def gated(work: Any, *args: Any, **how: Any) -> Any:
                    if getattr(work, "__name__", "") == "write":
                        await may_write.wait()
                    return await in_thread(work, *args, **how)

                with pytest.MonkeyPatch.context() as patch:
                    async with trio.open_nursery() as nursery:
                        async with cache.objects.alone_with(name_of(1)):
                            nursery.start_soon(evict, cache, 1)  # one segment is enough
                            await trio.testing.wait_all_tasks_blocked()
                            # The eviction has chosen, and waits for the object.
                            await fetch(cache, one, 1, ByteRange(MIB // 2, MIB))
                            patch.setattr(trio.to_thread, "run_sync", gated)
                            nursery.start_soon(cache.commit)
                            await trio.testing.wait_all_tasks_blocked()
                            # The commit has taken what it enters.
                            assert not one.dirty
                            if not is_open:
                                one.release()
                                assert cache.objects.get(name_of(1)) is None
                        await trio.testing.wait_all_tasks_blocked()
                        may_write.set()
                assert cache.index is not None
                assert one.object_id is not None
                assert [each.number for each in cache.index.segments(one.object_id)] == [1]

        run(main)

    def test_a_file_that_another_process_has_alone_holds_up_no_other_object(
        self, tmp_path: Path
    ) -> None:
        """One that stands still has it for five seconds; all calls of the index waited for it."""

        async def main() -> None:
            async with opened(tmp_path) as cache:
                in_thread = trio.to_thread.run_sync
                is_free, held = trio.Event(), ["on_disk"]

                async def gated(work: Any, *args: Any, **how: Any) -> Any:
                    if getattr(work, "__name__", "") in held:
                        held.clear()
                        await is_free.wait()
                    return await in_thread(work, *args, **how)

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(trio.to_thread, "run_sync", gated)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(cache.acquire, name_of(1), "", SIZE)
                        await trio.testing.wait_all_tasks_blocked()
                        assert not held
                        with trio.fail_after(1):
                            two = await cache.acquire(name_of(2), "", SIZE)
                            await fetch(cache, two, 2, ByteRange(0, MIB))
                            await cache.commit()
                        assert await read(cache, two, 2, ByteRange(0, MIB))
                        is_free.set()

        run(main)

    def test_what_lands_while_room_is_made_needs_room_too(self, tmp_path: Path) -> None:
        """Eviction takes time, in which a fast line brings more than it gave back."""

        async def main() -> None:
            async with opened(tmp_path, limit_bytes=64 * MIB) as cache:
                old = await cache.acquire(name_of(1), "", 64 * MIB)
                await fetch(cache, old, 1, ByteRange(0, 50 * MIB))
                await cache.commit()
                two = await cache.acquire(name_of(2), "", 64 * MIB)
                three = await cache.acquire(name_of(3), "", 64 * MIB)
                span = ByteRange(0, 8 * MIB)
                landing = [cache.begin_landing(two, span)]
                await cache.reserve(two, span)
                in_thread = trio.to_thread.run_sync

                async def slow(work: Any, *args: Any, **how: Any) -> Any:
                    if getattr(work, "__name__", "") == "punch" and not two.dirty:
                        cache.put(two, two.top, 0, content_of(2, 8 * MIB).read(0, 8 * MIB))
                        cache.hold(two, two.top, 0, None, 8 * MIB)
                    return await in_thread(work, *args, **how)

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(trio.to_thread, "run_sync", slow)
                    landing.append(cache.begin_landing(three, span))
                    await cache.reserve(three, span)
                assert two.dirty or two.layers[0].map.n_present
                assert not three.top.file.in_memory
                for each in landing:
                    each.end()

        run(main)

    def test_the_file_stays_open_for_the_thread(self, tmp_path: Path) -> None:
        """An object released in the middle of its eviction is closed after it."""

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                await cache.commit()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(evict, cache, 10**9)
                    for _ in range(4):
                        await trio.lowlevel.checkpoint()
                    one.release()
                await trio.sleep(1)
                assert one.layers[0].file.fd == -1
                assert cache.statistics()["open_objects"] == 0

        run(main)

    def test_another_mount_keeps_its_objects(self, tmp_path: Path) -> None:
        """Objects that another process has open are passed over, and the next ones go."""
        program = (
            "import sys, pathlib\n"
            "from satfs.content.cache.blockfile import BlockFile\n"
            "BlockFile.on_disk(pathlib.Path(sys.argv[1]), int(sys.argv[2]))\n"
            "print('open', flush=True); sys.stdin.read()\n"
        )

        async def main() -> None:
            async with opened(tmp_path) as cache:
                held = []
                for n in (1, 2):
                    held.append(await cache.acquire(name_of(n), "", SIZE))
                    await fetch(cache, held[-1], n, ByteRange(0, MIB))
                    await cache.commit()
                path = path_of(tmp_path, name_of(1))
                other = subprocess.Popen(  # noqa: ASYNC220 - takes a moment
                    [sys.executable, "-c", program, str(path), str(SIZE)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                with other:
                    assert other.stdout is not None
                    assert other.stdin is not None
                    other.stdout.readline()
                    await evict(cache, 1)
                    assert await read(cache, held[0], 1, ByteRange(0, MIB))
                    assert not held[1].holds(ByteRange(0, 1))
                    held[0].release()
                    await trio.sleep(1)
                    await evict(cache, 10**9)  # closed here, open there
                    held[0] = await cache.acquire(name_of(1), "", SIZE)
                    assert await read(cache, held[0], 1, ByteRange(0, MIB))
                    other.stdin.close()
                await evict(cache, 10**9)
                assert not held[0].holds(ByteRange(0, 1))

        run(main)

    def test_pinned_objects_stay(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                assert cache.index is not None
                cache.index.pin(name_of(1), is_pinned=True)
                await evict(cache, 10**9)
                assert one.holds(ByteRange(0, MIB))

        run(main)

    def test_a_disk_with_little_free_space_costs_no_more_than_is_needed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where free space is the limit, eviction ends when the disk has the room again."""

        async def main() -> None:
            async with opened(tmp_path, limit_bytes=100 * MIB, free_fraction=0.1) as cache:
                one = await cache.acquire(name_of(1), "", 40 * MIB)
                await fetch(cache, one, 1, ByteRange(0, 40 * MIB))
                await cache.commit()
                before_bytes = blocks_on_disk(tmp_path)

                def usage(path: Path) -> Any:
                    freed_bytes = before_bytes - blocks_on_disk(tmp_path)
                    return SimpleNamespace(total=1000 * MIB, free=101 * MIB + freed_bytes)

                monkeypatch.setattr(shutil, "disk_usage", usage)
                await trio.sleep(LOOK_INTERVAL_S + 0.1)
                two = await cache.acquire(name_of(2), "", SIZE)
                await fetch(cache, two, 2, ByteRange(0, 2 * MIB))
                assert not two.top.file.in_memory
                # 1 MiB is missing; 2 % of the limit more are given back at once.
                assert one.top.map.n_present * BLOCK_BYTES >= 36 * MIB

        run(main)

    def test_without_a_descriptor_nothing_is_forgotten(
        self, tmp_path: Path, expect_log: Any
    ) -> None:
        """A file that cannot be opened for a moment is not gone."""
        expect_log("eviction failed", reason="OSError: Too many open files")

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, SIZE))
                one.release()
                await trio.sleep(1)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(BlockFile, "on_disk", refuse_with(errno.EMFILE))
                    await evict(cache, MIB)
                again = await cache.acquire(name_of(1), "", SIZE)
                assert await read(cache, again, 1, ByteRange(0, SIZE))

        run(main)


class TestDamage:
    def test_a_flipped_bit_costs_one_block(self, tmp_path: Path, expect_log: Any) -> None:
        expect_log("cached blocks were damaged.*", n_blocks=1)

        async def fill() -> None:
            async with opened(tmp_path) as cache:
                await fetch(cache, await cache.acquire(name_of(1), "", SIZE), 1, ByteRange(0, SIZE))

        async def look() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await cache.check(one, ByteRange(0, SIZE))
                gaps = list(one.gaps(ByteRange(0, SIZE)))
                assert gaps == [ByteRange(MIB, MIB + BLOCK_BYTES)]

        run(fill)
        damage(path_of(tmp_path, name_of(1)), "flip", MIB + 5)
        run(look)
        # and the index has forgotten it: the next mount doesn't find it damaged again
        run(look)

    def test_a_file_cut_while_it_is_open(self, tmp_path: Path, expect_log: Any) -> None:
        """The mount that had believed in the bytes says that they are gone, and goes on."""
        expect_log("cache file could not be read: fetching again")

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, SIZE))
                os.truncate(path_of(tmp_path, name_of(1)), MIB)
                # another mount opens it: it must not put zeros under the first one's eyes
                async with opened(tmp_path) as other:
                    again = await other.acquire(name_of(1), "", SIZE)
                    assert not again.holds(ByteRange(0, 1))
                span = ByteRange(2 * MIB, 2 * MIB + 10)
                assert one.view(span) is None
                with pytest.raises(Exception, match="cut short") as problem:
                    one.read_from_disk(span)
                cache.distrust(one, span, problem.value)
                await fetch(cache, one, 1, span)
                assert await read(cache, one, 1, span)

        run(main)

    def test_removed_while_open(self, tmp_path: Path) -> None:
        """Clearing the cache under a mount costs it nothing that it holds."""

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                await cache.commit()
                path_of(tmp_path, name_of(1)).unlink()
                assert cache.index is not None
                cache.index.remove_object(name_of(1))
                await fetch(cache, one, 1, ByteRange(MIB, 2 * MIB))
                assert await read(cache, one, 1, ByteRange(0, 2 * MIB))
                await cache.commit()
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                assert not await read(cache, one, 1, ByteRange(0, 1))

        run(main)


class TestNoDisk:
    def test_memory_keeps_its_budget(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path, limit_bytes=0, memory_bytes=4 * MIB) as cache:
                assert not cache.is_persistent
                one = await cache.acquire(name_of(1), "", SIZE)
                two = await cache.acquire(name_of(2), "", SIZE)
                for start in range(0, SIZE - MIB, MIB // 2):
                    for cached, n in ((one, 1), (two, 2)):
                        span = ByteRange(start, start + MIB // 2)
                        await fetch(cache, cached, n, span)
                        assert await read(cache, cached, n, span)
                        assert cache.statistics()["memory_bytes"] <= 4 * MIB
                one.release()
                two.release()
                assert cache.statistics()["memory_bytes"] == 0

        run(main)
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_spills_to_memory(self, tmp_path: Path, expect_log: Any) -> None:
        """No space: new blocks go to memory, and no reader gets an error."""
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], check=False
        )
        if mounted.returncode:
            pytest.skip("needs the right to mount a small tmpfs")
        expect_log("disk cache failed: keeping new content in memory")

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                (tmp_path / "filler").write_bytes(bytes(MIB))
                for start in range(MIB, SIZE - MIB, MIB):
                    await fetch(cache, one, 1, ByteRange(start, start + MIB))
                    assert await read(cache, one, 1, ByteRange(start, start + MIB))
                assert await read(cache, one, 1, ByteRange(MIB - 5, 2 * MIB + 5))

        try:
            run(main)
        finally:
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)

    def test_the_disk_fills_in_the_middle_of_a_block(
        self, tmp_path: Path, expect_log: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expect_log("disk cache failed: keeping new content in memory", reason="OSError: no space")

        async def main() -> None:
            async with opened(tmp_path) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                disk, n_writes = one.top.file, 0
                write = disk.write

                def failing(start: int, data: bytes | memoryview) -> None:
                    nonlocal n_writes
                    n_writes += 1
                    if n_writes > 10:
                        raise OSError(28, "no space")
                    write(start, data)

                monkeypatch.setattr(disk, "write", failing)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                assert await read(cache, one, 1, ByteRange(0, MIB))

        run(main)

    def test_a_failing_index_costs_persistence_only(self, tmp_path: Path, expect_log: Any) -> None:
        expect_log("cache index failed: new blocks may not survive this mount")

        async def main() -> None:
            async with opened(tmp_path, limit_bytes=3 * MIB) as cache:
                one = await cache.acquire(name_of(1), "", SIZE)
                assert cache.index is not None
                cache.index.close()
                for start in range(0, SIZE - MIB, MIB):
                    await fetch(cache, one, 1, ByteRange(start, start + MIB))
                    assert await read(cache, one, 1, ByteRange(start, start + MIB))

        run(main)


def test_opening_together_opens_once(tmp_path: Path) -> None:
    """Twenty who acquire one object at once, some of them giving up, share it."""
    dice = random.Random(3)

    async def main() -> None:
        async with opened(tmp_path) as cache:
            got: list[CachedObject] = []

            async def take(patience: int) -> None:
                with trio.CancelScope() as scope:
                    for _ in range(dice.randrange(4)):
                        await trio.lowlevel.checkpoint()
                    if patience == 0:
                        scope.cancel()
                    got.append(await cache.acquire(name_of(1), "", SIZE))

            async with trio.open_nursery() as nursery:
                for n in range(20):
                    nursery.start_soon(take, n % 5)
            assert len({id(each) for each in got}) == 1
            assert got[0].n_users == len(got) == 16
            assert not cache.objects._opening
            for each in got:
                each.release()
            assert cache.statistics()["open_objects"] == 0

    run(main)


# -- a process with limits -------------------------------------------------------------------------


def test_what_the_index_refuses_for_a_moment_is_entered_later(
    tmp_path: Path, expect_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full for a moment costs no block of an object that is in use."""
    expect_log("cache index failed: new blocks may not survive this mount")

    def refuse(*_: Any) -> NoReturn:
        raise sqlite3.OperationalError("database or disk is full")

    async def main() -> None:
        async with opened(tmp_path) as cache:
            one = await cache.acquire(name_of(1), "", SIZE)
            assert cache.index is not None
            with monkeypatch.context() as patch:
                patch.setattr(cache.index, "commit", refuse)
                await fetch(cache, one, 1, ByteRange(0, MIB))
                await trio.sleep(2 * COMMIT_INTERVAL_S)
            await trio.sleep(2 * COMMIT_INTERVAL_S)
            assert cache.index.held_bytes() == MIB

    run(main)


def test_a_cancelled_commit_leaves_its_blocks_to_the_next_one(tmp_path: Path) -> None:
    """A mount or a process may end while its last commit waits for another call of the index."""

    async def main() -> None:
        async with opened(tmp_path, limit_bytes=10**9) as cache:
            cached = await cache.acquire(name_of(0), "0", SIZE)
            await fetch(cache, cached, 0, ByteRange(0, SIZE))
            is_held, is_let_go = threading.Event(), threading.Event()

            def hold_the_index() -> None:
                is_held.set()
                is_let_go.wait(10)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.on_index, hold_the_index)
                await trio.to_thread.run_sync(is_held.wait)
                async with trio.open_nursery() as committing:
                    committing.start_soon(cache.commit)
                    await trio.testing.wait_all_tasks_blocked()
                    committing.cancel_scope.cancel()
                is_let_go.set()
            cached.release()
        async with opened(tmp_path, limit_bytes=10**9) as cache:
            cached = await cache.acquire(name_of(0), "0", SIZE)
            assert next(cached.gaps(ByteRange(0, SIZE)), None) is None
            cached.release()

    trio.run(main)  # with threads, since a call waits for another one


def refuse_with(number: int) -> Callable[..., NoReturn]:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


def test_memory_without_a_file_holds_and_gives_back_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files may not be as large (RLIMIT_FSIZE), bytes in memory are a mapping alone."""
    monkeypatch.setattr(os, "ftruncate", refuse_with(errno.EFBIG))
    file = BlockFile.anonymous(3 * SEGMENT_BYTES)
    data = bytes(range(256)) * (SEGMENT_BYTES // 256)
    span = ByteRange(SEGMENT_BYTES, 2 * SEGMENT_BYTES)
    file.write(span.start, data)
    view = file.view(span)
    assert view is not None
    assert (file.fd, bytes(view)) == (None, data)
    view.release()
    assert file.read_from_disk(span) == data
    assert file.verify(span, file.hash_held(span)) == [True] * (SEGMENT_BYTES // BLOCK_BYTES)
    file.punch(span)
    assert file.read_from_disk(span) == bytes(SEGMENT_BYTES)
    file.close()


def test_a_file_that_cannot_be_mapped_is_read_without_a_map(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where addresses are used up (RLIMIT_AS, ENOMEM) a file has no views, and the same bytes."""
    monkeypatch.setattr(mmap, "mmap", refuse_with(errno.ENOMEM))
    file, _ = BlockFile.on_disk(tmp_path / "object", SEGMENT_BYTES)
    data = bytes(range(256)) * (BLOCK_BYTES // 256)
    span = ByteRange(BLOCK_BYTES, 2 * BLOCK_BYTES)
    file.write(span.start, data)
    assert file.view(span, is_fresh=True) is None
    assert file.read_from_disk(span) == data
    assert file.hash_held(span) == hash_blocks(data)
    file.close()
