"""Limits of this process: how many file descriptors it may have, and no core dump of its memory.

Open files leave a reserve of descriptors for connections and commands.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import Final

from satfs.errors import TooManyOpen

#: Descriptors that open files do not take: connections to the API and the store, the cache's index,
#: the control socket and its connections, pipes of worker processes.
_RESERVED: Final = 128
#: Where the limit is so low that `_RESERVED` would be most of it, a third of it is reserved.
_RESERVED_SHARE: Final = 3

#: With this limit, in bytes, the kernel writes no core and starts no program to take one: it never
#: writes a file of less than a page, and where `core_pattern` is a pipe, a limit of 1 keeps it from
#: starting the program (core(5); fs/coredump.c). With a limit of 0 it would start the program.
_NO_CORE_BYTES: Final = 1

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


def allow_all_descriptors() -> None:
    """Allow this process as many descriptors as its hard limit does (getrlimit(2)).

    The usual soft limit of 1,024 is there for programs that call select(2), which satfs does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # a sandbox that does not allow it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_room() -> bool:
    """Return whether one more file may be opened: what is left is more than the reserve.

    Takes three system calls, and waits for nothing.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return True
    try:
        # A new descriptor has the lowest number that is free (open(2)), so all below are in use.
        lowest_free = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError as failure:
        if failure.errno not in _EXHAUSTED:
            raise
        return False
    os.close(lowest_free)
    return lowest_free < soft - min(_RESERVED, soft // _RESERVED_SHARE)


def require_room() -> None:
    """Return if `has_room`.

    Raises:
        TooManyOpen: what is left is reserved for connections and commands.
    """
    if not has_room():
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise TooManyOpen(f"too many files are open in this mount: at most {soft} descriptors")


def is_exhausted(failure: BaseException) -> bool:
    """Return whether *failure* is that no descriptor is left, here or on the machine."""
    return isinstance(failure, OSError) and failure.errno in _EXHAUSTED


def leave_no_core() -> None:
    """Keep the memory of this process, and of the processes that it will start, out of any core.

    The token is in that memory. The log has where Python was when the process crashed.

    PR_SET_DUMPABLE (prctl(2)) would do the same, but would also give `/proc/PID` to root: neither
    the process nor its user could look at the process any more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # A hard limit of 0 allows no core anyway, and no process may set a soft limit above it.
    resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE_BYTES if hard else 0, hard))
