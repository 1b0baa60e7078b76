"""Reads files as programs do, notes when and what, and prints it as one line of JSON.

Runs as its own program, so that what is measured is the file system and not the one who measures.
The clock starts at open(2). Bytes are digested block by block as they come (16 GB/s on one core,
and the same for every contender) and compared with the original when the clock has stopped.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import xxhash

from benchmarks.objects import DIGEST_BLOCK_BYTES

#: Read at once, as cp(1) and dd bs=1M do; kept equal to the digest's block.
READ_BYTES = DIGEST_BLOCK_BYTES


def read_sequentially(read_into: Callable[[memoryview], int], limit_s: float) -> dict[str, Any]:
    """Read to the end, or for *limit_s* seconds; return times, bytes and digests."""
    buffer = memoryview(bytearray(READ_BYTES))
    digests = []
    total = filled = 0
    first_read_s = None
    started = time.perf_counter()
    while True:
        count = read_into(buffer[filled:])
        if first_read_s is None:
            first_read_s = time.perf_counter() - started
        filled += count
        total += count
        # A short read is no error; a block is digested when it is whole, or the file has ended.
        if filled == READ_BYTES or (count == 0 and filled):
            digests.append(xxhash.xxh3_128_hexdigest(buffer[:filled]))
            filled = 0
            if time.perf_counter() - started > limit_s:
                break
        if count == 0:
            break
    return {
        "took_s": time.perf_counter() - started,
        "first_read_s": first_read_s,
        "bytes": total,
        "digests": digests,
    }


def sequential(path: str, limit_s: float, *, is_announced: bool = True) -> dict[str, Any]:
    """Open *path* and read it, front to back, having said so where *is_announced*."""
    opened = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if is_announced:
            # As cp(1), cat(1) and sha256sum(1) do: the kernel reads twice as far ahead for them.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        open_s = time.perf_counter() - opened
        found = read_sequentially(lambda room: os.readv(descriptor, [room]), limit_s)
    finally:
        os.close(descriptor)
    found["took_s"] += open_s
    found["first_read_s"] += open_s
    return found


def sequential_vsi(library: str, name: str, limit_s: float) -> dict[str, Any]:
    """Read a file of GDAL's virtual file systems, front to back."""
    opened = time.perf_counter()
    vsi = _Vsi(library, name)
    open_s = time.perf_counter() - opened
    found = read_sequentially(vsi.read_into, limit_s)
    found["took_s"] += open_s
    found["first_read_s"] += open_s
    return found


def at_random(
    read_at: Callable[[int, int], bytes], offsets: list[int], length: int
) -> dict[str, Any]:
    """Read *length* bytes at each offset; return the time and digest of each."""
    times, digests = [], []
    for offset in offsets:
        started = time.perf_counter()
        data = read_at(offset, length)
        times.append(time.perf_counter() - started)
        digests.append(xxhash.xxh3_128_hexdigest(data))
    return {"times_s": times, "digests": digests}


def _open_and_read(path: str, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def list_zip(path: str) -> dict[str, Any]:
    """Return the names in a zip, which are at its end, and the time from open(2) to them."""
    started = time.perf_counter()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return {"took_s": time.perf_counter() - started, "names": names}


def probe(paths: list[str], pause_s: float) -> dict[str, Any]:
    """Look each of *paths* up once, and stat the first one again and again, until input ends.

    A look-up is of a name that the kernel does not know yet; a stat is forced through to the file
    system (AT_STATX_FORCE_SYNC), where the kernel would have returned its own copy.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    at_fdcwd, force_sync, basic = -100, 0x2000, 0x7FF
    room = ctypes.create_string_buffer(256)
    lookups, stats = [], []
    os.stat(paths[0])
    for path in paths[1:]:
        if select.select([sys.stdin], [], [], pause_s)[0]:
            break
        started = time.perf_counter()
        os.stat(path)
        lookups.append(time.perf_counter() - started)
        started = time.perf_counter()
        if libc.statx(at_fdcwd, os.fsencode(paths[0]), force_sync, basic, room) != 0:
            raise OSError(ctypes.get_errno(), "statx")
        stats.append(time.perf_counter() - started)
    return {"lookups_s": lookups, "stats_s": stats}


class _Vsi:
    """One open file of GDAL, through its C interface (cpl_vsi.h)."""

    def __init__(self, library: str, name: str) -> None:
        gdal = ctypes.CDLL(library)
        gdal.VSIFOpenL.restype = ctypes.c_void_p
        gdal.VSIFReadL.restype = ctypes.c_size_t
        gdal.VSIFReadL.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p,
        ]  # fmt: skip
        gdal.VSIFSeekL.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int]
        self._gdal = gdal
        self._file = gdal.VSIFOpenL(name.encode(), b"rb")
        if not self._file:
            raise OSError(f"GDAL cannot open {name}")

    def read_into(self, room: memoryview) -> int:
        target = (ctypes.c_char * len(room)).from_buffer(room)
        count: int = self._gdal.VSIFReadL(target, 1, len(room), self._file)
        return count

    def read_at(self, offset: int, length: int) -> bytes:
        room = bytearray(length)
        self._gdal.VSIFSeekL(self._file, offset, os.SEEK_SET)
        return bytes(room[: self.read_into(memoryview(room))])


def main() -> None:
    """Carry out the first line of input, JSON, once a second line has come."""
    asked = json.loads(sys.stdin.readline())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    what = asked["what"]
    if what == "sequential":
        found = sequential(asked["path"], asked["limit_s"])
    elif what == "dd":
        found = sequential(asked["path"], asked["limit_s"], is_announced=False)
    elif what == "sequential-vsi":
        found = sequential_vsi(asked["library"], asked["path"], asked["limit_s"])
    elif what == "random":
        descriptor = os.open(asked["path"], os.O_RDONLY)
        found = at_random(
            lambda offset, length: os.pread(descriptor, length, offset),
            asked["offsets"],
            asked["length"],
        )
        os.close(descriptor)
    elif what == "open-and-read":
        found = at_random(
            lambda offset, length: _open_and_read(asked["path"], offset, length),
            asked["offsets"],
            asked["length"],
        )
    elif what == "zip-directory":
        found = list_zip(asked["path"])
    elif what == "random-vsi":
        found = at_random(
            _Vsi(asked["library"], asked["path"]).read_at, asked["offsets"], asked["length"]
        )
    elif what == "probe":
        found = probe(asked["paths"], asked["pause_s"])
    else:
        raise SystemExit(f"unknown: {what}")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
