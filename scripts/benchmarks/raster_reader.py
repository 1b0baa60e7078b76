"""A program that does one work on one raster, with rasterio; says how long it took, and a digest.

python -m benchmarks.raster_reader PATH WORK [PROCESS]

It begins when a line comes in, so that several begin at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time

from benchmarks.rasters import WORK, Work

#: Options with which GDAL looks at nothing beside the file; its own cache of blocks holds a raster,
#: as it does by default on a machine with 8 GB of memory.
OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_CACHEMAX": 400,
    # The certificate of the origin is its own.
    "GDAL_HTTP_UNSAFESSL": "YES",
}


def copy(path: str) -> str:
    """Return a digest of all bytes of a file, read as cp(1) does."""
    seen = hashlib.blake2b(digest_size=16)
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while data := os.read(descriptor, 1 << 20):
        seen.update(data)
    os.close(descriptor)
    return seen.hexdigest()


def read(path: str, work: Work, process: int) -> str:
    """Return a digest of all pixels that a process reads for the work."""
    import rasterio
    from rasterio.windows import Window

    seen = hashlib.blake2b(digest_size=16)
    with rasterio.open(path) as file:
        bands = list(work.bands or range(1, file.count + 1))
        windows = [Window(left, top, side, side) for top, left, side in work.windows_of(process)]
        size = work.out_side
        shape = {} if size is None else {"out_shape": (len(bands), size, size)}
        for window in windows or [window for _, window in file.block_windows(1)]:
            seen.update(file.read(bands, window=window, **shape).tobytes())
    return seen.hexdigest()


def main() -> None:
    """Carry out the command line."""
    import rasterio

    path, name, *rest = sys.argv[1:]
    process = int(rest[0]) if rest else 0
    work = WORK[name]
    print("ready", flush=True)
    sys.stdin.readline()
    with rasterio.Env(**OPTIONS):
        started = time.perf_counter()
        digest = copy(path) if work.is_copy else read(path, work, process)
        took_s = time.perf_counter() - started
    print(json.dumps({"took_s": took_s, "digest": digest}))


if __name__ == "__main__":
    main()
