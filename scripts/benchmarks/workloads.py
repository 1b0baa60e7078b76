"""What is measured: each workload as one function from a contender to one sample.

A sample is a flat dictionary of numbers (JSON). Every function starts from a fresh mount with
dropped pages, and compares all it read with the original: a wrong byte ends the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import children, cpu, curl
from benchmarks.api import TASK_ID
from benchmarks.contenders import (
    BEFORE,
    CURL,
    MOUNTED,
    SATFS,
    SATFS_BEFORE,
    VSICURL,
    Contender,
    Mount,
    gdal_environment,
    gdal_library,
    is_satfs,
)
from benchmarks.counters import summarise
from benchmarks.objects import DIGEST_BLOCK_BYTES, MIB, StoredObject
from benchmarks.origin import Origin
from benchmarks.rasters import WORK, cases, least

Sample: TypeAlias = dict[str, Any]

#: Where `python -m benchmarks.…` finds this package.
SCRIPTS = Path(__file__).parent.parent
GIB = 1 << 30
#: No reader takes longer than this unless it hangs: limits end the slow ones before.
PATIENCE_S = 120.0
RANDOM_READ_BYTES = 64 * 1024
PAGE_BYTES = 4096


class WrongBytes(Exception):
    """What was read is not what is stored. Nothing measured after this would mean anything."""


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
    """What a workload works on: the origin, its objects by name, and room on the local disk."""

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


# -- the workloads ---------------------------------------------------------------------------------


def sequential(scene: Scene, name: str, repetition: int, *, is_announced: bool = True) -> Sample:
    """Read 1 GiB front to back, cold: rate, CPU, memory, requests and bytes.

    *is_announced*: the kernel is told first that all will be read.
    """
    stored = scene.stored("a")
    if name.startswith(CURL):
        wanted = name.removeprefix("curl-")
        n_connections = scene.chosen.get("satfs", 0) if wanted == "matched" else int(wanted)
        if n_connections == 0:
            return {"skipped": "satfs chose no number of connections"}
        drop_pages()
        spent_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s = curl.fetch_in_parallel(scene.origin, stored, n_connections)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = spent.ru_utime + spent.ru_stime - spent_before.ru_utime - spent_before.ru_stime
        return {
            "rate": stored.size_bytes / took_s,
            "took_s": took_s,
            "connections": n_connections,
            "cpu_s_per_gib": cpu_s / (stored.size_bytes / GIB),
            "complete": True,
        }
    if name == VSICURL:
        return _sequential_vsicurl(scene, stored)
    seen = shown(name, "a")
    stored = scene.stored(seen)
    with fresh_room(scene) as room, contender(name).mounted(scene.origin, room, stored) as mount:
        path = mount.path_of(stored)
        os.stat(path)
        mark = scene.origin.mark()
        cpu_before = children.cpu_s(mount.pid)
        with children.MemoryWatch(mount.pid, aside=mount.cache) as memory:
            found = read_whole(scene, path, seen, is_announced=is_announced)
        cpu_s = children.cpu_s(mount.pid) - cpu_before
        sample = _rates(found, stored) | traffic_of(scene, mark)
        sample |= {
            "cpu_s_per_gib": cpu_s / (found["bytes"] / GIB),
            "memory_bytes": memory.peak_bytes,
        }
    if name == SATFS.name:
        scene.chosen["satfs"] = sample["peak_connections"]
    return sample


def unannounced(scene: Scene, name: str, repetition: int) -> Sample:
    """Read 1 GiB front to back, cold, without a word to the kernel, as dd(1) does."""
    return sequential(scene, name, repetition, is_announced=False)


def processor_time(scene: Scene, name: str, repetition: int) -> Sample:
    """Read 1 GiB front to back, cold: processor seconds by process, and by function."""
    stored = scene.stored("a")
    with fresh_room(scene) as room, contender(name).mounted(scene.origin, room, stored) as mount:
        path = mount.path_of(stored)
        os.stat(path)
        before, kernel = children.cpu_by_process(mount.pid), children.cpu_of_kernel_threads()
        found = read_whole(scene, path, "a")
        after = children.cpu_by_process(mount.pid)
        kernel_s = children.cpu_of_kernel_threads() - kernel
    sample = cpu.by_process(before, after, mount.pid, found["bytes"]) | _rates(found, stored)
    sample["kernel_s_per_gb"] = kernel_s * cpu.GB / found["bytes"]
    if (samples := cpu.sampled_directory(name, repetition)) is not None:
        sampled = {"PYTHONPATH": str(samples)}
        if name != SATFS.name:
            sampled["PYTHONPATH"] += f":{os.environ[BEFORE]}"
        with (
            fresh_room(scene) as room,
            contender(name).mounted(scene.origin, room, stored, given=sampled) as mount,
        ):
            read_whole(scene, mount.path_of(stored), "a")
            print(cpu.keep_profiles(samples, mount.pid, name, scene.origin.profile.name))
        shutil.rmtree(samples)
    return sample


def _sequential_vsicurl(scene: Scene, stored: StoredObject) -> Sample:
    drop_pages()
    mark = scene.origin.mark()
    asked = {
        "what": "sequential-vsi",
        "library": gdal_library(),
        "path": f"/vsicurl/{scene.origin.url(stored.file_name)}",
        "limit_s": scene.sizes.limit_s,
    }
    reader = start_reader(scene, asked, gdal_environment(scene.origin))
    with children.MemoryWatch(reader.pid) as memory:
        found, _ = collect([reader])
    check_blocks(scene, "a", found[0])
    return _rates(found[0], stored) | traffic_of(scene, mark) | {"memory_bytes": memory.peak_bytes}


def _rates(found: dict[str, Any], stored: StoredObject) -> Sample:
    return {
        "rate": found["bytes"] / found["took_s"],
        "took_s": found["took_s"],
        "first_read_s": found["first_read_s"],
        "bytes": found["bytes"],
        "complete": found["bytes"] == stored.size_bytes,
    }


def first_byte(scene: Scene, name: str, repetition: int) -> Sample:
    """Wait for the first page: of a fresh mount, and far away in a file whose link is known."""
    stored = scene.stored("a")
    # Far apart, so that no read-ahead of one serves another.
    step = stored.size_bytes // 12 // PAGE_BYTES * PAGE_BYTES
    offsets = [step * n for n in (6, 2, 9, 4, 11, 7, 3, 10, 5, 8)]
    if name.startswith(CURL):
        drop_pages()
        ranges = [(o, o + PAGE_BYTES) for o in (0, *offsets)]
        with fresh_room(scene) as room:
            times, _ = curl.fetch_one_by_one(scene.origin, stored, ranges, room)
        return {"fresh_s": times[0], "warm_s": statistics.median(times[1:])}
    with fresh_room(scene) as room:
        before_mount = scene.origin.mark()
        with contender(name).mounted(scene.origin, room, stored) as mount:
            mounting = summarise(scene.origin.since(before_mount))
            path = str(mount.path_of(stored))
            mark = scene.origin.mark()
            fresh = _read_at(scene, path, [0])
            sample = {"fresh_s": fresh["times_s"][0]}
            sample |= {f"fresh_{key}": value for key, value in traffic_of(scene, mark).items()}
            mark = scene.origin.mark()
            warm = _read_at(scene, path, offsets)
            sample |= {f"warm_{key}": value for key, value in traffic_of(scene, mark).items()}
            sample["warm_s"] = statistics.median(warm["times_s"])
            sample["mount_kinds"] = mounting.kinds
        check_random(
            scene, "a", [0, *offsets], fresh["digests"] + warm["digests"], length=PAGE_BYTES
        )
    return sample


def _read_at(scene: Scene, path: str, offsets: list[int]) -> dict[str, Any]:
    asked = {"what": "open-and-read", "path": path, "offsets": offsets, "length": PAGE_BYTES}
    found, _ = collect([start_reader(scene, asked)])
    return found[0]


def another_scene(scene: Scene, name: str, repetition: int) -> Sample:
    """Wait for the first bytes of files that nobody has looked at, in a mount that is in use.

    The directory that holds them has been listed, and a file beside them read: so the names are
    known, and a connection is open. What is waited for is a link, a size and bytes.
    """
    first, other, third = (scene.stored(each) for each in ("a", "b", "zip"))
    with fresh_room(scene) as room, contender(name).mounted(scene.origin, room, first) as mount:
        paths = _listed_paths(mount, name, [first, other, third])
        _read_at(scene, str(paths[0]), [0, first.size_bytes // 2 // PAGE_BYTES * PAGE_BYTES])
        mark = scene.origin.mark()
        found = _read_at(scene, str(paths[1]), [0])
        sample = {"first_s": found["times_s"][0]} | traffic_of(scene, mark)
        check_random(scene, "b", [0], found["digests"], length=PAGE_BYTES)
        asked = {"what": "zip-directory", "path": str(paths[2])}
        listed, _ = collect([start_reader(scene, asked)])
        if listed[0]["names"] != [third.member_name]:
            raise WrongBytes(f"the zip lists {listed[0]['names']}")
        sample["directory_s"] = listed[0]["took_s"]
    return sample


def _listed_paths(mount: Mount, name: str, wanted: list[StoredObject]) -> list[Path]:
    """List the directory that holds the scenes of *wanted*, and return where they are in it."""
    if not is_satfs(name):
        os.listdir(mount.point)
        return [mount.path_of(stored) for stored in wanted]
    (task,) = (each for each in (mount.point / "tasks").iterdir() if each.is_dir())
    (capture,) = (each for each in task.iterdir() if each.is_dir())
    scenes = os.listdir(capture)
    return [
        capture / next(each for each in scenes if stored.scene_id in each) / stored.file_name
        for stored in wanted
    ]


def random_reads(scene: Scene, name: str, repetition: int) -> Sample:
    """Read 64 KiB at 200 places nobody could guess, on a warm connection."""
    seen = shown(name, "a") if is_mount(name) else "a"
    stored = scene.stored(seen)
    # One more than is measured: the first opens the connection.
    offsets = random_offsets(scene, seen, 100 + repetition, scene.sizes.n_random + 1)
    asked: dict[str, Any] = {
        "what": "random",
        "offsets": offsets,
        "length": RANDOM_READ_BYTES,
    }
    with fresh_room(scene) as room:
        if name.startswith(CURL):
            mark = scene.origin.mark()
            ranges = [(o, o + RANDOM_READ_BYTES) for o in offsets]
            times, files = curl.fetch_one_by_one(scene.origin, stored, ranges, room)
            for offset, file in zip(offsets, files, strict=True):
                with stored.path.open("rb") as original:
                    original.seek(offset)
                    if original.read(RANDOM_READ_BYTES) != file.read_bytes():
                        raise WrongBytes(f"{RANDOM_READ_BYTES} bytes at {offset}")
        elif name == VSICURL:
            mark = scene.origin.mark()
            asked["what"] = "random-vsi"
            asked["library"] = gdal_library()
            asked["path"] = f"/vsicurl/{scene.origin.url(stored.file_name)}"
            found, _ = collect([start_reader(scene, asked, gdal_environment(scene.origin))])
            times = found[0]["times_s"]
            check_random(scene, "a", offsets, found[0]["digests"])
        else:
            with contender(name).mounted(scene.origin, room, stored) as mount:
                asked["path"] = str(mount.path_of(stored))
                os.stat(asked["path"])
                mark = scene.origin.mark()
                found, _ = collect([start_reader(scene, asked)])
                times = found[0]["times_s"]
                # What a mount goes on fetching when nobody reads any more is its cost as well.
                time.sleep(0.2)
            check_random(scene, seen, offsets, found[0]["digests"])
        sample = traffic_of(scene, mark)
    measured = sorted(times[1:])
    return sample | {
        "median_s": statistics.median(measured),
        "p95_s": measured[int(len(measured) * 0.95)],
        "total_s": sum(measured),
        "amplification": sample["content_bytes"] / (RANDOM_READ_BYTES * len(offsets)),
    }


def two_files(scene: Scene, name: str, repetition: int) -> Sample:
    """Read two files front to back at the same time."""
    return _together(scene, name, ["a", "b"])


def eight_readers(scene: Scene, name: str, repetition: int) -> Sample:
    """Read one file front to back, eight times at the same time."""
    return _together(scene, name, ["a"] * 8)


def _together(scene: Scene, name: str, names: list[str]) -> Sample:
    first = scene.stored(names[0])
    with fresh_room(scene) as room, contender(name).mounted(scene.origin, room, first) as mount:
        paths = {one: mount.path_of(scene.stored(one)) for one in set(names)}
        for path in paths.values():
            os.stat(path)
        mark = scene.origin.mark()
        readers = [
            start_reader(
                scene,
                {
                    "what": "sequential",
                    "path": str(paths[one]),
                    "limit_s": scene.sizes.limit_s,
                },
            )
            for one in names
        ]
        with children.MemoryWatch(mount.pid, aside=mount.cache) as memory:
            found, _ = collect(readers)
        sample = traffic_of(scene, mark)
    for one, result in zip(names, found, strict=True):
        check_blocks(scene, one, result)
    took_s = max(result["took_s"] for result in found)
    delivered = sum(result["bytes"] for result in found)
    # What the readers reached of the files, each byte counted once.
    reached = sum(
        max(r["bytes"] for o, r in zip(names, found, strict=True) if o == one) for one in set(names)
    )
    return sample | {
        "rate": delivered / took_s,
        "line_rate": reached / took_s,
        "took_s": took_s,
        "complete": all(
            r["bytes"] == scene.stored(o).size_bytes for o, r in zip(names, found, strict=True)
        ),
        "fetched_ratio": sample["content_bytes"] / reached,
        "memory_bytes": memory.peak_bytes,
    }


def checksum(scene: Scene, name: str, repetition: int) -> Sample:
    """Run `sha256sum` on a 230 MB zip of a fresh mount, look-ups included."""
    stored = scene.stored(shown(name, "zip"))
    with fresh_room(scene) as room, contender(name).mounted(scene.origin, room, stored) as mount:
        mark = scene.origin.mark()
        started = time.perf_counter()
        limit = ["timeout", str(scene.sizes.limit_s)]
        said = subprocess.run(
            [*limit, "sha256sum", mount.path_of(stored)], stdout=subprocess.PIPE, check=False
        )
        took_s = time.perf_counter() - started
        sample = traffic_of(scene, mark)
    if said.returncode == 124:  # timeout(1)
        return sample | {"rate": sample["content_bytes"] / took_s, "complete": False}
    if said.returncode != 0 or said.stdout.decode().split()[0] != stored.sha256():
        raise WrongBytes("sha256sum")
    return sample | {"rate": stored.size_bytes / took_s, "took_s": took_s, "complete": True}


def reread_kernel(scene: Scene, name: str, repetition: int) -> Sample:
    """Read again what was just read: the kernel answers, or should."""
    with fresh_room(scene) as room:
        if name in (LOCAL, LOCAL_SMALL_PAGES):
            copy = scene.stored("a").path
            if name == LOCAL:
                copy = shutil.copyfile(copy, room / "copy")
            read_whole(scene, copy, "a")
            return _rates(read_whole(scene, copy, "a"), scene.stored("a"))
        with contender(name).mounted(scene.origin, room, scene.stored("a")) as mount:
            path = mount.path_of(scene.stored("a"))
            first = read_whole(scene, path, "a", limit_s=10 * scene.sizes.limit_s)
            if first["bytes"] != scene.stored("a").size_bytes:
                return {"skipped": "too slow to read it once"}
            mark = scene.origin.mark()
            cpu_before = children.cpu_s(mount.pid)
            found = read_whole(scene, path, "a")
            cpu_s = children.cpu_s(mount.pid) - cpu_before
            return _rates(found, scene.stored("a")) | traffic_of(scene, mark) | {"cpu_s": cpu_s}


def reread_disk(scene: Scene, name: str, repetition: int) -> Sample:
    """Mount again and read what an earlier mount has fetched: from the disk cache, pages dropped.

    Beside it the cache file itself, read plainly from the same disk in the same state.
    """
    stored = scene.stored("a")
    with fresh_room(scene) as room:
        with contender(name).mounted(scene.origin, room, stored) as mount:
            read_whole(scene, mount.path_of(stored), "a", limit_s=10 * scene.sizes.limit_s)
        cached = _largest_file(room / "cache")
        drop_pages()
        plain = _plain_read(scene, cached) if repetition % 2 else None
        drop_pages()
        with contender(name).mounted(scene.origin, room, stored) as mount:
            path = mount.path_of(stored)
            os.stat(path)
            mark = scene.origin.mark()
            found = read_whole(scene, path, "a")
            sample = _rates(found, stored) | traffic_of(scene, mark)
        # Which of the two goes first changes, so that neither profits from the disk's own cache.
        drop_pages()
        plain = plain or _plain_read(scene, cached)
        # And with the cache file's pages still there, as after a remount on a machine at work.
        with contender(name).mounted(scene.origin, room, stored) as mount:
            path = mount.path_of(stored)
            os.stat(path)
            warm = read_whole(scene, path, "a")
    return sample | {
        "plain_rate": plain["bytes"] / plain["took_s"],
        "warm_pages_rate": warm["bytes"] / warm["took_s"],
    }


def _plain_read(scene: Scene, path: Path) -> dict[str, Any]:
    asked = {"what": "sequential", "path": str(path), "limit_s": scene.sizes.limit_s}
    found, _ = collect([start_reader(scene, asked)])
    return found[0]


def _largest_file(directory: Path) -> Path:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_blocks)


def listing(scene: Scene, name: str, repetition: int) -> Sample:
    """List a directory of 10,000 entries with `ls -f`, `ls -l` and `find`, unknown and known."""
    return _listing(scene, name, scene.sizes.n_entries, with_ls=True)


def long_listing(scene: Scene, name: str, repetition: int) -> Sample:
    """`find` over a directory of 100,000 entries, unknown and known."""
    return _listing(scene, name, scene.sizes.n_entries_find, with_ls=False)


def _listing(scene: Scene, name: str, count: int, *, with_ls: bool) -> Sample:
    commands = {"find": ["find", "-maxdepth", "1"]}
    if with_ls:
        commands |= {"ls_l": ["ls", "-l"], "ls_f": ["ls", "-f"]}
    with fresh_room(scene) as room:
        origin = dataclasses.replace(scene.origin, directory=f"many-{count}")
        mounted = contender(name).mounted(
            origin, room, scene.stored("a"), contract=f"cont.tasks-{count}"
        )
        with mounted as mount:
            directory = mount.point / "tasks" if name == SATFS.name else mount.point
            sample: Sample = {}
            mark = scene.origin.mark()
            first = "ls_l" if with_ls else "find"
            sample[f"{first}_first_s"] = _list(scene, commands[first], directory, count, room)
            sample |= traffic_of(scene, mark)
            mark = scene.origin.mark()
            for key, command in commands.items():
                sample[f"{key}_known_s"] = _list(scene, command, directory, count, room)
            sample["known_requests"] = traffic_of(scene, mark)["requests"]
    return sample


def _list(scene: Scene, command: list[str], directory: Path, count: int, room: Path) -> float:
    output = room / "listing"
    words = [command[0], str(directory), *command[1:]] if command[0] == "find" else [
        *command, str(directory),
    ]  # fmt: skip
    with output.open("wb") as sink:
        started = time.perf_counter()
        done = subprocess.run(["timeout", "300", *words], stdout=sink, check=False)
        took_s = time.perf_counter() - started
    lines = output.read_bytes().count(b"\n")
    # find names the directory itself; ls -l its total, ls -f the directory and its parent. Sidecar
    # files beside the entries are welcome.
    if done.returncode != 0 or lines < count:
        raise WrongBytes(f"{command[0]} listed {lines} of {count} entries")
    return took_s


def interactivity(scene: Scene, name: str, repetition: int) -> Sample:
    """Look up names and ask for attributes while somebody reads 1 GiB."""
    stored = scene.stored("a")
    count = scene.sizes.n_entries
    with (
        fresh_room(scene) as room,
        contender(name).mounted(
            scene.origin, room, stored, contract=f"cont.tasks-{count}"
        ) as mount,
    ):
        directory = mount.point / "tasks"
        path = mount.path_of(stored)
        os.stat(path)
        _list(scene, ["ls", "-f"], directory, count, room)
        # satfs knows them all now; make the kernel forget them, so that it has to ask.
        if not drop_pages():
            return {"skipped": "pages cannot be dropped: not root"}
        mark = scene.origin.mark()
        paths = [str(directory / str(TASK_ID + n)) for n in range(count)]
        prober = start_reader(scene, {"what": "probe", "paths": paths, "pause_s": 0.001})
        reader = start_reader(
            scene, {"what": "sequential", "path": str(path), "limit_s": scene.sizes.limit_s}
        )
        assert prober.stdin is not None
        prober.stdin.write("go\n")
        prober.stdin.flush()
        found, _ = collect([reader])
        said, _ = prober.communicate()
        times = json.loads(said)
        check_blocks(scene, "a", found[0])
        sample = _rates(found[0], stored) | traffic_of(scene, mark)
    return sample | {
        "lookups": len(times["lookups_s"]),
        "lookup_p50_s": percentile(times["lookups_s"], 0.50),
        "lookup_p99_s": percentile(times["lookups_s"], 0.99),
        "stat_p50_s": percentile(times["stats_s"], 0.50),
        "stat_p99_s": percentile(times["stats_s"], 0.99),
        "stat_max_s": max(times["stats_s"]),
        "lookup_max_s": max(times["lookups_s"]),
    }


def percentile(values: list[float], share: float) -> float:
    """Return the smallest of *values* that at least *share* of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1)]


#: What the kernel asked for ahead of a program that has ended is fetched, or given up, by then.
SETTLING_S = 0.5
WINDOW_CONTENTS = "satfs-contents"
WINDOW_MOUNTED_ZIP = "satfs-vsizip"
WINDOW_VSICURL = "vsizip-vsicurl"


#: Who reads rasters, each of every layout and for every work.
WINDOW_READERS = (WINDOW_CONTENTS, WINDOW_MOUNTED_ZIP, WINDOW_VSICURL)
#: What separates reader, layout and work in the name of a contender.
CASE = "@"


def window(scene: Scene, name: str, repetition: int) -> Sample:
    """Do one work on one raster, stored in a zip, with rasterio: seconds, requests and bytes.

    A mount is fresh, and the raster's size is known, as after a listing.
    """
    reader, layout, work = name.split(CASE)
    stored = scene.stored(layout)
    member = stored.member_name
    task = WORK[work]
    if task.is_copy and reader != WINDOW_CONTENTS:
        return {"skipped": "cp copies files"}
    shown = scene.copies.get(layout, [stored])[: task.n_rasters]
    with fresh_room(scene) as room, contextlib.ExitStack() as stack:
        prefix: tuple[str, ...] = ()
        sources = []
        if reader == WINDOW_VSICURL:
            prefix = scene.origin.line.client_prefix
            for each in shown:
                source = f"/vsizip//vsicurl/{scene.origin.url(each.file_name)}/{member}"
                sources.append(source)
        else:
            mount: Mount = stack.enter_context(SATFS.mounted(scene.origin, room, stored))
            for each in shown:
                path = mount.path_of(each)
                contents = path.parent / "contents" / member
                os.stat(contents)
                is_file = reader == WINDOW_CONTENTS
                sources.append(str(contents) if is_file else f"/vsizip/{path}/{member}")
        mark = scene.origin.mark()
        digests, took_s = _read_rasters(prefix, sources, work)
        time.sleep(SETTLING_S)
        sample = traffic_of(scene, mark)
    if task.is_copy:
        original = stored.member()
        expected = hashlib.blake2b(b"".join(original.pieces()), digest_size=16).hexdigest()
        is_right = digests == [expected]
    else:
        local = [f"/vsizip/{stored.path}/{member}"]
        is_right = digests == _read_rasters((), local, work)[0]
    if not is_right:
        raise WrongBytes(f"{name}: other pixels")
    needed = least(stored, task)
    return sample | {
        "took_s": took_s,
        "least_bytes": needed.size_bytes,
        "least_ranges": needed.n_ranges,
    }


def _read_rasters(
    prefix: tuple[str, ...], sources: Sequence[str], work: str
) -> tuple[list[str], float]:
    """Have each process of a work read its part of one of *sources*, all at once.

    Returns the digest of each, and the seconds until the last one had ended.
    """
    readers = [
        subprocess.Popen(
            children.tied(
                [
                    *prefix, sys.executable, "-m", "benchmarks.raster_reader",
                    sources[process % len(sources)], work, str(process),
                ]
            ),
            cwd=SCRIPTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(WORK[work].n_processes)
    ]  # fmt: skip
    for reader in readers:
        assert reader.stdout is not None
        if reader.stdout.readline() != "ready\n":
            raise RuntimeError("a reader did not start")
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    found = [json.loads(reader.communicate(timeout=PATIENCE_S)[0]) for reader in readers]
    return [each["digest"] for each in found], max(each["took_s"] for each in found)


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


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload: where it runs, who takes part, and how one sample comes about."""

    name: str
    title: str
    run: Callable[[Scene, str, int], Sample]
    profiles: tuple[str, ...]
    contenders: tuple[str, ...]
    objects: tuple[str, ...] = ()
    #: Curl's numbers of connections, by profile; "matched" is what satfs chose in the same round.
    curls: dict[str, tuple[str, ...]] | None = None


#: satfs of an earlier commit takes part where it is named (--only).
ALL_MOUNTED = tuple(one.name for one in MOUNTED if one.name != SATFS_BEFORE.name)
EVERYWHERE = ("plain", "tls", "wan", "far")

WORKLOADS = {
    one.name: one
    for one in (
        Workload(
            "sequential",
            "cold sequential read of 1 GiB",
            sequential,
            EVERYWHERE,
            (*ALL_MOUNTED, VSICURL),
            ("a",),
            {
                "plain": ("matched", "4"),
                "tls": ("matched", "4"),
                "wan": ("matched", "16"),
                "far": ("matched", "16", "64"),
            },
        ),
        Workload(
            "dd", "cold `dd` of 1 GiB", unannounced, ("tls", "wan", "far"),
            ("satfs", "rclone-streams", "rclone-cached", "s3fs"), ("a",),
        ),
        Workload(
            "cpu", "processor seconds of a cold sequential read of 1 GiB", processor_time,
            ("tls", "wan"),
            (SATFS.name, SATFS_BEFORE.name, "rclone-streams", "rclone-cached", "s3fs"), ("a",),
        ),
        Workload(
            "first-byte", "time to the first byte", first_byte, ("tls", "wan", "far"),
            ("satfs", "rclone", "rclone-streams", "s3fs", "httpdirfs"), ("a",),
            dict.fromkeys(EVERYWHERE, ("1",)),
        ),
        Workload(
            "another-scene", "first bytes of other files in a mount that is in use", another_scene,
            ("wan",),
            ("satfs", SATFS_BEFORE.name, "rclone", "rclone-streams", "rclone-cached", "s3fs"),
            ("a", "b", "zip"),
        ),
        Workload(
            "random", "200 random reads of 64 KiB", random_reads, ("tls", "wan"),
            (*ALL_MOUNTED, VSICURL), ("a",), dict.fromkeys(EVERYWHERE, ("1",)),
        ),
        Workload(
            "two-files", "two sequential readers of two files", two_files, ("tls", "wan", "far"),
            ("satfs", "rclone-streams", "rclone-cached", "s3fs"), ("a", "b"),
        ),
        Workload(
            "eight-readers", "eight sequential readers of one file", eight_readers,
            ("tls", "wan", "far"), ("satfs", "rclone-streams", "rclone-cached", "s3fs"), ("a",),
        ),
        Workload(
            "checksum", "`sha256sum` of a 230 MB zip, fresh mount", checksum, ("tls", "wan", "far"),
            ALL_MOUNTED, ("zip",),
        ),
        Workload(
            "reread-kernel", "re-read from the kernel", reread_kernel, ("tls",),
            ("satfs", LOCAL, LOCAL_SMALL_PAGES, "rclone-streams"), ("a",),
        ),
        Workload(
            "reread-disk", "re-read after remount, from the disk cache", reread_disk, ("tls",),
            ("satfs",), ("a",),
        ),
        Workload(
            "listing", "listing 10,000 entries", listing, ("tls", "wan"),
            ("satfs", "rclone", "httpdirfs"), ("many",),
        ),
        Workload(
            "long-listing", "`find` over 100,000 entries", long_listing, ("tls",),
            ("satfs",), (),
        ),
        Workload(
            "interactivity", "`stat` and lookup during a bulk read", interactivity, ("tls", "wan"),
            ("satfs",), ("a",),
        ),
        Workload(
            "window", "windows, chips and points of a GeoTIFF in the zip", window, ("wan",),
            tuple(
                CASE.join((reader, layout, work))
                for (layout, work), reader in product(cases(), WINDOW_READERS)
            ),
            ("rasters",),
        ),
    )
}  # fmt: skip
