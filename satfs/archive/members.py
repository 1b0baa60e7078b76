"""The members of one zip as a tree of directories, in few bytes per member.

Half a million members as Python objects would be half a gigabyte. Here a name is a row in a handful
of arrays: about 45 bytes for each name (directories included), 33 more for each file, and the
bytes of the name itself, for any archive. A `Member` is made when a caller requests one.

Rows are numbered as they are added, and the root is 0; a number means the same thing every time the
same directory is read.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

from satfs.archive.member_offsets import MemberOffsets, Row, in_order, least_stop
from satfs.archive.paths import NameProblem

ROOT: Final = Row(0)

#: Limit of names in one archive, directories included: about 100 MB in the worst case. Eight times
#: the largest delivery that is known.
MAX_NAMES: Final = 1_000_000
#: Refusals kept one by one, and how much of each name; of the rest only the number is known.
MAX_REFUSALS: Final = 1000
_SHOWN_CHARACTERS: Final = 512

#: No time: far outside of what a zip can state.
_NO_TIME: Final = -(1 << 63)
_NONE: Final = 0xFFFFFFFF

_DIRECTORY, _FILE, _HIDDEN = 0, 1, 2

ENCRYPTED: Final = 1
EXECUTABLE: Final = 2

#: A file: compressed size, size, CRC, length of its name in the zip, method, flags.
_RECORD: Final = struct.Struct("<QQIHHB")

#: Directories remembered while files are added.
_RECENT: Final = 1024


class Member(Struct, frozen=True):
    """One file in an archive, as its directory declares it.

    `header_offset` is where its local header begins in the zip, shift included. `name_bytes` is the
    length of its name in the directory, in bytes. `mtime_ns` counts from the epoch in UTC; None
    when the archive states no time that can be.
    """

    header_offset: int
    name_bytes: int
    method: int
    compressed_bytes: int
    size_bytes: int
    crc32: int
    mtime_ns: int | None = None
    is_encrypted: bool = False
    is_executable: bool = False


class UnreadableMember(Struct, frozen=True):
    """A member that is not shown: its name, the beginning of it at least, and why."""

    name: str
    refusal: NameProblem


class UnopenedMember(Struct, frozen=True):
    """A member that is shown and cannot be opened: its name, the beginning of it at least, and why.

    *method* is that of its compression; None where it is encrypted.
    """

    name: str
    method: int | None


class Members:
    """Directories and files of one zip, built by `DirectoryParser` and then only read.

    Invariants:
        No two shown children of a directory have the same name.
        Every name but the root's is 1 to 255 bytes of UTF-8 without `/`, and neither `.` nor `..`.
        A file's local header and its compressed bytes, of the declared length, fit in front of
        the next shown file's local header, and of the directory.
    """

    def __init__(self, data_stop: int, n_expected: int = 0) -> None:
        #: Where the local headers of the shown files begin, known from `settle` on.
        self.offsets = MemberOffsets(data_stop)
        self.n_refused = 0
        self.refused: list[UnreadableMember] = []
        #: Of the members that are shown those that cannot be opened: the first ones, as of those
        #: that are refused.
        self.n_unopened = 0
        self.unopened: list[UnopenedMember] = []
        # One entry for each row.
        self._parent = array("I", [0])
        self._name_at = array("I", [0])
        self._name_length = array("B", [0])
        self._kind = array("B", [_DIRECTORY])
        self._next = array("I", [_NONE])  # the sibling that was added before
        self._first = array("I", [_NONE])  # a directory's youngest child; a file's record
        self._mtime_ns = array("q", [_NO_TIME])
        self._names = bytearray()
        # One entry for each file, those that gave way to a later one included.
        self._row = array("I")
        self._header_offset = array("Q")
        self._records = bytearray()
        #: Directories that files went into of late: mostly the next one's, too.
        self._recent: dict[tuple[bytes, ...], Row] = {}
        # Rows by hash of parent and name, open addressing, a power of two long, at most half full.
        n_slots = max(64, 1 << (2 * min(n_expected, MAX_NAMES)).bit_length())
        self._slots = array("I", [_NONE]) * n_slots

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of rows, the root and what is not shown included."""
        return len(self._parent)

    def find(self, parent: Row, name: bytes) -> Row | None:
        """Return the child of *parent* called *name*; None when it has none."""
        row = self._slots[self._slot(parent, name)]
        return Row(row) if row != _NONE and self._kind[row] != _HIDDEN else None

    def children(self, parent: Row) -> Iterator[Row]:
        """Yield what a directory holds, the youngest first."""
        row = self._first[parent]
        while row != _NONE:
            if self._kind[row] != _HIDDEN:
                yield Row(row)
            row = self._next[row]

    def name(self, row: Row) -> bytes:
        """Return the name of *row* in its directory; empty for the root."""
        start = self._name_at[row]
        return bytes(self._names[start : start + self._name_length[row]])

    def path(self, row: Row) -> bytes:
        """Return the path of *row* inside the archive; empty for the root."""
        parts = []
        while row != ROOT:
            parts.append(self.name(row))
            row = Row(self._parent[row])
        return b"/".join(reversed(parts))

    def is_directory(self, row: Row) -> bool:
        """Return whether *row* is a directory."""
        return self._kind[row] == _DIRECTORY

    def mtime_ns(self, row: Row) -> int | None:
        """Return the time that the archive states for *row*, in ns since the epoch, or None."""
        found = self._mtime_ns[row]
        return None if found == _NO_TIME else found

    def member(self, row: Row) -> Member:
        """Return the file that *row* is."""
        record = self._first[row]
        compressed_bytes, size_bytes, crc, name_bytes, method, flags = _RECORD.unpack_from(
            self._records, record * _RECORD.size
        )
        return Member(
            header_offset=self._header_offset[record],
            name_bytes=name_bytes,
            method=method,
            compressed_bytes=compressed_bytes,
            size_bytes=size_bytes,
            crc32=crc,
            mtime_ns=self.mtime_ns(row),
            is_encrypted=bool(flags & ENCRYPTED),
            is_executable=bool(flags & EXECUTABLE),
        )

    def stop(self, row: Row) -> int:
        """Return where the bytes of the file *row* end at the latest: where another's begin."""
        return self.offsets.stop(self._header_offset[self._first[row]])

    @property
    def n_bytes(self) -> int:
        """Return the memory held, in bytes, to within a tenth."""
        per_row = 4 + 4 + 1 + 1 + 4 + 4 + 8
        per_file = 4 + 8 + 8 + 4 + _RECORD.size
        return (
            len(self._parent) * per_row
            + len(self._row) * per_file
            + len(self._slots) * 4
            + len(self._names)
            + (len(self.refused) + len(self.unopened)) * 400
        )

    def find_path(self, parts: Iterable[bytes]) -> Row | None:
        """Return what the path *parts* leads to from the root; None when nothing is there."""
        row: Row | None = ROOT
        for part in parts:
            if row is None or not self.is_directory(row):
                return None
            row = self.find(row, part)
        return row

    # -- building --------------------------------------------------------------------------------

    def refuse(self, name: str, refusal: NameProblem) -> None:
        """Count a member that is not shown; remember it by name while there is room."""
        self.n_refused += 1
        if len(self.refused) < MAX_REFUSALS:
            self.refused.append(UnreadableMember(name[:_SHOWN_CHARACTERS], refusal))

    def add_directory(self, parts: tuple[bytes, ...], mtime_ns: int | None = None) -> Row | None:
        """Return the directory at *parts*, adding what is missing; None when there is no room.

        A file of the same name gives way: a directory has more to show.
        """
        row = ROOT
        for part in parts:
            slot = self._slot(row, part)
            child = self._slots[slot]
            if child == _NONE:
                added = self._add(slot, row, part, _DIRECTORY)
                if added is None:
                    return None
                row = added
                continue
            if self._kind[child] == _FILE:
                self.refuse(self._text(Row(child)), NameProblem.CLASH)
                self._kind[child] = _DIRECTORY
                self._first[child] = _NONE
                self._mtime_ns[child] = _NO_TIME
            row = Row(child)
        if mtime_ns is not None:
            self._mtime_ns[row] = mtime_ns
        return row

    def add_file(
        self,
        parts: tuple[bytes, ...],
        header_offset: int,
        name_bytes: int,
        method: int,
        compressed_bytes: int,
        size_bytes: int,
        crc: int,
        flags: int,
        mtime_ns: int | None,
    ) -> None:
        """Add a file at *parts*, or refuse it, or the one it replaces.

        Takes the fields of a `Member` one by one: making half a million of those takes longer than
        all the rest. *flags* are `ENCRYPTED` and `EXECUTABLE`.
        """
        directory, name = parts[:-1], parts[-1]
        parent = self._recent.get(directory)
        if parent is None:
            parent = self.add_directory(directory)
            if parent is None:
                return self.refuse(b"/".join(parts).decode(), NameProblem.TOO_MANY)
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            self._recent[directory] = parent
        slot = self._slot(parent, name)
        row = Row(self._slots[slot])
        if row == _NONE:
            added = self._add(slot, parent, name, _FILE)
            if added is None:
                return self.refuse(b"/".join(parts).decode(), NameProblem.TOO_MANY)
            row = added
        elif self._kind[row] == _DIRECTORY:
            return self.refuse(b"/".join(parts).decode(), NameProblem.CLASH)
        else:
            # Programs that update an archive append: the later of two is the newer.
            self.refuse(b"/".join(parts).decode(), NameProblem.DUPLICATE)
        self._first[row] = len(self._row)
        self._mtime_ns[row] = _NO_TIME if mtime_ns is None else mtime_ns
        self._row.append(row)
        self._header_offset.append(header_offset)
        self._records += _RECORD.pack(compressed_bytes, size_bytes, crc, name_bytes, method, flags)
        return None

    def settle(self, can_unpack: Callable[[int], bool]) -> None:
        """Refuse each file that certainly begins among the bytes of another; note what is left.

        *can_unpack* returns whether members of a method can be opened.

        Of those that overlap the first in the zip stays. Honest archives have none; a bomb has
        thousands of members in the same few bytes. Only the directory is read: how long name and
        extra field of a local header are is its own statement, and known when the file is opened
        (`Body`). Until then both are taken as empty, so no honest member is refused.
        """
        self._recent.clear()
        stop = 0
        for record in in_order(self._header_offset):
            row = Row(self._row[record])
            if self._kind[row] != _FILE or self._first[row] != record:
                continue  # gave way to a later member, or to a directory
            start = self._header_offset[record]
            if start < stop:
                self.refuse(self._text(row), NameProblem.OVERLAP)
                self._kind[row] = _HIDDEN
            else:
                compressed_bytes, _, _, _, method, flags = _RECORD.unpack_from(
                    self._records, record * _RECORD.size
                )
                if flags & ENCRYPTED or not can_unpack(method):
                    self._note_unopened(row, None if flags & ENCRYPTED else method)
                stop = least_stop(start, compressed_bytes)
                self.offsets.append(start, row)

    def _note_unopened(self, row: Row, method: int | None) -> None:
        self.n_unopened += 1
        if len(self.unopened) < MAX_REFUSALS:
            self.unopened.append(UnopenedMember(self._text(row)[:_SHOWN_CHARACTERS], method))

    def _add(self, slot: int, parent: Row, name: bytes, kind: int) -> Row | None:
        row = Row(len(self._parent))
        if row >= MAX_NAMES:
            return None
        self._slots[slot] = row
        self._parent.append(parent)
        self._name_at.append(len(self._names))
        self._name_length.append(len(name))
        self._names += name
        self._kind.append(kind)
        self._next.append(self._first[parent])
        self._first[parent] = row
        self._first.append(_NONE)
        self._mtime_ns.append(_NO_TIME)
        if 2 * row >= len(self._slots):
            self._grow()
        return row

    def _slot(self, parent: Row, name: bytes) -> int:
        """Return the slot of the child *name* of *parent*, or the free one where it belongs."""
        # Python seeds the hash of bytes at random, so no archive can be made to collide.
        mask = len(self._slots) - 1
        slot = hash((parent, name)) & mask
        while (row := self._slots[slot]) != _NONE:
            if self._parent[row] == parent and self._name_length[row] == len(name):
                start = self._name_at[row]
                if self._names[start : start + len(name)] == name:
                    break
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._slots = array("I", [_NONE]) * (2 * len(self._slots))
        for row in range(1, len(self._parent)):
            self._slots[self._slot(Row(self._parent[row]), self.name(Row(row)))] = row

    def _text(self, row: Row) -> str:
        return self.path(row).decode()
