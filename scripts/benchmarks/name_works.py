"""Workloads that list directories and look names up."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path

from benchmarks.api import TASK_ID
from benchmarks.contenders import (
    SATFS,
)
from benchmarks.samples import (
    Sample,
    Scene,
    WrongBytes,
    check_blocks,
    collect,
    contender,
    drop_pages,
    fresh_room,
    percentile,
    rates,
    start_reader,
    traffic_of,
)


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
    """Look up names and attributes while another program reads 1 GiB."""
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
        # satfs knows them all now; make the kernel forget them, so that it sends look-ups.
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
        sample = rates(found[0], stored) | traffic_of(scene, mark)
    return sample | {
        "lookups": len(times["lookups_s"]),
        "lookup_p50_s": percentile(times["lookups_s"], 0.50),
        "lookup_p99_s": percentile(times["lookups_s"], 0.99),
        "stat_p50_s": percentile(times["stats_s"], 0.50),
        "stat_p99_s": percentile(times["stats_s"], 0.99),
        "stat_max_s": max(times["stats_s"]),
        "lookup_max_s": max(times["lookups_s"]),
    }
