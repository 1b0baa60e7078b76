"""The clock: how wrong it is by a `Date`, and from when on that matters."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.fetch.links import MARGIN_S
from satfs.doctor.connection_steps import NOTE_FROM_S, WARN_FROM_S, clock_finding, skew_s
from satfs.doctor.findings import Severity

NOON_S = 1_790_000_000.0


@given(
    true_s=st.floats(1e9, 4e9),
    ahead_s=st.floats(-1e6, 1e6),
    before_s=st.floats(0, 10),
    after_s=st.floats(0, 10),
)
def test_the_difference_is_found_to_the_second_and_the_answers_time(
    true_s: float, ahead_s: float, before_s: float, after_s: float
) -> None:
    """However long the answer took, and wherever in its second the Date was written."""
    found = skew_s(
        formatdate(true_s, usegmt=True),
        sent_at_s=true_s - before_s + ahead_s,
        received_at_s=true_s + after_s + ahead_s,
    )

    assert found is not None
    assert abs(found - ahead_s) <= 1 + before_s + after_s + 1e-3
    # A clock that may be right counts as right, and no difference is made larger than it is.
    assert abs(found) <= abs(ahead_s) + 1e-3


@given(st.text() | st.sampled_from(["Thu, 32 Jan 2026 00:00:00 GMT", "0", "Mon, 1 Jan 99999"]))
def test_what_is_no_date_tells_nothing(text: str) -> None:
    found = skew_s(text, sent_at_s=NOON_S, received_at_s=NOON_S)

    assert found is None or isinstance(found, float)


def test_an_answer_out_of_a_proxys_cache_is_as_old_as_it_says() -> None:
    """Age is the time since the origin wrote the Date (RFC 9111 §5.1)."""
    date = formatdate(NOON_S - 3600, usegmt=True)

    fresh = skew_s(date, sent_at_s=NOON_S, received_at_s=NOON_S)
    cached = skew_s(date, sent_at_s=NOON_S, received_at_s=NOON_S, age="3600")

    assert fresh == pytest.approx(3600, abs=2)
    assert cached == 0
    assert skew_s(date, sent_at_s=NOON_S, received_at_s=NOON_S, age="a day") == fresh


@given(st.floats(-1e12, 1e12))
def test_the_amounts_that_count_are_those_documented(ahead_s: float) -> None:
    severity = clock_finding(ahead_s).severity

    expected = (
        Severity.OK
        if abs(ahead_s) < NOTE_FROM_S
        else Severity.NOTE
        if abs(ahead_s) < WARN_FROM_S
        else Severity.WARNING
    )
    assert severity is expected


def test_it_is_warned_from_the_margin_that_links_have() -> None:
    """Up to it satfs renews a link in time; from there on the store refuses some."""
    assert WARN_FROM_S == MARGIN_S


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [
        (7200.0, "2 hours ahead of"),
        (-90.0, "90 s behind"),
        (-600.0, "10 minutes behind"),
        (864000.0, "10 days ahead of"),
    ],
)
def test_the_difference_is_told_with_its_direction(ahead_s: float, words: str) -> None:
    assert clock_finding(ahead_s).statement == f"The clock is {words} the API's."


def test_without_a_date_nobody_knows() -> None:
    finding = clock_finding(None)

    assert finding.severity is Severity.NOTE
    assert finding.commands == ("timedatectl status",)
