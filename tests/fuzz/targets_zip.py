"""Zips: any bytes are members that keep their promises, or a damaged zip."""

from __future__ import annotations

from archive.cutzips import Big, build_cut
from archive.zips import Entry, Layout, build, files
from fakes.sparse import SparseContent
from fuzz.target import Target
from hypothesis import strategies as st

from satfs.archive.central_directory import DirectoryParser
from satfs.archive.end_record import TAIL_BYTES, CentralDirectory, NeedMore, locate
from satfs.archive.members import Members
from satfs.demo.contents import BytesContent
from satfs.errors import Damaged

_GIB = 1 << 30
_NAMES = st.binary(max_size=20) | st.sampled_from([b"a", b"a/", b"/a", b"../a", b"d\\a", b"PK\1\2"])
_NUMBERS = st.none() | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
_ENTRIES = st.builds(
    Entry,
    name=_NAMES,
    content=st.binary(max_size=40),
    method=st.sampled_from([0, 8, 12, 14, 93, 95, 98]),
    flags=st.sampled_from([0, 1, 8, 1 << 11, 1 << 13]),
    made_on=st.sampled_from([0, 3, 10, 19]),
    mode=st.sampled_from([0, 0o100644, 0o040755, 0o120777]),
    extra=st.binary(max_size=30),
    local_extra=st.binary(max_size=30),
    local_name=st.none() | _NAMES,
    size=_NUMBERS,
    compressed=_NUMBERS,
    offset=_NUMBERS,
    has_descriptor=st.booleans(),
    is_absent=st.booleans(),
)
_LAYOUTS = st.builds(
    Layout,
    prefix=st.binary(max_size=30),
    comment=st.binary(max_size=60),
    trailing=st.binary(max_size=60),
    gap=st.binary(max_size=20),
    is_zip64=st.booleans(),
)
_MEMBERS = st.builds(
    Big,
    _NAMES,
    st.integers(0, 9 * _GIB) | st.integers(0, 4000),
    st.none() | st.integers(0, 9 * _GIB),
    st.sampled_from([0, 8]),
    st.sampled_from(["", "<4s3L", "<3L", "<4sLQQ", "<LQQ"]),
)
#: Which byte of the last ones is changed to what: from the end, where a zip is read first.
_CHANGES = st.lists(st.tuples(st.integers(1, 600), st.integers(0, 255)), max_size=6)


def _changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, value in changes:
        if position <= len(changed):
            changed[-position] = value
    return bytes(changed)


def _read(content: BytesContent | SparseContent) -> Members:
    """Return the members as `Archive` reads them."""
    size_bytes = content.size_bytes
    start = max(0, size_bytes - TAIL_BYTES)
    found: CentralDirectory | NeedMore = locate(content.read(start, size_bytes), size_bytes)
    for _ in range(3):
        if isinstance(found, NeedMore):
            found = locate(content.read(found.span.start, size_bytes), size_bytes)
    assert isinstance(found, CentralDirectory)
    parser = DirectoryParser(found)
    parser.feed(content.read(found.span.start, found.span.stop))
    settling = parser.settling()
    if settling is None:
        return parser.finish()
    try:
        span = next(settling)
        while True:
            span = settling.send(bytes(content.read(span.start, span.stop)))
    except StopIteration as done:
        return parser.finish(done.value)


def check_zip(content: BytesContent | SparseContent) -> None:
    """Shown members are inside of the zip, and in front of the next member."""
    try:
        tree = _read(content)
    except Damaged:
        return
    for row in files(tree).values():
        member = tree.member(row)
        end = member.header_offset + 30 + member.compressed_bytes
        assert end <= tree.stop(row) <= tree.offsets.data_stop <= content.size_bytes


def _sparse(members: list[Big], changes: list[tuple[int, int]]) -> SparseContent:
    zipped = build_cut(members)
    pieces = {start: _changed(piece, changes) for start, piece in zipped.pieces.items()}
    return SparseContent(zipped.size_bytes, pieces)


TARGETS = (
    Target(
        "zip",
        "the directory and members of a zip (end_record, central_directory, missing_zip64)",
        st.builds(BytesContent, st.binary(max_size=300))
        | st.builds(
            lambda entries, layout, changes: BytesContent(
                _changed(build(entries, layout), changes)
            ),
            st.lists(_ENTRIES, max_size=6),
            _LAYOUTS,
            _CHANGES,
        )
        | st.builds(_sparse, st.lists(_MEMBERS, max_size=5), _CHANGES),
        check_zip,
        (_sparse([], []), _sparse([Big(b"a", 5 * _GIB), Big(b"b", 1)], [])),
    ),
)
