"""Modification times of the tree: the records' own dates, as nanoseconds the kernel can hold.

A time depends on the record alone, never on when or how it was learnt: a backup that runs twice
finds the same times, also after a remount.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The time of what has no plausible date of its own: 1980-01-02. Zip files cannot hold anything
#: before 1980-01-01 *local* time (APPNOTE 4.4.6), and Python's zipfile refuses it; a day later is
#: safe in every time zone.
FALLBACK_NS: Final = 315_619_200 * 10**9

#: The time of what is satfs's own, the directories at the top and their README: 2026-01-01. It is
#: the same in every mount, so that a second backup finds it unchanged.
TREE_NS: Final = 1_767_225_600 * 10**9

#: Plausible dates: satellites fly (1970), and nothing is delivered from after this.
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


def time_ns(date: datetime | None, fallback_ns: int = FALLBACK_NS) -> int:
    """Return *date*, if it is plausible, in nanoseconds since the epoch.

    A date without a zone is taken as UTC. The year 1, the year 9999 and everything outside 1970 to
    2200 is implausible, and *fallback_ns* is returned then.
    """
    # The year alone first: arithmetic on datetime.max with a zone overflows.
    if date is None or not _EARLIEST.year <= date.year <= _LATEST.year:
        return fallback_ns
    moment = date if date.tzinfo else date.replace(tzinfo=UTC)
    if not _EARLIEST <= moment < _LATEST:
        return fallback_ns
    elapsed = moment - _EPOCH  # integers throughout: a float would lose nanoseconds
    return ((elapsed.days * 86_400 + elapsed.seconds) * 10**6 + elapsed.microseconds) * 1000
