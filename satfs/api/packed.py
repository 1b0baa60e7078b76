"""Records held compactly: the JSON of a page's records, compressed together.

*Pure*. A record as dictionaries and lists takes about ten times the bytes of its JSON, and the
records of one page repeat each other. So a listing holds its records as JSON that is compressed
page by page, and a record is decoded again whenever one of its fields is wanted. Sidecar files are
made from it when they are looked up or read; they are not held.
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Final

import msgspec

from satfs.model import Capture, Json, Scene, Task

#: Bytes of JSON that are kept decompressed, in all: a directory that is walked from its first scene
#: to its last needs the page of the scene that is its turn, and the pages of a few other walks.
MAX_OPEN_BYTES: Final = 8 * 1024 * 1024
#: Estimates of what a record takes beside its JSON, and each of its attachments: the objects and
#: their texts.
RECORD_BYTES: Final = 1000
ATTACHMENT_BYTES: Final = 300
#: The fastest level: one page takes about 2 ms, and level 6 saves no more than a quarter.
_LEVEL: Final = 1


class Block:
    """The JSON of several records, compressed. Filled by `Packer`."""

    __slots__ = ("_compressed", "_length")

    def __init__(self) -> None:
        self._compressed = b""
        self._length = 0

    @property
    def size_bytes(self) -> int:
        """Bytes held for the block while nobody reads it."""
        return len(self._compressed)

    def fill(self, content: bytes) -> None:
        """Hold *content*."""
        self._compressed = zlib.compress(content, _LEVEL)
        self._length = len(content)

    def content(self) -> bytes:
        """Return what the block holds; of all blocks, `MAX_OPEN_BYTES` stay decompressed."""
        with _lock:
            content = _open.get(self)
            if content is not None:
                _open.move_to_end(self)
                return content
        content = zlib.decompress(self._compressed, bufsize=max(self._length, 1))
        with _lock:
            _open[self] = content
            n_bytes = sum(len(each) for each in _open.values())
            while n_bytes > MAX_OPEN_BYTES:
                n_bytes -= len(_open.popitem(last=False)[1])
        return content


#: What was decompressed last, least recently used first. Records are read in threads, too.
_open: Final[OrderedDict[Block, bytes]] = OrderedDict()
_lock: Final = Lock()


class PackedRecord(Mapping[str, Json]):
    """The fields of one record, decoded whenever they are asked for.

    Equal to any mapping with the same fields. What is returned belongs to the caller.
    """

    __slots__ = ("_start", "_stop", "block")

    def __init__(self, block: Block, start: int, stop: int) -> None:
        self.block = block
        self._start = start
        self._stop = stop

    def as_dict(self) -> dict[str, Json]:
        """Return all fields, as a dictionary of the caller's own."""
        fields: dict[str, Json] = decoded(self.json())
        return fields

    def json(self) -> bytes:
        """Return the record as JSON, without spaces and without a line's end."""
        return self.block.content()[self._start : self._stop]

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
        return f"PackedRecord({self._stop - self._start} bytes)"


class Packer:
    """Packs records one after the other into one block, which can be read after `finish`."""

    def __init__(self) -> None:
        self._block = Block()
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, record: Mapping[str, Json]) -> PackedRecord:
        """Return *record* as it will be once the block is finished."""
        piece = encoded(record)
        start = self._length
        self._length += len(piece)
        self._pieces.append(piece)
        return PackedRecord(self._block, start, self._length)

    def finish(self) -> None:
        """Compress what was added."""
        self._block.fill(b"".join(self._pieces))


def held_bytes(items: Iterable[object]) -> int:
    """Return about how many bytes records take in memory, blocks and all, each block once."""
    n_bytes = 0
    blocks: set[Block] = set()
    for item in items:
        n_bytes += RECORD_BYTES
        if isinstance(item, Scene):
            n_bytes += ATTACHMENT_BYTES * len(item.attachments)
        if isinstance(item, Task | Capture | Scene) and isinstance(item.record, PackedRecord):
            blocks.add(item.record.block)
    return n_bytes + sum(block.size_bytes for block in blocks)


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
