"""Every failure has an exit code, and most have a remedy."""

import inspect

import pytest

from satfs import errors
from satfs.cli.exit_codes import MEANINGS, Exit, exit_code, failure_of, remedy
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
    """Scripts distinguish failures by these numbers: they never change."""
    assert exit_code(error) == code


@pytest.mark.parametrize("error", ALL)
def test_no_failure_passes_for_success(error: type[SatfsError]) -> None:
    assert exit_code(error("x")) is not Exit.DONE


@pytest.mark.parametrize("code", Exit)
def test_every_code_is_explained(code: Exit) -> None:
    assert MEANINGS[code]


def test_what_to_do_is_said_where_the_error_does_not_know() -> None:
    assert "My Profile" in (remedy(NeedsLogin("x")) or "")
    assert "SATFS_API_URL" in (remedy(DeadlineReached("x")) or "")
    assert remedy(BadMountpoint("x")) is None


def test_a_failure_is_told_by_its_own_sentence() -> None:
    failure = failure_of(NeedsLogin("the API refuses the credential"))

    assert failure.sentence == "the API refuses the credential"
    assert failure.code == 3
    assert failure.details is None


def test_out_of_a_group_one_failure_is_told() -> None:
    """A nursery wraps what its children raise, often together with what that led to."""
    group = BaseExceptionGroup("a", [DeadlineReached("slow"), ExceptionGroup("b", [Misuse("no")])])

    assert "Misuse: no" in failure_of(group).sentence
    assert failure_of(ExceptionGroup("a", [Throttled("wait")])).sentence == "wait"


@pytest.mark.parametrize("bug", [Misuse("no such handle"), ZeroDivisionError("division by zero")])
def test_a_bug_is_called_one(bug: Exception) -> None:
    failure = failure_of(bug)

    assert failure.code == 1
    assert str(bug) in failure.sentence
    assert "bug" in (failure.remedy or "")


def test_the_traceback_is_there_for_those_who_ask() -> None:
    def inner() -> None:
        raise NeedsLogin("x")

    try:
        inner()
    except NeedsLogin as error:
        failure = failure_of(error, with_details=True)

    assert "in inner" in (failure.details or "")
