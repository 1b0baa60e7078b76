"""A few short notes that all processes of a node may read: in memory, for this user alone.

Links are secrets: a link lets its holder read its object until it expires. So notes are never on a
disk, where a backup would copy them: only in a directory of mode 0700 on a tmpfs, in files of mode
0600, which go when the machine is shut down. Where a node has no such place there are no notes, and
each process requests its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from satfs.atomic_file import make_own_directory, runtime_directories
from satfs.json_bytes import json_object

#: Longest life of a note, in seconds; older files are removed by the next process.
MAX_AGE_S: Final = 3600.0
#: Notes of one kind, at most. A file of a tmpfs takes a page, so that these take 16 MiB: a process
#: may write 100,000 links an hour, and the tmpfs belongs to all programs of the user.
MAX_NOTES: Final = 4096
#: statfs(2), `f_type` of a tmpfs, and the size of the structure (linux/magic.h, 64-bit).
_TMPFS: Final = 0x01021994
_STATFS_BYTES: Final = 120

_libc: Final = ctypes.CDLL(None, use_errno=True)


class NodeBoard:
    """The notes of the processes that share one cache directory. Never raises.

    The first word of a key is the kind of its note. Of one kind there are `MAX_NOTES` at most: a
    note takes the place of another one by the hash of its key. Each method looks at a file in
    memory, which takes some ten microseconds.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._name = blake2b(os.fsencode(cache_dir), digest_size=10).hexdigest()
        self._directory: Path | None = None
        self._is_looked_for = False

    def read(self, key: str) -> Mapping[str, Any] | None:
        """Return the note under *key*, or None."""
        directory = self._place()
        if directory is None:
            return None
        name, digest = _place_of(key)
        try:
            written_for, _, text = (directory / name).read_bytes().partition(b"\n")
        except OSError:
            return None
        return json_object(text) if written_for == digest else None

    def write(self, key: str, note: Mapping[str, Any]) -> None:
        """Put *note* under *key*, in place of the one that is there."""
        directory = self._place()
        if directory is None:
            return
        name, digest = _place_of(key)
        path = directory / name
        partial = path.with_suffix(f".{os.getpid()}-{id(self)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(partial, flags, 0o600)
            try:
                os.write(descriptor, digest + b"\n" + json.dumps(note).encode())
            finally:
                os.close(descriptor)
            partial.rename(path)
        except OSError:  # perhaps another process removed the directory: the next call makes it
            self._directory, self._is_looked_for = None, False

    def clear(self) -> None:
        """Remove every note: the last process of the node is about to end."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory, self._is_looked_for = None, False

    def _place(self) -> Path | None:
        """Return the directory of the notes, made if need be; None where the node has no place."""
        if not self._is_looked_for:
            self._is_looked_for = True
            for parent in _memory_directories():
                with suppress(OSError):
                    place = parent / f"node-{self._name}"
                    make_own_directory(parent)
                    make_own_directory(place)
                    if _is_tmpfs(place):
                        self._directory = place
                        self._remove_old(place)
                        break
        return self._directory

    @staticmethod
    def _remove_old(place: Path) -> None:
        oldest_s = time.time() - MAX_AGE_S
        for path in place.iterdir():
            with suppress(OSError):
                if path.lstat().st_mtime < oldest_s:
                    path.unlink()


def _memory_directories() -> tuple[Path, ...]:
    """Return where notes of this user may be, the best place first."""
    user = os.geteuid()
    last = Path(f"/dev/shm/satfs-{user}")  # noqa: S108
    return tuple(dict.fromkeys((*runtime_directories(user, os.environ), last)))


def _is_tmpfs(directory: Path) -> bool:
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(directory), buffer) != 0:
        return False
    return int.from_bytes(buffer.raw[:8], "little") == _TMPFS


def _place_of(key: str) -> tuple[str, bytes]:
    """Return the name of the file for the note under *key*, and what the note begins with."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).digest()
    kind = blake2b(key.partition(" ")[0].encode("utf-8", "surrogatepass"), digest_size=4)
    number = int.from_bytes(digest[:4], "little") % MAX_NOTES
    return f"{kind.hexdigest()}-{number}", digest.hex().encode()
