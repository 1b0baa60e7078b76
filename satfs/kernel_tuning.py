"""Have the kernel serve a mount better than by its defaults: limits of FUSE, turns of a thread.

pyfuse3 cannot request higher limits when it connects, so they are set from outside, in /sys, where
the process may do so (as root, usually).

The scheduler gives a processor to the thread whose turn ends first, and a thread may state how long
its turns are (`sched_runtime` of sched_setattr(2), for ordinary threads since Linux 6.12). Short
turns come sooner where other threads want the processor, too. They are no larger share, so that
nothing is taken from other programs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Final

from msgspec import Struct

#: Read-ahead of a mount, in KiB. The kernel reads a buffered file in pieces of this size; its
#: default is 128. 512 carries as much as 1024, and reads half as much past a row of tiles, which
#: the kernel takes for the beginning of a long read (docs/PERFORMANCE.md, "window").
READ_AHEAD_KB: Final = 512
#: Read-ahead requests that may wait for us at once (default: 12, for the whole mount). A dozen
#: readers would otherwise keep each other waiting.
MAX_BACKGROUND: Final = 512
#: From how many waiting requests on the kernel counts the mount as congested, and reads ahead
#: less: three quarters, which is its own proportion.
CONGESTION_THRESHOLD: Final = MAX_BACKGROUND * 3 // 4

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


class TunedLimits(Struct, frozen=True):
    """The limits that were set; None where it was not allowed."""

    read_ahead_kb: int | None
    max_background: int | None


def tune(device: tuple[int, int], sysfs: Path = Path("/sys")) -> TunedLimits:
    """Set what may be set for the mount with that *device* number. Waits for the kernel only."""
    major, minor = device
    # Writing here is a call into the kernel, which sends no request to the mount.
    bdi = sysfs / "class" / "bdi" / f"{major}:{minor}" / "read_ahead_kb"
    connection = sysfs / "fs" / "fuse" / "connections" / str(minor)
    tuned = TunedLimits(
        _write(bdi, READ_AHEAD_KB), _write(connection / "max_background", MAX_BACKGROUND)
    )
    if tuned.max_background is not None:
        _write(connection / "congestion_threshold", CONGESTION_THRESHOLD)
    return tuned


def _write(path: Path, value: int) -> int | None:
    try:
        path.write_text(str(value), encoding="ascii")
    except OSError:  # not root, another kernel, or no /sys in this container
        return None
    return value


def take_short_turns() -> bool:
    """Have the calling thread run soon after each wait; return whether the kernel accepted it.

    Kernels before 6.12 accept it without effect. A policy that was chosen for this process
    (chrt(1), `CPUSchedulingPolicy=`) is left as it is.
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
