"""File descriptors of this process: raise the limit, and keep a reserve for what is not a file."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import Final

from satfs.errors import TooManyOpen

#: Descriptors that open files leave alone: connections to the API and the store, the cache's index,
#: the control socket and its conversations, pipes of worker processes.
_RESERVED: Final = 128
#: Where so few are allowed altogether that this would be most of them: a third.
_RESERVED_SHARE: Final = 3

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> None:
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
