"""The cost of starting: processor time and elapsed time of commands, and of a mount's first answer.

    scripts/bench start --rounds 9 --before DIRECTORY

The mount is of the demo's origin on this machine, and its first answer is `ls` of its tasks. With
*--before* a checkout of an earlier commit takes turns with this one, in the same environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from satfs.demo.server import DemoOrigin

_HERE: Final = Path(__file__).parents[2]
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_WORKS: Final = {
    "`satfs --help`": ["--help"],
    "`satfs status`": ["status"],
    "`satfs mount --help`": ["mount", "--help"],
}
_MOUNT: Final = "`satfs mount` until its first `ls` has ended"


class Start(NamedTuple):
    """What one start took: of processors (its own process and its children), and by the clock."""

    cpu_s: float
    elapsed_s: float


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 0."""
    parser = argparse.ArgumentParser("scripts/bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--before", type=Path)
    wanted = parser.parse_args(arguments)
    checkouts = {"now": _HERE} | ({"before": wanted.before} if wanted.before else {})
    work = Path(tempfile.mkdtemp(prefix="satfs-start-"))
    taken: dict[tuple[str, str], list[Start]] = {}
    try:
        with DemoOrigin() as origin:
            for _ in range(wanted.rounds + 1):  # in the first one files come into memory
                for what, checkout in checkouts.items():
                    for name, start in _starts(checkout, work, origin):
                        taken.setdefault((name, what), []).append(start)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("| | " + " | ".join(f"{what}: CPU s, elapsed s" for what in checkouts) + " |")
    print("| --- |" + " --- |" * len(checkouts))
    for name in (*_WORKS, _MOUNT):
        cells = [_cell(taken[name, what][1:]) for what in checkouts]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


def _cell(starts: Sequence[Start]) -> str:
    """Return the medians, with the lowest and the highest."""
    return ", ".join(
        f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        for values in zip(*starts, strict=True)
    )


def _starts(checkout: Path, work: Path, origin: DemoOrigin) -> Iterator[tuple[str, Start]]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SATFS_")},
        **origin.environment(),
        "PYTHONPATH": str(checkout),
        "SATFS_CACHE_DIR": str(work / "cache"),
        "XDG_RUNTIME_DIR": str(work),
    }
    program = [sys.executable, "-c", "from satfs.cli import main; main()"]
    for name, words in _WORKS.items():
        began_s = time.perf_counter()
        process = subprocess.Popen(
            [*program, *words], env=environment, stdout=subprocess.DEVNULL, cwd=work
        )
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        yield name, Start(usage.ru_utime + usage.ru_stime, time.perf_counter() - began_s)
    with _mounted([*program, "mount", "-f", "-q"], environment, work) as start:
        yield _MOUNT, start


@contextmanager
def _mounted(program: list[str], environment: dict[str, str], work: Path) -> Iterator[Start]:
    """Mount, and yield what it took until the tasks were listed."""
    place = work / "mnt"
    place.mkdir(exist_ok=True)
    began_s = time.perf_counter()
    process = subprocess.Popen([*program, str(place)], env=environment, cwd=work)
    try:
        while not (place / "tasks").exists():
            assert process.poll() is None, "the mount ended"
            time.sleep(0.002)
        subprocess.run(["ls", place / "tasks"], stdout=subprocess.DEVNULL, check=True)
        elapsed_s = time.perf_counter() - began_s
        yield Start(_cpu_s(process.pid), elapsed_s)
    finally:
        process.terminate()
        process.wait()


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
