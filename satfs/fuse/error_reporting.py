"""Log why requests failed: one line for each episode, an errno for each request."""

from __future__ import annotations

import errno
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Final

import structlog
from cachetools import TTLCache
from msgspec import Struct
from msgspec.structs import replace

from satfs.errors import Misuse, SatfsError, TooManyOpen
from satfs.fuse.errnos import errno_of, gravest_of, is_result
from satfs.process_limits import is_exhausted

log = structlog.get_logger(__name__)

#: An episode is over when it did not repeat for this long, in seconds. Programs retry every few
#: seconds; a minute later a user tries again.
QUIET_S: Final = 60.0
#: Episodes remembered. More at once means that everything fails: one is then logged twice.
_MAX_EPISODES: Final = 4096
#: By number, as in the table of SEMANTICS: where two names have one number, Python uses the other
#: name.
_NAMES: Final = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
#: Failures shown in `.satfs/` and `satfs status`.
MAX_RECENT: Final = 50


class FailureReport(Struct, frozen=True):
    """One failure that a program got, and how often in a row. *at_s* is wall clock."""

    at_s: float
    operation: str
    path: str
    errno: str
    kind: str
    reason: str
    times: int = 1


class ErrorReporter:
    """Turns failures into errnos, and logs those that a user can do something about.

    The same operation failing on the same path for the same kind of reason is one episode, as long
    as no quiet minute lies between two of its failures, and makes one line.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        #: The last failures that programs got, and the number of times for each errno.
        self.recent: deque[FailureReport] = deque(maxlen=MAX_RECENT)
        self.counters: Counter[str] = Counter()
        self._running: TTLCache[Hashable, None] = TTLCache(_MAX_EPISODES, QUIET_S, timer=clock)

    def errno_for(self, operation: str, path: str, failure: Exception) -> int:
        """Return the error for the caller of *operation* on *path*; log its reason, once."""
        gravest = gravest_of(failure)
        if is_exhausted(gravest):
            gravest = TooManyOpen("no descriptor is left")
        number = errno_of(gravest)
        name = _NAMES[number]
        kind = type(gravest).__name__
        self.counters[name] += 1
        if is_result(gravest):
            log.debug("refused", operation=operation, path=path, errno=name, error=kind)
            return number
        episode = (operation, path, kind)
        is_first = episode not in self._running
        sentence = (
            str(gravest) if isinstance(gravest, SatfsError) else "a bug in satfs; the log has it"
        )
        self._note(FailureReport(time.time(), operation, path, name, kind, sentence))
        self._running[episode] = None  # also for a known episode: its quiet minute starts again
        if not is_first:
            return number
        cause = gravest.__cause__
        fields = {
            "operation": operation,
            "path": path,
            "errno": name,
            "error": kind,
            "cause": type(cause).__name__ if cause is not None else None,
        }
        if isinstance(gravest, SatfsError):
            fields["reason"] = str(gravest)
        if isinstance(gravest, SatfsError) and not isinstance(gravest, Misuse):
            log.error("call failed", **fields)
        else:
            # A foreign error's message may quote its input, a link for instance: the lines of code
            # that led to it are enough to find the bug.
            stack = "".join(traceback.format_tb(gravest.__traceback__))
            log.error("call failed by a bug in satfs", **fields, stack=stack)
        return number

    def _note(self, failure_report: FailureReport) -> None:
        """Keep *failure_report* to be shown; one that repeats the last one is only counted."""
        last = self.recent[-1] if self.recent else None
        if last is not None and (last.operation, last.path, last.kind) == (
            failure_report.operation,
            failure_report.path,
            failure_report.kind,
        ):
            self.recent[-1] = replace(failure_report, times=last.times + 1)
        else:
            self.recent.append(failure_report)
