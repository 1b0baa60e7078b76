"""One cache for all processes of a node: each byte is fetched once."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from embedded.conftest import OpenFs, StartOrigin
from embedded.test_embedded_fsspec import MIB, content_of, path_of, ramp_catalogue
from fakes.processes import wait_until
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.cache.claims import MAX_LEVEL, Claims
from satfs.content.cache.objects import CachedObject
from satfs.model import ByteRange
from satfs.node_locks import NodeLocks

#: Reads paths, each in pieces of a megabyte, and prints when it began and what it read.
_READER = """
import hashlib, json, sys, time
from satfs.fsspec import SatfsFileSystem
fs = SatfsFileSystem(mount="never")
fs.ls("")
print("ready", flush=True)
sys.stdin.readline()
for path in json.loads(sys.argv[1]):
    digest = hashlib.sha256()
    with fs.open(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            if file.tell() == 1 << 20:
                print("begun", path, flush=True)
    print(digest.hexdigest(), flush=True)
fs.close()
"""

Reader = subprocess.Popen[str]
StartReader = Callable[..., Reader]


@pytest.fixture
def start_reader(cache_dir: Path) -> Iterator[StartReader]:
    """Return a function that starts a process which reads paths when it gets `go`."""
    with ExitStack() as stack:

        def start(paths: list[str]) -> Reader:
            reader = subprocess.Popen(
                [sys.executable, "-c", _READER, json.dumps(paths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

            def end() -> None:
                reader.send_signal(signal.SIGCONT)
                reader.kill()
                reader.communicate()

            stack.callback(end)
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            return reader

        yield start


def go(*readers: Reader) -> None:
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()


def next_line(reader: Reader, beginning: str = "") -> str:
    """Return the next line that begins with *beginning*."""
    assert reader.stdout is not None
    while line := reader.stdout.readline():
        if line.startswith(beginning):
            return line.strip()
    raise AssertionError("the reader has ended")


def digests(reader: Reader) -> list[str]:
    out, _ = reader.communicate(timeout=90)
    assert reader.returncode == 0
    return [line for line in out.splitlines() if not line.startswith("begun")]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_four_processes_fetch_four_scenes_once(
    start_origin: StartOrigin, start_reader: StartReader
) -> None:
    """Processes that share a cache directory fetch each byte once."""
    n_scenes, size_bytes = 4, 16 * MIB
    origin = start_origin(ramp_catalogue(n_scenes, size_bytes), store_latency_s=0.01)
    paths = [path_of(n) for n in range(n_scenes)]
    # Each begins with another scene, so that they meet in the middle of all of them.
    orders = [paths[n:] + paths[:n] for n in range(4)]
    readers = [start_reader(order) for order in orders]
    go(*readers)
    for number, reader in enumerate(readers):
        expected = [digest(content_of(origin, (number + n) % 4)) for n in range(4)]
        assert digests(reader) == expected
    origin.journal.wait_until_idle()
    assert origin.bytes_sent() <= 1.02 * n_scenes * size_bytes


def test_four_processes_in_step_fetch_a_scene_once(
    start_origin: StartOrigin, start_reader: StartReader
) -> None:
    origin = start_origin(ramp_catalogue(1, 32 * MIB), bytes_per_s=8 * MIB)
    readers = [start_reader([path_of()]) for _ in range(4)]
    go(*readers)
    for reader in readers:
        assert digests(reader) == [digest(content_of(origin))]
    origin.journal.wait_until_idle()
    assert origin.bytes_sent() <= 1.02 * 32 * MIB
    # One of them learnt the size, and the end of the object with it.
    tails = [each for each in origin.journal.of("object") if (each.range or "")[:7] == "bytes=-"]
    assert len(tails) == 1


def test_who_waits_takes_over_when_the_fetching_process_is_killed(
    start_origin: StartOrigin, start_reader: StartReader
) -> None:
    """The kernel releases the claims of a killed process: others continue within a second."""
    origin = start_origin(ramp_catalogue(1, 24 * MIB), bytes_per_s=2 * MIB)
    first, other = start_reader([path_of()]), start_reader([path_of()])
    go(first)
    next_line(first, "begun")
    go(other)
    next_line(other, "begun")
    origin.store_line.bytes_per_s = None
    first.kill()
    killed_s = time.time()
    assert digests(other) == [digest(content_of(origin))]
    later = [each.started_s for each in origin.journal.of("object") if each.started_s >= killed_s]
    assert min(later) - killed_s < 1


def test_who_waits_takes_over_when_the_fetching_process_stands_still(
    start_origin: StartOrigin, start_reader: StartReader
) -> None:
    origin = start_origin(ramp_catalogue(1, 24 * MIB), bytes_per_s=2 * MIB)
    first, others = start_reader([path_of()]), [start_reader([path_of()]) for _ in range(2)]
    go(first)
    next_line(first, "begun")
    first.send_signal(signal.SIGSTOP)
    origin.store_line.bytes_per_s = None
    go(*others)
    for other in others:
        assert digests(other) == [digest(content_of(origin))]
    first.send_signal(signal.SIGCONT)
    assert digests(first) == [digest(content_of(origin))]


def test_a_process_alone_waits_for_nobody(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue())
    fs = open_fs()
    assert fs.cat(path_of()) == content_of(origin)
    thread = fs._access.thread
    assert thread is not None
    claims = thread.parts.contents._cache.claims
    wait_until(lambda: not claims._active)


# -- the locks ------------------------------------------------------------------------------------


def locks_on(directory: Path) -> NodeLocks:
    locks = NodeLocks()
    locks.open(directory)
    return locks


def test_a_lock_that_is_held_shows_the_process_that_came(tmp_path: Path) -> None:
    """Presence is looked for twice a second; a caller that did not wait would try all the time."""
    one = locks_on(tmp_path)
    assert not one.is_shared(0.0)
    other = locks_on(tmp_path)
    try:
        assert other.try_lock(1, 2)
        assert not one.try_lock(1, 2)
        assert one.is_shared(0.1)
    finally:
        one.close()
        other.close()


def test_two_hold_no_number_together(tmp_path: Path) -> None:
    one, other = locks_on(tmp_path), locks_on(tmp_path)
    try:
        assert one.is_shared(0.0)
        assert one.try_lock(10, 20)
        assert one.try_lock(15, 25)  # its own
        assert not other.try_lock(24, 30)
        assert other.holder(0, 100) == (10, 25)
        assert one.holder(0, 100) is None
        one.unlock(12, 14)
        assert other.try_lock(12, 14)
        assert other.holder(0, 100) == (10, 12)
    finally:
        one.close()
    assert other.holder(0, 100) is None
    assert not other.is_shared(10.0)
    other.close()


def cached_object(number: int) -> CachedObject:
    return CachedObject(f"object{number}", 1 << 30, [], number)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 1),
            st.integers(0, MAX_LEVEL - 1),
            st.integers(0, 40),
            st.integers(1, 20),
            st.integers(0, 20),
        ),
        max_size=20,
    )
)
def test_no_block_is_claimed_twice_and_none_is_left(
    tmp_path_factory: pytest.TempPathFactory,
    wishes: list[tuple[int, int, int, int, int, int]],
) -> None:
    """Of two processes at most one has a block; what is ended and entered is free again."""
    block = 16 * 1024
    directory = tmp_path_factory.mktemp("claims")
    locks = [locks_on(directory) for _ in range(2)]
    claims = [Claims(each) for each in locks]
    taken: list[dict[tuple[int, int, int], int]] = [{}, {}]
    made = []
    try:
        for who, what, level, first, n_blocks, n_brought in wishes:
            # An attempt that goes on in the middle of a block claims that block.
            span = ByteRange(first * block + n_brought * 100, (first + n_blocks) * block)
            keys = [(what, level, number) for number in range(first, first + n_blocks)]
            claim = claims[who].take(cached_object(what), span, level)
            is_free = not any(key in taken[1 - who] for key in keys)
            assert (claim is not None) is is_free
            if claim is not None:
                taken[who].update(dict.fromkeys(keys, 1))
                claim.held_until = min(span.stop, (first + n_brought) * block)
                made.append((who, claim))
        for who, claim in made:
            claims[who].end(claim)
        for each in claims:
            each.entered(each.marks())
            assert not each._active
        assert all(each.holder(0, 1 << 60) is None for each in locks)
    finally:
        for lock in locks:
            lock.close()
