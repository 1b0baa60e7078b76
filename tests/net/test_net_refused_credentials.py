"""How a refused credential is tried again: bounded, never at once, itself before another."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from satfs.net.refused_credentials import (
    MAX_WAIT_S,
    UNPROVEN_S,
    YOUNG_S,
    CredentialHistory,
    NextTry,
    Refusals,
)


def tries_of(
    refusals: Refusals, names: list[str], *, age_s: float, is_proven: bool
) -> list[NextTry]:
    """Return the steps of an operation that is always refused, for at most a minute."""
    steps: list[NextTry] = []
    now_s, name = 0.0, names.pop(0)
    while now_s < 60:
        again = refusals.again(
            name, now_s, age_s=age_s + now_s, was_accepted=False, is_proven=is_proven
        )
        if again is None:
            return steps
        steps.append(again)
        now_s += again.wait_s
        if again.is_another and names:
            name = names.pop(0)
    return steps


def test_a_young_credential_is_tried_itself_over_two_seconds_first() -> None:
    """A few tries, and only then another credential is requested."""
    steps = tries_of(Refusals(), ["a", "b", "c"], age_s=0.01, is_proven=False)
    own = steps[: [step.is_another for step in steps].index(True)]
    assert 3 <= len(own) <= 6
    assert sum(step.wait_s for step in own) == YOUNG_S == 2.0


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20),
    st.floats(0, 1e6),
    st.booleans(),
)
def test_no_operation_hammers(names: list[str], age_s: float, is_proven: bool) -> None:
    """For any credentials: few tries, and those of unproven ones end within seconds."""
    steps = tries_of(Refusals(), list(names), age_s=age_s, is_proven=is_proven)
    assert all(0 <= step.wait_s <= MAX_WAIT_S for step in steps)
    if not is_proven:
        assert len(steps) <= 12
        assert sum(step.wait_s for step in steps) < UNPROVEN_S + 2 * MAX_WAIT_S
    # Never twice in a row at once.
    waits = [step.wait_s for step in steps]
    assert all(first + second > 0 for first, second in pairwise(waits))


def test_what_was_accepted_is_replaced_at_once() -> None:
    """A credential that was good, and is not any more, has ended."""
    standing = CredentialHistory()
    standing.received("a", 0.0)
    standing.accepted("a")
    assert standing.again(Refusals(), "a", 1.0, is_proven=True) == NextTry(0.0, is_another=True)


def test_youth_ends_by_acceptance_by_time_and_by_own_words() -> None:
    """And a credential that was never received is not young."""
    standing = CredentialHistory()
    standing.received("a", 10.0)
    standing.received("a", 12.0)  # held already
    assert standing.is_young("a", 10.5)
    assert not standing.is_young("a", 13.0)
    assert not standing.is_young("a", 10.5, stated_age_s=100.0)
    assert not standing.is_young("b", 10.5)
    standing.accepted("a")
    assert not standing.is_young("a", 10.5)
