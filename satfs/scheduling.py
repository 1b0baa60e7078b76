"""How soon a thread runs that has waited for something, where others want the processor as well.

The scheduler gives the processor to the thread whose turn ends first, and a thread may name how
long its turns are (`sched_runtime` of sched_setattr(2), for ordinary threads since Linux 6.12).
Short turns come sooner. They are no larger share, so that nothing is taken from other programs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

#: Length of a turn of the mount's thread, in seconds: a `stat` takes it a tenth of a millisecond,
#: and the usual turn is 1.4 ms on two cores, 2.8 on eight or more. Look-ups and `stat` during a
#: bulk read on two cores took 5.6 and 6.7 ms (p99, medians of three), where they took 9.1 and 9.0
#: (docs/PERFORMANCE.md).
TURN_S: Final = 0.0003

# linux/sched/types.h: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
#: Threads and processes that this one starts have turns of the usual length.
_RESET_ON_FORK: Final = 0x01
#: Numbers of the call, which glibc has had no function for until 2.41.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}


def take_short_turns() -> bool:
    """Have the calling thread run soon after each wait; return whether the kernel took it.

    On kernels before 6.12 it is taken and has no effect. A policy that somebody has chosen for this
    process (chrt(1), `CPUSchedulingPolicy=`) is left as it is.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or sys.maxsize < 2**32:  # another number for processes of 32 bits
        return False
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    turn_ns = round(TURN_S * 1e9)
    attributes = _ATTRIBUTES.pack(
        _ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, turn_ns, 0, 0
    )
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(number, 0, attributes, 0) == 0)
