"""`content/fetch/first_reads.py`: when the beginning of a file is expected to be read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from satfs.content.fetch.first_reads import BEGINNING_BYTES, SOON_S, FirstReads

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["look", "read"]),
        st.integers(0, 4),
        st.sampled_from([0, BEGINNING_BYTES - 1, BEGINNING_BYTES, 10**9]),
        st.floats(0, 2 * SOON_S),
    ),
    max_size=40,
)


class TestFirstReads:
    def test_nothing_is_expected_at_first(self) -> None:
        assert not FirstReads().looked_up("a", 0.0)

    def test_a_mount_expects_a_read_of_the_first_file_and_of_no_other(self) -> None:
        reads = FirstReads()
        reads.expect()
        assert reads.looked_up("a", 0.0)
        assert not reads.looked_up("b", 0.1)
        assert not reads.looked_up("c", 0.1 + 2 * SOON_S)

    def test_none_is_expected_after_a_listing(self) -> None:
        reads = FirstReads()
        reads.expect()
        reads.listed()
        assert not reads.looked_up("a", 0.0)

    def test_the_first_walk_of_a_mount_alone_is_expected_to_read(self) -> None:
        reads = FirstReads()
        assert not reads.walked()
        reads = FirstReads()
        reads.expect()
        assert reads.walked()
        assert not reads.walked()
        assert reads.looked_up("a", 0.0)

    def test_a_walk_after_a_listing_or_a_file_is_not_expected_to_read(self) -> None:
        listed, used = FirstReads(), FirstReads()
        for reads in (listed, used):
            reads.expect()
        listed.listed()
        used.looked_up("a", 0.0)
        used.read("a", 0, 0.1)
        assert not listed.walked()
        assert not used.walked()

    def test_a_listing_changes_nothing_about_what_programs_have_done(self) -> None:
        reads = FirstReads()
        reads.looked_up("a", 0.0)
        reads.read("a", 0, 0.1)
        reads.listed()
        assert reads.looked_up("b", 100.0)

    def test_what_was_done_with_the_last_one_is_expected(self) -> None:
        reads = FirstReads()
        reads.looked_up("a", 0.0)
        reads.read("a", 0, 0.1)
        assert reads.looked_up("b", 100.0)
        reads.read("b", 10**6, 100.1)
        assert not reads.looked_up("c", 200.0)

    @given(STEPS)
    def test_no_two_are_expected_before_one_is_read(
        self, steps: list[tuple[str, int, int, float]]
    ) -> None:
        """A walk that reads nothing has one beginning requested in vain, and no other."""
        reads, now_s = FirstReads(), 0.0
        unread: dict[int, float] = {}
        for what, key, start, later_s in steps:
            now_s += later_s
            unread = {k: at_s for k, at_s in unread.items() if now_s - at_s <= SOON_S}
            if what == "look":
                is_expected = reads.looked_up(key, now_s)
                assert not (is_expected and unread)
                unread[key] = now_s
            else:
                reads.read(key, start, now_s)
                unread.pop(key, None)

    @given(STEPS)
    def test_nothing_is_kept_of_what_is_over(
        self, steps: list[tuple[str, int, int, float]]
    ) -> None:
        reads, now_s = FirstReads(), 0.0
        for what, key, start, later_s in steps:
            now_s += later_s
            if what == "look":
                reads.looked_up(key, now_s)
            else:
                reads.read(key, start, now_s)
        reads.read("another", 0, now_s + 2 * SOON_S)
        assert not reads._waiting
