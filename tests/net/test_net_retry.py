"""Which failures are tried again, and when."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs import errors
from satfs.errors import Garbled, SatfsError, Throttled, Unreachable
from satfs.net import retry

NOW_S = datetime(2026, 2, 5, 10, 15, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("status", sorted(retry.RETRIED_STATUSES))
def test_what_passes_is_worth_another_try(status: int) -> None:
    """429 and the gateway's failures."""
    failure = retry.failure_for(status, {}, "label", now_s=NOW_S)
    assert retry.is_worth_another_try(failure, n_garbled=0)
    assert isinstance(failure, Throttled) == (status == 429)


@pytest.mark.parametrize("status", [501, 505, 507, 511, 526])
def test_other_failures_of_a_server_last(status: int) -> None:
    """A method that is not implemented will not be implemented in a second."""
    failure = retry.failure_for(status, {}, "label", now_s=NOW_S)
    assert not retry.is_worth_another_try(failure, n_garbled=0)


def test_nothing_else_is_tried_again() -> None:
    """Retry only what is named: every other error of ours, and everybody else's, is final."""
    named = (Unreachable, errors.DeadlineReached, errors.Unfinished, Throttled)
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, SatfsError) and error is not Garbled:
            worth = retry.is_worth_another_try(error("x"), n_garbled=0)
            assert worth == (error in named), error
    assert not retry.is_worth_another_try(ValueError(), n_garbled=0)
    assert not retry.is_worth_another_try(KeyboardInterrupt(), n_garbled=0)


def test_a_few_garbled_responses_are_forgiven() -> None:
    """A maintenance page is gone a moment later; a vendor's bug is not."""
    assert retry.is_worth_another_try(Garbled(), n_garbled=1)
    assert retry.is_worth_another_try(Garbled(), n_garbled=retry.MAX_GARBLED)
    assert not retry.is_worth_another_try(Garbled(), n_garbled=retry.MAX_GARBLED + 1)


def test_retry_after_is_seconds_or_a_date() -> None:
    """Both forms of RFC 9110, as the vendor and its gateway send them."""
    in_a_minute = format_datetime(datetime.fromtimestamp(NOW_S + 60, UTC), usegmt=True)
    assert retry.parse_retry_after("17", now_s=NOW_S) == 17
    assert retry.parse_retry_after(" 0.5 ", now_s=NOW_S) == 0.5
    assert retry.parse_retry_after(in_a_minute, now_s=NOW_S) == 60
    assert retry.parse_retry_after(in_a_minute, now_s=NOW_S + 100) == 0
    for nothing in (None, "", "soon", "-3", "nan", "inf", "Thu, 99 Foo 2026", "1e999"):
        assert retry.parse_retry_after(nothing, now_s=NOW_S) is None


def test_a_date_is_meant_on_the_vendors_clock() -> None:
    """Our clock may be an hour wrong; the response's own date has the present time."""

    def date(seconds: float) -> str:
        return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)

    headers = {"retry-after": date(NOW_S + 3), "date": date(NOW_S)}
    for wrong_by_s in (-3600, 0, 3600):
        failure = retry.failure_for(429, headers, "label", now_s=NOW_S + wrong_by_s)
        assert isinstance(failure, Throttled)
        assert failure.retry_after_s == 3


@given(st.text())
def test_any_retry_after_is_a_finite_wait_or_none(text: str) -> None:
    """A header is the other side's to write; it never breaks us."""
    seconds = retry.parse_retry_after(text, now_s=NOW_S)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@given(
    n_failed=st.integers(1, 10**6),
    asked_s=st.none() | st.floats(0, 1e6),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_waits_are_bounded_and_not_shorter_than_asked(
    n_failed: int, asked_s: float | None, draw: float
) -> None:
    """At least the requested wait, at most a little more; never above the cap otherwise."""
    failure = Throttled("x", retry_after_s=asked_s)
    wait_s = retry.wait_before_next_s(n_failed, failure, draw)
    assert wait_s >= (asked_s or 0)
    assert wait_s <= max(retry.CAP_S, (asked_s or 0) + retry.BASE_S)


def test_waits_grow() -> None:
    """The limit doubles with each failure, up to the cap."""
    limits = [retry.wait_before_next_s(n, None, 0.999999) for n in range(1, 8)]
    assert limits == pytest.approx([0.25, 0.5, 1, 2, 4, 4, 4], rel=1e-3)
    assert retry.wait_before_next_s(5, None, 0.0) == 0
