"""docs/PERFORMANCE.md, made from results, and its plots."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.cpu import FLAMES
from benchmarks.names import title
from benchmarks.profiles import MB, PROFILES
from benchmarks.render import as_markdown, windows_table
from benchmarks.results import IN_PARTS, Results
from benchmarks.targets import Verdict, verdicts
from benchmarks.workloads import WORKLOADS


def write_documents(results: Results, docs: Path) -> list[Path]:
    """Write PERFORMANCE.md, its plots and the results it was made from below *docs*.

    `docs/performance-notes.toml` has the notes of rows and sections.
    """
    from benchmarks import plots

    docs.mkdir(exist_ok=True)
    kept = docs / "performance.json"
    if kept.exists():
        results = Results.from_json(kept.read_text()).merged(results)
    kept.write_text(results.to_json() + "\n")
    notes_file = docs / "performance-notes.toml"
    notes = tomllib.loads(notes_file.read_text()) if notes_file.exists() else {}
    pictures = plots.draw_all(results, docs / "images")
    for drawn in sorted(FLAMES.glob("flame-*.svg")):
        shutil.copy(drawn, docs / "images" / drawn.name)
    pictures += sorted((docs / "images").glob("flame-*.svg"))
    document = docs / "PERFORMANCE.md"
    document.write_text(_page(results, notes, [path.name for path in pictures]))
    return [document, kept, *pictures]


def _page(results: Results, notes: dict[str, Any], pictures: list[str]) -> str:
    parts = [
        "# Performance",
        "`scripts/bench` has measured these figures, and written this page. "
        "A figure is the median of the rounds of one interleaved run (in brackets: the lowest and "
        "the highest). Compare only figures of one table: the machine is not equally fast in "
        "every hour.",
        notes.get("introduction", "").strip(),
        "## Targets and results",
        _targets_as_markdown(verdicts(results), notes.get("rows", {})),
        "## How it was measured",
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
            f"![{workload.title}](images/{name})"
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
            lines.append(f"- [{title(contender)}, {profile}, {process}](images/{name})")
    return "\n".join(lines)


def _targets_as_markdown(rows: list[Verdict], notes: dict[str, str]) -> str:
    marks = {True: "met", False: "**missed**", None: ""}
    lines = ["| workload | target | measured | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.workload} | {row.target} | {row.measured} | {marks[row.met]} |" for row in rows
    ]
    reasons = [
        f"### {row.workload[0].upper()}{row.workload[1:]}\n\n{notes[row.key].strip()}"
        for row in rows
        if row.key in notes
    ]
    if reasons:
        lines += ["", "## What stands in the way", ""]
        lines += [
            "The reason of each miss, and what a figure of the table does not show by itself."
        ]
        lines += [f"\n{reason}" for reason in reasons]
    return "\n".join(lines)


def _machine_as_markdown(results: Results) -> str:
    if not results.runs:
        return "Nothing was measured yet."
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
