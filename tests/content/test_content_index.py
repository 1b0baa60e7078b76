"""The cache's memory across mounts, and the directory it lives in."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import xxhash
from content.fakestore import run

from satfs.content.cache import index as index_module
from satfs.content.cache import maintenance
from satfs.content.cache.blockmap import BLOCK_BYTES, BLOCKS_PER_SEGMENT, Segment
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.directory import object_name, open_index, path_of, prepare_directory
from satfs.content.cache.index import Index, KnownVersion
from satfs.content.cache.objects import CachedObject
from satfs.demo.contents import RampContent
from satfs.errors import BadCache, CannotMount
from satfs.model import ByteRange

HASHES = bytes(8 * BLOCKS_PER_SEGMENT)


def seg(number: int, mask: int, hashes: bytes = HASHES) -> Segment:
    return Segment(number, mask, hashes)


class TestTogether:
    def test_two_mounts_add_to_each_other(self, tmp_path: Path) -> None:
        """One finds what the other commits; neither removes anything."""
        one, two = open_index(tmp_path), open_index(tmp_path)
        number = one.open_object("a", "label", 99, is_new=True)
        assert two.open_object("a", "label", 99, is_new=False) == number
        before = two.changes()
        one.commit(number, [seg(0, 0b01)])
        assert two.changes() != before
        two.commit(number, [seg(0, 0b10), seg(5, 0b1)])
        assert [(each.number, each.mask) for each in one.segments(number)] == [(0, 3), (5, 1)]
        assert one.held_bytes() == two.held_bytes() == 3 * 16384
        one.close()
        two.close()

    def test_a_new_file_promises_nothing(self, tmp_path: Path) -> None:
        """Rows of a data file that is gone are gone, also for a mount that still commits to it."""
        index = open_index(tmp_path)
        old = index.open_object("a", "", 99, is_new=True)
        index.commit(old, [seg(0, 1)])
        new = index.open_object("a", "", 99, is_new=True)
        assert index.segments(new) == []
        index.commit(old, [seg(0, 1)])
        assert index.segments(new) == []
        index.close()

    def test_what_was_read_last_goes_last(self, tmp_path: Path) -> None:
        """Segments that were noted together keep the order in which each was used."""
        index = open_index(tmp_path)
        number = index.open_object("a", "", 1 << 40, is_new=True)
        index.commit(number, [seg(n, 1) for n in range(4)])
        later_s = time.time() + 60
        index.touch(number, {0: later_s + 3, 2: later_s + 1, 1: later_s + 2})
        assert [victim.number for victim in index.victims(list)] == [3, 2, 1, 0]
        index.close()

    def test_a_damaged_row_is_replaced(self, tmp_path: Path) -> None:
        """A row that is no segment promises nothing, and a commit to it is no failure."""
        index = open_index(tmp_path)
        number = index.open_object("a", "", 99, is_new=True)
        index.commit(number, [seg(0, 0b01)])
        with sqlite3.connect(tmp_path / "index.sqlite") as db:
            db.execute("UPDATE segments SET hashes = x'0102'")
        db.close()
        assert index.segments(number) == []
        index.commit(number, [seg(0, 0b10)])
        assert [each.mask for each in index.segments(number)] == [0b10]
        index.close()

    def test_versions_and_notes(self, tmp_path: Path) -> None:
        index = open_index(tmp_path)
        seen = KnownVersion("r", '"e"', 5, 1.5)
        assert index.version("me", "s", "z") is None
        index.note_version("me", "s", "z", seen)
        assert index.version("me", "s", "z") == seen
        assert index.version("you", "s", "z") is None
        index.forget_version("me", "s", "z")
        assert index.version("me", "s", "z") is None
        assert index.note("k") is None
        index.note("k", b"v")
        assert index.note("k") == b"v"
        index.close()

    @pytest.mark.slow
    def test_mounts_that_start_together_all_get_the_disk(self, tmp_path: Path) -> None:
        """Eight processes make the same new cache at the same moment; none is turned away."""
        program = (
            "import sys, pathlib, time\n"
            "from satfs.content.cache.directory import open_index\n"
            "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
            "index = open_index(pathlib.Path(sys.argv[1]))\n"
            "n = index.open_object('a', '', 9, is_new=False)\n"
        )
        for attempt in range(2):
            start = str(time.time() + 1.0)
            arguments = [sys.executable, "-c", program, str(tmp_path / str(attempt)), start]
            processes = [subprocess.Popen(arguments) for _ in range(8)]
            assert [process.wait(30) for process in processes] == [0] * 8


@pytest.mark.slow
def test_a_kill_in_the_middle_of_commits_leaves_it_usable(tmp_path: Path) -> None:
    """SIGKILL at random moments: the index opens, and every row it has is whole."""
    program = (
        "import sys, pathlib\n"
        "from satfs.content.cache.directory import open_index\n"
        "from satfs.content.cache.blockmap import Segment\n"
        "index = open_index(pathlib.Path(sys.argv[1]))\n"
        "number = index.open_object('a', '', 1 << 40, is_new=False)\n"
        "print('go', flush=True)\n"
        "for n in range(10**9):\n"
        "    mark = (n % 251).to_bytes(1, 'little') * 512\n"
        "    segments = [Segment(n % 50 * 4 + k, 2**64 - 1, mark) for k in range(4)]\n"
        "    index.commit(number, segments)\n"
    )
    dice = random.Random(1)
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(dice.uniform(0.01, 0.1))
            child.send_signal(signal.SIGKILL)
        index = open_index(tmp_path)
        number = index.open_object("a", "", 1 << 40, is_new=False)
        rows = {each.number: each for each in index.segments(number)}
        for row in rows.values():
            assert row.mask == 2**64 - 1
            first = rows[row.number // 4 * 4]
            assert row.hashes == first.hashes == first.hashes[:1] * 512  # a commit is whole
        assert rows
        index.close()


class TestDirectory:
    def test_it_is_ours_alone(self, tmp_path: Path) -> None:
        directory = tmp_path / "a" / "cache"
        open_index(directory).close()
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "index.sqlite").stat().st_mode & 0o777 == 0o600
        assert (directory / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f59")
        directory.chmod(0o755)
        prepare_directory(directory)
        assert directory.stat().st_mode & 0o777 == 0o700

    def test_a_symbolic_link_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(CannotMount, match="symbolic link"):
            open_index(tmp_path / "link")
        assert list((tmp_path / "real").iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a directory away")
    def test_somebody_elses_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", 65534, 65534)
        with pytest.raises(CannotMount, match="another user"):
            open_index(tmp_path / "theirs")

    @pytest.mark.parametrize("garbage", [b"not a database at all" * 100, b"SQLite format 3\0abc"])
    def test_what_is_no_index_is_replaced(self, tmp_path: Path, garbage: bytes) -> None:
        """A file that can promise nothing is put aside, with the data that it spoke of."""
        (tmp_path / "objects" / "aa").mkdir(parents=True)
        (tmp_path / "objects" / "aa" / "aa").write_bytes(b"data")
        (tmp_path / "index.sqlite").write_bytes(garbage)
        index = open_index(tmp_path)
        assert index.kept() == []
        assert not (tmp_path / "objects" / "aa").exists()
        index.close()

    def test_a_damaged_index_is_replaced(self, tmp_path: Path) -> None:
        """Pages overwritten in the middle of the file are noticed when the cache is opened."""
        index = open_index(tmp_path)
        number = index.open_object("a", "", 1 << 40, is_new=True)
        index.commit(number, [seg(n, 1) for n in range(2000)])
        index.close()
        path = tmp_path / "index.sqlite"
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(size - 16384))
        index = open_index(tmp_path)
        assert index.held_bytes() == 0
        number = index.open_object("a", "", 1 << 40, is_new=True)
        index.commit(number, [seg(0, 1)])
        assert index.held_bytes() == 16384
        index.close()

    def test_an_index_that_is_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("mine")
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "index.sqlite").symlink_to(tmp_path / "precious")
        with pytest.raises(OSError, match="symbolic links"):
            open_index(tmp_path / "cache")
        assert (tmp_path / "precious").read_text() == "mine"

    @pytest.mark.parametrize("obstacle", ["file", "read-only"])
    def test_no_directory_means_memory(
        self, tmp_path: Path, obstacle: str, expect_log: Any
    ) -> None:
        """A cache that cannot be on disk is in memory, and says so once."""
        directory = tmp_path / "cache"
        mounted = False
        if obstacle == "file":
            directory.write_text("a file")
        else:
            directory.mkdir()
            made = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(directory)], check=False
            )
            if made.returncode:
                pytest.skip("needs the right to mount something read-only")
            mounted = True
        expect_log("no disk cache: keeping content in memory")

        async def main() -> None:
            cache = await BlockCache.open(
                directory, limit_bytes=10**9, free_fraction=0.0, memory_bytes=1 << 24
            )
            assert not cache.is_persistent
            cached = await cache.acquire("ab" * 10, "", 99)
            assert cached.top.file.in_memory
            cached.release()
            await cache.close()

        try:
            run(main)
        finally:
            if mounted:
                subprocess.run(["umount", str(directory)], check=True)

    def test_names_tell_nothing_and_apart(self) -> None:
        names = {object_name("a", "bc"), object_name("ab", "c"), object_name("abc"),
                 object_name("a", "b", "c"), object_name("\udcff")}  # fmt: skip
        assert len(names) == 5
        assert all(len(name) == 40 for name in names)
        assert path_of(Path("/x"), "abcd") == Path("/x/objects/ab/abcd")


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    index = Index(tmp_path / "i")
    index.close()
    with pytest.raises(sqlite3.Error):
        index.kept()


_MOUNT = """
import sys, trio, pathlib, random
from content.fakestore import FakeStore, opened, learn, SCENE, ZIP
from satfs.model import ByteRange
directory, seed, limit = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = FakeStore(latency_s=0.001, bytes_per_s=1e9)
content = store.add(24 << 20)
dice = random.Random(seed)
async def main():
    async with opened(store, directory, cache_bytes=limit) as contents:
        version = await learn(contents)
        print("up", flush=True)
        for _ in range(60):
            reader = await contents.open(SCENE, ZIP, version)
            start = dice.randrange(24 << 20)
            for at in range(start, start + (2 << 20), 300_000):
                data = bytes(await reader.read(ByteRange(at, at + 300_000)))
                assert data == bytes(content.read(min(at, 24 << 20), min(at + 300_000, 24 << 20)))
            reader.close()
trio.run(main)
print(store.bytes_sent)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [8 << 20, 10**9])
def test_mounts_share_a_directory(tmp_path: Path, limit: int) -> None:
    """Three processes on one cache, one killed on the way: right bytes, with any evictions."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}

    def start(seed: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _MOUNT, str(tmp_path), str(seed), str(limit)],
            env=environment,
            stdout=subprocess.PIPE,
        )

    processes = [start(seed) for seed in range(3)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.2)
    processes[0].kill()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes[1:]] == [0, 0], outputs
    last = start(7)
    printed = last.communicate(timeout=60)[0]
    assert last.returncode == 0, printed


class TestUpkeep:
    """Changes of a cache from outside, while a mount uses it."""

    def test_clear_and_verify_under_an_open_object(self, tmp_path: Path) -> None:
        content = RampContent(3 << 20, 4)
        name = "cd" * 20

        async def fetch(cache: BlockCache, cached: CachedObject, span: ByteRange) -> None:
            landing = cache.begin_landing(cached, span)
            await cache.reserve(cached, span)
            cache.put(cached, cached.top, span.start, content.read(span.start, span.stop))
            cache.hold(cached, cached.top, span.start // BLOCK_BYTES, None, span.stop)
            landing.end()

        async def main() -> None:
            cache = await BlockCache.open(
                tmp_path, limit_bytes=10**9, free_fraction=0.0, memory_bytes=1 << 24
            )
            cached = await cache.acquire(name, "a scene", content.size_bytes)
            await fetch(cache, cached, ByteRange(0, 1 << 20))
            await cache.commit()
            (checked,) = maintenance.verify(tmp_path)
            assert (checked.good_bytes, checked.damaged_bytes) == (1 << 20, 0)
            assert maintenance.info(tmp_path).disk_bytes >= 1 << 20
            assert maintenance.clear(tmp_path) == 1 << 20
            # The mount goes on with the files that it holds; its commits now go to a file without a
            # name.
            await fetch(cache, cached, ByteRange(1 << 20, 2 << 20))
            await cache.commit()
            view = cached.view(ByteRange(0, 2 << 20))
            assert view is not None
            assert bytes(view) == bytes(content.read(0, 2 << 20))
            assert maintenance.info(tmp_path).held_bytes == 0
            cached.release()
            await cache.close()

        run(main)

    def test_verify_finds_and_forgets_what_is_wrong(self, tmp_path: Path) -> None:
        index = open_index(tmp_path)
        name = "ef" * 20
        number = index.open_object(name, "", 1 << 20, is_new=True)
        path = path_of(tmp_path, name)
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1 << 20))
        good = xxhash.xxh3_64_intdigest(bytes(BLOCK_BYTES)).to_bytes(8, "little")
        index.commit(number, [seg(0, 0b111, good * 2 + bytes(8) * 62)])
        index.close()
        (checked,) = maintenance.verify(tmp_path)
        assert (checked.good_bytes, checked.damaged_bytes) == (2 * BLOCK_BYTES, BLOCK_BYTES)
        (checked,) = maintenance.verify(tmp_path)
        assert (checked.good_bytes, checked.damaged_bytes) == (2 * BLOCK_BYTES, 0)

    def test_verify_leaves_pins(self, tmp_path: Path) -> None:
        """An object that was pinned before it is fetched stays pinned; its old rows go."""
        index = open_index(tmp_path)
        name = "ab" * 20
        index.commit(index.open_object(name, "", 1 << 20, is_new=False), [seg(0, 1)])
        index.pin(name, is_pinned=True)
        list(maintenance.verify(tmp_path))
        (kept,) = index.kept()
        assert (kept.name, kept.is_pinned, kept.held_bytes) == (name, True, 0)
        index.close()

    @pytest.mark.parametrize("work", [maintenance.info, maintenance.clear, maintenance.verify])
    def test_a_cache_that_a_stopped_mount_has_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Any
    ) -> None:
        """Writing waits for it, for a while; looking does not."""
        monkeypatch.setattr(index_module, "_BUSY_TIMEOUT_S", 0.0)
        index = open_index(tmp_path)
        index.open_object("ab" * 20, "", 1 << 20, is_new=False)
        index.close()
        stopped = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
        stopped.execute("BEGIN IMMEDIATE")
        if work is maintenance.info:
            assert len(maintenance.info(tmp_path).objects) == 1
        else:
            with pytest.raises(BadCache, match="cannot be used"):
                list(work(tmp_path))
        stopped.close()
