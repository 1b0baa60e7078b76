"""Messages arrive over the control socket as they were sent; nonsense is recognised."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs import errors
from satfs.control.protocol import (
    Alive,
    ControlRequest,
    Done,
    Failed,
    LineSplitter,
    Message,
    Notice,
    error_of,
    failed,
    message_line,
    message_of,
    request_line,
    request_of,
)
from satfs.errors import Garbled, Misuse, SatfsError

#: Text as paths have it: also what is no Unicode (PEP 383).
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\udc80\udcff\n\0"))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=4)
MESSAGES: st.SearchStrategy[Message] = (
    st.builds(Alive)
    | st.builds(Notice, OBJECT)
    | st.builds(Done, OBJECT)
    | st.builds(Failed, TEXT, TEXT)
)


@given(TEXT, OBJECT)
def test_a_request_arrives_as_it_left(do: str, given: dict[str, Any]) -> None:
    line = request_line(ControlRequest(do, given))
    assert line.index(b"\n") == len(line) - 1
    assert request_of(line) == ControlRequest(do, given)


@given(MESSAGES)
def test_a_message_arrives_as_it_left(message: Message) -> None:
    line = message_line(message)
    assert line.index(b"\n") == len(line) - 1
    assert message_of(line) == message


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_lines_are_the_same_however_they_are_cut(messages: list[Message], data: Any) -> None:
    """A socket delivers pieces of any length."""
    sent = b"".join(map(message_line, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    lines = LineSplitter(len(sent) + 1)
    came: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        came += lines.feed(sent[start:stop])
    assert [message_of(line) for line in came] == messages


@given(st.binary(max_size=60))
def test_nonsense_is_told_as_such(line: bytes) -> None:
    """Any bytes are a request, a message or `Garbled`, and nothing else."""
    for read in (request_of, message_of):
        with contextlib.suppress(Garbled):
            read(line)


def test_another_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(Garbled, match="mount again"):
        request_of(b'{"satfs": 2, "do": "list", "with": {}}')


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    lines = LineSplitter(100)
    lines.feed(b"x" * 90)
    with pytest.raises(Garbled):
        lines.feed(b"x" * 20)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, SatfsError) and kind is not Misuse
    ],
)
def test_an_error_arrives_as_one_of_its_class(kind: type[SatfsError]) -> None:
    """The class decides the exit code: a command and a mount must mean the same."""
    arrived = error_of(failed(kind("why it failed")))
    assert type(arrived) is kind
    assert str(arrived) == "why it failed"


def test_the_words_of_a_bug_stay_in_the_log() -> None:
    """They may quote anything."""
    assert "secret" not in failed(Misuse("secret")).message


def test_an_error_nobody_knows_is_a_bug() -> None:
    assert type(error_of(Failed("NoSuchError", "x"))) is Misuse
    assert type(error_of(Failed("annotations", "x"))) is Misuse
