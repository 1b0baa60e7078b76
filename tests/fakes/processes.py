"""Other processes, as tests look at them."""

from __future__ import annotations

import os
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
