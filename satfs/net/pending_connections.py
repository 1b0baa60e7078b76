"""Connections that are being opened ahead of need, and the requests that wait for one of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


class OpeningAhead:
    """Counts, by origin, the connections of a pool that are opened before there is a request.

    One that is being opened was begun before a new one would be, and is counted as idle: a new one
    beside it might be one more than the host lets through. So each has one request that waits for
    it, at most.
    """

    def __init__(self) -> None:
        self._opening: defaultdict[str, list[trio.CancelScope]] = defaultdict(list)
        self._awaiting: Counter[str] = Counter()  # requests, each for one that is being opened
        self._ended = trio.Event()  # replaced whenever one is open, or has failed
        self._n_refused: Counter[str] = Counter()  # of those that are awaited

    def n_free(self, origin: str, n_open: int = 0) -> int:
        """Return how many are being opened to *origin* that no request waits for.

        *n_open* that were opened, and not used yet, are counted as well: a request that waits for
        one takes it when its task runs, a moment after it is open.
        """
        n_opening = len(self._opening.get(origin, ()))
        return max(0, n_open + n_opening - self._awaiting[origin])

    @contextmanager
    def opening(self, origin: str) -> Iterator[None]:
        """Count one more while the block opens it; then `note_ended` is to be called.

        `give_up` cancels the block, and the code after it runs.
        """
        with trio.CancelScope() as scope:
            self._opening[origin].append(scope)
            try:
                yield
            finally:
                if scope in self._opening[origin]:
                    self._opening[origin].remove(scope)

    def give_up(self, origin: str, n_connections: int) -> int:
        """Give up as many that are being opened to *origin*, or all; return how many.

        They are not counted any more from now on.
        """
        scopes = self._opening[origin]
        given_up, self._opening[origin] = scopes[:n_connections], scopes[n_connections:]
        for scope in given_up:
            scope.cancel()
        return len(given_up)

    def note_ended(self) -> None:
        """Make the requests that wait test again: a connection is open, or could not be opened."""
        self._ended.set()
        self._ended = trio.Event()

    def note_refused(self, origin: str) -> bool:
        """Note that the host refused one to *origin*; then `note_ended` is to be called.

        Returns whether a request waits for it, which learns of the refusal.
        """
        is_awaited = self._awaiting[origin] > len(self._opening[origin])
        self._n_refused[origin] += is_awaited
        return is_awaited

    async def wait(self, origin: str, is_satisfied: Callable[[], bool]) -> bool:
        """Wait while one is being opened to *origin* for this request, or until *is_satisfied*.

        Returns whether the host refused it: another one at once would be refused as well.
        """
        if not self._awaiting[origin]:
            self._n_refused.pop(origin, None)  # of requests that were given up
        while self.n_free(origin) and not is_satisfied():
            self._awaiting[origin] += 1
            try:
                await self._ended.wait()
            finally:
                self._awaiting[origin] -= 1
                self._awaiting += Counter()  # drops zeros
            if self._n_refused[origin] and not is_satisfied():
                self._n_refused[origin] -= 1
                return True
        return False
