"""The targets of satfs, a row for each promise, and whether a run meets them. Pure.

Longer than 400 lines, since each row stands with its target.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.profiles import MB, PROFILES
from benchmarks.rasters import WORK
from benchmarks.results import Results, Run
from benchmarks.window_figures import GDAL, OURS, excesses, ideal_s, window_ratios
from benchmarks.window_works import CASE

#: The contender that the rows are about.
US = "satfs"

#: Requests of a first read that are not content: the walk to a file that was not listed yet.
FIRST_READ_KINDS = {"token", "link", "range"}
#: Where more than one of a kind is allowed: the two halves of a first block.
MAX_FIRST_READ = {"range": 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row: the target, the measurement, and whether it is enough.

    `met` is None where the run holds nothing to judge by.
    """

    key: str
    workload: str
    target: str
    measured: str
    met: bool | None


def verdicts(results: Results) -> list[Verdict]:
    """Return a verdict for each target, in the order in which they were set."""
    rows: list[Verdict] = []
    for judge in _JUDGES:
        rows.extend(judge(results))
    return rows


def mounted_peers(run: Run) -> list[str]:
    """Return the mounts in *run* other than satfs, of today or of before."""
    apart = (US, "curl", "vsicurl", "local-file", "memory-file")
    return [name for name in run.contenders() if not name.startswith(apart)]


def curls(run: Run) -> list[str]:
    """Return the curls in *run*."""
    return [name for name in run.contenders() if name.startswith("curl")]


def _row(key: str, workload: str, target: str, parts: Iterable[tuple[str, bool] | None]) -> Verdict:
    known = [part for part in parts if part is not None]
    if not known:
        return Verdict(key, workload, target, "not measured", None)
    return Verdict(
        key, workload, target, "; ".join(text for text, _ in known), all(met for _, met in known)
    )


def _against(
    run: Run | None, rivals: Callable[[Run], list[str]], least: float, words: str
) -> tuple[str, bool] | None:
    """Judge the median of the rounds' ratios of satfs's rate to the best of *rivals*."""
    if run is None:
        return None
    ratios = run.ratios(US, rivals(run), "rate")
    if not ratios:
        return None
    ratio = statistics.median(ratios)
    return f"{ratio:.2f} of {words}", ratio >= least


def _best_peer(run: Run) -> str:
    rates = {name: run.median(name, "rate") or 0.0 for name in mounted_peers(run)}
    if not rates:
        return "the fastest peer"
    name = max(rates, key=lambda peer: rates[peer])
    return f"the fastest mounted peer ({name}, {rates[name] / MB:.0f} MB/s)"


def _rate(run: Run | None) -> str:
    rate = run.median(US, "rate") if run else None
    return f"{rate / MB:.0f} MB/s" if rate else "-"


def _told(part: tuple[str, bool] | None) -> tuple[str, bool] | None:
    """Return *part* for display, without a decision."""
    return None if part is None else (part[0], True)


def _sequential(results: Results) -> list[Verdict]:
    tls, plain = results.run("sequential", "tls"), results.run("sequential", "plain")
    rows = [
        _row(
            "sequential-tls",
            "cold sequential, loopback TLS",
            "faster than every mounted peer",
            [
                _against(tls, mounted_peers, 1.0, _best_peer(tls)) if tls else None,
                # For comparison: what no file system can reach.
                _told(_against(tls, curls, 0.0, f"parallel curl ({_rate(tls)})")),
            ],
        ),
        _row(
            "sequential-plain",
            "cold sequential, loopback plain",
            "faster than every mounted peer",
            [_against(plain, mounted_peers, 1.0, f"{_best_peer(plain)}") if plain else None],
        ),
    ]
    for name in ("wan", "far"):
        run = results.run("sequential", name)
        rows.append(
            _row(
                f"sequential-{name}",
                f"cold sequential, {PROFILES[name].title.partition(':')[0]}",
                "0.8 of curl with as many connections on two cores, 0.9 on four; faster than every"
                " mounted peer",
                [
                    _against(
                        run,
                        lambda _: ["curl-matched"],
                        _curl_share(run),
                        f"that curl ({_rate(run)})",
                    ),
                    _against(run, mounted_peers, 1.0, _best_peer(run)) if run else None,
                ],
            )
        )
    return rows


def _curl_share(run: Run | None) -> float:
    """Return the share of curl's rate that is the target: with few cores the two share them."""
    return 0.9 if run is not None and int(run.machine.get("cores", "1")) >= 4 else 0.8


def _ahead_of_peers(results: Results) -> list[Verdict]:
    """Judge what is read as programs do against every mounted peer, line by line."""
    rows = []
    for workload, title in {
        "dd": "`dd` of 1 GiB, cold",
        "two-files": "two files at the same time",
        "eight-readers": "eight readers of one file",
        "checksum": "`sha256sum` of a 230 MB zip, fresh mount",
    }.items():
        runs = [results.run(workload, name) for name in ("tls", "wan", "far")]
        rows.append(
            _row(
                f"{workload}-peers",
                f"{title}, each line",
                "faster than every mounted peer",
                [
                    _against(run, mounted_peers, 1.0, f"{_best_peer(run)}, {run.profile}")
                    for run in runs
                    if run is not None
                ],
            )
        )
    return rows


def _least(
    run: Run | None, key: str, least: float, words: Callable[[float], str]
) -> tuple[str, bool] | None:
    value = run.median(US, key) if run else None
    return None if value is None else (words(value), value >= least)


def _most(
    run: Run | None, key: str, most: float, words: Callable[[float], str]
) -> tuple[str, bool] | None:
    value = run.median(US, key) if run else None
    return None if value is None else (words(value), value <= most)


def _together(results: Results) -> list[Verdict]:
    alone = results.run("sequential", "wan")
    one = alone.median(US, "rate") if alone else None

    def sum_of(run: Run | None, key: str) -> tuple[str, bool] | None:
        rate = run.median(US, key) if run else None
        if run is None or rate is None or one is None or alone is None:
            return None
        if run.machine != alone.machine:
            return None  # two machines are not compared
        # A tenth of leeway: the two figures come from different rounds.
        return f"{rate / MB:.0f} MB/s where one reader has {one / MB:.0f}", rate >= 0.9 * one

    two, eight = results.run("two-files", "wan"), results.run("eight-readers", "wan")
    return [
        _row(
            "two-files",
            "two readers of two files, WAN",
            "together as fast as one reader",
            [sum_of(two, "rate")],
        ),
        _row(
            "eight-readers",
            "eight readers of one file, WAN",
            "as fast as one reader; each byte fetched once",
            [
                sum_of(eight, "line_rate"),
                # The tail that brings a zip's size may be fetched again as part of a range.
                _most(eight, "fetched_ratio", 1.005, lambda r: f"bytes fetched {r:.3f} times"),
            ],
        ),
    ]


def _another_scene(results: Results) -> list[Verdict]:
    run, trip_s = results.run("another-scene", "wan"), PROFILES["wan"].round_trip_s
    return [
        _row(
            "another-scene",
            "first byte of another file, WAN, mount in use",
            "link and one range: two round trips plus 20 ms",
            [_most(run, "first_s", 2 * trip_s + 0.020, lambda s: f"{s * 1000:.0f} ms")],
        ),
        _row(
            "another-directory",
            "names in a zip of another scene (`unzip -l`), WAN, mount in use",
            "two round trips plus 30 ms",
            [_most(run, "directory_s", 2 * trip_s + 0.030, lambda s: f"{s * 1000:.0f} ms")],
        ),
    ]


def _first_byte(results: Results) -> list[Verdict]:
    warm = []
    for name in ("wan", "far"):
        most_s = PROFILES[name].round_trip_s + 0.020
        warm.append(
            _most(
                results.run("first-byte", name),
                "warm_s",
                most_s,
                lambda s, n=name: f"{n}: {s * 1000:.0f} ms",  # type: ignore[misc]
            )
        )
    run = results.run("first-byte", "wan")
    fresh: tuple[str, bool] | None = None
    if run is not None and run.median(US, "fresh_s") is not None:
        kinds: dict[str, int] = {}
        for sample in run.samples:
            if sample["contender"] == US and "mount_kinds" in sample:
                kinds = _sum_kinds(sample["mount_kinds"], sample["fresh_kinds"])
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        ours_s = run.median(US, "fresh_s") or 0.0
        peers_s = {name: run.median(name, "fresh_s") or 0.0 for name in mounted_peers(run)}
        soonest = min(peers_s, key=lambda name: peers_s[name], default=None)
        beside = f" ({soonest} {peers_s[soonest]:.3f} s)" if soonest is not None else ""
        fresh = (
            f"{ours_s:.3f} s{beside} and {told}, from mount to first byte",
            all(count <= MAX_FIRST_READ.get(kind, 1) for kind, count in kinds.items())
            and set(kinds) <= FIRST_READ_KINDS | WALKING_KINDS
            and (soonest is None or ours_s < peers_s[soonest]),
        )
    return [
        _row(
            "first-byte",
            "time to first byte, link known",
            "one round trip plus 20 ms (50 and 140 ms)",
            warm,
        ),
        _row(
            "first-byte-fresh",
            "time to first byte, fresh mount",
            "token, link and the first block, in one range or two halves, beside the walk to the"
            " file (tasks, scene, its zip's tail); sooner than every mounted peer",
            [fresh],
        ),
    ]


#: Requests of a mount without a cache on the way to a name: the first page, which shows that the
#: credentials work, the scene, and the tail that brings its zip's size.
WALKING_KINDS = {"tasks", "scenes", "tail"}


def _sum_kinds(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in {*one, *other}}


def _random(results: Results) -> list[Verdict]:
    run = results.run("random", "wan")
    latency: tuple[str, bool] | None = None
    if run is not None:
        ratios = run.ratios(US, curls(run), "median_s")
        median_s = run.median(US, "median_s")
        if ratios and median_s is not None:
            ratio = statistics.median(ratios)
            latency = f"median {median_s * 1000:.1f} ms, {ratio:.2f} of curl's", ratio <= 1.15
    return [
        _row(
            "random",
            "200 random 64 KiB reads, WAN",
            "median within 15 % of curl; at most 3 times the bytes requested",
            [latency, _most(run, "amplification", 3.0, lambda x: f"{x:.2f} times the bytes")],
        )
    ]


def _rereads(results: Results) -> list[Verdict]:
    kernel, disk = results.run("reread-kernel", "tls"), results.run("reread-disk", "tls")
    against_plain: tuple[str, bool] | None = None
    if disk is not None:
        rate, plain = disk.median(US, "rate"), disk.median(US, "plain_rate")
        if rate is not None and plain is not None:
            against_plain = (
                f"{rate / MB:.0f} MB/s, {rate / plain:.2f} of a plain read ({plain / MB:.0f} MB/s)",
                rate >= 0.8 * plain,
            )
    return [
        _row(
            "reread-kernel",
            "re-read from the kernel",
            "within 10 % of a local file in the same cache state",
            [
                _against(kernel, lambda _: ["local-file"], 0.9, f"a local file ({_rate(kernel)})"),
                # For comparison only: what the size of pages explains.
                _told(_against(kernel, lambda _: ["memory-file"], 0.0, "one in tmpfs")),
            ],
        ),
        _row(
            "reread-disk",
            "re-read after remount from the disk cache",
            "0.8 of a plain read of the cache file",
            [
                against_plain,
                _most(disk, "content_bytes", 0, lambda b: f"{b:.0f} bytes from the origin"),
            ],
        ),
    ]


def _listings(results: Results) -> list[Verdict]:
    short, long = results.run("listing", "tls"), results.run("long-listing", "tls")
    return [
        _row(
            "listing",
            "`ls -l` of 10,000 known entries; `find` of 100,000",
            "under 0.3 s; under 2 s",
            [
                _most(short, "ls_l_known_s", 0.3, lambda s: f"{s:.2f} s"),
                _most(long, "find_known_s", 2.0, lambda s: f"{s:.2f} s"),
            ],
        )
    ]


def _costs(results: Results) -> list[Verdict]:
    peaks = [peak for run in results.runs for peak in run.values(US, "memory_bytes")]
    most = max(peaks, default=0.0)
    tls = results.run("cpu", "tls")
    return [
        _row(
            "memory",
            "memory, all processes, mapped cache pages aside",
            "under 200 MB resident",
            [(f"at most {most / MB:.0f} MB in {len(peaks)} runs", most < 200 * MB)]
            if peaks
            else [],
        ),
        _row(
            "cpu",
            "CPU, loopback TLS",
            "at most 2.0 CPU seconds per GB, and less than rclone with 16 streams and no cache",
            [
                _most(tls, "cpu_s_per_gb", 2.0, lambda s: f"{s:.2f} s per GB"),
                _less_cpu(tls, "rclone-streams"),
            ],
        ),
    ]


def _less_cpu(run: Run | None, rival: str) -> tuple[str, bool] | None:
    ours, theirs = (run.median(name, "cpu_s_per_gb") if run else None for name in (US, rival))
    if ours is None or theirs is None:
        return None
    return f"{rival} {theirs:.2f} s", ours < theirs


def _interactivity(results: Results) -> list[Verdict]:
    parts = [
        _most(
            results.run("interactivity", name),
            f"{what}_p99_s",
            0.010,
            lambda s, w=what, n=name: f"{w} {s * 1000:.1f} ms ({n})",  # type: ignore[misc]
        )
        for name in ("tls", "wan")
        for what in ("stat", "lookup")
    ]
    return [
        _row(
            "interactivity",
            "`stat` and uncached lookup while a bulk read runs",
            "p99 under 10 ms",
            parts,
        )
    ]


def _rasters(results: Results) -> list[Verdict]:
    run = results.run("window", "wan")
    ratios = {} if run is None else window_ratios(run, OURS)
    rows = []
    for work in ("chips", "points"):
        found = {layout: ratio for (layout, name), ratio in ratios.items() if name == work}
        allowed = [_allowed_share(run, layout, work) for layout in found] if run else []
        rows.append(
            _row(
                f"rasters-{work}",
                f"{WORK[work].title} of a raster, WAN",
                "0.5 of GDAL's time",
                [
                    (
                        f"{statistics.median(found.values()):.2f} in the median of {len(found)}"
                        f" layouts, {max(found.values()):.2f} at worst; the line allows"
                        f" {statistics.median(allowed):.2f}",
                        max(found.values()) <= 0.5,
                    )
                    if found
                    else None
                ],
            )
        )
    rows.append(
        _row(
            "rasters-all",
            "windows, chips, points and whole rasters, WAN",
            "0.6 of GDAL's time in the median, never slower",
            [
                (
                    f"{statistics.median(ratios.values()):.2f} in the median of {len(ratios)} rows,"
                    f" {max(ratios.values()):.2f} at worst",
                    statistics.median(ratios.values()) <= 0.6 and max(ratios.values()) <= 1,
                )
                if ratios
                else None
            ],
        )
    )
    more_bytes, more_requests = ({}, {}) if run is None else excesses(run)
    for key, what, limit, more in (
        ("rasters-bytes", "bytes", "1.25 times the blocks touched plus 0.5 MB", more_bytes),
        ("rasters-requests", "requests", "ranges of neighbours plus 4", more_requests),
    ):
        n_over = sum(value > 0 for value in more.values())
        part = f"more in {n_over} of {len(more)} rows", n_over == 0
        rows.append(_row(key, f"{what} of rasters, WAN", limit, [part if more else None]))
    for work in ("training-1", "training-8"):
        ratio = ratios.get(("256-lzw", work))
        target = "4 times GDAL's throughput"
        share = None if ratio is None else (f"{1 / ratio:.1f} times", ratio <= 0.25)
        rows.append(_row(f"rasters-{work}", f"{WORK[work].title}, WAN", target, [share]))
    return rows


def _allowed_share(run: Run, layout: str, work: str) -> float:
    """Return which share of GDAL's time a work takes at least."""
    least_s = ideal_s(run, layout, work)
    gdal_s = run.median(CASE.join((GDAL, layout, work)), "took_s")
    return least_s / gdal_s if least_s and gdal_s else math.nan


_JUDGES: tuple[Callable[[Results], list[Verdict]], ...] = (
    _sequential,
    _ahead_of_peers,
    _together,
    _another_scene,
    _first_byte,
    _random,
    _rereads,
    _listings,
    _costs,
    _interactivity,
    _rasters,
)
