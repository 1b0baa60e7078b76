"""Set the kernel's limits of a mount above their defaults, where the process may (root, usually).

pyfuse3 cannot request these when it connects, so they are set from outside, in /sys.
"""

from __future__ import annotations

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


class TunedLimits(Struct, frozen=True):
    """The limits that were set; None where it was not allowed."""

    read_ahead_kb: int | None
    max_background: int | None


def tune(device: tuple[int, int], sys: Path = Path("/sys")) -> TunedLimits:
    """Set what may be set for the mount with that *device* number. Waits for the kernel only."""
    major, minor = device
    # Writing here is a call into the kernel, which sends no request to the mount.
    bdi = sys / "class" / "bdi" / f"{major}:{minor}" / "read_ahead_kb"
    connection = sys / "fs" / "fuse" / "connections" / str(minor)
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
