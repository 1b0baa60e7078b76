"""Names that are misspelt: the nearest that there is, is proposed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.settings import Settings, did_you_mean, unknown_remarks


def test_a_variable_is_told_with_the_nearest() -> None:
    assert unknown_remarks({"SATFS_CONTRACT": "x", "SATFS_ZZZZZZ": "x"}) == [
        "SATFS_CONTRACT is set, and is not a setting of satfs"
        " (the nearest name is SATFS_CONTRACT_ID).",
        "SATFS_ZZZZZZ is set, and is not a setting of satfs.",
    ]


@pytest.mark.parametrize("name", list(Settings.__struct_fields__))
def test_a_letter_too_many_is_recognized(name: str) -> None:
    assert did_you_mean(f"{name}x", Settings.__struct_fields__) == f" (the nearest name is {name})"


@given(st.text(), st.lists(st.text()))
def test_only_what_there_is_is_proposed(name: str, known: list[str]) -> None:
    told = did_you_mean(name, known)

    assert not told or any(told == f" (the nearest name is {each})" for each in known)
