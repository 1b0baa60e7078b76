"""Resources of a process: memory, descriptors, sockets, threads; read from /proc."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from reliability.crashing import workers_of


@dataclass(frozen=True, slots=True)
class Usage:
    """One look at a mount and its workers.

    `memory_bytes` is memory that no other process could use: anonymous pages, and blocks kept in
    memory. Mapped pages of the cache's files are not counted: they belong to the page cache, and
    the kernel drops them when memory is short.
    """

    memory_bytes: int
    n_descriptors: int
    n_sockets: int
    n_threads: int
    n_processes: int


def usage_of(pid: int) -> Usage:
    """Return what the process *pid* and its workers hold."""
    pids = [pid, *workers_of(pid)]
    memory = descriptors = sockets = threads = 0
    for each in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            memory += _private_bytes(each)
            targets = _descriptors(each)
            descriptors += len(targets)
            sockets += sum(target.startswith("socket:") for target in targets)
            threads += len(os.listdir(f"/proc/{each}/task"))
    return Usage(memory, descriptors, sockets, threads, len(pids))


def _private_bytes(pid: int) -> int:
    """Return the anonymous pages and those of files in memory, shared ones in parts (proc(5)).

    Not `Private_Dirty`: a dirty page of a cache file that one process has mapped counts as private.
    """
    kib: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        kib[name] = int(rest.split()[0])
    return 1024 * (kib["Pss_Anon"] + kib["Pss_Shmem"])


def _descriptors(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
