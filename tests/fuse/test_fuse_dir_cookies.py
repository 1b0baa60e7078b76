"""Listings: each entry once, in pieces, while entries come and go."""

from collections.abc import Iterator
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from satfs.fuse import dir_cookies
from satfs.fuse.dir_cookies import DOT_DOT, Listing

names = st.lists(st.binary(min_size=1, max_size=8), unique=True, max_size=40)


class Told:
    """A listing of names, as the kernel reads it."""

    def __init__(self, names: list[bytes]) -> None:
        self.names = names
        self.listing = Listing(len(names), names.__getitem__)

    def after(self, cookie: int) -> Iterator[tuple[int, bytes]]:
        return ((at, self.names[index]) for at, index in self.listing.after(cookie))


def read_all(things: Told, piece: int, cookie: int = 0) -> list[bytes]:
    """Read as the kernel does: *piece* entries at once, then again from the last cookie."""
    listed: list[bytes] = []
    while True:
        batch = [each for each, _ in zip(things.after(cookie), range(piece), strict=False)]
        if not batch:
            return listed
        listed += [name for _, name in batch]
        cookie = batch[-1][0]


def of(names: list[bytes]) -> Told:
    return Told(names)


@given(names, st.integers(1, 7))
def test_everything_is_told_once(names: list[bytes], piece: int) -> None:
    """Read in pieces of any size, a directory has each entry once."""
    assert sorted(read_all(of(names), piece)) == sorted(names)


@given(names)
def test_cookies_are_positions_in_a_file(names: list[bytes]) -> None:
    """Cookies grow, fit off_t, and leave room for the two dots and the beginning."""
    cookies = [cookie for cookie, _ in of(names).after(0)]
    assert cookies == sorted(set(cookies))
    assert all(DOT_DOT < cookie < 2**63 for cookie in cookies)


@given(names, names, names, st.integers(0, 40))
@example([b"a", b"b"], [], [b"a"], 1)
def test_nothing_is_told_twice_or_skipped_while_entries_come_and_go(
    staying: list[bytes], coming: list[bytes], going: list[bytes], after: int
) -> None:
    """A program that goes on in a directory opened again finds each entry that stayed once."""
    staying = [name for name in staying if name not in coming and name not in going]
    going = [name for name in going if name not in coming]
    before = of(staying + going)
    listed = [each for each, _ in zip(before.after(0), range(after), strict=False)]
    cookie = listed[-1][0] if listed else 0
    rest = read_all(of(staying + coming), 3, cookie)
    seen = [name for _, name in listed] + rest
    for name in staying:
        assert seen.count(name) == 1
    for name in coming + going:
        assert seen.count(name) <= 1


def test_equal_hashes_stand_side_by_side(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Names that hash alike have different cookies, the same in any order of the listing."""
    monkeypatch.setattr(dir_cookies, "_hash", lambda name: 100)
    one, other = of([b"a", b"b", b"c"]), of([b"c", b"a", b"b"])
    assert list(one.after(0)) == list(other.after(0))
    assert [cookie for cookie, _ in one.after(0)] == [100, 101, 102]
    assert [name for _, name in one.after(101)] == [b"c"]


@given(st.integers(0, 3000), st.integers(1, 400))
def test_large_directories_are_told_in_the_same_order(n: int, per_heap: int) -> None:
    """However the sorting is parted, the cookies grow, and are those of each name alone."""
    many = [b"member-%d" % number for number in range(n)]
    with mock.patch.object(dir_cookies, "_NAMES_A_SORT", per_heap):
        listed = list(of(many).after(0))
    assert listed == sorted((dir_cookies._hash(name), name) for name in many)
