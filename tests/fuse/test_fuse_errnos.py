"""The errno table: complete, and read the same for groups."""

import errno
import inspect

import pytest

from satfs import errors
from satfs.fuse.errnos import BUG, ERRNOS, errno_of, gravest_of, is_result

ALL = [
    thing
    for _, thing in inspect.getmembers(errors, inspect.isclass)
    if issubclass(thing, errors.SatfsError)
]


@pytest.mark.parametrize("error", [cls for cls in ALL if cls is not errors.SatfsError])
def test_every_error_has_an_errno(error: type[errors.SatfsError]) -> None:
    """Each error of ours reaches a user as an errno that was chosen for it."""
    assert any(cls in ERRNOS for cls in error.__mro__)
    assert errno_of(error("x")) == next(ERRNOS[cls] for cls in error.__mro__ if cls in ERRNOS)


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (errors.NotThere("x"), errno.ENOENT),
        (errors.NotAllowed("x"), errno.EACCES),
        (errors.NeedsLogin("x"), errno.EACCES),
        (errors.NeedsContract("x"), errno.EACCES),
        (errors.Encrypted("x"), errno.EACCES),
        (errors.OverEgressLimit("x"), errno.EDQUOT),
        (errors.TooManyOpen("x"), errno.ENFILE),
        (errors.Changed("x"), errno.ESTALE),
        (errors.Unreachable("x"), errno.EIO),
        (errors.DeadlineReached("x"), errno.ETIMEDOUT),
        (errors.Throttled("x"), errno.EIO),
        (errors.Garbled("x"), errno.EIO),
        (errors.Damaged("x"), errno.EIO),
        (errors.Unsupported("x"), errno.EOPNOTSUPP),
        (errors.Unneeded("x"), errno.ECANCELED),
        (errors.Misuse("x"), errno.EIO),
        (errors.BadSettings("x"), errno.EIO),
        (ZeroDivisionError("x"), errno.EIO),
    ],
)
def test_errnos_are_these(failure: Exception, number: int) -> None:
    """Programs act on errnos: they stay as they are."""
    assert errno_of(failure) == number


def test_a_child_of_an_error_has_its_parents_errno() -> None:
    """A subclass that is added outside of `errors.py` is not a bug in disguise."""

    class Sunk(errors.Changed):
        pass

    assert errno_of(Sunk("x")) == errno.ESTALE


def test_a_group_is_the_gravest_of_its_members() -> None:
    """Where tasks failed together, the answer is of the failure that matters most."""
    answer, failure = errors.NotThere("x"), errors.Unreachable("y")
    bug = KeyError("z")
    assert gravest_of(ExceptionGroup("", [answer, failure])) is failure
    nested = ExceptionGroup("", [answer, ExceptionGroup("", [failure, ExceptionGroup("", [bug])])])
    assert gravest_of(nested) is bug
    assert errno_of(nested) == BUG
    assert errno_of(ExceptionGroup("", [answer, answer])) == errno.ENOENT


def test_answers_are_nobodys_fault() -> None:
    """That a name is not there, or that nobody needs the bytes, is no failure to log."""
    assert is_result(errors.NotThere("x"))
    assert is_result(errors.Unneeded("x"))
    assert not is_result(errors.Unreachable("x"))
    assert not is_result(errors.Unsupported("x")), "no errno names the method, or the remedy"
    assert not is_result(KeyError("x"))
