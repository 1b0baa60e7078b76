"""The figures in docs/PERFORMANCE.md: counted, compared and judged as they claim to be."""

from __future__ import annotations

import importlib.util
import itertools
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from benchmarks import children, curl, render, targets, workloads
from benchmarks.counters import Request, peak_concurrency, summarise
from benchmarks.machine import REPOSITORY
from benchmarks.objects import DIGEST_BLOCK_BYTES, StoredObject, make_zip
from benchmarks.profiles import MB, PROFILES
from benchmarks.quiet import Moment
from benchmarks.rasters import LAYOUTS, WORK, cases
from benchmarks.results import Results, Run
from benchmarks.samples import percentile
from benchmarks.workloads import WORKLOADS
from hypothesis import given
from hypothesis import strategies as st

SPANS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda s: (s[0], s[0] + s[1])),
    max_size=30,
)


def a_run(workload: str, profile: str, samples: list[dict[str, Any]]) -> Run:
    rounds: dict[str, int] = {}
    for sample in samples:
        sample["repetition"] = rounds.setdefault(sample["contender"], 0)
        rounds[sample["contender"]] += 1
    machine = {"processor": "p", "cores": "4", "memory": "8 GiB", "kernel": "6", "python": "3"}
    return Run(
        workload, profile, "2026-01-28 15:57 UTC", "scripts/bench", machine, {"satfs": "1"},
        {"title": PROFILES[profile].title, "how": "loopback"}, {"limit_s": 30.0}, samples,
    )  # fmt: skip


def rates(**given_rates: float) -> list[dict[str, Any]]:
    return [
        {"contender": name.replace("_", "-"), "rate": rate * MB}
        for name, rate in given_rates.items()
    ]


# -- counting --------------------------------------------------------------------------------------


def test_a_log_line_tells_a_request() -> None:
    line = '1732300000.250 0.200 9443 17 206 65536 GET /objects/a.zip "bytes=0-65535"\n'
    request = Request.parse(line)
    assert request.connection == 17
    assert request.body_bytes == 65536
    assert request.range == "bytes=0-65535"
    assert request.kind == "range"
    assert Request.parse(line.replace("bytes=0-65535", "-")).range is None


@pytest.mark.parametrize(
    ("method", "path", "asked", "kind"),
    [
        ("POST", "/oauth/token", None, "token"),
        ("GET", "/tasking/tasks/", None, "tasks"),
        ("GET", "/tasking/tasks/7/captures/", None, "captures"),
        ("GET", "/telluric/scenes/x/", None, "scenes"),
        ("GET", "/telluric/scenes/x/attachments/delivery_zip/download/", None, "link"),
        ("GET", "/objects/x.zip", "bytes=-65536", "tail"),
        ("GET", "/objects/x.zip", None, "whole"),
        ("HEAD", "/objects/x.zip", None, "head"),
        ("GET", "/objects/", None, "listing"),
    ],
)
def test_requests_are_told_apart(method: str, path: str, asked: str | None, kind: str) -> None:
    assert Request(0, 0, 1, 1, 200, 0, method, path, asked).kind == kind


def test_only_bytes_of_objects_count_as_content() -> None:
    """The statements of an API are not its deliveries."""
    seen = summarise(
        [
            Request(1, 0.5, 1, 1, 200, 900, "GET", "/tasking/tasks/", None),
            Request(2, 0.5, 2, 2, 206, 100, "GET", "/objects/a", "bytes=0-99"),
            Request(2.1, 0.5, 2, 3, 206, 50, "GET", "/objects/a", "bytes=-50"),
        ]
    )
    assert (seen.requests, seen.content_requests, seen.content_bytes) == (3, 2, 150)
    assert seen.peak_connections == 2


@given(SPANS)
def test_peak_concurrency_is_that_of_some_moment(spans: list[tuple[int, int]]) -> None:
    """The peak is what counting at every start would find."""
    lasting = [(start, stop) for start, stop in spans if stop > start]
    at_starts = (sum(start <= moment < stop for start, stop in lasting) for moment, _ in lasting)
    assert peak_concurrency(lasting) == max(at_starts, default=0)


@given(st.integers(1, 10**12), st.integers(1, 64))
def test_curl_is_asked_for_every_byte_once(size_bytes: int, n_parts: int) -> None:
    parts = curl.split(size_bytes, n_parts)
    assert parts[0][0] == 0
    assert parts[-1][1] == size_bytes
    assert all(one[1] == other[0] for one, other in itertools.pairwise(parts))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_not_exceeded_by_its_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    below = [value for value in values if value < found]
    assert len(below) < share * len(values)


def test_mapped_cache_pages_are_set_aside() -> None:
    """Memory is what the processes would need without the cache: its mapped pages do not count."""
    smaps = """\
7f00-7f10 r--s 00000000 fe:00 12 /var/cache/satfs/blocks/abc
Rss:  900 kB
Pss:  900 kB
7f20-7f30 rw-p 00000000 00:00 0
Rss:  500 kB
Pss:  400 kB
7f40-7f50 r-xp 00000000 fe:00 13 /usr/lib/libc.so.6
Pss:  20 kB
""".splitlines()
    assert children._proportional_kib(smaps, "/var/cache/satfs") == 420
    assert children._proportional_kib(smaps, None) == 1320


def test_a_busy_host_is_noticed() -> None:
    before = Moment.parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 …")
    after = Moment.parse("cpu  140 0 110 820 0 0 0 30 0 0\ncpu0 …")
    assert after.stolen_since(before) == pytest.approx(0.3)
    assert after.busy_since(before) == pytest.approx(0.8)


# -- the objects -----------------------------------------------------------------------------------


def test_an_object_is_a_zip_whose_member_is_found(tmp_path: Any) -> None:
    """The digests of the member are those of the bytes that unzipping it gives."""
    import zipfile

    import xxhash

    stored = make_zip(tmp_path, "scene", 3 * DIGEST_BLOCK_BYTES + 17, seed=1)
    member = stored.member()
    with zipfile.ZipFile(stored.path) as archive:
        unzipped = archive.read(stored.member_name)
    assert member.size_bytes == len(unzipped) == 3 * DIGEST_BLOCK_BYTES + 17
    assert member.digests()[0] == xxhash.xxh3_128_hexdigest(unzipped[:DIGEST_BLOCK_BYTES])
    assert len(member.digests()) == 4
    assert member.digest_of(5, 99) == xxhash.xxh3_128_hexdigest(unzipped[5:99])
    assert len(set(stored.digests())) == len(stored.digests())


def test_the_same_seed_makes_the_same_object(tmp_path: Any) -> None:
    first, again = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    again.mkdir()
    made: list[StoredObject] = [make_zip(place, "s", 100_000, seed=4) for place in (first, again)]
    assert made[0].sha256() == made[1].sha256()


# -- comparing and judging -------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round() -> None:
    """Rounds differ in how busy the machine was; a ratio never mixes two."""
    run = a_run(
        "sequential",
        "tls",
        [*rates(satfs=600, curl_4=1000), *rates(satfs=300, curl_4=500), *rates(satfs=900)],
    )
    assert run.ratios("satfs", ["curl-4"], "rate") == [0.6, 0.6]
    assert run.median("satfs", "rate") == statistics.median([600, 300, 900]) * MB


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_row_is_met_only_when_it_is(ours: int, theirs: int) -> None:
    run = a_run("sequential", "plain", rates(satfs=ours, rclone=theirs, curl_4=9999))
    row = next(v for v in targets.verdicts(Results((run,))) if v.key == "sequential-plain")
    assert row.met is (ours >= theirs)


def test_what_was_not_measured_is_not_met() -> None:
    """Nothing is claimed of a run that did not happen."""
    assert all(row.met is None for row in targets.verdicts(Results(())))
    assert all(row.measured == "not measured" for row in targets.verdicts(Results(())))


def test_a_later_run_takes_the_place_of_an_earlier_one() -> None:
    old = a_run("sequential", "tls", rates(satfs=1))
    other = a_run("sequential", "wan", rates(satfs=2))
    new = a_run("sequential", "tls", rates(satfs=3))
    merged = Results((old, other)).merged(Results((new,)))
    assert merged.run("sequential", "tls") == new
    assert merged.run("sequential", "wan") == other
    assert Results.from_json(merged.to_json()) == merged


def test_every_workload_can_be_rendered() -> None:
    for workload in WORKLOADS.values():
        run = a_run(workload.name, workload.profiles[0], [{"contender": "satfs", "skipped": "x"}])
        assert "skipped: x" in render.as_text(run)
        assert render.as_markdown(run).startswith("| ")


def test_a_read_that_was_cut_short_says_so() -> None:
    run = a_run("sequential", "wan", [{"contender": "httpdirfs", "rate": 4e6, "complete": False}])
    assert "httpdirfs ¹" in render.as_markdown(run)
    assert "stopped after 30 s" in render.as_markdown(run)


# -- the programs that it starts -------------------------------------------------------------------


def test_every_module_that_the_benchmarks_start_exists() -> None:
    package = Path(workloads.__file__).parent
    named = [
        name
        for source in package.glob("*.py")
        for name in re.findall(r'"-m",\s+"([\w.]+)"', source.read_text())
    ]
    assert {"benchmarks.readers", "benchmarks.api"} <= set(named)
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


def test_results_are_kept_in_the_repository_and_not_beside_its_scripts() -> None:
    assert (REPOSITORY / "docs" / "PERFORMANCE.md").is_file()


def test_each_work_is_done_on_layouts_that_there_are() -> None:
    """Some works on one layout alone; each with every reader, once."""
    found = list(cases())
    assert len(found) == len(set(found))
    assert {layout for layout, _ in found} == set(LAYOUTS)
    assert {work for _, work in found} == set(WORK)
    assert ("1024-raw", "cp") in found
    assert ("256-lzw", "cp") not in found
    assert len(WORKLOADS["window"].contenders) == 3 * len(found)


def test_processes_of_one_work_read_other_chips_each() -> None:
    """The same ones in each run, so that both readers read the same."""
    work = WORK["training-8"]
    windows = [tuple(work.windows_of(process)) for process in range(work.n_processes)]
    assert len(set(windows)) == work.n_processes == work.n_rasters
    assert all(len(each) == 50 for each in windows)
    assert windows[3] == tuple(work.windows_of(3))
    assert WORK["chips"].windows_of(0) == WORK["chips"].windows
