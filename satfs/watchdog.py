"""Notice an event loop that stalls, and wake it where that is possible.

One thread serves the whole mount, so code that blocks it blocks all programs. Two causes:

- A bug of ours: something waits or computes on the loop. `Watchdog` logs where.
- A gap in the binding. pyfuse3 waits until the kernel has a request and then reads it. If the
  process that sent it is killed in between, the request is lost and the read waits for the next
  one, with the interpreter locked: nothing else runs, and no thread could help. A signal can: it
  ends the read with EINTR, and pyfuse3 goes on. So a timer sends one a few times a second.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

#: A loop that did not turn for this long has stalled, in seconds.
STALL_S: Final = 1.0
#: How often the loop shows that it turns, and how often that is looked at, in seconds.
_BEAT_S: Final = STALL_S / 4
#: Longest time a read of a request that is gone can take, in seconds.
_INTERRUPT_S: Final = 0.25
#: A machine that slept for longer than this, in seconds, has lost its connections.
_SLEPT_S: Final = 5.0


class Watchdog:
    """Watches the loop it runs on. *on_wake* is called when the machine has slept in between."""

    def __init__(self, on_wake: Callable[[], None]) -> None:
        self._on_wake = on_wake
        self._beat_s = time.monotonic()
        self._ended = threading.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        watcher = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), name="satfs-watchdog", daemon=True
        )
        asleep_s = _asleep_s()
        with _interrupts():
            watcher.start()
            try:
                while True:
                    self._beat_s = time.monotonic()
                    await trio.sleep(_BEAT_S)
                    before_s, asleep_s = asleep_s, _asleep_s()
                    if asleep_s - before_s > _SLEPT_S:
                        log.info("machine woke up", asleep_s=round(asleep_s - before_s))
                        self._on_wake()
            finally:
                self._ended.set()

    def _watch(self, thread_id: int) -> None:
        reported_beat_s = 0.0
        while not self._ended.wait(_BEAT_S):
            beat_s = self._beat_s
            stalled_s = time.monotonic() - beat_s
            if stalled_s < STALL_S + _BEAT_S or beat_s == reported_beat_s:
                continue
            reported_beat_s = beat_s
            frame = sys._current_frames().get(thread_id)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
            log.warning("event loop stalled", stalled_s=round(stalled_s, 1), stack=stack)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Have a signal arrive each `_INTERRUPT_S` seconds, which does nothing but interrupt."""

    def do_nothing(number: int, frame: FrameType | None) -> None:
        pass

    before = signal.signal(signal.SIGALRM, do_nothing)
    signal.setitimer(signal.ITIMER_REAL, _INTERRUPT_S, _INTERRUPT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _asleep_s() -> float:
    """Return how long the machine has slept since it was started, in seconds (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
