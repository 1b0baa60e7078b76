"""A program that reads windows of rasters in a process of its own, one request after the other.

Files of a mount are read by another process than the one that the origin runs in. To start Python
and rasterio takes half a second of processor time, so that the tests of a file share one process.
It has no file open between two requests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Column, row, width, height, in pixels.
Window = tuple[int, int, int, int]

_PROGRAM: Final = """
import hashlib, json, sys
import rasterio
from rasterio.windows import Window
for line in sys.stdin:
    path, windows, out = json.loads(line)
    shape = {} if out is None else {"out_shape": out}
    seen = hashlib.sha256()
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
        with rasterio.open(path) as file:
            for window in windows:
                seen.update(file.read(window=Window(*window), **shape).tobytes())
                if file.mask_flag_enums[0] == [rasterio.enums.MaskFlags.per_dataset]:
                    seen.update(file.read_masks(1, window=Window(*window)).tobytes())
    print(seen.hexdigest(), flush=True)
"""


class RasterProgram:
    """The process, started at the first request; a failed read ends it and raises EOFError."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def digest(
        self, path: Path | str, windows: Sequence[Window], out: Sequence[int] | None = None
    ) -> str:
        """Return the SHA-256 of the pixels of *windows*, resampled to the shape *out* if given.

        A mask that the file holds is read with each window.
        """
        self.begin(path, windows, out)
        return self.result()

    def begin(
        self, path: Path | str, windows: Sequence[Window], out: Sequence[int] | None = None
    ) -> None:
        """Begin to read; `result` waits for it. Others may read at the same time."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(json.dumps([str(path), windows, out]) + "\n")
        process.stdin.flush()

    def result(self) -> str:
        """Wait for the read that was begun, and return what `digest` does."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise EOFError("a raster cannot be read; the reason is on standard error")
        return line.strip()

    @property
    def pid(self) -> int:
        """Return the id of the process; it is started if it does not run."""
        return self._started().pid

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-c", _PROGRAM]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
