"""Each fuzz target, for a moment: `scripts/fuzz` takes minutes, and other inputs each time."""

from __future__ import annotations

import pytest
from fuzz.run import fuzz
from fuzz.target import Target, all_targets
from hypothesis import strategies as st

TARGETS = all_targets()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_finds_nothing(name: str) -> None:
    """Any input gives a result or a documented error."""
    fuzz(TARGETS[name], seconds=0.0, n_examples=60)


def test_a_finding_is_reported() -> None:
    """The runner fails for a broken promise; a target that cannot fail would prove nothing."""

    def check(number: int) -> None:
        assert number < 50

    with pytest.raises(AssertionError):
        fuzz(Target("x", "", st.integers(0, 100), check), seconds=0.0, n_examples=200)
    with pytest.raises(AssertionError):
        fuzz(Target("x", "", st.just(0), check, examples=(50,)), seconds=0.0, n_examples=1)


def test_names_are_unlike() -> None:
    """Each target can be called by its name, and says what it is about."""
    assert all(name == target.name and target.sentence for name, target in TARGETS.items())
