"""Other processes and threads, as tests look at them and wait for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def is_running(pid: int) -> bool:
    """Return whether a process is there and has not ended.

    The first thread of a killed process is a zombie before the others have ended, and the
    process's sockets stay open until the last of them has.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z" or len(threads) > 1


def wait_until(
    is_so: Callable[[], object],
    timeout_s: float = 30,
    what: str = "the awaited state",
    or_else: Callable[[], None] | None = None,
) -> None:
    """Return when *is_so* returns something true, which another process or thread brings about.

    When it does not in time the test fails; *or_else* is called first, to print what it can. The
    time is no promise of what is awaited: a busy machine may take most of it.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            if or_else is not None:
                or_else()
            raise AssertionError(f"{what} did not come about in {timeout_s:g} s")
        time.sleep(0.02)
