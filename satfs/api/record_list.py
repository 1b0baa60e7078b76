"""The records of one listing, held compactly, and read one by one.

*Pure*. A listing of 100,000 scenes takes some 40 MB here, and 500 MB as objects. So a record is
made at each access, which takes some 20 microseconds. The records of two accesses are equal, and
never the same object.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final, Generic, NamedTuple, TypeVar, overload

from satfs.api.packed_records import Block, PackedRecord, encoded
from satfs.api.record_parsers import CleanedEntry, RecordParser
from satfs.model import Json

R = TypeVar("R")

#: Bytes of a record beside its compressed JSON and the characters of its id: the id as a Python
#: object (49) and the reference to it (8), its entry in the dictionary that finds it (up to 100,
#: when that has just been enlarged), and its position there (28). Measured with `sys.getsizeof` on
#: CPython 3.11, 64 bits.
RECORD_BYTES: Final = 185


class RecordPage(NamedTuple):
    """Records side by side: the id of each, and the JSON of each."""

    ids: tuple[str, ...]
    block: Block


class RecordList(Sequence[R], Generic[R]):
    """The records of a listing, in its order, each id once. Never changes.

    Equal to any sequence of equal records.
    """

    __slots__ = ("_index", "_length", "_pages", "_parser", "_starts", "size_bytes")

    def __init__(
        self,
        parser: RecordParser[R],
        pages: Iterable[RecordPage] = (),
        index: Mapping[str, int] | None = None,
    ) -> None:
        """Make a list of *pages*; *index*, if it is there already, has the position of each id.

        Raises:
            ValueError: a page has not as many ids as records.
        """
        self._parser = parser
        self._pages = tuple(pages)
        self._index = index
        self._starts: list[int] = []
        self._length = 0
        #: About what the list takes in memory.
        self.size_bytes = 0
        for page in self._pages:
            if len(page.ids) != len(page.block):
                raise ValueError("a page with more ids than records, or fewer")
            self._starts.append(self._length)
            self._length += len(page.ids)
            self.size_bytes += page_bytes(page)

    @property
    def pages(self) -> tuple[RecordPage, ...]:
        """Return the pages that the list is made of."""
        return self._pages

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[R, ...]: ...

    def __getitem__(self, index: int | slice) -> R | tuple[R, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(self._length)))
        page, position = self._place(index)
        return self._parser.of(page.ids[position], PackedRecord(page.block, position))

    def __iter__(self) -> Iterator[R]:
        for page in self._pages:
            for position, id in enumerate(page.ids):
                yield self._parser.of(id, PackedRecord(page.block, position))

    def id_at(self, index: int) -> str:
        """Return the id of one record; reads no record."""
        page, position = self._place(index)
        return page.ids[position]

    def ids(self) -> Iterator[str]:
        """Yield the ids in order; reads no record."""
        for page in self._pages:
            yield from page.ids

    def find(self, id: str) -> R | None:
        """Return the record with that *id*; None when no record has it."""
        if self._index is None:
            self._index = {each: position for position, each in enumerate(self.ids())}
        position = self._index.get(id)
        return None if position is None else self[position]

    def sharing(self, other: RecordList[R]) -> RecordList[R]:
        """Return this list, with the pages of *other* where they are equal; *other*, if all are.

        Objects made of the other list refer to its pages, and each page is to be in memory once.
        """
        if self.pages and self.pages == other.pages:
            return other
        shared = [
            theirs if ours == theirs else ours
            for ours, theirs in zip_longest(self.pages, other.pages[: len(self.pages)])
        ]
        return RecordList(self._parser, shared, self._index)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, RecordList):
            return isinstance(other, Sequence) and list(self) == list(other)
        if len(self) != len(other):
            return False
        if self.pages == other.pages:
            return True
        records, others = self._contents(), other._contents()
        return all(one == another for one, another in zip(records, others, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RecordList({list(self)!r})"

    def _contents(self) -> Iterator[tuple[str, PackedRecord]]:
        for page in self._pages:
            for position, id in enumerate(page.ids):
                yield id, PackedRecord(page.block, position)

    def _place(self, index: int) -> tuple[RecordPage, int]:
        if index < 0:
            index += self._length
        if not 0 <= index < self._length:
            raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        return self._pages[number], index - self._starts[number]


def joined(parser: RecordParser[R], lists: Iterable[RecordList[R]]) -> RecordList[R]:
    """Return the records of several lists, each id once: the first that has it."""
    index: dict[str, int] = {}
    pages: list[RecordPage] = []
    for records in lists:
        for page in records.pages:
            new = new_records(page, index)
            if new is not None:
                pages.append(new)
    return RecordList(parser, pages, index)


def list_of_one(parser: RecordParser[R], id: str, record: Mapping[str, Json]) -> RecordList[R]:
    """Return the list of the one record that has that *id*."""
    return RecordList(parser, (packed_page([id], [encoded(record)]),))


def new_records(page: RecordPage, index: dict[str, int]) -> RecordPage | None:
    """Return the records of *page* whose ids are not in *index*, and put them there.

    Returns None when all are in it.
    """
    places = []
    for place, id in enumerate(page.ids):
        if id not in index:
            index[id] = len(index)
            places.append(place)
    if len(places) == len(page.ids):
        return page
    if not places:
        return None
    return packed_page(
        [page.ids[place] for place in places], [page.block.record(place) for place in places]
    )


def packed(parser: RecordParser[R], entries: Sequence[CleanedEntry]) -> RecordList[R]:
    """Return the list of the records that were kept as *entries*."""
    if not entries:
        return RecordList(parser)
    ids, contents = zip(*entries, strict=True)
    return RecordList(parser, (packed_page(ids, contents),))


def packed_page(ids: Sequence[str], contents: Sequence[bytes]) -> RecordPage:
    """Return a page of the records whose *ids* and JSON these are."""
    block = Block()
    block.fill(contents)
    return RecordPage(tuple(ids), block)


def page_bytes(page: RecordPage) -> int:
    """Return about how many bytes a page takes in memory."""
    return page.block.size_bytes + sum(map(len, page.ids)) + RECORD_BYTES * len(page.ids)
