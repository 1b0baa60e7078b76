"""Programs that we start: ended when we end, and measured with everything they start themselves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tied(command: Iterable[str]) -> list[str]:
    """Return *command* such that the kernel ends it when its parent dies, however that happens."""
    return ["setpriv", "--pdeathsig", "TERM", "--", *command]


@contextlib.contextmanager
def running(
    command: Iterable[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    log: IO[bytes] | None = None,
    patience_s: float = 10.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* for the time of the block; at its end send SIGTERM, and SIGKILL if it stays."""
    process = subprocess.Popen(
        tied(command),
        env={**os.environ, **(environment or {})},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def family(pid: int) -> list[int]:
    """Return *pid* and all its living descendants."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            # Gone between being listed and being looked at.
            with contextlib.suppress(OSError):
                parents[int(name)] = int(_stat_fields(int(name))[1])
    found = [pid]
    for member in found:
        found.extend(child for child, parent in parents.items() if parent == member)
    return found


def _stat_fields(pid: int) -> list[str]:
    """Return what proc_pid_stat(5) says of *pid*, from its third field, the state, on."""
    # The name in the second field may hold spaces and parentheses, the rest does not.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, user and system, of *pid* and all it started, the ended included."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            # Fields 14 to 17: user and system, of its own and of the children it has waited for.
            ticks += sum(int(ticked) for ticked in _stat_fields(member)[11:15])
    return ticks / TICKS_PER_S


def cpu_by_process(pid: int) -> dict[int, tuple[float, float]]:
    """Return user and system CPU seconds of *pid* and each of its living descendants."""
    found: dict[int, tuple[float, float]] = {}
    for member in family(pid):
        with contextlib.suppress(OSError):
            user, system = (int(ticked) / TICKS_PER_S for ticked in _stat_fields(member)[11:13])
            found[member] = (user, system)
    return found


def cpu_of_kernel_threads() -> float:
    """Return the CPU seconds of all threads of the kernel: what writes pages back is one of them.

    They work for every process of the machine.
    """
    kthreadd = 2  # the parent of them all, on every Linux
    return sum(sum(spent) for spent in cpu_by_process(kthreadd).values())


def resident_bytes(pid: int, aside: Path | None = None) -> int:
    """Return the resident memory of *pid* and its descendants; files below *aside* not counted.

    Proportional (Pss): a page that two of them share counts once.
    """
    total_kib = 0
    for member in family(pid):
        with contextlib.suppress(OSError), open(f"/proc/{member}/smaps") as mappings:
            total_kib += _proportional_kib(mappings, str(aside) if aside else None)
    return total_kib * 1024


def _proportional_kib(lines: Iterable[str], aside: str | None) -> int:
    """Return the sum of Pss over the mappings in *lines* of proc_pid_smaps(5), in KiB."""
    total, counted = 0, True
    for line in lines:
        if line.startswith("Pss:"):
            if counted:
                total += int(line.split()[1])
        elif "-" in line.partition(" ")[0]:
            # A mapping's first line: addresses, permissions, offset, device, inode, path.
            fields = line.split(None, 5)
            path = fields[5] if len(fields) > 5 else ""
            counted = aside is None or not path.startswith(aside)
    return total


@dataclass
class MemoryWatch:
    """The most memory that a process and its descendants held while the block ran."""

    pid: int
    aside: Path | None = None
    #: Adding up a mapped gigabyte delays the processes that touch it: seldom is often enough.
    interval_s: float = 1.0
    peak_bytes: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(self.interval_s):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, resident_bytes(self.pid, self.aside))
