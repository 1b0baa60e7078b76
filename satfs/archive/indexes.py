"""Checkpoints on disk: one small file for each member, the oldest deleted when there are too many.

What a file says is checked by who reads it (`checkpoints.Checkpoints.from_bytes`), so a torn or
damaged one costs an index and never a byte. A disk that fails is a disk without indexes.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: All indexes together, in bytes: some 30 GiB of deflated members at 2 MiB a checkpoint.
INDEX_BYTES: Final = 512 * 1024 * 1024
_SUFFIX: Final = ".checkpoints"


class IndexDirectory:
    """Indexes as files in *directory*, at most *most_bytes* of them. Methods block on the disk.

    Two mounts may share it: files are replaced as a whole.
    """

    def __init__(self, directory: Path, most_bytes: int = INDEX_BYTES) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._has_complained = False

    def get(self, key: str) -> bytes | None:
        """Return what was put under *key*; None when there is nothing that can be read."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)  # used just now: the last to be deleted
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep *data* under *key*, if the disk allows."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(data))
            handle, temporary = tempfile.mkstemp(dir=self._directory, suffix=".new")
            try:
                with open(handle, "wb") as file:
                    file.write(data)
                os.replace(temporary, self._path(key))
            except OSError:
                os.unlink(temporary)
                raise
        except OSError as failure:
            if not self._has_complained:
                self._has_complained = True
                log.warning(
                    "index not kept", directory=str(self._directory), cause=failure.strerror
                )

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}{_SUFFIX}"

    def _make_room(self, n_bytes: int) -> None:
        """Delete the files least recently used until *n_bytes* fit."""
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        n_held = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if n_held + n_bytes <= self._most_bytes:
                break
            with suppress(OSError):
                os.unlink(path)
            n_held -= size
