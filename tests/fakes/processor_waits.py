"""How long a call took, without the time in which the machine had no processor for it.

On a busy machine a thread waits for a processor for seconds: that is no delay of the program. The
kernel counts it for each thread (/proc/PID/task/TID/schedstat, the second number: nanoseconds spent
ready to run).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


class Stopwatch:
    """Measures calls that the process *pid* answers, for the sake of this process' threads.

    Other processes that the call is made in, or that a response depends on, are *others*.
    """

    def __init__(self, pid: int, *others: int) -> None:
        self._pids = (pid, os.getpid(), *others)
        #: Of each call, in seconds.
        self.took_s: list[float] = []
        #: The time without a processor, which `took_s` leaves out.
        self.waited_s: list[float] = []

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the body, and enter its time in `took_s`."""
        before, began_s = [_waits_s(pid) for pid in self._pids], time.monotonic()
        yield
        took_s, waited_s = time.monotonic() - began_s, 0.0
        for pid, earlier_s in zip(self._pids, before, strict=True):
            # One after the other, for the interpreter's lock: all of them delay a response.
            waits_s = [now_s - earlier_s.get(each, 0.0) for each, now_s in _waits_s(pid).items()]
            waited_s += sum(waits_s)
        self.took_s.append(max(0.0, took_s - waited_s))
        self.waited_s.append(waited_s)


def waits_s(threads: Iterable[int]) -> dict[int, float]:
    """Return for each of *threads* that lives how long it has waited for a processor so far."""
    waits: dict[int, float] = {}
    for thread in threads:
        with contextlib.suppress(OSError):  # it has ended
            waits[thread] = int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9
    return waits


def waited_s(before: Mapping[int, float]) -> float:
    """Return how long threads have waited for a processor since `waits_s` returned *before*."""
    return sum(now_s - before[thread] for thread, now_s in waits_s(before).items())


def _waits_s(pid: int) -> dict[str, float]:
    """Return for each thread of a process how long it has waited for a processor so far."""
    waits_s: dict[str, float] = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            waits_s[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return waits_s
