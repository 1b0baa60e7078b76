"""By how much this machine's clock differs from the vendor's. Decides only.

A signed link states when it expires, by the vendor's clock. satfs compares that with its own clock,
and requests another link a minute before (`satfs.content.fetch.links.MARGIN_S`). So a difference of
up to a minute has no effect. With a larger one, a clock that is:

- behind: links are used after they expired. The store refuses them, each refusal costs a request,
  and a program that sends no second request (curl with a link from elsewhere) fails.
- ahead: links count as expired too early, and those that live shorter than the difference at once;
  satfs uses each for some seconds and then requests another.

With a difference of days certificates are not valid yet, or not any more, and every connection
fails; the doctor reports that as a failure of TLS.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from satfs.content.fetch.links import MARGIN_S
from satfs.doctor.findings import Area, Check, Finding

#: A difference from this on gets a note: NTP keeps clocks within milliseconds, so NTP does not run.
#: Smaller ones may come from a `Date` in whole seconds and a slow response.
NOTE_FROM_S: Final = 5.0
#: A difference from this on makes satfs use links after they expired, or replace them too early.
WARN_FROM_S: Final = MARGIN_S

_SET_CLOCK: Final = ("timedatectl status", "sudo timedatectl set-ntp true")

_CLOCK = Check(Area.NETWORK, "clock")


def skew_s(date: str, *, sent_at_s: float, received_at_s: float, age: str = "") -> float | None:
    """Return by how many seconds our clock is ahead of the writer of *date* (negative: behind).

    *date* is a `Date` header (RFC 9110 §6.6.1), *age* the `Age` of a response from a cache.
    *sent_at_s* and *received_at_s* are by our wall clock. Of all differences that fit the header
    and the duration of the request, the one nearest to 0 is returned: a clock that may be right
    counts as right. None when *date* is not a date.
    """
    try:
        moment = parsedate_to_datetime(date)
        stated_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    if age.strip().isdecimal() and len(age) < 10:
        stated_s += int(age)
    # The store read its clock at any moment between request and response, and cut it to seconds.
    earliest_s, latest_s = sent_at_s - (stated_s + 1), received_at_s - stated_s
    if earliest_s <= 0 <= latest_s:
        return 0.0
    return min(earliest_s, latest_s, key=abs)


def finding_of(ahead_s: float | None) -> Finding:
    """Return the finding for a clock that is *ahead_s* seconds ahead; None: not known."""
    if ahead_s is None:
        return _CLOCK.note(
            "The API sends no date.",
            "So it is not known whether this machine's clock is right, which signed links need.",
            "See whether it is synchronised:",
            *_SET_CLOCK[:1],
        )
    amount_s = abs(ahead_s)
    if amount_s < NOTE_FROM_S:
        return _CLOCK.fine("The clock agrees with the API's.")
    way = "ahead of" if ahead_s > 0 else "behind"
    statement = f"The clock is {_duration(amount_s)} {way} the API's."
    if amount_s < WARN_FROM_S:
        return _CLOCK.note(
            statement,
            f"Nothing suffers below {WARN_FROM_S:.0f} s; but a clock that is off drifts on.",
            "Have it synchronised:",
            *_SET_CLOCK,
        )
    explanation = (
        "Signed links count as expired too early, and are requested again and again."
        if ahead_s > 0
        else "Signed links are used after they expired: the store refuses them, and each refusal "
        "costs a request."
    )
    return _CLOCK.warning(
        statement,
        f"{explanation} satfs allows for {WARN_FROM_S:.0f} s. Days of difference break TLS.",
        "Have it synchronised:",
        *_SET_CLOCK,
    )


def _duration(seconds: float) -> str:
    for unit_s, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.95 * unit_s:  # below, a smaller unit is more exact
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
