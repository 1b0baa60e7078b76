"""The requests of the kernel that are in progress: their deadlines, and how all of them end."""

from __future__ import annotations

from types import TracebackType

import trio

from satfs.errors import DeadlineReached


class Closing(Exception):
    """The mount is being taken down: every call fails."""


class PendingCall:
    """One call in flight: a context manager for its body, made by `PendingCalls.within`."""

    __slots__ = ("_calls", "deadline_s", "scope")

    def __init__(self, calls: PendingCalls, deadline_s: float) -> None:
        self._calls = calls
        self.deadline_s = deadline_s
        self.scope = trio.CancelScope(deadline=trio.current_time() + deadline_s)

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
        self._scopes: set[trio.CancelScope] = set()
        self._closing = trio.Event()
        self._all_ended = trio.Event()

    def __len__(self) -> int:
        """Return how many calls are in flight."""
        return len(self._scopes)

    def within(self, deadline_s: float) -> PendingCall:
        """Return a context manager for one call, which may take *deadline_s* seconds.

        It raises:
            DeadlineReached: the time was up.
            Closing: the mount is being taken down.
        """
        return PendingCall(self, deadline_s)

    def begin(self, call: PendingCall) -> None:
        """Add a call; raises `Closing` once the mount is being taken down."""
        if self._closing.is_set():
            raise Closing
        self._scopes.add(call.scope)

    def end_of(self, call: PendingCall) -> None:
        """Remove a call; raises `DeadlineReached` or `Closing` if that has ended it."""
        self._scopes.discard(call.scope)
        if self._closing.is_set() and not self._scopes:
            self._all_ended.set()
        if call.scope.cancelled_caught:
            if self._closing.is_set():
                raise Closing
            raise DeadlineReached(f"no response within {call.deadline_s:g} s")

    async def end(self) -> None:
        """Cancel every call, refuse every new one, and wait until all have ended."""
        self._closing.set()
        for scope in self._scopes:
            scope.cancel()
        if self._scopes:
            await self._all_ended.wait()
