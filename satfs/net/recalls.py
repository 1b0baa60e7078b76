"""Requests that are taken back from connections that are being opened, for others that are ready.

A host that lets few connections through may make new ones wait. A request on one of these waits as
well, while connections that respond fetch ranges that are needed later. A request that was not sent
can be taken back at no cost; another request uses the new connection when it is open.

*Pure*: moments are seconds of any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias

#: Order in which requests get connections, the smallest first.
Rank: TypeAlias = tuple[int, int]

#: How long a connection that is ready is kept for requests that are being taken back, in seconds:
#: an order to a worker and its report take a millisecond, and some ten on a busy machine.
KEPT_S: Final = 0.05


class PermittedRequest(Protocol):
    """A request that was given a connection (a `Permit`).

    Attributes:
        rank: its order among all requests, which may change; None for one that has none.
        recall: takes it back, unless it was sent; None where that cannot be found out.
        is_recalled: that was tried.
    """

    rank: Callable[[], Rank] | None
    recall: Callable[[], None] | None
    is_recalled: bool

    @property
    def is_opening(self) -> bool:
        """Return whether its connection has never responded so far."""


def to_recall(
    requests: Iterable[PermittedRequest], before: Rank | None, max_requests: int | None
) -> list[PermittedRequest]:
    """Return those of *requests* to take back, the first of them: *max_requests* at most.

    Of those that come before the rank *before*, or of all, each once.
    """
    ranked: list[tuple[Rank, int, PermittedRequest]] = []
    for number, each in enumerate(requests):
        if each.recall and each.rank and not each.is_recalled and each.is_opening:
            rank = each.rank()
            if before is None or rank < before:
                ranked.append((rank, number, each))
    return [each for _, _, each in sorted(ranked)[:max_requests]]


class Recalls:
    """The requests of one host that are being taken back now."""

    def __init__(self) -> None:
        self._ordered: set[PermittedRequest] = set()  # not reported on yet
        self._n_coming = 0  # taken back, and not waiting for a connection yet
        self._until_s = -math.inf
        #: When connections were begun to be opened, of which the requests were taken back.
        self.left_openings_s: list[float] = []

    @property
    def is_idle(self) -> bool:
        """Return whether nothing was ordered that has not been reported, and nothing comes."""
        return not (self._ordered or self._n_coming)

    def order(self, requests: Iterable[PermittedRequest], now_s: float) -> None:
        """Take *requests* back, as far as they have not been sent."""
        for each in requests:
            each.is_recalled = True
            self._ordered.add(each)
            self._until_s = now_s + KEPT_S
            if each.recall is not None:
                each.recall()

    def reported(self, request: PermittedRequest, *, is_taken_back: bool) -> None:
        """Note the outcome of the order to take *request* back."""
        if request in self._ordered:
            self._ordered.remove(request)
            self._n_coming += is_taken_back

    def came(self) -> None:
        """Note that one that was taken back waits for a connection."""
        self._n_coming = max(0, self._n_coming - 1)

    def keep_ready(self, now_s: float, *, is_moved: bool) -> bool:
        """Return whether connections that are ready are kept for those that are taken back.

        *is_moved*: for a request that was taken from another connection. It waits for the others
        that are ordered, which may become part of it.
        """
        if now_s >= self._until_s:
            self._ordered.clear()
            self._n_coming = 0
        return bool(self._ordered) or (self._n_coming > 0 and not is_moved)
