"""The children of a directory that holds one node for each record of a listing.

A capture may have 100,000 scenes. So the node of a scene is made when its name is looked up or
listed: a listing that is read from its beginning to its end makes one node after the other. Tasks
and captures are fewer, and all of them are made for a listing (`entries_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from satfs.errors import Garbled
from satfs.model import Capture, Scene, Task
from satfs.tree import names
from satfs.tree.nodes import Directory, Entry, LazyEntries, Node, not_there

if TYPE_CHECKING:
    from satfs.api.record_list import RecordList

R = TypeVar("R", bound=Task | Capture | Scene)

#: Nodes made between two checkpoints: about three milliseconds' worth.
_BATCH: Final = 1000


class ListedEntries(LazyEntries, Generic[R]):
    """The entries *beside*, and behind them one for each of *records*, which *make* makes."""

    def __init__(
        self,
        records: RecordList[R],
        make: Callable[[bytes, R], Node],
        reserved: Collection[str] = (),
        beside: Sequence[Entry] = (),
    ) -> None:
        self._records = records
        self._make = make
        self._reserved = reserved
        self._beside = tuple(beside)

    def __len__(self) -> int:
        return len(self._beside) + len(self._records)

    def name(self, index: int) -> bytes:
        """Return the name of one entry; reads no record."""
        if index < len(self._beside):
            return self._beside[index].name
        return names.name_of(self._records.id_at(index - len(self._beside)), self._reserved)

    def entry(self, index: int) -> Entry:
        """Return one entry; that of a record which could not be read has the reason instead."""
        if index < len(self._beside):
            return self._beside[index]
        return _entry_of(self._records[index - len(self._beside)], self.name(index), self._make)


async def entries_of(
    records: Iterable[R], name_of: Callable[[R], bytes], make: Callable[[bytes, R], Node]
) -> list[Entry]:
    """Return an entry for each of *records*; one that could not be read has the reason instead.

    Yields every now and then; waits for nothing.
    """
    entries = []
    for count, record in enumerate(records, start=1):
        entries.append(_entry_of(record, name_of(record), make))
        if count % _BATCH == 0:
            await trio.lowlevel.checkpoint()
    return entries


def _entry_of(record: R, name: bytes, make: Callable[[bytes, R], Node]) -> Entry:
    return Entry(name, Garbled(record.problem) if record.problem else make(name, record))


def record_called(name: bytes, records: RecordList[R], reserved: Collection[str] = ()) -> R | None:
    """Return the one of *records* that is called *name* in a directory; None: none is."""
    id = names.text_of(name, reserved)
    if id is None and names.is_cut(name):  # the name does not contain the id
        id = next((each for each in records.ids() if names.name_of(each, reserved) == name), None)
    return None if id is None else records.find(id)


def find(
    directory: Directory, name: bytes, records: RecordList[R], reserved: Collection[str] = ()
) -> R:
    """Return the one of *records* that is called *name* in *directory*.

    Raises:
        NotThere: none is.
        Garbled: its record could not be read.
    """
    found = record_called(name, records, reserved)
    if found is None:
        raise not_there(directory, name)
    if found.problem:
        raise Garbled(f"/{'/'.join((*directory.path, name.decode()))}: {found.problem}")
    return found
