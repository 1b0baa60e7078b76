"""Small members that a program reads one after another: which part of the zip is worth having."""

from __future__ import annotations

from archive.zips import Entry, build, files, read_members

from satfs.archive.member_offsets import AROUND_BYTES, N_ALONE, SMALL_BYTES, SmallMembers

LARGE = Entry(b"large", b"x" * (SMALL_BYTES + 1))


def small(number: int, n_bytes: int = 10_000) -> Entry:
    return Entry(f"small{number}".encode(), b"x" * n_bytes)


def test_after_a_few_small_members_their_neighbours_are_worth_having() -> None:
    """Each that is opened again counts once; the part holds the member and those beside it."""
    data = build([LARGE, *(small(n) for n in range(10)), LARGE])
    members = read_members(data)
    rows = files(members)
    opened = SmallMembers()
    for _ in range(3):
        assert opened.opened(members.offsets, members.member(rows["small7"]).header_offset) is None
    for n in range(1, N_ALONE):
        assert (
            opened.opened(members.offsets, members.member(rows[f"small{n}"]).header_offset) is None
        )
    around = opened.opened(members.offsets, members.member(rows["small4"]).header_offset)
    assert around is not None
    first, last = (members.member(rows[f"small{n}"]) for n in (0, 9))
    assert around.start == first.header_offset
    assert around.stop >= last.header_offset + last.compressed_bytes
    assert opened.opened(members.offsets, members.member(rows["large"]).header_offset) is None


def test_no_large_member_is_among_the_neighbours_and_their_bytes_are_limited() -> None:
    """What is fetched with a member ends at a large one, and at a quarter of a mebibyte."""
    entries = [*(small(n, 30_000) for n in range(20)), LARGE]
    entries += [small(n) for n in range(20, 23)]
    members = read_members(build(entries))
    rows = files(members)
    opened = SmallMembers()
    for name, row in rows.items():
        around = opened.opened(members.offsets, members.member(row).header_offset)
        if around is None:
            continue
        member = members.member(row)
        assert around.start <= member.header_offset
        assert member.header_offset + member.compressed_bytes <= around.stop
        assert len(around) <= AROUND_BYTES
        large = members.member(rows["large"]).header_offset
        assert not around.start <= large < around.stop, name
