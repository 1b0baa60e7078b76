"""How long the event loop had no processor: time in which no host can be found silent.

On a busy machine the loop's thread is ready to run for seconds and does not. Responses have come by
then, and are read too late.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

#: Share of an operation's time without a processor from which on it shows nothing about the host.
STARVED_SHARE: Final = 0.5
#: How long a look counts, in seconds: much less than the time of any operation that fails.
VALID_S: Final = 0.005


_lately: Final = threading.local()  # the last look of each thread, and its outcome


def waited_s() -> float:
    """Return how long this thread has waited for a processor; 0.0 where the kernel counts none.

    As of some milliseconds ago: of many ranges that begin together, one looks.
    """
    now_s = time.monotonic()
    if now_s - getattr(_lately, "looked_at_s", -math.inf) > VALID_S:
        _lately.waited_s, _lately.looked_at_s = _looked_up_s(), now_s
    found_s: float = _lately.waited_s
    return found_s


def _looked_up_s() -> float:
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            # Nanoseconds with a processor, nanoseconds ready to run, times that it ran.
            return int(file.read(100).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class ProcessorWaits:
    """The waits of this thread from now on."""

    def __init__(self, waits_s: Callable[[], float] = waited_s) -> None:
        self._waits_s = waits_s
        self._before_s = waits_s()

    def explain(self, spent_s: float) -> bool:
        """Return whether *spent_s* passed without a response since there was no processor."""
        return self._waits_s() - self._before_s >= STARVED_SHARE * spent_s
