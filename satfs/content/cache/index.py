"""The index on disk of the cache: objects, their checked blocks, their last use.

One SQLite file in WAL mode serves any number of mounts at once. Every method waits for the disk and
belongs in a thread; a lock lets one in at a time.

After a crash (docs/CONCURRENCY.md): rows are written after the data that they describe, and deleted
before it, so a row never promises data that is not there. A power cut may still lose data that the
kernel had not written; checksums find that on first use.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from satfs.content.cache.blockmap import BLOCK_BYTES, BLOCKS_PER_SEGMENT, Segment
from satfs.model import Version

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS objects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    label TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS segments (
    object INTEGER NOT NULL REFERENCES objects(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    mask BLOB NOT NULL,
    hashes BLOB NOT NULL,
    n_blocks INTEGER NOT NULL,
    used_at_s REAL NOT NULL,
    PRIMARY KEY (object, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS segments_by_use ON segments(used_at_s);
CREATE TABLE IF NOT EXISTS versions (
    account TEXT NOT NULL,
    scene TEXT NOT NULL,
    attachment TEXT NOT NULL,
    revision TEXT NOT NULL,
    etag TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    confirmed_at_s REAL NOT NULL,
    PRIMARY KEY (account, scene, attachment)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
"""

#: Longest wait for another mount's transaction; each takes milliseconds.
_BUSY_TIMEOUT_S: Final = 5.0
#: Pause between tries where SQLite itself does not wait.
_BUSY_RETRY_S: Final = 0.01


class Victim(Struct, frozen=True):
    """A segment that may be evicted: its object, and the bytes that this frees."""

    object_id: int
    name: str
    size_bytes: int
    number: int
    n_bytes: int


class Protected(Struct, frozen=True):
    """Objects and segments, as (object, number), that must not be evicted."""

    objects: frozenset[int] = frozenset()
    segments: frozenset[tuple[int, int]] = frozenset()


class CachedVersion(Struct, frozen=True):
    """One object in the cache, for display."""

    name: str
    label: str
    size_bytes: int
    held_bytes: int
    is_pinned: bool
    used_at_s: float


class KnownVersion(Struct, frozen=True):
    """A learnt version of an attachment: which record it belongs to, and when it was last seen."""

    revision: str
    etag: str
    size_bytes: int
    confirmed_at_s: float

    @property
    def version(self) -> Version:
        """Return the version itself."""
        return Version(self.etag, self.size_bytes)


class Index:
    """The index of a cache, which outlives mounts. Times are wall-clock seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        """Open or create the index at *path*.

        Raises:
            sqlite3.Error: it cannot be opened, or is not an index.
        """
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._write_ahead()
            # A commit survives a crash of this process; a power cut may undo the last commits,
            # after which blocks are fetched again.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(_SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def _write_ahead(self) -> None:
        """Switch to write-ahead logging, which the file then remembers.

        With no timeout does SQLite wait for others here: mounts that make the same new cache at
        once would fail.
        """
        give_up_at_s = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as problem:
                is_busy = problem.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > give_up_at_s:
                    raise
                time.sleep(_BUSY_RETRY_S)
            else:
                return

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def open_object(self, name: str, label: str, size_bytes: int, *, is_new: bool) -> int:
        """Return the number of the object called *name*, entering it if need be.

        *is_new*: its data file was empty, so the blocks of an old row are gone.
        """
        with self._lock, _Transaction(self._db):
            if is_new:
                self._db.execute("DELETE FROM objects WHERE name = ? AND pinned = 0", (name,))
                self._db.execute(
                    "DELETE FROM segments WHERE object IN (SELECT id FROM objects WHERE name = ?)",
                    (name,),
                )
            self._db.execute(
                "INSERT OR IGNORE INTO objects (name, label, size_bytes) VALUES (?, ?, ?)",
                (name, label, size_bytes),
            )
            row = self._db.execute("SELECT id FROM objects WHERE name = ?", (name,)).fetchone()
            return int(row[0])

    def find(self, prefix: str) -> list[tuple[str, int]]:
        """Return name and size of the objects whose names begin with *prefix*, the newest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT name, size_bytes FROM objects WHERE name >= ? AND name < ?"
                " ORDER BY id DESC",
                (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)),
            ).fetchall()
        return [(name, size_bytes) for name, size_bytes in rows]

    def changes(self) -> int:
        """Return a number that differs whenever another mount has written since."""
        with self._lock:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def segments(self, object_id: int, numbers: range | None = None) -> list[Segment]:
        """Return the entries of an object, of the segments *numbers* or of all."""
        first, last = (0, 1 << 62) if numbers is None else (numbers.start, numbers.stop)
        with self._lock:
            rows = self._db.execute(
                "SELECT number, mask, hashes FROM segments"
                " WHERE object = ? AND number >= ? AND number < ?",
                (object_id, first, last),
            ).fetchall()
        return [segment for row in rows if (segment := _segment(*row)) is not None]

    def commit(self, object_id: int, segments: Iterable[Segment]) -> None:
        """Add the blocks of *segments*; blocks that another mount added stay."""
        now = time.time()
        with self._lock, _Transaction(self._db):
            if not self._db.execute("SELECT 1 FROM objects WHERE id = ?", (object_id,)).fetchone():
                return  # cleared meanwhile: the file has no name any more
            for new in segments:
                row = self._db.execute(
                    "SELECT mask, hashes FROM segments WHERE object = ? AND number = ?",
                    (object_id, new.number),
                ).fetchone()
                old = None if row is None else _segment(new.number, *row)
                merged = new if old is None else merge(old, new)
                self._db.execute(
                    "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        object_id,
                        merged.number,
                        merged.mask.to_bytes(8, "little"),
                        merged.hashes,
                        merged.n_blocks,
                        now,
                    ),
                )

    def touch(self, object_id: int, used_at_s: Mapping[int, float]) -> None:
        """Note when segments were used, by their numbers."""
        with self._lock, _Transaction(self._db):
            self._db.executemany(
                "UPDATE segments SET used_at_s = ? WHERE object = ? AND number = ?",
                [(at_s, object_id, number) for number, at_s in used_at_s.items()],
            )

    def forget(self, object_id: int, numbers: Iterable[int]) -> None:
        """Delete the entries of segments, before their data is removed."""
        with self._lock, _Transaction(self._db):
            self._db.executemany(
                "DELETE FROM segments WHERE object = ? AND number = ?",
                [(object_id, number) for number in numbers],
            )

    def forget_blocks(self, object_id: int, number: int, keep_mask: int) -> None:
        """Delete the entries of the blocks of a segment that are not in *keep_mask*."""
        with self._lock, _Transaction(self._db):
            row = self._db.execute(
                "SELECT mask FROM segments WHERE object = ? AND number = ?", (object_id, number)
            ).fetchone()
            if row is None:
                return
            mask = int.from_bytes(row[0], "little") & keep_mask
            self._db.execute(
                "UPDATE segments SET mask = ?, n_blocks = ? WHERE object = ? AND number = ?",
                (mask.to_bytes(8, "little"), mask.bit_count(), object_id, number),
            )

    def remove_object(self, name: str) -> None:
        """Delete all entries of an object."""
        with self._lock, _Transaction(self._db):
            self._db.execute("DELETE FROM objects WHERE name = ?", (name,))

    def held_bytes(self) -> int:
        """Return how many bytes all mounts hold in this cache."""
        with self._lock:
            row = self._db.execute("SELECT coalesce(sum(n_blocks), 0) FROM segments").fetchone()
        return int(row[0]) * BLOCK_BYTES

    def victims(self, choose: Callable[[Iterable[Victim]], list[Victim]]) -> list[Victim]:
        """Return the segments that *choose* picks of all unpinned ones, least recent first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT s.object, o.name, o.size_bytes, s.number, s.n_blocks FROM segments s"
                " JOIN objects o ON o.id = s.object WHERE o.pinned = 0 ORDER BY s.used_at_s"
            )
            try:
                return choose(
                    Victim(object_id, name, size_bytes, number, n_blocks * BLOCK_BYTES)
                    for object_id, name, size_bytes, number, n_blocks in rows
                )
            finally:
                rows.close()

    def pin(self, name: str, *, is_pinned: bool) -> None:
        """Protect an object from eviction, or no longer."""
        with self._lock, _Transaction(self._db):
            self._db.execute("UPDATE objects SET pinned = ? WHERE name = ?", (int(is_pinned), name))

    def kept(self) -> list[CachedVersion]:
        """Return every object in the cache, the most recently used first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT o.name, o.label, o.size_bytes, coalesce(sum(s.n_blocks), 0), o.pinned,"
                " coalesce(max(s.used_at_s), 0) AS used FROM objects o"
                " LEFT JOIN segments s ON s.object = o.id GROUP BY o.id ORDER BY used DESC"
            ).fetchall()
        return [
            CachedVersion(name, label, size, blocks * BLOCK_BYTES, bool(pinned), used)
            for name, label, size, blocks, pinned, used in rows
        ]

    def version(self, account: str, scene: str, attachment: str) -> KnownVersion | None:
        """Return the version of an attachment that was last seen."""
        with self._lock:
            row = self._db.execute(
                "SELECT revision, etag, size_bytes, confirmed_at_s FROM versions"
                " WHERE account = ? AND scene = ? AND attachment = ?",
                (account, scene, attachment),
            ).fetchone()
        return None if row is None else KnownVersion(*row)

    def note_version(self, account: str, scene: str, attachment: str, seen: KnownVersion) -> None:
        """Remember a version."""
        with self._lock, _Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    account,
                    scene,
                    attachment,
                    seen.revision,
                    seen.etag,
                    seen.size_bytes,
                    seen.confirmed_at_s,
                ),
            )

    def forget_version(self, account: str, scene: str, attachment: str) -> None:
        """Forget a version."""
        with self._lock, _Transaction(self._db):
            self._db.execute(
                "DELETE FROM versions WHERE account = ? AND scene = ? AND attachment = ?",
                (account, scene, attachment),
            )

    def note(self, key: str, value: bytes | None = None) -> bytes | None:
        """Store *value* under *key*, or, without a value, return the stored one."""
        with self._lock:
            if value is not None:
                self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, value))
                return value
            row = self._db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, so that two mounts never wait for each other in a circle."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *rest: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _segment(number: int, mask: bytes, hashes: bytes) -> Segment | None:
    """Return the segment in a row; None where the file was damaged."""
    if len(mask) != 8 or len(hashes) != 8 * BLOCKS_PER_SEGMENT:
        return None
    return Segment(number, int.from_bytes(mask, "little"), hashes)


def merge(old: Segment, new: Segment) -> Segment:
    """Return the blocks of both; where both hold one, the new checksum counts."""
    hashes: array[int] = array("Q")
    hashes.frombytes(old.hashes)
    changed: array[int] = array("Q")
    changed.frombytes(new.hashes)
    for bit in range(BLOCKS_PER_SEGMENT):
        if new.mask >> bit & 1:
            hashes[bit] = changed[bit]
    return Segment(new.number, old.mask | new.mask, hashes.tobytes())


def choose_victims(
    candidates: Iterable[Victim], needed_bytes: int, keep: Protected
) -> list[Victim]:
    """Return the first of *candidates*, oldest first, that free *needed_bytes* together.

    Fewer are returned when there are not enough.
    """
    chosen: list[Victim] = []
    freed = 0
    for victim in candidates:
        if freed >= needed_bytes:
            break
        if victim.object_id in keep.objects or (victim.object_id, victim.number) in keep.segments:
            continue
        chosen.append(victim)
        freed += victim.n_bytes
    return chosen
