"""The requests of the kernel that are in progress: their deadlines, and how all of them end.

The deadline of a read limits the time without bytes from the store, and is postponed by the time in
which bytes came: many readers of a slow line, or of a busy machine, wait for each other. A read
whose own range is silent ends before, by the limit of the range (`content/fetch/failures.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

import trio

from satfs.errors import DeadlineReached

#: How often the deadlines are checked, in seconds: a small part of the shortest of them.
LOOK_S: Final = 0.5


class Closing(Exception):
    """The mount is being taken down: every call fails."""


class PendingCall:
    """One call in flight: a context manager for its body, made by `PendingCalls.within`."""

    __slots__ = ("_calls", "_more_s", "deadline_s", "is_read", "scope")

    def __init__(self, calls: PendingCalls, deadline_s: float, *, is_read: bool) -> None:
        self._calls = calls
        self.deadline_s = self._more_s = deadline_s
        self.is_read = is_read
        self.scope = trio.CancelScope(deadline=trio.current_time() + deadline_s)

    def postpone(self, seconds: float) -> None:
        """Allow *seconds* more; in sum at most as many as were allowed at first."""
        seconds = min(seconds, self._more_s)
        self._more_s -= seconds
        self.scope.deadline += seconds

    def __enter__(self) -> None:
        self._calls.begin(self)
        self.scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        reason: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return self.scope.__exit__(kind, reason, traceback)
        finally:
            self._calls.end_of(self)


class PendingCalls:
    """Every call in flight, each with its deadline.

    The kernel cannot kill a process that waits for a reply, so every call gets one: it ends by
    itself, at its deadline, or when the mount is taken down.
    """

    def __init__(self) -> None:
        self._calls: set[PendingCall] = set()
        self._closing = trio.Event()
        self._all_ended = trio.Event()

    def __len__(self) -> int:
        """Return how many calls are in flight."""
        return len(self._calls)

    def within(self, deadline_s: float, *, is_read: bool = False) -> PendingCall:
        """Return a context manager for one call, which may take *deadline_s* seconds.

        A read may take twice that at most, where `watch` runs.

        It raises:
            DeadlineReached: the time was up.
            Closing: the mount is being taken down.
        """
        return PendingCall(self, deadline_s, is_read=is_read)

    def begin(self, call: PendingCall) -> None:
        """Add a call; raises `Closing` once the mount is being taken down."""
        if self._closing.is_set():
            raise Closing
        self._calls.add(call)

    def end_of(self, call: PendingCall) -> None:
        """Remove a call; raises `DeadlineReached` or `Closing` if that has ended it."""
        self._calls.discard(call)
        if self._closing.is_set() and not self._calls:
            self._all_ended.set()
        if call.scope.cancelled_caught:
            if self._closing.is_set():
                raise Closing
            raise DeadlineReached(f"no response within {call.deadline_s:g} s")

    async def watch(self, received_bytes: Callable[[], float]) -> None:
        """Postpone the deadlines of reads until cancelled.

        *received_bytes* returns how many bytes have come from the store since any one moment.
        """
        n_bytes = received_bytes()
        while True:
            began_s = trio.current_time()
            await trio.sleep(LOOK_S)
            passed_s = trio.current_time() - began_s
            n_before, n_bytes = n_bytes, received_bytes()
            if n_bytes > n_before:
                for call in self._calls:
                    if call.is_read:
                        call.postpone(passed_s)

    async def end(self) -> None:
        """Cancel every call, refuse every new one, and wait until all have ended."""
        self._closing.set()
        for call in self._calls:
            call.scope.cancel()
        if self._calls:
            await self._all_ended.wait()
