"""The command line of the benchmarks: which workloads, over which lines, how often."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import connections, curl, losses, render
from benchmarks.contenders import CURL, MOUNTED, SATFS, VSICURL, DidNotMount, gdal_library, program
from benchmarks.line import Line, open_line
from benchmarks.machine import REPOSITORY, describe_machine, describe_versions
from benchmarks.objects import StoredObject, make_zip
from benchmarks.origin import Origin, run_origin
from benchmarks.performance_page import write_documents
from benchmarks.profiles import PROFILES, Profile
from benchmarks.quiet import STOLEN_SHARE, Moment, claim_memory, wait_until_quiet
from benchmarks.rasters import LAYOUTS, WORK, copies_of, make_raster_zip
from benchmarks.results import Results, Run
from benchmarks.samples import (
    LOCAL,
    LOCAL_SMALL_PAGES,
    QUICK,
    Sample,
    Scene,
    Sizes,
    WrongBytes,
)
from benchmarks.window_works import CASE, WINDOW_READERS
from benchmarks.workloads import WORKLOADS, Workload

#: The workloads of `--quick`: the headline figures, against the peer that comes nearest.
QUICK_WORKLOADS = {
    "sequential": ("tls", "wan"),
    "first-byte": ("wan",),
    "random": ("wan",),
    "reread-kernel": ("tls",),
    "listing": ("tls",),
}
QUICK_CONTENDERS = {"satfs", "rclone-streams", "curl-matched", "curl-1", LOCAL, LOCAL_SMALL_PAGES}


#: How often a sample is taken again because the host gave the processors to another guest.
MAX_TRIES = 3
#: Memory had for certain before each sample, for each file that is read whole, in objects: one in
#: the cache file's pages, one in the mount's, and as much again for what a peer keeps in memory and
#: for sockets.
MEMORY_CLAIMED = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices of the command line."""

    workloads: tuple[Workload, ...]
    profiles: tuple[Profile, ...]
    repetitions: int
    sizes: Sizes
    only: frozenset[str] | None
    patience_s: float
    relay: bool
    is_quick: bool
    command: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, keep the results; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["connections"]:
        return connections.main(words[1:])
    if words[:1] == ["losses"]:
        return losses.main(words[1:])
    parser = _parser()
    given = parser.parse_args(words)
    if given.render:
        return _render_only([Path(name) for name in given.render])
    plan = _plan(parser, given, words)
    for name in (signal.SIGTERM, signal.SIGHUP):
        # Mounts and namespaces are taken down by unwinding, so every end has to unwind.
        signal.signal(name, _leave)
    results = Results(())
    target = _result_file(given.out)
    with _workspace() as workspace:
        for run in _measure(plan, workspace):
            results = results.merged(Results((run,)))
            target.write_text(results.to_json())
            print(render.as_text(run), flush=True)
    print(render.targets_as_text(results))
    print(f"results: {target}")
    if _is_complete(results) and not given.quick and given.out is None:
        _render_only([target])
    else:
        print(f"to update docs/PERFORMANCE.md with them: scripts/bench --render {target}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure satfs against what a user would run instead, interleaved, on one "
        "origin. Needs nginx and FUSE. As root, the far lines are made of packets that come late; "
        "else a relay passes bytes on late. Peers that are not installed are skipped "
        "(scripts/bench --install-peers installs them).",
        epilog="Workloads: " + "; ".join(f"{w.name} ({w.title})" for w in WORKLOADS.values()),
    )
    parser.add_argument("workload", nargs="*", help="what to measure; everything without")
    parser.add_argument(
        "--profile", action="append", choices=list(PROFILES), help="over which line (repeatable)"
    )
    parser.add_argument("--reps", type=int, default=3, metavar="N", help="rounds (default 3)")
    parser.add_argument("--only", metavar="A,B", help="these contenders only")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="S",
        help="wait this long for a quiet machine before each sample (default 20, quick 1)",
    )
    parser.add_argument(
        "--relay", action="store_true", help="delay bytes, not packets, on the far lines"
    )
    parser.add_argument("--quick", action="store_true", help="small and under three minutes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the results go (JSON)")
    parser.add_argument(
        "--render", nargs="+", metavar="FILE", help="write docs/PERFORMANCE.md from results"
    )
    return parser


def _plan(parser: argparse.ArgumentParser, given: argparse.Namespace, words: list[str]) -> Plan:
    unknown = [name for name in given.workload if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are: {', '.join(WORKLOADS)}")
    if given.reps < 1:
        parser.error("--reps must be at least 1")
    workloads = [WORKLOADS[name] for name in given.workload or WORKLOADS]
    if given.quick and not given.workload:
        workloads = [
            dataclasses.replace(WORKLOADS[name], profiles=profiles)
            for name, profiles in QUICK_WORKLOADS.items()
        ]
    profiles = given.profile or tuple(PROFILES)
    only = frozenset(given.only.split(",")) if given.only else None
    if given.quick and only is None:
        only = frozenset(QUICK_CONTENDERS | {"256-lzw"})
    # The command as others can repeat it, without where our files are.
    told = re.sub(r"--out(=| )\S+ ?", "", " ".join(words)).strip()
    return Plan(
        workloads=tuple(workloads),
        profiles=tuple(PROFILES[name] for name in profiles),
        repetitions=given.reps,
        sizes=QUICK if given.quick else Sizes(),
        only=only,
        patience_s=given.patience if given.patience is not None else (1.0 if given.quick else 20.0),
        relay=given.relay,
        is_quick=given.quick,
        command=f"scripts/bench {told}".strip(),
    )


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _result_file(given: Path | None) -> Path:
    if given is not None:
        given.parent.mkdir(parents=True, exist_ok=True)
        return given
    directory = REPOSITORY / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())


def _is_complete(results: Results) -> bool:
    return all(
        results.run(workload.name, profile) is not None
        for workload in WORKLOADS.values()
        for profile in workload.profiles
    )


@contextlib.contextmanager
def _workspace() -> Iterator[tuple[Path, Path]]:
    """Give a directory in memory, for the store, and one on the disk, for caches."""
    memory = Path("/dev/shm")  # noqa: S108 - the store must not be slower than the line
    beneath = os.environ.get("SATFS_BENCH_DIR", "/var/tmp")  # noqa: S108 - /tmp may be memory
    quick = tempfile.mkdtemp(prefix="satfs-bench-", dir=memory if memory.is_dir() else beneath)
    slow = tempfile.mkdtemp(prefix="satfs-bench-", dir=beneath)
    try:
        yield Path(quick), Path(slow)
    finally:
        shutil.rmtree(quick, ignore_errors=True)
        shutil.rmtree(slow, ignore_errors=True)


def _measure(plan: Plan, workspace: tuple[Path, Path]) -> Iterator[Run]:
    quick, slow = workspace
    store = quick / "store"
    objects = _make_objects(plan, store)
    digests = {name: stored.digests() for name, stored in objects.items() if name not in LAYOUTS}
    copies = _make_copies(plan, objects)
    shown = [*objects.values(), *chain(*copies.values())]
    scene_ids = sorted({stored.scene_id for stored in shown})
    machine, versions = describe_machine(), describe_versions()
    for profile in plan.profiles:
        wanted = [workload for workload in plan.workloads if profile.name in workload.profiles]
        if not wanted:
            continue
        room = quick / profile.name
        room.mkdir()
        with contextlib.ExitStack() as stack:
            line = stack.enter_context(open_line(profile, room, relay=plan.relay))
            origin = stack.enter_context(run_origin(profile, line, store, room, scene_ids))
            told = _describe_line(profile, line, origin, objects)
            scene = Scene(origin, objects, digests, slow, plan.sizes, {}, copies)
            for workload in wanted:
                run = Run(
                    workload=workload.name,
                    profile=profile.name,
                    date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
                    command=plan.command,
                    machine=machine,
                    versions=versions,
                    line=told,
                    sizes=asdict(plan.sizes),
                )
                _take(plan, scene, workload, profile, run)
                yield run


def _take(plan: Plan, scene: Scene, workload: Workload, profile: Profile, run: Run) -> None:
    """Fill *run* with a sample of each contender in each round, one after the other."""
    takers = _takers(plan, workload, profile)
    broken: dict[str, Sample] = {}
    for repetition in range(plan.repetitions):
        # satfs and the curl that matches it stay next to each other; their place in the round
        # changes, so that no contender always follows the same neighbour.
        turn = 2 * repetition % len(takers)
        for name in takers[turn:] + takers[:turn]:
            started = time.monotonic()
            # A contender that failed in one round is left out of the others: a hang costs minutes.
            sample = broken.get(name) or _sample(plan, scene, workload, name, repetition)
            if "failed" in sample and name != SATFS.name:
                broken[name] = sample
            run.samples.append({"contender": name, "repetition": repetition, **sample})
            print(
                f"{profile.name} {workload.name} {repetition + 1}/{plan.repetitions} "
                f"{name}: {render.headline(workload.name, sample)} "
                f"({time.monotonic() - started:.0f} s)",
                flush=True,
            )


def _sample(plan: Plan, scene: Scene, workload: Workload, name: str, repetition: int) -> Sample:
    """Take one sample; take it again when the host gave the processors to another guest."""
    reason = missing(name)
    if reason is not None:
        return {"skipped": reason}
    for _ in range(1 if plan.is_quick else MAX_TRIES):
        if CASE not in name:  # what is read of a raster fits into memory many times
            n_objects = MEMORY_CLAIMED * workload.n_whole_files
            claim_memory(n_objects * plan.sizes.sequential_bytes)
        wait_until_quiet(plan.patience_s)
        before = Moment.now()
        sample = _try(scene, workload, name, repetition)
        sample["stolen"] = Moment.now().stolen_since(before)
        if "failed" in sample or sample["stolen"] <= STOLEN_SHARE:
            break
    return sample


def _try(scene: Scene, workload: Workload, name: str, repetition: int) -> Sample:
    try:
        return workload.run(scene, name, repetition)
    except DidNotMount as failure:
        print(f"{name} did not mount: {failure}", file=sys.stderr)
        return {"failed": "did not mount"}
    except WrongBytes as failure:
        # A peer's wrong bytes are reported; ours end the run.
        if name == SATFS.name:
            raise
        return {"failed": f"wrong bytes: {failure}"}
    except (subprocess.SubprocessError, RuntimeError, OSError) as failure:
        # A peer that breaks has no figure; it must not cost the others theirs.
        print(f"{name}: {failure}", file=sys.stderr)
        return {"failed": type(failure).__name__}


def _takers(plan: Plan, workload: Workload, profile: Profile) -> list[str]:
    names = list(workload.contenders)
    curls = [f"{CURL}-{which}" for which in (workload.curls or {}).get(profile.name, ())]
    after_us = names.index(SATFS.name) + 1 if SATFS.name in names else 0
    ordered = names[:after_us] + curls + names[after_us:]
    return [name for name in ordered if _takes(plan, name)]


def _takes(plan: Plan, name: str) -> bool:
    """Return whether a contender was chosen: by its name, or by each kind of part named."""
    if plan.only is None or name in plan.only:
        return True
    if CASE not in name:
        return False
    kinds = (WINDOW_READERS, LAYOUTS, WORK)
    asked = [plan.only & set(kind) for kind in kinds]
    parts = zip(name.split(CASE), asked, strict=True)
    return any(asked) and all(not some or part in some for part, some in parts)


def missing(name: str) -> str | None:
    """Return why the contender called *name* cannot take part, or None when it can."""
    if name.startswith(CURL):
        return None if program("curl") else "curl is not installed"
    if name == VSICURL:
        return None if gdal_library() else "GDAL is not installed"
    if CASE in name:
        return None if find_spec("rasterio") else "rasterio is not installed"
    return next((one.missing() for one in MOUNTED if one.name == name), None)


def _make_objects(plan: Plan, store: Path) -> dict[str, StoredObject]:
    needed = {name for workload in plan.workloads for name in workload.objects}
    directory = store / "objects"
    directory.mkdir(parents=True)
    sizes = plan.sizes
    made: dict[str, StoredObject] = {}
    day = "20260128_15574"
    for number, (name, size_bytes) in enumerate(
        {"a": sizes.sequential_bytes, "b": sizes.sequential_bytes, "zip": sizes.zip_bytes}.items()
    ):
        if name in needed or name == "a":  # "a" also shows what the line is like
            scene_id = f"{day}{number}_002_SN33_L1D_SR_MS_341271"
            made[name] = make_zip(directory, scene_id, size_bytes, seed=number)
            made[f"{name}-member"] = made[name].member()
    if "rasters" in needed:
        cases = [name.split(CASE) for name in WORKLOADS["window"].contenders if _takes(plan, name)]
        for number, layout in enumerate(dict.fromkeys(layout for _, layout, _ in cases)):
            scene_id = f"{day}9_{number:03}_SN33_L1D_SR_MS_341271"
            made[layout] = make_raster_zip(directory, scene_id, layout)
    if "many" in needed:
        many = store / f"many-{sizes.n_entries}"
        many.mkdir()
        for number in range(sizes.n_entries):
            (many / f"entry-{number:06}.bin").write_bytes(b"x" * 1024)
    return made


def _make_copies(plan: Plan, objects: dict[str, StoredObject]) -> dict[str, list[StoredObject]]:
    """Return the objects of works on several rasters, by layout."""
    wanted: dict[str, int] = {}
    for name in WORKLOADS["window"].contenders:
        _, layout, work = name.split(CASE)
        if layout in objects and _takes(plan, name):
            wanted[layout] = max(wanted.get(layout, 1), WORK[work].n_rasters)
    return {layout: copies_of(objects[layout], n) for layout, n in wanted.items()}


def _describe_line(
    profile: Profile, line: Line, origin: Origin, objects: dict[str, StoredObject]
) -> dict[str, Any]:
    told: dict[str, Any] = {"title": profile.title, "how": line.how}
    if missing(CURL) is None:
        told |= curl.calibrate(origin, objects["a"])
        print(
            f"profile {profile.name}: connect {told['connect_s'] * 1000:.1f} ms, first byte "
            f"{told['first_byte_s'] * 1000:.1f} ms, one connection {told['rate'] / 1e6:.0f} MB/s",
            flush=True,
        )
    return told


def _render_only(files: list[Path]) -> int:
    results = Results(())
    for file in files:
        results = results.merged(Results.from_json(file.read_text()))
    written = write_documents(results, REPOSITORY / "docs")
    print("written: " + ", ".join(str(path.relative_to(REPOSITORY)) for path in written))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
