"""System calls that the cache needs and Python's standard library lacks."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import struct
import threading
import time
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)

# linux/falloc.h
_FALLOC_FL_KEEP_SIZE: Final = 0x01
_FALLOC_FL_PUNCH_HOLE: Final = 0x02

# glibc malloc.h
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1
#: A block of memory from which on it is given back when it is freed, in bytes: above all buffers of
#: a read (1 MiB), below what may come from the API in one response.
_LARGE_BLOCK_BYTES: Final = 4 * 1024 * 1024

#: Stack of a thread where addresses are few; the usual 8 MiB are reserved, not used.
_SMALL_STACK_BYTES: Final = 1024 * 1024


def punch_hole(fd: int, start: int, length: int) -> None:
    """Free the bytes [start, start+length) on the disk; they read as zeros from then on.

    Raises:
        OSError: the file system has no holes, or failed.
    """
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    if _libc.fallocate(fd, mode, start, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_resident(address: int, start: int, stop: int) -> bool:
    """Return whether a mapped range is in memory, so that touching it won't wait for the disk.

    *address* is where byte 0 of the file is mapped. The result holds for this moment: pages may be
    dropped right after it. See mincore(2).
    """
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    n_pages = -(-(stop - first) // mmap.PAGESIZE)
    pages = ctypes.create_string_buffer(n_pages)
    if _libc.mincore(address + first, stop - first, pages) != 0:
        return False
    # Only the lowest bit of each byte means something; the others are 0 so far (mincore(2)).
    states = pages.raw
    return states == b"\1" * n_pages or all(state & 1 for state in states)


def address_of(mapped: mmap.mmap) -> int:
    """Return the address at which a writable mapping lies."""
    anchor = ctypes.c_char.from_buffer(mapped)
    try:
        return ctypes.addressof(anchor)
    finally:
        # An export left alive would forbid closing the mapping.
        del anchor


def cpu_seconds_of(pid: int) -> float:
    """Return the processor time that a process has used, in seconds; 0 once it has ended.

    The number of its clock is made as clock_getcpuclockid(3) makes it.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _lock(fd: int, kind: int) -> bool:
    # struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks). Length 0: all of it.
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except BlockingIOError:
        return False
    return True


def try_lock_shared(fd: int) -> bool:
    """Take (or go back to) a shared lock on an open file description, without waiting.

    Open-file-description locks, unlike flock(2), convert atomically: a failed conversion leaves the
    lock that was held (fcntl(2)).
    """
    return _lock(fd, fcntl.F_RDLCK)


def try_lock_alone(fd: int) -> bool:
    """Take the exclusive lock, without waiting; False when another process holds the lock."""
    return _lock(fd, fcntl.F_WRLCK)


def save_addresses() -> None:
    """Reserve few addresses where they are limited (RLIMIT_AS); to be called before any thread.

    glibc reserves 64 MiB for the allocations of each new thread, and 8 MiB for its stack: with
    four threads a limit of 300 MiB is used up. Without a limit nothing is changed.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    threading.stack_size(_SMALL_STACK_BYTES)
    mallopt = getattr(_libc, "mallopt", None)  # other C libraries have no arenas
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Make glibc return large blocks of memory to the kernel as soon as they are freed.

    glibc takes a block from the heap, where it leaves holes, once one of its size was freed, up to
    32 MiB (mallopt(3), M_MMAP_THRESHOLD): a page of the API of 31 MiB then cost as much again
    after it was read. Smaller blocks, such as the buffers of reads, come from the heap as before.
    """
    mallopt = getattr(_libc, "mallopt", None)  # other C libraries do without
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BLOCK_BYTES)
