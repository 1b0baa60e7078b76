"""Listings on disk, so that a mount without a network starts with the last known records.

One small SQLite file per account, in WAL mode, so that several mounts share it. What is kept are
the records as JSON, and records hold no links. Nothing here is needed for a right answer: a file
that is broken, or a directory that is not ours alone, means one warning and no file.

Everything runs in a worker thread, one call at a time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from satfs.api.packed import decoded, encoded
from satfs.atomic_file import make_directory
from satfs.model import Json

T = TypeVar("T")
log = structlog.get_logger(__name__)

FILE_NAME = "listings.sqlite"
#: What has not been listed for this long is not kept.
KEPT_FOR_S = 90 * 86400.0
#: Time after which a call that was cancelled is blamed on the disk. Measured on the real clock: a
#: thread does not know trio's.
CALL_LIMIT_S = 2.0
#: Time to wait for another mount that is writing.
_BUSY_LIMIT_S = 1.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS listings (
    kind TEXT NOT NULL,            -- tasks, captures, scenes, task, scene
    id TEXT NOT NULL,              -- of what is listed or looked up; empty for tasks
    asked_at_s REAL NOT NULL,      -- wall clock
    records BLOB NOT NULL,         -- zlib of one JSON object per line
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A listing as it was kept."""

    kind: str
    id: str
    asked_at_s: float
    records: tuple[Mapping[str, Json], ...]


class ListingStore:
    """Keeps listings in *directory*, which is made (0700) when it is first needed.

    No method raises: when the disk fails, nothing is kept and nothing is found.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._limiter = trio.CapacityLimiter(1)
        self._db: sqlite3.Connection | None = None
        self._is_broken = False

    async def save(self, kind: str, id: str, records: Sequence[Mapping[str, Json]]) -> None:
        """Keep *records* as what was listed now."""
        moment_s = time.time()

        def write(db: sqlite3.Connection) -> None:
            # Record by record: a whole listing would be held twice, and keep other threads waiting.
            compressor = zlib.compressobj(1)
            pieces = [compressor.compress(encoded(record) + b"\n") for record in records]
            packed = b"".join((*pieces, compressor.flush()))
            db.execute(
                "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?)", (kind, id, moment_s, packed)
            )

        await self._run(write)

    async def load(self, kind: str, id: str) -> Stored | None:
        """Return what was listed last, or None."""

        def read(db: sqlite3.Connection) -> Stored | None:
            row = db.execute(
                "SELECT kind, id, asked_at_s, records FROM listings WHERE kind = ? AND id = ?",
                (kind, id),
            ).fetchone()
            return None if row is None else _unpacked(row)

        return await self._run(read)

    async def load_all(self, limit: int) -> tuple[Stored, ...]:
        """Return all listings that were kept, the newest *limit* of them."""

        def read(db: sqlite3.Connection) -> tuple[Stored, ...]:
            rows = db.execute(
                "SELECT kind, id, asked_at_s, records FROM listings "
                "ORDER BY asked_at_s DESC LIMIT ?",
                (limit,),
            )
            return tuple(stored for row in rows if (stored := _unpacked(row)) is not None)

        return await self._run(read) or ()

    async def delete(self, kind: str, id: str) -> None:
        """Forget one listing."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM listings WHERE kind = ? AND id = ?", (kind, id))

        await self._run(write)

    async def aclose(self) -> None:
        """Close the file; nothing is kept or found after that."""

        def close(db: sqlite3.Connection) -> None:
            db.close()

        if self._db is not None:
            await self._run(close)
            self._db = None
        self._is_broken = True

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what *work* returns, in a thread; None when there is no usable file."""
        if self._is_broken:
            return None
        began_s = time.monotonic()
        try:
            return await trio.to_thread.run_sync(
                self._guarded, work, abandon_on_cancel=True, limiter=self._limiter
            )
        except trio.Cancelled:
            # A disk that hangs costs one listing its deadline, not every listing.
            if time.monotonic() - began_s > CALL_LIMIT_S:
                self._give_up("the disk does not answer")
            raise

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        if self._is_broken:
            return None
        try:
            if self._db is None:
                self._db = _open(self._directory)
            return work(self._db)
        except (sqlite3.Error, OSError, ValueError) as failure:
            self._give_up(type(failure).__name__, str(failure))
            return None

    def _give_up(self, reason: str, detail: str = "") -> None:
        self._is_broken = True
        log.warning(
            "listings are not kept on disk",
            directory=str(self._directory),
            reason=reason,
            detail=detail,
        )


def _open(directory: Path) -> sqlite3.Connection:
    """Return a connection to the file in *directory*, made if need be.

    Raises:
        OSError: the directory is a symlink, is somebody else's, or cannot be made.
        sqlite3.Error: the file cannot be used, even after a broken one was put away.
    """
    _own(directory.parent)
    _own(directory)
    path = directory / FILE_NAME
    # SQLite gives its -wal and -shm the mode of the file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
    try:
        return _connect(path)
    except sqlite3.OperationalError:
        raise  # locked, read-only, out of space: the file itself may be good
    except sqlite3.DatabaseError:
        log.warning("kept listings were unreadable and are discarded", file=str(path))
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    # One call at a time, each in whatever thread: see `ListingStore._limiter`.
    # No transactions of its own (isolation_level): each statement is one.
    db = sqlite3.connect(path, timeout=_BUSY_LIMIT_S, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A lost last listing is asked for again; it need not be on the platter.
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
        db.execute("DELETE FROM listings WHERE asked_at_s < ?", (time.time() - KEPT_FOR_S,))
    except BaseException:
        db.close()
        raise
    return db


def _own(directory: Path) -> None:
    """Make *directory* with mode 0700, or see that it is a directory of ours, no symlink."""
    make_directory(directory)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{directory} is no directory")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to somebody else")


def _unpacked(row: tuple[str, str, float, bytes]) -> Stored | None:
    kind, id, asked_at_s, packed = row
    try:
        records = [decoded(line) for line in zlib.decompress(packed).split(b"\n") if line]
    except (zlib.error, ValueError, RecursionError):
        return None
    return Stored(kind, id, asked_at_s, tuple(r for r in records if isinstance(r, dict)))
