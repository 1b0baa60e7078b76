"""The limit of bytes fetched from the store in a day, and the count of them.

For users who pay by the byte, or share a line: once the limit is reached, reads of bytes that are
not in the cache fail, and cached bytes can still be read. The count is in the account's cache
directory, so that neither a remount nor a second mount begins at 0.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import structlog
import trio
from msgspec import Struct

from satfs.errors import OverEgressLimit

log = structlog.get_logger(__name__)

#: The share of the limit at which a warning is logged: early enough to finish important reads.
WARN_SHARE: Final = 0.8
#: The interval at which the count is written, in seconds. A killed mount loses the bytes that it
#: counted since the last write, and other mounts learn of bytes this late.
SETTLE_INTERVAL_S: Final = 5.0
#: The file of the count, in the account's cache directory.
FILE_NAME: Final = "egress.json"

_EPOCH: Final = date(1970, 1, 1)
_DAY_S: Final = 24 * 3600


class DayUsage(Struct, frozen=True):
    """The bytes fetched on one day (UTC, `YYYY-MM-DD`); `limit_bytes` is None without a limit."""

    day: str
    spent_bytes: int
    limit_bytes: int | None

    @property
    def is_over(self) -> bool:
        """Return whether no more bytes are fetched today."""
        return self.limit_bytes is not None and self.spent_bytes >= self.limit_bytes


class EgressLimit:
    """The bytes of one day, in UTC, which is the same for all users of the account.

    *wall_clock* returns seconds since the epoch. Never waits.
    """

    def __init__(
        self, limit_bytes: int | None = None, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._limit_bytes = limit_bytes
        self._now = wall_clock
        self._day = self._today()  # days since the epoch
        self._bytes = 0
        self._unsettled_bytes = 0
        self._warned = 0.0

    def spent(self) -> DayUsage:
        """Return the bytes that all mounts of the account are known to have fetched today."""
        self._turn()
        return DayUsage(_date(self._day), self._bytes, self._limit_bytes)

    def left_bytes(self) -> int | None:
        """Return how many bytes may still be fetched today; None without a limit."""
        if self._limit_bytes is None:
            return None
        self._turn()
        return max(0, self._limit_bytes - self._bytes)

    def check(self, label: str) -> None:
        """Return normally if bytes of *label* may be fetched.

        Raises:
            OverEgressLimit: today's limit is reached.
        """
        if self.left_bytes() == 0:
            raise OverEgressLimit(
                f"{label} is not in the cache, and the egress limit of {self._limit_bytes} bytes a"
                " day is reached: raise egress_limit, or wait until 00:00 UTC"
            )

    def note(self, n_bytes: int) -> None:
        """Note that *n_bytes* were fetched."""
        self._turn()
        self._bytes += n_bytes
        self._unsettled_bytes += n_bytes
        self._warn()

    def unsettled(self) -> tuple[str, int]:
        """Return the day, and the number of its bytes that are not written to disk yet."""
        self._turn()
        return _date(self._day), self._unsettled_bytes

    def settle(self, day: str, n_bytes: int, total_bytes: int) -> None:
        """Note that *n_bytes* of *day* are on disk, where all mounts have *total_bytes*.

        Only one task settles at a time.
        """
        self._turn()
        if day == _date(self._day):
            self._unsettled_bytes -= n_bytes
            self._bytes = total_bytes + self._unsettled_bytes
            self._warn()

    def _turn(self) -> None:
        today = self._today()
        if today != self._day:
            self._day, self._bytes, self._unsettled_bytes, self._warned = today, 0, 0, 0.0

    def _today(self) -> int:
        return int(self._now() // _DAY_S)

    def _warn(self) -> None:
        """Log once a day that the limit is near, and once that it is reached."""
        if not self._limit_bytes:
            return
        share = self._bytes / self._limit_bytes
        for threshold, event in ((1.0, "egress limit reached"), (WARN_SHARE, "egress limit near")):
            if share >= threshold > self._warned:
                self._warned = threshold
                log.warning(event, spent_bytes=self._bytes, limit_bytes=self._limit_bytes)
                return


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def add_to_file(path: Path, day: str, n_bytes: int) -> int:
    """Add *n_bytes* to what *path* has for *day*, and return the sum; waits for disk and lock.

    A file that is invalid, or of another day, counts as 0.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        total = _bytes_of(file.read(4096), day) + n_bytes
        if n_bytes:
            file.seek(0)
            file.write(json.dumps({"day": day, "bytes": total}).encode())
            file.truncate()
        return total


def _bytes_of(content: bytes, day: str) -> int:
    try:
        found = json.loads(content)
        return max(0, int(found["bytes"])) if found["day"] == day else 0
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0


async def keep_settled(egress: EgressLimit, path: Path) -> None:
    """Write the count to disk every few seconds while it grows; runs until cancelled."""
    while True:
        await trio.sleep(SETTLE_INTERVAL_S)
        await settle(egress, path)


async def settle(egress: EgressLimit, path: Path, *, is_forced: bool = False) -> None:
    """Write a count that has grown, and read that of other mounts. Never raises OSError."""
    day, n_bytes = egress.unsettled()
    if not n_bytes and not is_forced:
        return
    try:
        total = await trio.to_thread.run_sync(add_to_file, path, day, n_bytes)
    except OSError as failure:
        # A full disk must not stop reads; the bytes stay counted, and are written next time.
        log.info("egress not written down", errno=failure.errno)
        return
    egress.settle(day, n_bytes, total)
