"""The parts of samples: objects, space on the disk, readers, and the origin's counts.

A sample is a flat dictionary of numbers (JSON). All that a reader read is compared with the
original: a wrong byte ends the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import children
from benchmarks.contenders import (
    MOUNTED,
    Contender,
)
from benchmarks.counters import summarise
from benchmarks.objects import DIGEST_BLOCK_BYTES, MIB, StoredObject
from benchmarks.origin import Origin

Sample: TypeAlias = dict[str, Any]

#: Where `python -m benchmarks.…` finds this package.
SCRIPTS = Path(__file__).parent.parent
GIB = 1 << 30
#: No reader takes longer than this unless it hangs: limits end the slow ones before.
PATIENCE_S = 120.0
RANDOM_READ_BYTES = 64 * 1024
PAGE_BYTES = 4096


class WrongBytes(Exception):
    """A reader read wrong bytes. No measurement after this would mean anything."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything: the full run's, or the quick one's."""

    sequential_bytes: int = GIB
    zip_bytes: int = 230_000_000
    n_random: int = 200
    n_entries: int = 10_000
    n_entries_find: int = 100_000
    #: A reader that is slower than a megabyte every now and then is stopped here.
    limit_s: float = 15.0


QUICK = Sizes(
    sequential_bytes=256 * MIB,
    zip_bytes=100_000_000,
    n_random=25,
    n_entries_find=10_000,
    limit_s=5.0,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """The scene of a workload: the origin, its objects by name, and space on the local disk."""

    origin: Origin
    objects: dict[str, StoredObject]
    digests: dict[str, list[str]]
    room: Path
    sizes: Sizes
    #: Connections that satfs had open at most in its last sequential run, for curl to match.
    chosen: dict[str, int]
    #: Objects of equal bytes, by the name of the first, for works on several rasters.
    copies: dict[str, list[StoredObject]] = field(default_factory=dict)

    def stored(self, name: str) -> StoredObject:
        """Return one object."""
        return self.objects[name]


def shown(name: str, stored_name: str) -> str:
    """Return under which name of `Scene.objects` the contender *name* shows an object."""
    return f"{stored_name}-member" if contender(name).shows_members else stored_name


@contextlib.contextmanager
def fresh_room(scene: Scene) -> Iterator[Path]:
    """Give an empty directory on the local disk, and forget all pages before and after."""
    room = scene.room / "run"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    drop_pages()
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def drop_pages() -> bool:
    """Make the kernel forget clean pages, entries and inodes; False where that is not permitted."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


# -- readers ---------------------------------------------------------------------------------------


def start_reader(
    scene: Scene, asked: dict[str, Any], environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `benchmarks.readers` on the clients' side; it waits for `collect`."""
    process = subprocess.Popen(
        children.tied(
            [*scene.origin.line.client_prefix, sys.executable, "-m", "benchmarks.readers"]
        ),
        cwd=SCRIPTS,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    if process.stdout.readline() != "ready\n":
        process.wait()
        raise RuntimeError("a reader did not start")
    return process


def collect(processes: list[subprocess.Popen[str]]) -> tuple[list[dict[str, Any]], float]:
    """Let all readers go at once; return what each found, and the seconds until the last ended.

    Raises:
        subprocess.TimeoutExpired: a reader hangs. It ends when what it reads from is unmounted.
    """
    until = time.monotonic() + PATIENCE_S
    started = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = []
    for process in processes:
        try:
            said, _ = process.communicate(timeout=max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            for hanging in processes:
                hanging.kill()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"a reader ended with {process.returncode}")
        found.append(json.loads(said))
    return found, time.perf_counter() - started


def read_whole(
    scene: Scene,
    path: Path,
    name: str,
    limit_s: float | None = None,
    *,
    is_announced: bool = True,
) -> dict[str, Any]:
    """Read one file front to back with a reader of its own, and check it against object *name*."""
    asked = {
        "what": "sequential" if is_announced else "dd",
        "path": str(path),
        "limit_s": scene.sizes.limit_s if limit_s is None else limit_s,
    }
    found, _ = collect([start_reader(scene, asked)])
    check_blocks(scene, name, found[0])
    return found[0]


def check_blocks(scene: Scene, name: str, found: dict[str, Any]) -> None:
    """Compare the digests of a sequential read, whole or cut short by its limit.

    Raises:
        WrongBytes: they differ, or the file ended early.
    """
    right = scene.digests[name]
    given = found["digests"]
    size = scene.stored(name).size_bytes
    whole = found["bytes"] == size
    if given != right[: len(given)] or (len(given) < len(right)) == whole:
        raise WrongBytes(f"{found['bytes']} bytes read of {size}, and not the right ones")
    if not whole and found["bytes"] % DIGEST_BLOCK_BYTES:
        raise WrongBytes(f"the file ended after {found['bytes']} of {size} bytes")


def random_offsets(scene: Scene, name: str, seed: int, count: int) -> list[int]:
    """Return page-aligned offsets of reads that lie inside the object and never overlap."""
    slots = scene.stored(name).size_bytes // RANDOM_READ_BYTES - 1
    drawn = random.Random(seed).sample(range(slots), count)  # noqa: S311
    return [slot * RANDOM_READ_BYTES for slot in drawn]


def check_random(
    scene: Scene,
    name: str,
    offsets: list[int],
    digests: list[str],
    length: int = RANDOM_READ_BYTES,
) -> None:
    """Compare random reads with the original.

    Raises:
        WrongBytes: one differs.
    """
    stored = scene.stored(name)
    for offset, digest in zip(offsets, digests, strict=True):
        if stored.digest_of(offset, offset + length) != digest:
            raise WrongBytes(f"{length} bytes at {offset}")


def traffic_of(scene: Scene, mark: int) -> Sample:
    """Return requests and bytes at the origin since *mark*, as numbers of a sample."""
    seen = summarise(scene.origin.since(mark))
    return {
        "requests": seen.requests,
        "content_requests": seen.content_requests,
        "content_bytes": seen.content_bytes,
        "peak_connections": seen.peak_connections,
        "kinds": seen.kinds,
    }


def rates(found: dict[str, Any], stored: StoredObject) -> Sample:
    """Return the rates that a reader of *stored* has reported."""
    return {
        "rate": found["bytes"] / found["took_s"],
        "took_s": found["took_s"],
        "first_read_s": found["first_read_s"],
        "bytes": found["bytes"],
        "complete": found["bytes"] == stored.size_bytes,
    }


def percentile(values: list[float], share: float) -> float:
    """Return the smallest of *values* that at least *share* of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1)]


LOCAL = "local-file"
#: The original itself, in memory: a file whose pages are kept one by one, as those of a FUSE mount,
#: and not in large folios, as those of ext4 and xfs.
LOCAL_SMALL_PAGES = "memory-file"


def is_mount(name: str) -> bool:
    """Return whether the contender called *name* is a mount."""
    return any(one.name == name for one in MOUNTED)


def contender(name: str) -> Contender:
    """Return the mounted contender of that name."""
    return next(one for one in MOUNTED if one.name == name)
