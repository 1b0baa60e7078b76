"""Inode numbers: stable, unique, and counted as the kernel counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from satfs.errors import Misuse
from satfs.fuse.inodes import ROOT, Inodes, keyed_numbering


@dataclass(frozen=True)
class Thing:
    """Something with an identity, and an age that is not part of it."""

    identity: tuple[str, ...]
    age: int = field(default=0, compare=False)


TOP = Thing(("directory",))
identities = st.lists(st.text(max_size=3), min_size=1, max_size=3).map(tuple)


@given(identities, identities, st.binary(), st.integers(0, 100))
def test_numbers_derive_from_identity(
    one: tuple[str, ...], other: tuple[str, ...], key: bytes, salt: int
) -> None:
    """The same thing has the same number after a remount; another has another."""
    number = keyed_numbering(key)
    assert 2**32 <= number(one, salt) < 2**63
    assert number(one, salt) == keyed_numbering(key)(one, salt)
    assert (number(one, salt) == number(other, salt)) == (one == other)
    assert number(one, salt) != number(one, salt + 1)


def test_accounts_have_numbers_of_their_own() -> None:
    """Another account's things are other things, even under the same names."""
    assert keyed_numbering(b"a")(("x",), 0) != keyed_numbering(b"b")(("x",), 0)


def test_a_number_does_not_change_between_releases() -> None:
    """Backups hold inode numbers for years: this one was written down."""
    assert keyed_numbering(b"account")(("directory", "tasks"), 0) == 8719920575305037124


def test_the_root_is_always_known() -> None:
    """The kernel holds the root without counting, and may send references back at unmount."""
    inodes = Inodes(TOP, keyed_numbering(b""))
    assert inodes.node(ROOT) is TOP
    inodes.forget(ROOT, 3)
    assert inodes.node(ROOT) is TOP
    assert inodes.number(TOP) == ROOT
    assert len(inodes) == 1


def test_the_later_of_two_equals_is_kept() -> None:
    """A number leads to what was seen last: its times are those of today."""
    inodes = Inodes(TOP, keyed_numbering(b""))
    old, new = Thing(("a",), age=1), Thing(("a",), age=2)
    inode = inodes.remember(old)
    assert inodes.remember(new) == inode
    assert inodes.node(inode) is new
    inodes.forget(inode, 1)
    assert inodes.node(inode) is new
    inodes.forget(inode, 1)
    assert not inodes.knows(inode)


def test_two_things_never_share_a_number() -> None:
    """Should their hashes be equal, the second is numbered again, as long as it is known."""

    def poor(identity: Sequence[str], salt: int) -> int:
        return 7 + salt

    inodes = Inodes(TOP, poor)
    one, other, third = Thing(("1",)), Thing(("2",)), Thing(("3",))
    assert inodes.remember(one) == 7
    assert inodes.number(other) == 8
    assert inodes.remember(other) == 8
    assert inodes.remember(third) == 9
    inodes.forget(7, 1)
    assert inodes.remember(other) == 8  # known, so its number stays
    assert inodes.remember(one) == 7


def test_looking_at_a_number_counts_nothing() -> None:
    """A node that was only numbered is not known."""
    inodes = Inodes(TOP, keyed_numbering(b""))
    inode = inodes.number(Thing(("a",)))
    assert not inodes.knows(inode)
    with pytest.raises(Misuse):
        inodes.node(inode)
    with pytest.raises(Misuse):
        inodes.forget(inode, 1)


class TheKernel(RuleBasedStateMachine):
    """Remembers and forgets at random, as a kernel does, beside a dictionary that counts too."""

    things = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        # Few numbers, so that collisions are the rule.
        self.inodes = Inodes(TOP, lambda identity, salt: 2 + (len(identity[0]) + salt) % 64)
        self.counts: dict[tuple[str, ...], int] = {}
        self.numbers: dict[tuple[str, ...], int] = {}

    @rule(target=things, text=st.text("ab", max_size=3), age=st.integers())
    def look(self, text: str, age: int) -> Thing:
        thing = Thing((text,), age)
        inode = self.inodes.remember(thing)
        assert self.inodes.node(inode) is thing
        self.counts[thing.identity] = self.counts.get(thing.identity, 0) + 1
        assert self.numbers.setdefault(thing.identity, inode) == inode
        return thing

    @rule(thing=things, n=st.integers(1, 5))
    def forget(self, thing: Thing, n: int) -> None:
        held = self.counts.get(thing.identity, 0)
        inode = self.numbers.get(thing.identity)
        if inode is None:
            return
        if n > held:
            with pytest.raises(Misuse):
                self.inodes.forget(inode, n)
        else:
            self.inodes.forget(inode, n)
        if n >= held:
            del self.counts[thing.identity], self.numbers[thing.identity]
        else:
            self.counts[thing.identity] = held - n

    @invariant()
    def both_agree(self) -> None:
        assert len(self.inodes) == 1 + len(self.counts)
        assert len(set(self.numbers.values())) == len(self.numbers)
        for identity, inode in self.numbers.items():
            assert self.inodes.node(inode).identity == identity
            assert self.inodes.n_lookups(inode) == self.counts[identity]
            assert self.inodes.number(Thing(identity)) == inode


TestTheKernel = TheKernel.TestCase
