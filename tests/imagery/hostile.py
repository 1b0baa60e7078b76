"""Headers that are made to cost memory, time or an error; none of these files has a layout."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from imagery.rasters import Fields, directory, tiff, tiled_fields

GOOD: Final = tiled_fields(2, offsets=(4, [512, 768, 1024, 1280]), sizes=(4, [256] * 4))
SIZE: Final = 2048


def without(*tags: int) -> Fields:
    return [entry for entry in GOOD if entry[0] not in tags]


def changed(tag: int, type_: int, values: list[int] | bytes) -> Fields:
    """Return good fields, one of them with another type and value."""
    return sorted([*without(tag), (tag, type_, values)], key=lambda entry: entry[0])


def _one(fields: Fields, next_offset: int = 0, order: str = "<") -> bytes:
    made = directory(fields, next_offset, order=order)
    return tiff(made, order=order, size_bytes=SIZE)


def _raw(fields: list[tuple[int, int, int, int]]) -> bytes:
    """Return a file of the good fields, some with a count and a value of one's own."""
    own = {tag for tag, *_ in fields}
    good = directory(without(*own))
    n = struct.unpack("<H", good[:2])[0]
    # The long values of the good fields follow behind; they are moved by the fields put in.
    moved = 12 * len(fields)
    entries = [struct.unpack("<HHII", good[2 + 12 * k : 14 + 12 * k]) for k in range(n)]
    entries = [(t, y, c, v + moved if c > 1 else v) for t, y, c, v in entries]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted([*entries, *fields]))
    body = struct.pack("<H", n + len(fields)) + packed + good[2 + 12 * n :]
    return tiff(body, size_bytes=SIZE)


def _chain(n: int) -> bytes:
    """Return directories that lead from one to the next, and the last one to the first."""
    length = len(directory(GOOD))
    made = [
        directory(GOOD, 8 + length * ((k + 1) % n), at=8 + length * k) for k in range(n)
    ]  # fmt: skip
    return tiff(*made)


def _big(n_fields: int, body: bytes = b"") -> bytes:
    return b"II" + struct.pack("<HHHQ", 43, 8, 0, 16) + struct.pack("<Q", n_fields) + body


_INNER_AT: Final = 400

#: Files by what is wrong with them.
HOSTILE: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "two bytes": b"II",
    "a classic header only": tiff(),
    "a header that leads to itself": tiff(first=0),
    "a first directory at the end": tiff(first=SIZE, size_bytes=SIZE),
    "a first directory beyond the end": tiff(first=2**32 - 1, size_bytes=SIZE),
    "another version": b"II\x2c\0" + b"\0" * 100,
    "a BigTIFF of 4-byte offsets": b"II" + struct.pack("<HHHQ", 43, 4, 0, 16) + b"\0" * 100,
    "a BigTIFF cut off in its header": b"II" + struct.pack("<HHH", 43, 8, 0),
    "a BigTIFF directory at 2^64 - 1": b"II"
    + struct.pack("<HHHQ", 43, 8, 0, 2**64 - 1)
    + b"\0" * 99,
    "no fields": tiff(struct.pack("<HI", 0, 0), size_bytes=SIZE),
    "65535 fields": tiff(struct.pack("<H", 65535), size_bytes=2**21),
    "2^60 fields": _big(2**60, b"\0" * 1000),
    "2^64 - 1 fields": _big(2**64 - 1, b"\0" * 1000),
    "a directory cut off": _one(GOOD)[:60],
    "its long values cut off": _one(GOOD)[:100],
    "a next directory cut off": _one(GOOD, SIZE - 10),
    "a next directory beyond the end": _one(GOOD, 2**32 - 4),
    "a directory that leads to itself": _one(GOOD, 8),
    "two directories in a circle": _chain(2),
    "two hundred directories in a circle": _chain(200),
    "an inner directory that is the outer": _one([*GOOD, (330, 4, [8])]),
    "an inner directory beyond the end": _one([*GOOD, (330, 4, [2**31])]),
    "an inner directory that holds the outer": tiff(
        directory([*GOOD, (330, 4, [_INNER_AT])]).ljust(_INNER_AT - 8, b"\0"),
        directory([*GOOD, (330, 4, [8])], at=_INNER_AT),
        size_bytes=SIZE,
    ),
    "10,000 inner directories": _raw([(330, 4, 10_000, 500)]),
    "2^32 - 1 inner directories": _raw([(330, 4, 2**32 - 1, 500)]),
    "inner directories as text": _one([*GOOD, (330, 2, b"abcdefgh")]),
    "no width": _one(without(256)),
    "no height": _one(without(257)),
    "no height of tiles": _one(without(323)),
    "no offsets": _one(without(324)),
    "no sizes": _one(without(325)),
    "width 0": _one(changed(256, 4, [0])),
    "width 2^32 - 1": _one(changed(256, 4, [2**32 - 1])),
    "tiles of width 0": _one(changed(322, 3, [0])),
    "tiles of width 1": _one(changed(322, 3, [1])),
    "strips of no rows": _one([*without(322, 323), (278, 4, [0])]),
    "no bands": _one(changed(277, 3, [0])),
    "65535 planes": _one(sorted([*changed(277, 3, [65535]), (284, 3, [2])])),
    "interleave 7": _one(sorted([*GOOD, (284, 3, [7])])),
    "a volume": _one([*GOOD, (32997, 4, [16])]),
    "width as text": _one(changed(256, 2, b"32\0")),
    "width as a long text": _one(changed(256, 2, b"thirty-two pixels\0")),
    "width as a double": _one(changed(256, 12, struct.pack("<d", 32.0))),
    "two widths": _one(changed(256, 4, [32, 32])),
    "offsets as text": _one(changed(324, 2, b"512 768 1024\0")),
    "offsets as fractions": _one(changed(324, 5, b"\1\0\0\0" * 8)),
    "signed sizes": _one(changed(325, 9, b"\1\0\0\0" * 4)),
    "too few offsets": _one(changed(324, 4, [512, 768])),
    "too few sizes": _one(changed(325, 3, [256])),
    "offsets in the header": _raw([(324, 4, 4, 0)]),
    "offsets beyond the end": _raw([(324, 4, 4, SIZE - 8)]),
    "offsets and sizes in one place": _raw([(324, 4, 4, 600), (325, 4, 4, 600)]),
    "offsets and sizes that overlap": _raw([(324, 4, 4, 600), (325, 4, 4, 608)]),
    "an image of 2^31 tiles": _raw([(256, 4, 1, 2**20), (257, 4, 1, 2**19), (324, 4, 2**31, 8)]),
}
