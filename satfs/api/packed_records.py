"""Records held compactly: the JSON of a page's records, each compressed by itself.

*Pure*. A record as dictionaries and lists takes about ten times the bytes of its JSON, and the
records of one page repeat each other. So each record is compressed with the first record of its
page as the dictionary (RFC 1950 §2.2): that takes as few bytes as to compress the page as a whole,
and any one record can be decompressed without the others, in two microseconds.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from satfs.model import Json

#: Longest dictionary, in bytes: the window of deflate (RFC 1951 §2).
_MAX_DICTIONARY_BYTES: Final = 32 * 1024
#: Raw deflate with the largest window: a header and a checksum for each record would be a tenth of
#: what it takes.
_WINDOW_BITS: Final = -15
#: The fastest level. Level 6 takes a fifth more time and saves two bytes in a hundred.
_LEVEL: Final = 1
_MEMORY_LEVEL: Final = 8


class PackedBlock(NamedTuple):
    """A block as plain values, to be kept on disk: record *i* ends at `ends[i]` in `packed`."""

    dictionary: bytes
    ends: bytes
    packed: bytes


class Block:
    """The JSON of several records, each compressed; filled by `RecordPacker`, or from a store."""

    __slots__ = ("_dictionary", "_ends", "_packed")

    def __init__(self, kept: PackedBlock | None = None) -> None:
        """Make an empty block, or the one that *kept* is.

        Raises:
            ValueError: *kept* contradicts itself.
        """
        self._dictionary, ends, self._packed = kept or PackedBlock(b"", b"", b"")
        self._ends = array("I", ends)
        if self._ends and self._ends[-1] != len(self._packed):
            raise ValueError("a block whose records do not end where it does")

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._ends)

    @property
    def size_bytes(self) -> int:
        """Bytes that the block takes in memory."""
        return len(self._packed) + len(self._dictionary) + self._ends.itemsize * len(self._ends)

    def fill(self, records: Sequence[bytes]) -> None:
        """Hold *records*, each of them JSON."""
        # A single record gains nothing from being its own dictionary.
        self._dictionary = records[0][:_MAX_DICTIONARY_BYTES] if len(records) > 1 else b""
        base = zlib.compressobj(
            _LEVEL,
            zlib.DEFLATED,
            _WINDOW_BITS,
            _MEMORY_LEVEL,
            zlib.Z_DEFAULT_STRATEGY,
            self._dictionary,
        )
        pieces: list[bytes] = []
        stop = 0
        for record in records:
            compressor = base.copy()
            pieces.append(compressor.compress(record) + compressor.flush())
            stop += len(pieces[-1])
            self._ends.append(stop)
        self._packed = b"".join(pieces)

    def record(self, index: int) -> bytes:
        """Return the JSON of one record, without spaces and without a line's end."""
        start = self._ends[index - 1] if index else 0
        packed = self._packed[start : self._ends[index]]
        return zlib.decompressobj(_WINDOW_BITS, self._dictionary).decompress(packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.kept() == other.kept()

    __hash__ = None  # type: ignore[assignment]

    def kept(self) -> PackedBlock:
        """Return the block as it is kept on disk."""
        return PackedBlock(self._dictionary, self._ends.tobytes(), self._packed)


class PackedRecord(Mapping[str, Json]):
    """The fields of one record, decoded at each access.

    Equal to any mapping with the same fields. Returned values belong to the caller.
    """

    __slots__ = ("_block", "_index")

    def __init__(self, block: Block, index: int) -> None:
        self._block = block
        self._index = index

    def as_dict(self) -> dict[str, Json]:
        """Return all fields, as a dictionary of the caller's own."""
        fields: dict[str, Json] = decoded(self.json())
        return fields

    def json(self) -> bytes:
        """Return the record as JSON, without spaces and without a line's end."""
        return self._block.record(self._index)

    def __getitem__(self, key: str) -> Json:
        return self.as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())

    def get(self, key: str, default: Json = None) -> Json:
        """Return a field, or *default* when the record has none of that name."""
        return self.as_dict().get(key, default)

    def items(self) -> Json:
        """Return the fields with their names."""
        return self.as_dict().items()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedRecord):
            return self.json() == other.json() or self.as_dict() == other.as_dict()
        return self.as_dict() == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "PackedRecord()"


def encoded(record: Mapping[str, Json]) -> bytes:
    """Return *record* as JSON without spaces."""
    if isinstance(record, PackedRecord):
        return record.json()
    try:
        return msgspec.json.encode(record)
    except (ValueError, TypeError, RecursionError):
        # Lone surrogates, which only records that were not cleaned can hold.
        return json.dumps(record, separators=(",", ":")).encode()


def decoded(content: bytes) -> Json:
    """Return what `encoded` was given."""
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        return json.loads(content)
