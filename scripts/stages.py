"""Run all tests, and report at the end what failed in which stage, the lowest package first."""

from __future__ import annotations

import os
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
#: `story` on, all packages together. Directories that are not named come last.
STAGES = (
    *("words", "log_level", "imagery"),
    *("demo", "refreshable", "net", "api", "content", "archive", "facts", "tree", "fuse"),
    *("introspection", "mountpoints", "notify", "gc_tuning"),
    *("control", "doctor", "views"),
    *("embedded", "fuzz", "story", "documents"),
    *("scripts", "mounted", "semantics", "cli", "reliability", "bench"),
)
#: The stages whose tests wait for timers of mounts, and compute for an eighth of their time. These
#: tests are given out one by one, since a file of them, the faults, takes a quarter of their time.
IDLE_STAGES = ("reliability",)
#: Files of the waiting stages whose tests compute for a quarter of their time at most run with the
#: idle stages. So does the longest one, which computes for a third, and would be left at the end.
IDLE_FILES = (
    "mounted/test_mounted_windows.py",
    *("mounted/test_mounted_desktop.py", "mounted/test_mounted_life.py"),
    *("mounted/test_mounted_introspection.py", "cli/test_cli_prefetch.py"),
    *("cli/test_cli_refresh.py", "cli/test_cli_status.py", "cli/test_cli_watch.py"),
    *("cli/test_cli_troubleshooting.py", "cli/test_cli_waiting.py", "cli/test_cli_ls.py"),
    *("cli/test_cli_foreign_text.py", "cli/test_cli_log.py", "cli/test_cli_doctor.py"),
    *("cli/test_cli_service.py", "cli/test_cli_background.py", "cli/test_cli_login.py"),
    *("cli/test_cli_webhook.py",),
)
#: Those whose tests start programs and wait for them, most of them on real mounts; they compute for
#: two fifths of their time.
WAITING_STAGES = ("mounted", "scripts", "packages", "cli", "semantics")
#: The stages that run after the others: `documents` types its pages on a machine without mounts of
#: other tests. So do the files of all other stages that start processes.
LAST_STAGES = ("documents", "embedded")
#: Of the other stages, those that begin first, since a file of theirs takes longest.
LONG_STAGES = ("content", "imagery", "archive", "demo")
#: pytest's options: in the order of the stages, in processes beside each other.
BESIDE_EACH_OTHER = ("--no-loadscope-reorder", "--continue-on-collection-errors")
#: How tests are given to the processes: file by file, or test by test.
BY_FILE, BY_TEST = "loadfile", "worksteal"
#: Processes of pytest, for two cores. Six idle ones, three of the waiting stages, or four of the
#: last ones leave processor time: two that only compute use it beside them, and give way (nice 10),
#: so that no mount has to wait for a processor.
N_IDLE, N_WAITING, N_COMPUTING, N_LAST = 6, 3, 2, 4
GIVE_WAY = ("nice", "-n", "10")

#: Stages that `--quick` leaves out: their tests mount, or start programs.
SLOW_STAGES = frozenset(
    {"scripts", "packages", "mounted", "cli", "documents", "reliability", "bench"}
)
#: Words of a test file whose tests start processes, or mount; `--quick` leaves the file out.
STARTS_PROCESSES = (
    *("subprocess", "multiprocessing", "os.fork", "WorkerPool"),
    *("start_reader", "LocalCluster", "RealMount"),
)
#: Examples of each property under `--quick` (tests/conftest.py); a whole run looks at 100.
N_QUICK_EXAMPLES = "20"

#: Files that the end of a run names, with the time that each took.
N_LONGEST = 6
#: The outcomes that pytest counts, in the order in which it prints them.
OUTCOMES = ("failed", "passed", "skipped", "errors")


@dataclass
class Result:
    """The results of the tests of one stage, or of all stages together."""

    counts: Counter[str] = field(default_factory=Counter)
    #: The tests that failed, as pytest takes them.
    failures: list[str] = field(default_factory=list)
    #: Seconds that the tests of each file took.
    files: dict[str, float] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> int:
    """Run all stages, or those named, and return 0 when each is green, else 1.

    A red stage does not hide the others: they run all the same. Its failures may explain theirs,
    so the lowest red stage is reported first.
    """
    if list(arguments) == ["--quick"]:
        os.environ["TESTS_EXAMPLES"] = N_QUICK_EXAMPLES
        return subprocess.run(quick_command(), check=False).returncode
    started = time.monotonic()
    present = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")}
    order = [stage for stage in STAGES if stage in present]
    order += sorted(present - set(STAGES))
    chosen = [stage for stage in order if not arguments or stage in arguments]
    # Demos of all runs share what one of them has drawn (tests/conftest.py).
    drawn = tempfile.TemporaryDirectory(prefix="satfs-tests-drawn-", ignore_cleanup_errors=True)
    os.chmod(drawn.name, 0o755)  # noqa: S103 - other users run the demo, too
    os.environ["TESTS_DRAWN_IMAGERY"] = drawn.name
    idle, waiting, last = (
        [file for stage in stages if stage in chosen for file in files_of(stage)]
        for stages in (IDLE_STAGES, WAITING_STAGES, LAST_STAGES)
    )
    idle = [file for each in IDLE_FILES if (file := TESTS / each) in waiting] + idle
    waiting = [file for file in waiting if file not in idle]
    named = (*IDLE_STAGES, *WAITING_STAGES, *LAST_STAGES)
    others = [stage for stage in chosen if stage not in named]
    others.sort(key=lambda stage: (*LONG_STAGES, stage).index(stage))
    files = [file for stage in others for file in files_of(stage)]
    computing = [file for file in files if not starts_processes(file)]
    last += [file for file in files if starts_processes(file)]
    runs: list[Run] = []
    if computing:
        is_shown = not (idle or waiting or last)
        runs.append(Run(computing, N_COMPUTING, BY_FILE, before=GIVE_WAY, is_shown=is_shown))
    results: dict[str, Result] = {}
    for paths, n_processes, dist in (
        (idle, N_IDLE, BY_TEST),
        (waiting, N_WAITING, BY_FILE),
        (last, N_LAST, BY_FILE),
    ):
        if paths:
            runs.append(Run(paths, n_processes, dist))
            add_results(results, runs[-1].end())
    if computing:
        add_results(results, runs[0].end())
    print(summary({stage: results[stage] for stage in order if stage in results}, started))
    return int(any(run.code for run in runs))


def quick_command() -> list[str]:
    """Return the pytest command for all tests that take no mount, no process and no quarter second.

    File by file in two processes beside each other.
    """
    files = [
        path
        for path in sorted(TESTS.glob("*/**/test_*.py"))
        if path.relative_to(TESTS).parts[0] not in SLOW_STAGES and not starts_processes(path)
    ]
    return [
        *(sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"),
        *("-m", "not slow and not mounts"),
        *map(str, files),
    ]


def files_of(stage: str) -> list[Path]:
    """Return the test files of a stage."""
    return sorted((TESTS / stage).glob("**/test_*.py"))


def starts_processes(file: Path) -> bool:
    """Return whether a test file has one of the words `STARTS_PROCESSES`."""
    text = file.read_text(encoding="utf-8")
    return any(word in text for word in STARTS_PROCESSES)


class Run:
    """A running pytest with the tests in the files *paths*, in at most *n_processes* processes.

    *dist* is how these get their tests (`--dist` of pytest-xdist). *before* are words in front of
    the command. With *is_shown* the output goes to the terminal, else it is kept until `end`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        n_processes: int,
        dist: str,
        *,
        before: Sequence[str] = (),
        is_shown: bool = True,
    ) -> None:
        self.code = 0
        self._report = tempfile.NamedTemporaryFile(suffix=".xml")  # noqa: SIM115 - until the end
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        names = dict.fromkeys(path.relative_to(TESTS).parts[0] for path in paths)
        print(f"\n── {' '.join(names)} ──", flush=True)
        self._process = subprocess.Popen(
            [
                *(*before, sys.executable, "-m", "pytest", "-q"),
                f"--junitxml={self._report.name}",
                *(*BESIDE_EACH_OTHER, "--dist", dist),
                f"-n{min(n_processes, len(paths))}",
                *paths,
            ],
            stdout=None if is_shown else self._output,
        )

    def end(self) -> dict[str, Result]:
        """Wait for its end, print what was kept of its output, and return the stages' results."""
        self.code = self._process.wait()
        self._output.seek(0)
        sys.stdout.buffer.write(self._output.read())
        sys.stdout.flush()
        results = read_report(Path(self._report.name).read_text(encoding="utf-8"))
        if self.code and not any(each.failures for each in results.values()):
            print(f"pytest ended with {self.code}, and no test has failed", flush=True)
        return results


def add_results(results: dict[str, Result], others: dict[str, Result]) -> None:
    """Add *others* to *results*: of one stage, some files may have run in another pytest."""
    for stage, other in others.items():
        result = results.setdefault(stage, Result())
        result.counts += other.counts
        result.failures += other.failures
        result.files |= other.files


def read_report(report: str) -> dict[str, Result]:
    """Return what pytest wrote into its *report*, JUnit's XML; empty where it broke off."""
    results: dict[str, Result] = {}
    for case in ElementTree.fromstring(report).iter("testcase") if report else ():
        name = _name(case.get("classname", ""), case.get("name", ""))
        result = results.setdefault(Path(name.partition("::")[0]).parts[1], Result())
        kinds = {"failure": "failed", "error": "errors", "skipped": "skipped"}
        outcome = next((kinds[each.tag] for each in case if each.tag in kinds), "passed")
        result.counts[outcome] += 1
        file = name.partition("::")[0]
        result.files[file] = result.files.get(file, 0.0) + float(case.get("time", "0"))
        if outcome in ("failed", "errors"):
            result.failures.append(name)
    return results


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


def summary(results: dict[str, Result], started: float) -> str:
    """Return the last lines: the longest files, each red stage with its failures, the totals.

    A file is run by one process: the longest ones bound the time of the whole.
    """
    lines = []
    totals: Counter[str] = Counter()
    files = [each for result in results.values() for each in result.files.items()]
    files.sort(key=lambda each: -each[1])
    longest = ", ".join(f"{file} {took_s:.0f} s" for file, took_s in files[:N_LONGEST])
    lines += [f"\nThe longest files: {longest}."] if longest else []
    for stage, result in results.items():
        totals += result.counts
        if result.failures:
            lines += [f"\nThe stage {stage} is red: {counted(result.counts)}."]
            lines += [f"  {test}" for test in result.failures]
    line = f" {counted(totals)} in {time.monotonic() - started:.2f}s "
    return "\n".join([*lines, f"\n{line:=^79}"])


def counted(counts: Counter[str]) -> str:
    """Return counts in the words of pytest."""
    return (
        ", ".join(f"{counts[word]} {word}" for word in OUTCOMES if counts[word]) or "no tests ran"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
