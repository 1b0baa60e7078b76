"""Every failure has an exit code, and most have a remedy."""

import inspect

import pytest

from satfs import errors
from satfs.cli.exits import MEANINGS, Exit, cause, exit_code, remedy
from satfs.errors import (
    BadCache,
    BadMountpoint,
    BadSettings,
    DeadlineReached,
    FuseMissing,
    Garbled,
    Misuse,
    NeedsContract,
    NeedsLogin,
    NotThere,
    SatfsError,
    Throttled,
)

ALL = [
    thing
    for _, thing in inspect.getmembers(errors, inspect.isclass)
    if issubclass(thing, SatfsError)
]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadSettings("x"), 2),
        (NeedsLogin("x"), 3),
        (NeedsContract("x"), 3),
        (DeadlineReached("x"), 4),
        (Throttled("x"), 4),
        (BadMountpoint("x"), 5),
        (FuseMissing("x"), 6),
        (BadCache("x"), 7),
        (Garbled("x"), 8),
        (NotThere("x"), 8),
        (Misuse("x"), 1),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_are_a_promise(error: BaseException, code: int) -> None:
    """Scripts tell failures apart by these numbers: they never change."""
    assert exit_code(error) == code


@pytest.mark.parametrize("error", ALL)
def test_no_failure_passes_for_success(error: type[SatfsError]) -> None:
    assert exit_code(error("x")) is not Exit.DONE


@pytest.mark.parametrize("code", Exit)
def test_every_code_is_explained(code: Exit) -> None:
    assert MEANINGS[code]


def test_a_contract_and_a_login_are_remedied_differently() -> None:
    assert "SATFS_CONTRACT_ID" in (remedy(NeedsContract("x")) or "")
    assert "SATFS_CLIENT_SECRET" in (remedy(NeedsLogin("x")) or "")
    assert remedy(ValueError("x")) is None


def test_out_of_a_group_our_own_error_is_told() -> None:
    """A nursery wraps what its children raise, often together with what that led to."""
    ours = NeedsLogin("x")
    group = BaseExceptionGroup("a", [ValueError("y"), ExceptionGroup("b", [OSError(), ours])])

    assert cause(group) is ours
    assert cause(ours) is ours


def test_out_of_a_group_without_ours_the_first_is_told() -> None:
    first = ValueError("y")

    assert cause(ExceptionGroup("a", [first, OSError()])) is first
