"""Loads that must not leave anything behind, or take more than they may."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

from reliability.measuring import Usage, usage_of
from reliability.stand import KIB, MIB, Stand

from satfs.demo.catalogue import (
    Catalogue,
    capture_uuid,
    make_capture,
    make_scene,
    make_task,
)

#: A program that reads each file named on its standard input in a thread of its own, all at once.
_READERS = """
import os, sys, threading
def read(path):
    try:
        fd = os.open(path, os.O_RDONLY)
        os.pread(fd, 65536, 1 << 20)
    except OSError:
        pass
for path in sys.argv[1:]:
    threading.Thread(target=read, args=(path,), daemon=True).start()
print("reading", flush=True)
threading.Event().wait()
"""


def files_to_cancel(stand: Stand, n_files: int = 400) -> list[str]:
    """Publish files, and have their sizes learnt."""
    scenes = [stand.publish(8 * MIB) for _ in range(n_files)]
    # Eight at once: each waits for processors at every step of four requests.
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(stand.stat, map(stand.path, scenes)))
    return scenes


def cancel_reads(stand: Stand, n_reads: int, scenes: list[str]) -> None:
    """Begin *n_reads* reads that the store never responds to, and kill the processes that wait.

    A process that waits for a FUSE request which was taken up already ends only with its reply
    (fuse(4), `request_wait_answer`): so each read is cancelled at its deadline, in the middle of
    headers that never come or of a body, and then the killed process goes, and its files with it.
    """
    at_once = len(scenes)
    faults = [
        stand.origin.faults.add("hang", "object", every=2),
        stand.origin.faults.add("stall", "object", at_byte=30_000),
    ]
    for _ in range(-(-n_reads // at_once)):
        with subprocess.Popen(
            [sys.executable, "-c", _READERS, *(str(stand.path(scene)) for scene in scenes)],
            stdout=subprocess.PIPE,
        ) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            time.sleep(0.15)
            reader.kill()
        stand.tally.n_kills += 1
    stand.tally.n_faults += sum(fault.hits for fault in faults)
    for fault in faults:
        stand.origin.faults.remove(fault)


def settled_usage(stand: Stand, within_s: float = 15.0) -> Usage:
    """Return what the mount holds once that does not shrink any more."""
    deadline_s = time.monotonic() + within_s
    last = usage_of(stand.current.process.pid)
    while time.monotonic() < deadline_s:
        time.sleep(1.0)
        now = usage_of(stand.current.process.pid)
        if now.n_descriptors >= last.n_descriptors and now.n_threads >= last.n_threads:
            return now
        last = now
    return last


class Peak:
    """The most memory that a mount held while the body ran; looks ten times a second."""

    def __init__(self, stand: Stand) -> None:
        self.memory_bytes = 0
        self._pid = stand.current.process.pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.1):
            with contextlib.suppress(OSError):
                self.memory_bytes = max(self.memory_bytes, usage_of(self._pid).memory_bytes)


def read_sequentially(stand: Stand, n_readers: int, size_bytes: int) -> None:
    """Have *n_readers* read a file each from beginning to end, at once, compared."""
    scenes = [stand.publish(size_bytes) for _ in range(n_readers)]

    def read(scene: str) -> None:
        with stand.opened(scene) as file:
            at, content = 0, stand.content(scene)
            while at < size_bytes:
                wanted = min(256 * KIB, size_bytes - at)
                at += stand.check(os.pread(file, wanted, at), content, at, wanted)

    calls = [stand.calls.start("reader", 300, read, scene) for scene in scenes]
    for call in wait(calls).done:
        call.result()


@contextlib.contextmanager
def open_files(stand: Stand, n_files: int) -> Iterator[list[int]]:
    """Open *n_files* files, and read from the middle of each."""
    scenes = [stand.publish(4 * MIB) for _ in range(n_files)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(stand.opened(scene)) for scene in scenes]
        for scene, file in zip(scenes, files, strict=True):
            stand.compare(file, stand.content(scene), 2 * MIB, 2 * MIB + 64 * KIB)
        yield files


def read_slowly(stand: Stand, n_bytes: int, bytes_per_s: float) -> None:
    """Read a long file like a slow program: blocks ahead of it must not pile up."""
    scene = stand.publish(256 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as file:
        for at in range(0, n_bytes, MIB):
            stand.compare(file, content, at, at + MIB)
            time.sleep(MIB / bytes_per_s)


def large_catalogue(n_scenes: int) -> Catalogue:
    """Return a task with captures of a hundred scenes each, without attachments."""
    captures = []
    for c in range(n_scenes // 100):
        scenes = [make_scene(f"20260128_{c:06}_{n:03}_SN33_L1D_MS_1") for n in range(100)]
        captures.append(make_capture(capture_uuid("large", c), scenes))
    return Catalogue([make_task(1, captures)])


def walk(stand: Stand) -> int:
    """Return how many entries `find` sees below `tasks/`, each looked at."""
    done = subprocess.run(
        ["find", str(stand.root / "tasks"), "-printf", "%s\\0"],
        capture_output=True, timeout=600, check=True,
    )  # fmt: skip
    return done.stdout.count(b"\0")
