"""Results as text for the terminal, and as tables for docs/PERFORMANCE.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.names import title
from benchmarks.profiles import MB, PROFILES
from benchmarks.rasters import WORK, cases
from benchmarks.results import Results, Run
from benchmarks.targets import verdicts
from benchmarks.window_figures import ideal_s, window_ratios
from benchmarks.window_works import CASE, WINDOW_READERS
from benchmarks.workloads import WORKLOADS


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a workload's table: what a sample calls it, and how it is written."""

    title: str
    key: str
    write: Callable[[float], str]


def _mb_per_s(value: float) -> str:
    return f"{value / MB:,.0f}" if value >= 10 * MB else f"{value / MB:.1f}"


def _mb(value: float) -> str:
    return f"{value / MB:,.1f}" if value < 100 * MB else f"{value / MB:,.0f}"


def _ms(value: float) -> str:
    return f"{value * 1000:,.1f}" if value < 0.1 else f"{value * 1000:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _two(value: float) -> str:
    return f"{value:.2f}"


_RATE = Column("MB/s", "rate", _mb_per_s)
_REQUESTS = Column("requests", "requests", _count)
_BYTES = Column("MB fetched", "content_bytes", _mb)
_MEMORY = Column("memory, MB", "memory_bytes", _mb)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "sequential": (
        _RATE,
        Column("first MiB, ms", "first_read_s", _ms),
        Column("CPU s/GiB", "cpu_s_per_gib", _two),
        _MEMORY,
        _REQUESTS,
        _BYTES,
        Column("connections", "peak_connections", _count),
    ),
    "dd": (
        _RATE,
        Column("first MiB, ms", "first_read_s", _ms),
        Column("CPU s/GiB", "cpu_s_per_gib", _two),
        _REQUESTS,
        _BYTES,
    ),
    "cpu": (
        Column("CPU s/GB", "cpu_s_per_gb", _two),
        Column("mount, user", "mount_user_s_per_gb", _two),
        Column("mount, system", "mount_system_s_per_gb", _two),
        Column("workers, user", "workers_user_s_per_gb", _two),
        Column("workers, system", "workers_system_s_per_gb", _two),
        Column("kernel's threads", "kernel_s_per_gb", _two),
        _RATE,
    ),
    "first-byte": (
        Column("fresh mount, ms", "fresh_s", _ms),
        Column("requests", "fresh_requests", _count),
        Column("link known, ms", "warm_s", _ms),
        Column("requests for 10", "warm_requests", _count),
        Column("MB fetched for 10", "warm_content_bytes", _mb),
    ),
    "another-scene": (
        Column("first byte, ms", "first_s", _ms),
        Column("requests", "requests", _count),
        Column("MB fetched", "content_bytes", _mb),
        Column("names in a zip, ms", "directory_s", _ms),
    ),
    "random": (
        Column("median, ms", "median_s", _ms),
        Column("p95, ms", "p95_s", _ms),
        Column("all, s", "total_s", _seconds),
        _REQUESTS,
        _BYTES,
        Column("times the bytes requested", "amplification", _two),
    ),
    "two-files": (_RATE, _MEMORY, _REQUESTS, Column("times fetched", "fetched_ratio", _two)),
    "eight-readers": (
        Column("MB/s, all readers", "rate", _mb_per_s),
        Column("MB/s of the file", "line_rate", _mb_per_s),
        _MEMORY,
        _REQUESTS,
        Column("times fetched", "fetched_ratio", lambda value: f"{value:.3f}"),
    ),
    "checksum": (_RATE, Column("s", "took_s", _seconds), _REQUESTS, _BYTES),
    "reread-kernel": (_RATE, Column("CPU s of the mount", "cpu_s", _two), _REQUESTS),
    "reread-disk": (
        _RATE,
        Column("plain read of the cache file, MB/s", "plain_rate", _mb_per_s),
        Column("MB/s, its pages in memory", "warm_pages_rate", _mb_per_s),
        Column("bytes from the origin", "content_bytes", _count),
    ),
    "listing": (
        Column("`ls -l`, first, s", "ls_l_first_s", _seconds),
        Column("requests", "requests", _count),
        Column("`ls -l`, known, s", "ls_l_known_s", _seconds),
        Column("`ls -f`, known, s", "ls_f_known_s", _seconds),
        Column("`find`, known, s", "find_known_s", _seconds),
        Column("requests", "known_requests", _count),
    ),
    "long-listing": (
        Column("`find`, first, s", "find_first_s", _seconds),
        Column("requests", "requests", _count),
        Column("`find`, known, s", "find_known_s", _seconds),
        Column("requests", "known_requests", _count),
    ),
    "interactivity": (
        Column("`stat` p50, ms", "stat_p50_s", _ms),
        Column("p99", "stat_p99_s", _ms),
        Column("worst", "stat_max_s", _ms),
        Column("lookup p50, ms", "lookup_p50_s", _ms),
        Column("p99", "lookup_p99_s", _ms),
        Column("worst", "lookup_max_s", _ms),
        Column("lookups", "lookups", _count),
        Column("the read, MB/s", "rate", _mb_per_s),
    ),
    "window": (
        Column("s", "took_s", _seconds),
        Column("requests", "content_requests", _count),
        _BYTES,
    ),
}


def headline(workload: str, sample: dict[str, Any]) -> str:
    """Return one sample in a few words, for the terminal."""
    reason = sample.get("skipped") or sample.get("failed")
    if reason:
        return f"skipped: {reason}"
    told = [
        f"{column.title} {column.write(sample[column.key])}"
        for column in COLUMNS[workload]
        if isinstance(sample.get(column.key), int | float)
    ]
    return ", ".join(told[:4])


def table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of *run*: medians, and the spread of the first figure."""
    columns = COLUMNS[run.workload]
    head = ["", *(column.title for column in columns)]
    rows = []
    for contender in run.contenders():
        cells = []
        for position, column in enumerate(columns):
            values = run.values(contender, column.key)
            if not values:
                cells.append("-")
                continue
            text = column.write(statistics.median(values))
            if position == 0 and len(values) > 1:
                text += f" ({column.write(min(values))}…{column.write(max(values))})"
            cells.append(text)
        name = title(contender)
        if contender.startswith("curl-"):
            numbers = sorted({int(n) for n in run.values(contender, "connections")})
            if contender == "curl-matched" and numbers:
                name += f" ({' to '.join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))})"
        reasons = run.reasons(contender)
        if reasons and all(cell == "-" for cell in cells):
            cells[0] = f"skipped: {reasons[0]}"
        if _was_cut_short(run, contender):
            name += " ¹"
        rows.append([name, *cells])
    return head, rows


def _was_cut_short(run: Run, contender: str) -> bool:
    return any(
        sample.get("complete") is False
        for sample in run.samples
        if sample["contender"] == contender
    )


def as_text(run: Run) -> str:
    """Return the table of *run* for a terminal."""
    head, rows = table(run)
    rows = [[cell.replace("`", "") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = [f"\n{WORKLOADS[run.workload].title} - {PROFILES[run.profile].title}".replace("`", "")]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def windows_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of rasters: a row for each layout and work."""
    head = ["layout", "work", "least: MB / ranges / s"]
    head += [f"{title(reader)}: MB / requests / s" for reader in WINDOW_READERS]
    head += ["its requests alone: s", "`contents/` / GDAL", "least / GDAL"]
    ratios = window_ratios(run, WINDOW_READERS[0])
    rows = []
    for layout, work in cases():
        names = [CASE.join((reader, layout, work)) for reader in WINDOW_READERS]
        needed = [run.median(names[0], key) for key in ("least_bytes", "least_ranges")]
        if needed[0] is None or needed[1] is None:
            continue
        least_s, gdal_s = (ideal_s(run, layout, work, is_gdal=is_gdal) for is_gdal in (False, True))
        told_s = "-" if least_s is None else _seconds(least_s)
        cells = [layout, WORK[work].title, f"{_mb(needed[0])} / {_count(needed[1])} / {told_s}"]
        for name in names:
            values = [run.median(name, column.key) for column in COLUMNS["window"]]
            told = [
                "-" if value is None else column.write(value)
                for column, value in zip(COLUMNS["window"], values, strict=True)
            ]
            cells.append(" / ".join(reversed(told)))
        took_s = run.median(names[-1], "took_s")
        shares = [
            ratios.get((layout, work)),
            least_s / took_s if least_s is not None and took_s else None,
        ]
        cells.append("-" if gdal_s is None else _seconds(gdal_s))
        cells += ["-" if share is None else _two(share) for share in shares]
        rows.append(cells)
    return head, rows


def _windows_summary(run: Run) -> str:
    """Return how the times compare with GDAL's own, over all layouts and works."""
    by_reader = []
    for reader in WINDOW_READERS[:-1]:
        ratios = window_ratios(run, reader)
        if ratios:
            median, worst = statistics.median(ratios.values()), max(ratios.values())
            by_reader.append(
                f"{title(reader)} takes {median:.2f} of GDAL's time in the median of "
                f"{len(ratios)} rows, {worst:.2f} at worst."
            )
    return " ".join(by_reader)


def as_markdown(run: Run) -> str:
    """Return the table of *run* for a document."""
    is_windows = run.workload == "window"
    head, rows = windows_table(run) if is_windows else table(run)
    if is_windows:
        lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        summary = _windows_summary(run)
        return "\n".join([*([summary, ""] if summary else []), *lines])
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(_embolden(row)) + " |" for row in rows]
    if any(row[0].endswith("¹") for row in rows):
        lines += ["", f"¹ stopped after {run.sizes['limit_s']:.0f} s; the rate is that until then."]
    return "\n".join(lines)


def _embolden(row: list[str]) -> list[str]:
    return [f"**{cell}**" for cell in row] if row[0].startswith("satfs") else row


def targets_as_text(results: Results) -> str:
    """Return the verdicts for a terminal; those without a measurement are left out."""
    lines = []
    for verdict in verdicts(results):
        if verdict.met is not None:
            mark = "met    " if verdict.met else "MISSED "
            lines.append(
                f"{mark} {verdict.workload}: {verdict.measured} (target: {verdict.target})"
            )
    return "\n".join(lines).replace("`", "")
