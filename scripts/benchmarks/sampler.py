"""Sample a Python process by the processor time it uses; for the mount and its workers.

The kernel sends SIGPROF for each 4 ms of processor time, user and system (setitimer(2); the
kernel counts in its own ticks, which are no shorter on most machines). The
handler runs in the main thread, between two bytecodes, so time inside a C function or a system call
is counted on the Python line that called it. Nothing but the standard library is imported: the
process that is sampled loads this file before its own program (`installed`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

#: Processor time between two samples.
INTERVAL_S: Final = 0.004
#: Samples between two writings of the file: a worker ends without notice (os._exit).
WRITE_EVERY: Final = 20
#: The module that Python runs before any other, when it finds it (the module `site`).
STARTER: Final = """\
import sys
sys.path.insert(0, {scripts!r})
from benchmarks.sampler import start
sys.path.remove({scripts!r})
start({directory!r})
"""


def start(directory: str) -> None:
    """Sample this process from now on, and keep the counts in a file of *directory*.

    Each line is a stack, the outermost function first, separated by semicolons, and how often it
    was seen: the form that flame graphs are drawn from.
    """
    stacks: Counter[str] = Counter()
    file = os.path.join(directory, f"{os.getpid()}.stacks")

    def sample(number: int, frame: FrameType | None) -> None:
        names: list[str] = []
        while frame is not None:
            code = frame.f_code
            names.append(f"{_module(code.co_filename)}:{code.co_qualname}")
            frame = frame.f_back
        stacks[";".join(reversed(names))] += 1
        if stacks.total() % WRITE_EVERY == 0:
            with open(file, "w") as kept:
                kept.writelines(f"{stack} {count}\n" for stack, count in stacks.items())

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)


def _module(path: str) -> str:
    """Return a short name for a source file: what follows `site-packages` or `satfs`."""
    parts = path.removesuffix(".py").split("/")
    for anchor in ("site-packages", "satfs"):
        if anchor in parts:
            where = len(parts) - 1 - parts[::-1].index(anchor)
            parts = parts[where + (anchor == "site-packages") :]
            break
    return ".".join(parts[-3:])


def installed(directory: Path) -> Path:
    """Return a directory that, put first in PYTHONPATH, has Python sample itself into *directory*.

    Workers inherit it: they are started with the module path of the mount.
    """
    scripts = str(Path(__file__).parent.parent)
    starter = STARTER.format(scripts=scripts, directory=str(directory))
    (directory / "sitecustomize.py").write_text(starter)
    return directory


def read(directory: Path) -> dict[int, Counter[str]]:
    """Return the counts of each process that was sampled, by its number."""
    found: dict[int, Counter[str]] = {}
    for file in sorted(directory.glob("*.stacks")):
        counts: Counter[str] = Counter()
        for line in file.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            counts[stack] += int(count)
        found[int(file.stem)] = counts
    return found


def own_time(stacks: Counter[str]) -> Counter[str]:
    """Return how often each function was the innermost one."""
    counts: Counter[str] = Counter()
    for stack, count in stacks.items():
        counts[stack.rpartition(";")[2]] += count
    return counts


if __name__ == "__main__":
    start(sys.argv[1])
