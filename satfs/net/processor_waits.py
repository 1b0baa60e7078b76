"""How long the event loop had no processor: time in which no host can be found silent.

On a busy machine the loop's thread is ready to run for seconds and does not. Responses have come by
then, and are read too late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Share of an operation's time without a processor from which on it shows nothing about the host.
STARVED_SHARE: Final = 0.5


def waited_s() -> float:
    """Return how long this thread has waited for a processor; 0.0 where the kernel counts none."""
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
