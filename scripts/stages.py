"""Run the tests stage by stage, all of them, and report at the end what failed in which stage."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path("tests")
#: From the ground up (docs/DESIGN.md), after what other tests lean on: the demo origin. From
#: `story` on, all stages together. Directories that are not named come last.
STAGES = (
    *("words", "log_level", "imagery"),
    *("demo", "refreshable", "net", "api", "content", "archive", "tree", "fuse"),
    *("introspection", "mountpoints", "notify", "gc_tuning", "control", "doctor"),
    *("scripts", "fuzz", "story", "mounted", "semantics", "cli", "documents", "reliability"),
    "bench",
)

#: Stages that take long, because their tests wait, each for something of its own, or compute: file
#: by file, in processes beside each other.
SEVERAL_AT_ONCE = dict.fromkeys(
    ("content", "archive", "mounted", "cli", "reliability"), ("-n", "3", "--dist", "loadfile")
)

#: What `--quick` leaves out whole: its tests mount, or start programs.
SLOW_STAGES = frozenset(
    {"scripts", "packages", "mounted", "cli", "documents", "reliability", "bench"}
)
#: Words of a test file whose tests start processes; `--quick` leaves the file out.
STARTS_PROCESSES = ("subprocess", "multiprocessing", "os.fork", "WorkerPool")

#: What pytest counts, in the order in which it prints them.
OUTCOMES = ("failed", "passed", "skipped", "errors")


@dataclass
class Result:
    """What became of the tests of one stage, or of all stages together."""

    counts: Counter[str] = field(default_factory=Counter)
    #: The tests that failed, as pytest takes them.
    failures: list[str] = field(default_factory=list)
    #: pytest's exit code; 0 when the stage is green.
    code: int = 0


def main(arguments: Sequence[str]) -> int:
    """Run all stages, or those named, and return 0 when each is green, else 1.

    A red stage does not hide the others: they run all the same. Its failures may explain theirs,
    so the lowest red stage is reported first.
    """
    if list(arguments) == ["--quick"]:
        return subprocess.run(quick_command(), check=False).returncode
    started = time.monotonic()
    present = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")}
    order = [stage for stage in STAGES if stage in present]
    order += sorted(present - set(STAGES))
    results: dict[str, Result] = {}
    for stage in [each for each in order if not arguments or each in arguments]:
        print(f"\n── {stage} " + "─" * (72 - len(stage)), flush=True)
        results[stage] = run(stage)
    print(summary(results, time.monotonic() - started))
    return int(any(each.code for each in results.values()))


def quick_command() -> list[str]:
    """Return the pytest command for all tests that take no mount, no process and no quarter second.

    File by file in two processes beside each other.
    """
    files = [
        path
        for path in sorted(TESTS.glob("*/**/test_*.py"))
        if path.relative_to(TESTS).parts[0] not in SLOW_STAGES
        and not any(word in path.read_text(encoding="utf-8") for word in STARTS_PROCESSES)
    ]
    return [
        *(sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"),
        *("-m", "not slow and not mounts"),
        *map(str, files),
    ]


def run(stage: str) -> Result:
    """Run the tests of *stage*."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        code = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}"),
                *SEVERAL_AT_ONCE.get(stage, ()),
                TESTS / stage,
            ],
            check=False,
        ).returncode
        return read_report(Path(report.name).read_text(encoding="utf-8"), code)


def read_report(report: str, code: int) -> Result:
    """Return what pytest wrote into its *report*, JUnit's XML; empty where it broke off."""
    result = Result(code=code)
    if not report:
        return result
    for suite in ElementTree.fromstring(report).iter("testsuite"):
        counts = {word: int(suite.get(word, 0)) for word in ("failures", "errors", "skipped")}
        result.counts["failed"] += counts["failures"]
        result.counts["errors"] += counts["errors"]
        result.counts["skipped"] += counts["skipped"]
        result.counts["passed"] += int(suite.get("tests", 0)) - sum(counts.values())
        result.failures += [
            _name(case.get("classname", ""), case.get("name", ""))
            for case in suite.iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ]
    return result


def _name(classname: str, test: str) -> str:
    """Return a test as pytest takes it: its file, its class if any, its name.

    A file that could not be imported is the name itself, without a class.
    """
    if not classname:
        classname, test = test, ""
    words = classname.split(".")
    for n in range(len(words), 0, -1):
        path = Path(*words[:n]).with_suffix(".py")
        if path.is_file():
            return "::".join(part for part in (str(path), *words[n:], test) if part)
    return f"{classname}::{test}"


def summary(results: dict[str, Result], took_s: float) -> str:
    """Return the last lines: each red stage with the tests that failed there, and the totals."""
    lines = []
    for stage, result in results.items():
        if result.code:
            outcome = (
                counted(result.counts) if result.failures else f"pytest ended with {result.code}"
            )
            lines += [f"\nThe stage {stage} is red: {outcome}."]
            lines += [f"  {test}" for test in result.failures]
    totals: Counter[str] = Counter()
    for result in results.values():
        totals += result.counts
    line = f" {counted(totals)} in {took_s:.2f}s "
    return "\n".join([*lines, f"\n{line:=^79}"])


def counted(counts: Counter[str]) -> str:
    """Return counts in the words of pytest."""
    return (
        ", ".join(f"{counts[word]} {word}" for word in OUTCOMES if counts[word]) or "no tests ran"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
