"""An index by offset of items that cover a span of one object: requests in flight, or waiters.

Pure. Every read looks for the requests that bring its bytes, and every piece that arrives for the
reads that wait for it. Hundreds of each may exist, and a search through all of them took longer
than the rest of a read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from satfs.model import ByteRange

T = TypeVar("T")

#: Length of the cells by which items are found. The longest read of the kernel is 1 MiB and touches
#: two of them; a range request of 8 MiB is entered in nine.
CELL_BYTES: Final = 1024 * 1024


class SpanIndex(Generic[T]):
    """Items with a span each; spans may overlap. Items are compared by `==` and hashed.

    Each item is entered in all cells that its span touches, so that a look-up costs what its own
    cells hold, however many items there are elsewhere.

    Invariants:
        `_cells` has no empty cell.
        An item is in the cells of `_spans[item]` and in no other.
    """

    def __init__(self) -> None:
        self._spans: dict[T, ByteRange] = {}
        self._cells: dict[int, dict[T, ByteRange]] = {}

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[T]:
        """Iterate over a copy of the items, in the order of their entry."""
        return iter(list(self._spans))

    def __contains__(self, item: object) -> bool:
        return item in self._spans

    def add(self, item: T, span: ByteRange) -> None:
        """Enter *item*, which is not there yet. An empty span is never found."""
        self._spans[item] = span
        for number in _cells_of(span):
            self._cells.setdefault(number, {})[item] = span

    def remove(self, item: T) -> None:
        """Remove *item*.

        Raises:
            KeyError: it is not there.
        """
        for number in _cells_of(self._spans.pop(item)):
            cell = self._cells[number]
            del cell[item]
            if not cell:
                del self._cells[number]

    def overlapping(self, span: ByteRange) -> list[T]:
        """Return the items whose spans contain a byte of *span*, each once."""
        start, stop = span.start, span.stop
        numbers = _cells_of(span)
        if len(numbers) == 1:  # nearly every read
            cell = self._cells.get(numbers[0], {})
            return [item for item, each in cell.items() if each.start < stop and each.stop > start]
        found: dict[T, None] = {}
        for number in numbers:
            for item, each in self._cells.get(number, {}).items():
                if each.start < stop and each.stop > start:
                    found[item] = None
        return list(found)


def _cells_of(span: ByteRange) -> range:
    if span.start >= span.stop:
        return range(0)
    return range(span.start // CELL_BYTES, (span.stop - 1) // CELL_BYTES + 1)
