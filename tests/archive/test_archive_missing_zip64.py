"""Zips over 4 GiB without ZIP64 records: true numbers, or none."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

import pytest
import trio
from archive.cutzips import Big, SparseZip, build_cut
from archive.opening import resources
from archive.zips import files, refusals
from conftest import LogBook
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satfs.archive.archive import Archives
from satfs.archive.members import Members
from satfs.archive.missing_zip64 import SAMPLE_BYTES, longest_bytes
from satfs.errors import Damaged

GIB = 1 << 30


@cache
def deflated(data: bytes) -> bytes:
    """Return the first bytes of *data* as deflate packs it; others follow."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b""
    for start in range(0, len(data), 1 << 20):
        packed += packer.compress(data[start : start + (1 << 20)])
        if len(packed) >= SAMPLE_BYTES:
            break
    return (packed + packer.flush(zlib.Z_SYNC_FLUSH))[:SAMPLE_BYTES]


def png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of 8 bits, red, green and blue."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">L4s2L5B", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)


NOISE = random.Random(1).randbytes(4 * SAMPLE_BYTES)
#: The beginning of a file that cannot have 4 GiB: its offsets have 32 bits.
TIFF = deflated(b"II*\0" + NOISE)
BIG_TIFF = deflated(b"II+\0" + NOISE)


def members_of(zipped: SparseZip) -> Members:
    async def read() -> Members | Damaged:
        async with trio.open_nursery() as nursery:
            try:
                return await Archives(resources(nursery)).archive("zip", zipped.open).members()
            except Damaged as failure:
                return failure

    outcome = trio.run(read)
    if isinstance(outcome, Damaged):
        raise outcome
    return outcome


def sizes(tree: Members) -> dict[str, tuple[int, int]]:
    return {
        path: (tree.member(row).compressed_bytes, tree.member(row).size_bytes)
        for path, row in files(tree).items()
    }


LENGTHS = st.lists(
    st.one_of(
        st.integers(0, 10_000),
        st.integers(0, 9 * GIB),
        st.sampled_from([4 * GIB, 4 * GIB - 1, 4 * GIB + 1, 8 * GIB, 12 * GIB + 7]),
    ),
    min_size=1,
    max_size=12,
)


@given(
    LENGTHS,
    st.sampled_from(["", "<4s3L", "<3L", "<4sLQQ", "<LQQ"]),
    st.sampled_from([0, 1, 10_000]),
)
def test_stored_members_of_any_size_have_their_true_size(
    packed: list[int], descriptor: str, prefix: int
) -> None:
    """Found from the local headers and the neighbours' offsets; read by the order of the bytes."""
    given_members = [
        Big(b"dir/%d.tif" % number, size, descriptor=descriptor)
        for number, size in enumerate(packed)
    ]
    tree = members_of(build_cut(given_members, prefix=prefix))
    assert sizes(tree) == {
        member.name.decode(): (member.packed, member.packed) for member in given_members
    }
    assert tree.n_refused == 0


@given(LENGTHS, st.sampled_from(["", "<4s3L", "<4sLQQ"]), st.sampled_from([0, 7]), st.booleans())
def test_entries_that_are_cut_beside_zip64_records_have_their_true_size(
    packed: list[int], descriptor: str, prefix: int, is_offset_cut: bool
) -> None:
    """The end record has 64 bits and the entries have 32, whoever wrote them."""
    given_members = [
        Big(b"%d.tif" % number, size, descriptor=descriptor) for number, size in enumerate(packed)
    ]
    zipped = build_cut(
        given_members, prefix=prefix, made_by=45, has_zip64=True, is_offset_cut=is_offset_cut
    )
    tree = members_of(zipped)
    assert sizes(tree) == {
        member.name.decode(): (member.packed, member.packed) for member in given_members
    }
    assert tree.n_refused == 0


def test_a_deflated_member_cut_beside_zip64_records_is_not_shown() -> None:
    """Nor is one whose bytes end where no member ends."""
    members = [Big(b"a.tif", 5 * GIB, 9 * GIB, method=8), Big(b"b.tif", 4 * GIB + 5)]
    tree = members_of(build_cut(members, has_zip64=True))
    assert sizes(tree) == {"b.tif": (4 * GIB + 5, 4 * GIB + 5)}
    assert refusals(tree) == {"a.tif": "CUT"}


@given(
    st.lists(
        st.tuples(
            st.integers(1, 12 * GIB),
            st.sampled_from([1, 2, 10, 60, 200, 1000]),
            st.sampled_from(["tiff", "big tiff", "png", "noise", "zeros", "no deflated data"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_finder_zip_below_4_gib_shows_true_sizes_or_none(
    drawn: list[tuple[int, int, str]],
) -> None:
    """No size is guessed, however the beginning of a member packs: its rest may pack otherwise."""
    beginnings = {
        "tiff": TIFF,
        "big tiff": BIG_TIFF,
        "png": deflated(png(20_000, 20_000) + NOISE),
        "noise": deflated(NOISE),
        "zeros": deflated(bytes(10_000_000)),
        "no deflated data": b"",
    }
    given_members: list[Big] = []
    proven: dict[str, tuple[int, int]] = {}
    for number, (size, ratio, kind) in enumerate(drawn):
        # Of such a file nothing lies beyond what its format can name.
        size = min(size, {"tiff": 4 * GIB - 1, "png": 1_200_000_000}.get(kind, size))
        packed = max(2000, size // ratio)
        size = max(size, packed)
        if sum(each.packed for each in given_members) + packed > 4 * GIB - 10_000_000:
            continue
        beginning = beginnings[kind]
        member = Big(b"%d" % number, packed, size, method=8, beginning=beginning)
        given_members.append(member)
        is_too_short = 1032 * packed < 4 * GIB + size % (4 * GIB)
        if kind in ("tiff", "png") or is_too_short:
            proven[member.name.decode()] = (packed, size)

    shown = sizes(members_of(build_cut(given_members)))

    assert shown == proven


@pytest.mark.parametrize(
    ("beginning", "longest"),
    [
        (b"II*\0", 4 * GIB),
        (b"MM\0*\0\0\0\x08", 4 * GIB),
        (b"II+\0\x08\0\0\0", None),
        (b"MM\0+", None),
        (png(100, 100)[:25], None),
        (png(100, 100).replace(b"\x08\x02", b"\x08\x09"), None),  # no colour type
        (b"PK\3\4", None),
        (b"{}", None),
        (b"", None),
    ],
)
def test_the_format_of_a_file_limits_its_length(beginning: bytes, longest: int | None) -> None:
    assert longest_bytes(beginning) == longest


def test_a_png_is_no_longer_than_its_pixels_and_its_metadata() -> None:
    assert 30_000 < (longest_bytes(png(100, 100)) or 0) < 100_000_000
    assert (longest_bytes(png(70_000, 70_000)) or 0) > 3 * 70_000**2


def test_a_member_of_a_finder_zip_costs_one_read_more() -> None:
    """And none where its method cannot make 4 GiB more of its bytes."""
    usual = Big(b"usual.tif", 100_000_000, 150_000_000, method=8, beginning=TIFF)
    small = [Big(b"%d.json" % number, 3_000, 9_000, method=8) for number in range(50)]
    with_small = build_cut(small)
    members_of(with_small)
    with_one = build_cut([usual, *small])
    assert sizes(members_of(with_one))["usual.tif"] == (100_000_000, 150_000_000)
    assert with_one.n_reads == with_small.n_reads + 1


def test_a_deflated_member_whose_unpacked_size_was_cut_is_not_shown() -> None:
    """Nothing states how much longer it is: it is named with the reason, others are right."""
    tree = members_of(
        build_cut(
            [
                Big(b"first.json", 300, 900, method=8),
                Big(b"raster.tif", 5 * GIB, 9 * GIB, method=8),
                Big(b"zeros.tif", 10_000_000, 5 * GIB, method=8),
                Big(b"usual.tif", 30_000_000, 70_000_000, method=8, beginning=TIFF),
                Big(b"last.json", 300, 900, method=8),
            ]
        )
    )
    assert sizes(tree) == {
        "first.json": (300, 900),
        "usual.tif": (30_000_000, 70_000_000),
        "last.json": (300, 900),
    }
    assert refusals(tree) == {"raster.tif": "CUT", "zeros.tif": "CUT"}


@pytest.mark.parametrize(
    ("packed", "size", "beginning"),
    [
        (4_200_000, 4 * GIB + 10_000_000, deflated(bytes(10_000_000))),  # would be 10 MB
        (50_000_000, 4 * GIB + 400_000_000, deflated(bytes(90_000_000))),  # would be 400 MB
        (600_000_000, 4 * GIB + 2_000_000_000, deflated(NOISE)),
        (600_000_000, 4 * GIB + 2_000_000_000, BIG_TIFF),  # its offsets have 64 bits
        (40_000_000, 4 * GIB + 100_000_000, deflated(NOISE)),  # zeros, behind what packs as usual
        (30_000_000, 70_000_000, b""),  # no deflated data at all
    ],
)
def test_no_size_is_shown_that_may_be_false(packed: int, size: int, beginning: bytes) -> None:
    """A member of 4 GiB that packs well is nothing strange in a zip whose numbers were cut."""
    member = Big(b"member.tif", packed, size, method=8, beginning=beginning)
    tree = members_of(build_cut([member, Big(b"x", 5 * GIB)]))
    assert sizes(tree) == {"x": (5 * GIB, 5 * GIB)}
    assert refusals(tree) == {"member.tif": "CUT"}


def test_a_data_descriptor_of_64_bits_states_the_unpacked_size() -> None:
    """As programs write it that stream with ZIP64 and cut the directory all the same."""
    wide = Big(b"raster.tif", 5 * GIB, 9 * GIB, method=8, descriptor="<4sLQQ")
    tree = members_of(build_cut([wide, Big(b"x", 1)]))
    assert sizes(tree) == {"raster.tif": (5 * GIB, 9 * GIB), "x": (1, 1)}


def test_a_data_descriptor_of_64_bits_states_it_below_4_gib_as_well() -> None:
    wide = Big(b"zeros.bin", 10_000_000, 9 * GIB, method=8, descriptor="<4sLQQ")
    tree = members_of(build_cut([Big(b"d/", 0, descriptor=""), wide, Big(b"x", 1)]))
    assert sizes(tree) == {"zeros.bin": (10_000_000, 9 * GIB), "x": (1, 1)}


def test_a_directory_before_the_first_file_hides_no_size() -> None:
    """Finder's zip of a folder begins with the folder, whose entry is as any program's."""
    members = [
        Big(b"d/", 0, descriptor=""),
        Big(b"d/a.tif", 90_000_000, 200_000_000, method=8, beginning=TIFF),
        Big(b"d/b", 90_000_000, 200_000_000, method=8, beginning=deflated(NOISE)),
    ]
    tree = members_of(build_cut(members))
    assert sizes(tree) == {"d/a.tif": (90_000_000, 200_000_000)}
    assert refusals(tree) == {"d/b": "CUT"}


def test_a_zip_under_4_gib_with_a_member_over_4_gib_does_not_show_a_false_size() -> None:
    """Five GiB of zeros deflate to five MB: Archive Utility states their size modulo 4 GiB."""
    tree = members_of(
        build_cut([Big(b"zeros.tif", 5_300_000, 5 * GIB, method=8), Big(b"x", 2_000, 9_000, 8)])
    )
    assert sizes(tree) == {"x": (2_000, 9_000)}
    assert refusals(tree) == {"zeros.tif": "CUT"}


@pytest.mark.parametrize("spoilt", ["header", "descriptor"])
def test_what_contradicts_itself_is_not_shown(spoilt: str) -> None:
    """A local header with another name, a descriptor with another CRC: no size is made up."""
    zipped = build_cut([Big(b"a", 5 * GIB), Big(b"b", 5)])
    for start, piece in zipped.pieces.items():
        if spoilt == "header" and piece.startswith(b"PK\3\4"):
            zipped.pieces[start] = piece.replace(b"a", b"z")
        if spoilt == "descriptor" and piece.startswith(b"PK\7\x08"):
            zipped.pieces[start] = piece[:4] + bytes(4) + piece[8:]
    tree = members_of(zipped)
    assert "a" not in sizes(tree)
    assert refusals(tree)["a"] == "CUT"


def test_a_prefix_of_more_than_4_gib_is_a_prefix() -> None:
    """The same numbers, and no local header where a cut offset would have one."""
    tree = members_of(build_cut([Big(b"a", 100), Big(b"b", 7)], prefix=5 * GIB))
    assert sizes(tree) == {"a": (100, 100), "b": (7, 7)}


@pytest.mark.slow
def test_among_many_members_a_few_headers_are_read() -> None:
    """Twenty thousand members and one boundary: some twenty reads, not one for each."""
    big = [Big(b"%05d" % number, GIB if number == 9_999 else 300_000) for number in range(20_000)]
    zipped = build_cut(big)
    tree = members_of(zipped)
    assert tree.n_refused == 0
    assert len(files(tree)) == 20_000
    assert zipped.n_reads < 60


@pytest.mark.slow
def test_more_members_than_sixteen_bits_count_and_more_than_4_gib() -> None:
    """Both at once, as Archive Utility writes them."""
    zipped = build_cut([Big(b"%05d" % number, 70_000) for number in range(65_540)])
    tree = members_of(zipped)
    assert len(files(tree)) == 65_540


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_zips_show_true_sizes_or_none(log_book: LogBook, data: st.DataObject) -> None:
    """Flipped bytes: members or a damaged zip, and shown members are inside of the zip."""
    zipped = build_cut([Big(b"a", 300), Big(b"big", 4 * GIB + 9), Big(b"c", 5, 10, method=8)])
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.sampled_from(sorted(zipped.pieces)))
        piece = bytearray(zipped.pieces[start])
        piece[data.draw(st.integers(0, len(piece) - 1))] = data.draw(st.integers(0, 255))
        zipped.pieces[start] = bytes(piece)
    try:
        tree = members_of(zipped)
    except Damaged:
        log_book.lines.clear()  # that it is damaged is logged, too
        return
    for row in files(tree).values():
        member = tree.member(row)
        assert member.header_offset + 30 + member.compressed_bytes <= tree.offsets.data_stop
