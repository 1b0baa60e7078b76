"""The process behind a request of the kernel.

Each request of the kernel has the id of the thread that called. Its name, and that of its process,
are read from procfs, which is in memory: no disk, no lock that a program could hold. They are
remembered for two seconds, since a program that opens one file often opens a thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cachetools import TTLCache
from msgspec import Struct

#: How long a name is used, in seconds: the kernel may give an id to another thread later, and a
#: process changes its name when it executes a program.
_VALID_S: Final = 2.0
#: Threads whose names are remembered: more than an indexer and a few users have.
_MAX_THREADS: Final = 1024


class Caller(Struct, frozen=True):
    """A caller: the name of the process, and of the thread in it."""

    process: str
    thread: str


class Callers:
    """The names of callers, by thread id."""

    def __init__(self, clock: Callable[[], float], *, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._known: TTLCache[int, Caller | None] = TTLCache(_MAX_THREADS, _VALID_S, timer=clock)

    def caller(self, thread_id: int) -> Caller | None:
        """Return the process and thread with that thread id.

        None when the thread has ended, or is in a process namespace that is hidden from the mount
        (the kernel then sends the id 0).
        """
        if thread_id <= 0:
            return None
        try:
            return self._known[thread_id]
        except KeyError:  # not tested first: it may expire in between
            caller = self._known[thread_id] = self._look(thread_id)
            return caller

    def _look(self, thread_id: int) -> Caller | None:
        try:
            status = (self._proc / str(thread_id) / "status").read_text(errors="replace")
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            process_id = int(fields["Tgid"])
            thread = _name(fields["Name"])
            if process_id == thread_id:
                return Caller(thread, thread)
            comm = (self._proc / str(process_id) / "comm").read_text(errors="replace")
        except (OSError, ValueError, KeyError):
            return None
        return Caller(_name(comm), thread)


def is_gone(thread_id: int) -> bool:
    """Return whether a thread that was there has ended.

    A thread without an id here (0) counts as running. The kernel may have given the id to another
    thread, which then counts as the first one.
    """
    return thread_id > 0 and not Path(f"/proc/{thread_id}").exists()


def _name(text: str) -> str:
    return text.rstrip("\n")
