"""The calls that wait for an answer: when each must have one, and how all of them end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from satfs.errors import DeadlineReached


class Closing(Exception):
    """The mount is being taken down: no call is answered from the tree any more."""


class Calls:
    """Every call in flight, each with its deadline.

    The kernel cannot kill a process that waits for an answer, so no call may go without one: each
    ends by itself, at its deadline, or when the mount is taken down.
    """

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._closing = trio.Event()
        self._all_ended = trio.Event()

    def __len__(self) -> int:
        """Return how many calls are in flight."""
        return len(self._scopes)

    @contextmanager
    def within(self, deadline_s: float) -> Iterator[None]:
        """Run the body of one call for at most *deadline_s* seconds.

        Raises:
            DeadlineReached: the time was up.
            Closing: the mount is being taken down.
        """
        if self._closing.is_set():
            raise Closing
        scope = trio.CancelScope(deadline=trio.current_time() + deadline_s)
        self._scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)
            if self._closing.is_set() and not self._scopes:
                self._all_ended.set()
        if scope.cancelled_caught:
            if self._closing.is_set():
                raise Closing
            raise DeadlineReached(f"no answer within {deadline_s:g} s")

    async def end(self) -> None:
        """Cancel every call, refuse every new one, and wait until all have ended."""
        self._closing.set()
        for scope in self._scopes:
            scope.cancel()
        if self._scopes:
            await self._all_ended.wait()
