"""A program that does one work on one raster, with rasterio; says how long it took, and a digest.

python -m benchmarks.raster_reader PATH WORK
"""

from __future__ import annotations

import hashlib
import json
import sys
import time

from benchmarks.rasters import WORK, Work

#: What GDAL needs to be told so that it looks at nothing beside the file; its own cache of blocks
#: holds a raster, as it does by default on a machine with 8 GB of memory.
OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_CACHEMAX": 400,
    # The certificate of the origin is its own.
    "GDAL_HTTP_UNSAFESSL": "YES",
}


def read(path: str, work: Work) -> str:
    """Return a digest of all pixels that the work reads."""
    import rasterio
    from rasterio.windows import Window

    seen = hashlib.blake2b(digest_size=16)
    with rasterio.open(path) as file:
        bands = list(work.bands or range(1, file.count + 1))
        windows = [Window(left, top, side, side) for top, left, side in work.windows]
        size = work.out_side
        shape = {} if size is None else {"out_shape": (len(bands), size, size)}
        for window in windows or [window for _, window in file.block_windows(1)]:
            seen.update(file.read(bands, window=window, **shape).tobytes())
    return seen.hexdigest()


def main() -> None:
    """Do what the command line asks for."""
    import rasterio

    path, name = sys.argv[1:]
    with rasterio.Env(**OPTIONS):
        started = time.perf_counter()
        digest = read(path, WORK[name])
        took_s = time.perf_counter() - started
    print(json.dumps({"took_s": took_s, "digest": digest}))


if __name__ == "__main__":
    main()
