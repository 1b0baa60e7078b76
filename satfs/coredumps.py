"""Have the kernel write no core of a process that knows a credential."""

from __future__ import annotations

import resource
from typing import Final

#: With this limit, in bytes, the kernel writes no core and starts no program to take one: less than
#: a page is never written to a file, and 1 is what it takes for "no" where `core_pattern` is a pipe
#: (core(5); fs/coredump.c). With 0 a pipe would be handed the core all the same.
_NO_CORE_BYTES: Final = 1


def leave_no_core() -> None:
    """Keep the memory of this process, and of those that it will start, out of any core.

    The token is in it. What a crash is about is in the log: Python tells where it was.

    Not by PR_SET_DUMPABLE (prctl(2)), which would give `/proc/PID` to root: the process could not
    look at itself any more, nor its user at what he has mounted.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    is_none = most == 0  # then there is none anyway, and nobody may say 1
    resource.setrlimit(resource.RLIMIT_CORE, (0 if is_none else _NO_CORE_BYTES, most))
