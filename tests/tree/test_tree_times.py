"""Times: believable dates to the nanosecond, and a safe one for all others."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.tree.times import FALLBACK_NS, time_ns

zones = st.none() | st.timezones() | st.just(timezone(timedelta(hours=14)))


@given(st.datetimes(timezones=zones))
def test_any_date_is_a_time_the_kernel_can_hold(moment: datetime) -> None:
    """A silly date falls back; no date fails, and none is before 1970."""
    assert 0 < time_ns(moment) < 2**63


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)),
)
def test_a_believable_date_is_exact(moment: datetime) -> None:
    """Microseconds arrive as sent: a backup compares times to the nanosecond."""
    seconds, nanoseconds = divmod(time_ns(moment), 10**9)
    assert datetime.fromtimestamp(seconds, UTC) == moment.replace(microsecond=0)
    assert nanoseconds == moment.microsecond * 1000


@pytest.mark.parametrize(
    "moment",
    [
        None,
        datetime.min,
        datetime.max,
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ],
)
def test_silly_dates_fall_back(moment: datetime | None) -> None:
    """The year 1, the year 9999, the epoch and no date at all are the fallback."""
    assert time_ns(moment) == FALLBACK_NS
    assert time_ns(moment, 7) == 7


def test_the_fallback_can_be_zipped_anywhere() -> None:
    """Zip holds local times from 1980 on; in no zone is the fallback before that."""
    earliest = datetime.fromtimestamp(FALLBACK_NS / 10**9, timezone(timedelta(hours=-12)))
    assert earliest >= datetime(1980, 1, 1, tzinfo=earliest.tzinfo)
