"""The tree of errors: what a caller may rely on when it catches one."""

import inspect
import re

import pytest

from satfs import errors
from satfs.errors import (
    CannotMount,
    DeadlineReached,
    NeedsContract,
    NeedsLogin,
    NotAllowed,
    SatfsError,
    Throttled,
    Unreachable,
)

ALL = [
    thing
    for _, thing in inspect.getmembers(errors, inspect.isclass)
    if issubclass(thing, Exception)
]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_ours_to_catch(error: type[Exception]) -> None:
    """`except SatfsError` catches all that satfs raises on purpose."""
    assert issubclass(error, SatfsError)


@pytest.mark.parametrize("error", ALL)
def test_every_error_keeps_its_sentence(error: type[SatfsError]) -> None:
    assert str(error("read scene 4711: gone")) == "read scene 4711: gone"


def test_the_drawing_shows_the_tree_as_it_is() -> None:
    """The module's drawing is what people read: it names every error, below its parent."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([ │├└─]*)([A-Z]\w+)(?:  |$)", line)
        if not found or not found[1]:
            continue
        depth, name = len(found[1]), found[2]
        above = [entry for entry in above if entry[0] < depth]
        if above:
            drawn[name] = above[-1][1]
        above.append((depth, name))

    assert drawn == {
        error.__name__: error.__mro__[1].__name__ for error in ALL if error is not SatfsError
    }


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (NeedsLogin, NotAllowed),
        (NeedsContract, NotAllowed),
        (Throttled, Unreachable),
        (DeadlineReached, Unreachable),
        (errors.BadSettings, CannotMount),
        (errors.FuseMissing, CannotMount),
    ],
)
def test_a_caller_may_catch_the_wider_word(
    error: type[SatfsError], parent: type[SatfsError]
) -> None:
    with pytest.raises(parent):
        raise error("x")


def test_being_throttled_tells_for_how_long() -> None:
    assert Throttled("list tasks: slow down", retry_after_s=2.5).retry_after_s == 2.5
    assert Throttled("list tasks: slow down").retry_after_s is None
