"""Listings on disk, so that a mount without a network starts with the last known records.

One small SQLite file per account, in WAL mode, so that several mounts share it. It holds the pages
of each listing in the form that they have in memory; records hold no links. No result depends on
it: a broken file, or a directory that others can write to, means one warning and no file.

Everything runs in a worker thread, one call at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from msgspec import Struct

from satfs.api.packed_records import Block, PackedBlock
from satfs.api.record_list import RecordPage, page_bytes
from satfs.atomic_file import make_directory, make_own_directory

T = TypeVar("T")
log = structlog.get_logger(__name__)

FILE_NAME = "listings.sqlite"
#: A listing that was not renewed for this long is dropped.
KEPT_FOR_S = 90 * 86400.0
#: A call that has lasted for longer when it is cancelled means that the disk hangs. Measured on the
#: real clock: a thread does not know trio's.
CALL_LIMIT_S = 2.0
#: Time to wait for another mount that is writing, and for one that opens the file.
_BUSY_LIMIT_S = 1.0
#: Time between two attempts to open a file that another mount opens: it takes milliseconds.
_OPENING_S = 0.01
#: Calls in a row that may find the file in use. A process that was stopped while it wrote keeps it
#: so for good, and each call would wait.
_MAX_BUSY_CALLS = 3
#: Another connection has the file in use.
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: A file of this size, in bytes, is made smaller when most of it is not used: writing the rest
#: again takes a fifth of a second at most.
_SHRUNK_BYTES = 16 * 1024 * 1024

#: The number of the layout below, in `PRAGMA user_version`. Version 1 had one row for a listing.
_VERSION = 2
_SCHEMA = f"""
DROP TABLE IF EXISTS listings;     -- of version 1
CREATE TABLE IF NOT EXISTS listing (
    kind TEXT NOT NULL,            -- tasks, captures, scenes, task, scene
    id TEXT NOT NULL,              -- of what is listed or looked up; empty for tasks
    asked_at_s REAL NOT NULL,      -- wall clock
    n_bytes INTEGER NOT NULL,      -- in memory, about
    n_pages INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS page (
    kind TEXT NOT NULL,
    listing TEXT NOT NULL,
    number INTEGER NOT NULL,
    ids BLOB NOT NULL,             -- a JSON array
    dictionary BLOB NOT NULL,      -- these three: see api/packed_records.py
    ends BLOB NOT NULL,
    packed BLOB NOT NULL,
    checksum INTEGER NOT NULL,     -- CRC-32 of the four before it
    PRIMARY KEY (kind, listing, number)
);
PRAGMA user_version = {_VERSION};
"""
_OLD = (
    "DELETE FROM page WHERE (kind, listing) IN (SELECT kind, id FROM listing WHERE asked_at_s < ?)",
    "DELETE FROM listing WHERE asked_at_s < ?",
)


class Stored(Struct, frozen=True):
    """A listing as it was kept."""

    kind: str
    id: str
    requested_at_s: float
    pages: tuple[RecordPage, ...]


class ListingStore:
    """Keeps listings in *directory*, which is made (0700) when it is first needed.

    No method raises: when the disk fails, nothing is kept and nothing is found.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._limiter = trio.CapacityLimiter(1)
        self._db: sqlite3.Connection | None = None
        self._is_broken = False
        self._n_busy_calls = 0

    async def save(
        self, kind: str, id: str, pages: Sequence[RecordPage], requested_at_s: float | None = None
    ) -> None:
        """Keep *pages* as what was listed at that time (wall clock), by default now."""
        if requested_at_s is None:
            requested_at_s = time.time()

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM page WHERE kind = ? AND listing = ?", (kind, id))
            db.executemany(
                "INSERT INTO page VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ((kind, id, number, *_packed(page)) for number, page in enumerate(pages)),
            )
            n_bytes = sum(map(page_bytes, pages))
            db.execute(
                "INSERT OR REPLACE INTO listing VALUES (?, ?, ?, ?, ?)",
                (kind, id, requested_at_s, n_bytes, len(pages)),
            )

        await self._run(write)

    async def load(self, kind: str, id: str) -> Stored | None:
        """Return what was listed last, or None."""
        return await self._run(lambda db: _stored(db, kind, id))

    async def load_all(self, limit: int, max_bytes: int = 2**63 - 1) -> tuple[Stored, ...]:
        """Return the newest *limit* listings, the newest first, of *max_bytes* in memory in all.

        One that is too large for what is left is left out.
        """

        def read(db: sqlite3.Connection) -> tuple[Stored, ...]:
            rows = db.execute(
                "SELECT kind, id, n_bytes FROM listing ORDER BY asked_at_s DESC LIMIT ?", (limit,)
            ).fetchall()
            found, left_bytes = [], max_bytes
            for kind, id, n_bytes in rows:
                stored = _stored(db, kind, id) if n_bytes <= left_bytes else None
                if stored is not None:
                    left_bytes -= n_bytes
                    found.append(stored)
            return tuple(found)

        return await self._run(read) or ()

    async def delete(self, kind: str, id: str) -> None:
        """Forget one listing."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM page WHERE kind = ? AND listing = ?", (kind, id))
            db.execute("DELETE FROM listing WHERE kind = ? AND id = ?", (kind, id))

        await self._run(write)

    async def aclose(self) -> None:
        """Close the file; nothing is kept or found after that."""
        if self._db is not None:
            await self._run(_close)
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
            result = work(self._db) if work is _close else _in_transaction(self._db, work)
        except (sqlite3.Error, OSError, ValueError) as failure:
            code = _primary_code(failure)
            if code == sqlite3.SQLITE_FULL:  # for a moment; what was kept is found in any case
                return None
            self._n_busy_calls += 1
            # Another mount writes: that costs this call, not all later ones.
            if code not in _BUSY or self._n_busy_calls == _MAX_BUSY_CALLS:
                self._give_up(type(failure).__name__, str(failure))
            return None
        finally:
            self._close_if_broken()
        self._n_busy_calls = 0
        return result

    def _close_if_broken(self) -> None:
        if self._is_broken and self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

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
        OSError: the directory is a symlink, belongs to another user, or cannot be made.
        sqlite3.Error: the file cannot be used, even after a broken one was put away.
    """
    make_directory(directory.parent)
    make_own_directory(directory.parent)
    make_own_directory(directory)
    path = directory / FILE_NAME
    # SQLite gives its -wal and -shm the mode of the file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
    try:
        return _connect_in_turn(path)
    except sqlite3.OperationalError:
        raise  # locked, read-only, out of space: the file itself may be good
    except sqlite3.DatabaseError:
        log.warning("kept listings were unreadable and are discarded", file=str(path))
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        return _connect(path)


def _connect_in_turn(path: Path) -> sqlite3.Connection:
    """Return a connection; wait for another mount that opens the file, at most `_BUSY_LIMIT_S`.

    SQLite's own time limit does not hold there: of two connections that change a new file to WAL
    mode, each has a lock that the other one needs, so one fails at once. Measured with two mounts
    that start together: in one case of 150.
    """
    until_s = time.monotonic() + _BUSY_LIMIT_S
    while True:
        try:
            return _connect(path)
        except sqlite3.OperationalError as failure:
            if _primary_code(failure) not in _BUSY or time.monotonic() > until_s:
                raise
            time.sleep(_OPENING_S)


def _primary_code(failure: Exception) -> int:
    """Return why SQLite failed, without details: the low byte of its code; 0 for other failures."""
    return failure.sqlite_errorcode & 0xFF if isinstance(failure, sqlite3.OperationalError) else 0


def _connect(path: Path) -> sqlite3.Connection:
    # One call at a time, each in any thread: see `ListingStore._limiter`. No transactions of its
    # own (isolation_level): see `_in_transaction`.
    db = sqlite3.connect(path, timeout=_BUSY_LIMIT_S, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A lost last listing is requested again; it need not be on the platter.
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            db.executescript(_SCHEMA)
        for statement in _OLD:
            db.execute(statement, (time.time() - KEPT_FOR_S,))
        _shrink(db)
    except BaseException:
        db.close()
        raise
    return db


def _shrink(db: sqlite3.Connection) -> None:
    """Give back the space of listings that are gone, where it is most of a large file."""
    n_pages, n_free, page_bytes = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    if n_pages * page_bytes >= _SHRUNK_BYTES and 2 * n_free > n_pages:
        # Another mount may have the file in use, or the disk have no room for the copy.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("VACUUM")


def _close(db: sqlite3.Connection) -> None:
    db.close()


def _in_transaction(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Return what *work* returns; what it writes is written as a whole, or not at all."""
    db.execute("BEGIN")
    try:
        result = work(db)
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    return result


def _packed(page: RecordPage) -> tuple[bytes, bytes, bytes, bytes, int]:
    ids = json.dumps(page.ids).encode()
    kept = page.block.kept()
    return (ids, *kept, _checksum(ids, *kept))


def _checksum(*parts: bytes) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum


def _stored(db: sqlite3.Connection, kind: str, id: str) -> Stored | None:
    """Return one listing; None where it is not stored, or one of its pages is damaged."""
    head = db.execute(
        "SELECT asked_at_s, n_pages FROM listing WHERE kind = ? AND id = ?", (kind, id)
    ).fetchone()
    if head is None:
        return None
    rows = db.execute(
        "SELECT ids, dictionary, ends, packed, checksum FROM page"
        " WHERE kind = ? AND listing = ? ORDER BY number",
        (kind, id),
    )
    pages = []
    for ids, dictionary, ends, packed, checksum in rows:
        if _checksum(ids, dictionary, ends, packed) != checksum:
            return None
        try:
            block = Block(PackedBlock(dictionary, ends, packed))
            pages.append(RecordPage(tuple(json.loads(ids)), block))
        except ValueError:
            return None
    if len(pages) != head[1] or any(len(page.ids) != len(page.block) for page in pages):
        return None
    return Stored(kind, id, head[0], tuple(pages))
