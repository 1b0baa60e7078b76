"""Workloads that read whole files, or parts of them.

Each starts from a fresh mount with dropped pages. Longer than 400 lines, since workloads that read
files share how they read.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import children, cpu, curl
from benchmarks.contenders import (
    BEFORE,
    CURL,
    SATFS,
    VSICURL,
    Mount,
    gdal_environment,
    gdal_library,
    is_satfs,
)
from benchmarks.counters import summarise
from benchmarks.objects import StoredObject
from benchmarks.samples import (
    GIB,
    LOCAL,
    LOCAL_SMALL_PAGES,
    PAGE_BYTES,
    RANDOM_READ_BYTES,
    Sample,
    Scene,
    WrongBytes,
    check_blocks,
    check_random,
    collect,
    contender,
    drop_pages,
    fresh_room,
    is_mount,
    random_offsets,
    rates,
    read_whole,
    shown,
    start_reader,
    traffic_of,
)


def sequential(scene: Scene, name: str, repetition: int, *, is_announced: bool = True) -> Sample:
    """Read 1 GiB front to back, cold: rate, CPU, memory, requests and bytes.

    *is_announced*: the reader announces to the kernel first that it reads all.
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
        sample = rates(found, stored) | traffic_of(scene, mark)
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
    sample = cpu.by_process(before, after, mount.pid, found["bytes"]) | rates(found, stored)
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
    return rates(found[0], stored) | traffic_of(scene, mark) | {"memory_bytes": memory.peak_bytes}


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
    """Wait for the first bytes of files that no program has looked at, in a mount in use.

    The directory that holds them has been listed, and a file beside them read: so the names are
    known, and a connection is open. The wait is for a link, a size and bytes.
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
    """Read 64 KiB at 200 random places, on a warm connection."""
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
                # Bytes that a mount goes on fetching after the last read are its cost as well.
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
    # The bytes that the readers reached, each counted once.
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
            return rates(read_whole(scene, copy, "a"), scene.stored("a"))
        with contender(name).mounted(scene.origin, room, scene.stored("a")) as mount:
            path = mount.path_of(scene.stored("a"))
            first = read_whole(scene, path, "a", limit_s=10 * scene.sizes.limit_s)
            if first["bytes"] != scene.stored("a").size_bytes:
                return {"skipped": "too slow to read it once"}
            mark = scene.origin.mark()
            cpu_before = children.cpu_s(mount.pid)
            found = read_whole(scene, path, "a")
            cpu_s = children.cpu_s(mount.pid) - cpu_before
            return rates(found, scene.stored("a")) | traffic_of(scene, mark) | {"cpu_s": cpu_s}


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
            sample = rates(found, stored) | traffic_of(scene, mark)
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
