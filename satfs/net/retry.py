"""Decides whether to try a failed request again, and how long to wait before.

*Pure*: `net/retry_loop.py` does the waiting. Nothing is tried again unless it is named here.

Waits are "full jitter": a random time between 0 and a limit that doubles with each failure. Of the
usual schemes it makes the fewest calls while the other side is overloaded, since callers that
failed together try again at different times (AWS Architecture Blog, "Exponential Backoff And
Jitter").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC

from satfs.errors import Garbled, Throttled, Unreachable
from satfs.net.login_refusals import LoginForgotten

#: Statuses after which the same request may be accepted: it came too slowly for a server, over a
#: connection that leads to another one, or too early in TLS (408 and 421, RFC 9110 §15.5.9 and
#: §15.5.20; 425, RFC 8470 §5.2); another operation is in the way (409 and 423, RFC 9110 §15.5.10,
#: RFC 4918 §11.3; S3 has 409 OperationAborted); the gateway's throttling, its backend's failures. A
#: 202 means that the requested data is being made (RFC 9110 §15.3.3; the older delivery service
#: built archives so). The others are in no RFC: content delivery networks send them where the host
#: behind them did not respond properly (520 to 524 and 530 of Cloudflare, 529 for a host that is
#: overloaded), and proxies send them for a read or connection that timed out (598, 599).
PASSING_STATUSES = frozenset(
    {202, 408, 409, 421, 423, 425, 500, 502, 503, 504}
    | {520, 521, 522, 523, 524, 529, 530}
    | {598, 599}
)
RETRIED_STATUSES = PASSING_STATUSES | {429}
#: Number of garbled responses in a row after which the request is tried again.
MAX_GARBLED = 2

#: Limit of the first wait, in seconds. The sum of the limits passes the metadata deadline (15 s) at
#: the seventh try, so that requests survive an outage of ten seconds without many retries.
BASE_S = 0.25
#: Limit of every later wait, in seconds: recovery is noticed within about this.
CAP_S = 4.0


def failure_for(
    status: int, headers: Mapping[str, str], detail: str, *, now_s: float
) -> Unreachable:
    """Return the error for a retried status or another 5xx, ready to be raised.

    *headers* have lower-case names; *detail* is the whole message; *now_s* is wall-clock seconds.
    A 429, and a 503 with a `Retry-After`, is `Throttled`. A 5xx that is not named above
    (501, 505, …) is permanent.
    """
    stated_s = retry_after_s(headers, now_s=now_s)
    if status == 429 or (status == 503 and stated_s is not None):
        return Throttled(detail, retry_after_s=stated_s)
    return Unreachable(detail, is_permanent=status not in RETRIED_STATUSES)


def is_worth_another_try(failure: BaseException, *, n_garbled: int) -> bool:
    """Return whether the same request may succeed next time.

    *n_garbled* counts the garbled responses so far, this one included. After a few of them the
    request is tried again: a load balancer's HTML page or a cut body is gone a moment later; a bug
    of the vendor is not.
    """
    if isinstance(failure, Unreachable):
        return not failure.is_permanent
    return isinstance(failure, Garbled) and n_garbled <= MAX_GARBLED


def wait_before_next_s(n_failed: int, failure: BaseException | None, draw: float) -> float:
    """Return seconds to wait after *n_failed* failures (at least 1), the last being *failure*.

    *draw* is a random number in [0, 1). Never less than what the other side requires, or what is
    left until a proxy gets a login again; above that, a little more for some than for others.
    """
    # The exponent is bounded because 2**2000 is no float.
    limit_s = min(CAP_S, BASE_S * 2.0 ** min(n_failed - 1, 30))
    stated_s = failure.retry_after_s if isinstance(failure, Throttled) else None
    if isinstance(failure, LoginForgotten):
        return failure.wait_s + draw * BASE_S
    if stated_s is not None:
        return max(stated_s + draw * BASE_S, draw * limit_s)
    return draw * limit_s


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return the seconds that a response requires to wait, None where it requires no wait.

    *headers* have lower-case names. A date in `Retry-After` is one of the sender's clock, which the
    `Date` of the same response shows; without that, *now_s* (wall-clock seconds) stands in.
    """
    stated = headers.get("retry-after")
    if stated is None:
        return None
    sent_at_s = _moment(headers.get("date", ""))
    return parse_retry_after(stated, now_s=now_s if sent_at_s is None else sent_at_s)


def parse_retry_after(value: str | None, *, now_s: float) -> float | None:
    """Return the seconds that a `Retry-After` requires (RFC 9110 §10.2.3), else None.

    Takes seconds or an HTTP date; a date in the past is 0; what is neither counts as absent.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        moment_s = _moment(text)
        return None if moment_s is None else max(0.0, moment_s - now_s)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _moment(text: str) -> float | None:
    """Return an HTTP date as seconds since the epoch."""
    # Few processes meet such a date, and a worker starts while a reader waits.
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
