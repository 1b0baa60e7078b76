"""The mount of a profile on this node, if it has one, as a place to read paths from.

The kernel lists the mounts. A mount is used if its source is the profile's name (`satfs:PROFILE`),
this process may enter it, no other mount covers it, and it responds. A mount of this user shows
the address of its API; one of another API is not used, since `SATFS_API_URL` may differ from the
profile's.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from satfs import mountpoints
from satfs.embedded.tree import NodeInfo, span_of
from satfs.model import ByteRange
from satfs.mountpoints import Mounted
from satfs.redaction import for_people
from satfs.tree.nodes import Kind

#: How long what the kernel lists is believed, in seconds: a look takes some 50 µs for each mount.
_VALID_S: Final = 1.0
#: The same of the API that a mount is of: the kernel gives the number of a device again.
_API_VALID_S: Final = 10.0
#: Threads that read ranges of one file at once; each waits for the mount.
_MAX_READERS: Final = 64


class NodeMount:
    """Finds the mount of *profile*, and reads paths from it. All methods wait for the mount.

    *api_url* is the address of the API in the settings of this process.
    """

    def __init__(self, profile: str, api_url: str) -> None:
        self._source = f"satfs:{profile}"
        self._api_url = api_url
        #: Whether a mount is of that API, and when it was asked, by device.
        self._is_right: dict[tuple[int, int], tuple[bool, float]] = {}
        self._found: Path | None = None
        self._looked_at_s = float("-inf")

    def mountpoint(self) -> Path | None:
        """Return where the profile is mounted on this node; None where it is not."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s > _VALID_S:
            self._found = self._look()
            self._looked_at_s = now_s
        return self._found

    def forget(self) -> None:
        """Look at the next call: the mount has gone."""
        self._looked_at_s = float("-inf")

    def _look(self) -> Path | None:
        for mounted in reversed(mountpoints.satfs_mounts()):
            is_open = mounted.user == os.geteuid() or "allow_other" in mounted.super_options
            if mounted.source != self._source or not is_open:
                continue
            if mountpoints.is_reachable(mounted) and self._is_of_api(mounted):
                return mounted.mountpoint
        return None

    def _is_of_api(self, mounted: Mounted) -> bool:
        """Return whether a mount is of the API of the settings, as far as it shows that."""
        now_s = time.monotonic()
        is_right, looked_at_s = self._is_right.get(mounted.device, (True, float("-inf")))
        if now_s - looked_at_s > _API_VALID_S:
            try:
                status = json.loads((mounted.mountpoint / ".satfs/status.json").read_bytes())
                shown = status["credential"]["api_url"]
            except (OSError, ValueError, LookupError, TypeError):
                return True  # of another user, as on the nodes of a cluster, or of another version
            is_right = shown == for_people(self._api_url)
            self._is_right[mounted.device] = is_right, now_s
        return is_right

    def info(self, mountpoint: Path, path: str) -> NodeInfo:
        """Describe the node at *path* as the mount shows it; an `OSError` is the mount's own."""
        return _info(path, os.stat(mountpoint / path))

    def children(self, mountpoint: Path, path: str) -> list[NodeInfo]:
        """Return what the directory *path* lists; of a file, the file itself."""
        place = mountpoint / path
        if not stat.S_ISDIR((found := os.stat(place)).st_mode):
            return [_info(path, found)]
        infos = []
        with os.scandir(place) as entries:
            for entry in entries:
                child = f"{path}/{entry.name}" if path else entry.name
                try:
                    target = os.readlink(entry.path) if entry.is_symlink() else None
                    infos.append(_info(child, entry.stat(follow_symlinks=False), target))
                except OSError as failure:
                    infos.append(NodeInfo(child, Kind.FILE, None, 0, 0, 0, reason=failure.strerror))
        return infos

    def read_ranges(
        self, mountpoint: Path, path: str, bounds: Sequence[tuple[int | None, int | None]]
    ) -> list[bytes | Exception]:
        """Return several ranges of *path*, read at once; bounds are as in a slice of the file.

        A range that cannot be read has its failure in its place.
        """
        with (mountpoint / path).open("rb", buffering=0) as file:
            descriptor = file.fileno()
            spans = [span_of(each, os.fstat(descriptor).st_size) for each in bounds]
            # The kernel's own read-ahead would also request the bytes between the ranges.
            if len(spans) > 1:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            if len(spans) == 1:
                return [_range_or_reason(descriptor, spans[0])]
            n_threads = min(_MAX_READERS, len(spans))
            with ThreadPoolExecutor(n_threads, thread_name_prefix="satfs-ranges") as readers:
                return list(readers.map(partial(_range_or_reason, descriptor), spans))


def statistics_of(mountpoint: Path) -> dict[str, int]:
    """Return what has been read through a mount so far.

    Raises:
        PermissionError: it is another user's.
    """
    try:
        status = json.loads((mountpoint / ".satfs/status.json").read_bytes())
    except PermissionError as failure:
        words = "only the user who has mounted it may see what has been read there"
        raise PermissionError(failure.errno, words, str(mountpoint)) from failure
    reading, requests = status["reading"], status["requests"]
    return {
        "fetched_bytes": requests["received_bytes"],
        "served_bytes": reading["served_bytes"],
        "requests": requests["store"].get("bytes", 0),
    }


def _range_or_reason(descriptor: int, span: ByteRange) -> bytes | Exception:
    pieces = []
    position = span.start
    try:
        while position < span.stop:
            piece = os.pread(descriptor, span.stop - position, position)
            if not piece:
                return OSError(errno.EIO, "the file ended before its size")
            pieces.append(piece)
            position += len(piece)
    except OSError as failure:
        return failure
    return b"".join(pieces)


def _info(path: str, found: os.stat_result, target: str | None = None) -> NodeInfo:
    kind = Kind(stat.S_IFMT(found.st_mode))
    permissions = stat.S_IMODE(found.st_mode)
    return NodeInfo(
        path, kind, found.st_size, found.st_mtime_ns, permissions, found.st_ino, target=target
    )
