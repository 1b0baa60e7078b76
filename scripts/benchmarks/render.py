"""Results as text for the terminal, and as docs/PERFORMANCE.md with its plots."""

from __future__ import annotations

import re
import shutil
import statistics
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu import FLAMES
from benchmarks.names import title
from benchmarks.profiles import MB, PROFILES
from benchmarks.rasters import WORK, cases
from benchmarks.results import IN_PARTS, Results, Run
from benchmarks.targets import Verdict, verdicts
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
        Column("times the bytes asked", "amplification", _two),
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
    """Return one sample in a few words, for whoever watches."""
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
    head = ["layout", "work", "least: MB / ranges"]
    head += [f"{title(reader)}: MB / requests / s" for reader in WINDOW_READERS]
    rows = []
    for layout, work in cases():
        names = [CASE.join((reader, layout, work)) for reader in WINDOW_READERS]
        needed = [run.median(names[0], key) for key in ("least_bytes", "least_ranges")]
        if needed[0] is None or needed[1] is None:
            continue
        cells = [layout, WORK[work].title, f"{_mb(needed[0])} / {_count(needed[1])}"]
        for name in names:
            values = [run.median(name, column.key) for column in COLUMNS["window"]]
            told = [
                "-" if value is None else column.write(value)
                for column, value in zip(COLUMNS["window"], values, strict=True)
            ]
            cells.append(" / ".join(reversed(told)))
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


def window_ratios(run: Run, reader: str) -> dict[tuple[str, str], float]:
    """Return the time of a reader over that of GDAL without a mount, by layout and work."""
    found = {}
    for layout, work in cases():
        ours = run.median(CASE.join((reader, layout, work)), "took_s")
        others = run.median(CASE.join((WINDOW_READERS[-1], layout, work)), "took_s")
        if ours is not None and others:
            found[layout, work] = ours / others
    return found


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


def write_documents(results: Results, docs: Path) -> list[Path]:
    """Write PERFORMANCE.md, its plots and the results it was made from below *docs*.

    What `docs/performance-notes.toml` says of a row, or of a section, is put where it belongs.
    """
    from benchmarks import plots

    docs.mkdir(exist_ok=True)
    kept = docs / "performance.json"
    if kept.exists():
        results = Results.from_json(kept.read_text()).merged(results)
    kept.write_text(results.to_json() + "\n")
    notes_file = docs / "performance-notes.toml"
    notes = tomllib.loads(notes_file.read_text()) if notes_file.exists() else {}
    pictures = plots.draw_all(results, docs / "img")
    for drawn in sorted(FLAMES.glob("flame-*.svg")):
        shutil.copy(drawn, docs / "img" / drawn.name)
    pictures += sorted((docs / "img").glob("flame-*.svg"))
    document = docs / "PERFORMANCE.md"
    document.write_text(_document(results, notes, [path.name for path in pictures]))
    return [document, kept, *pictures]


def _document(results: Results, notes: dict[str, Any], pictures: list[str]) -> str:
    parts = [
        "# Performance",
        "Measured with `scripts/bench`, which wrote this page. "
        "Figures are medians of the rounds of one interleaved run (in brackets: the lowest and the "
        "highest); only figures of one table may be compared, since the machine is not the same "
        "from one hour to the next.",
        notes.get("introduction", "").strip(),
        "## Where it was to arrive, and where it is",
        _targets_as_markdown(verdicts(results), notes.get("rows", {})),
        "## On what it was measured",
        _machine_as_markdown(results),
        _lines_as_markdown(results),
        notes.get("method", "").strip(),
    ]
    for workload in WORKLOADS.values():
        runs = [run for run in results.runs if run.workload == workload.name]
        if workload.name == IN_PARTS:  # those of one window are of before there was a table
            runs = [run for run in runs if windows_table(run)[1]]
        told = notes.get("sections", {}).get(workload.name, "").strip()
        if not (runs or told):
            continue
        parts.append(f"## {workload.title[0].upper()}{workload.title[1:]}")
        parts.append(told)
        parts += [
            f"![{workload.title}](img/{name})"
            for name in pictures
            if name == f"perf-{workload.name}.svg"
        ]
        if workload.name == "cpu":
            parts.append(_flames_as_markdown(pictures))
        for run in sorted(runs, key=lambda one: list(PROFILES).index(one.profile)):
            parts.append(f"### {PROFILES[run.profile].title}")
            parts.append(as_markdown(run))
            cores = run.machine.get("cores", "?")
            parts.append(f"<sub>{run.date}, {cores} cores, `{run.command}`</sub>")
    parts.append(notes.get("closing", "").strip())
    return "\n\n".join(part for part in parts if part) + "\n"


def _flames_as_markdown(pictures: list[str]) -> str:
    """Return links to the flame graphs: which contender, over which line, which process."""
    lines = []
    for name in pictures:
        found = re.fullmatch(r"flame-(.+)-(\w+)-(\w+)\.svg", name)
        if found is not None:
            contender, profile, process = found.groups()
            lines.append(f"- [{title(contender)}, {profile}, {process}](img/{name})")
    return "\n".join(lines)


def _targets_as_markdown(rows: list[Verdict], notes: dict[str, str]) -> str:
    marks = {True: "met", False: "**missed**", None: ""}
    lines = ["| workload | at least | measured | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.workload} | {row.target} | {row.measured} | {marks[row.met]} |" for row in rows
    ]
    reasons = [
        f"- *{row.workload}*: {' '.join(notes[row.key].split())}"
        for row in rows
        if row.key in notes
    ]
    if reasons:
        lines += ["", "What stands in the way, and what the figures do not say by themselves:", ""]
        lines += reasons
    return "\n".join(lines)


def _machine_as_markdown(results: Results) -> str:
    if not results.runs:
        return "Nothing yet."
    latest = results.runs[-1]
    machine = latest.machine
    dates = sorted({run.date.split(" ")[0] for run in results.runs})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    versions: dict[str, str] = {}
    for run in results.runs:
        versions |= run.versions
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    counts = sorted({int(run.machine.get("cores", 0)) for run in results.runs} - {0})
    cores = " or ".join(map(str, counts))
    return (
        f"{span}; {cores} cores ({machine['processor']} at last; each table says how many), "
        f"{machine['memory']} of memory, Linux {machine['kernel']}, Python {machine['python']}. "
        f"Clients, mounts, the line and the origin share these cores. {told}."
    )


def _lines_as_markdown(results: Results) -> str:
    lines = {run.profile: run.line for run in results.runs if "rate" in run.line}
    if not lines:
        return ""
    rows = [
        "| line | made by | connect | first byte | one connection: first, second half |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name in PROFILES:
        if name in lines:
            told = lines[name]
            rows.append(
                f"| {told['title']} | {told['how']} | {told['connect_s'] * 1000:.1f} ms "
                f"| {told['first_byte_s'] * 1000:.1f} ms "
                f"| {told['first_half_rate'] / MB:.0f}, {told['rate'] / MB:.0f} MB/s |"
            )
    return "\n".join(rows)
