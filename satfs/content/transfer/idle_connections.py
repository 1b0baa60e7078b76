"""The connections of one worker that no move has, by its reports and the orders to it.

*Pure*. A worker reports its idle connections, and is ordered to use, open or close some. A report
that was sent before an order was carried out does not include its effect: it may show a connection
as idle that has a move by now. A second move for this connection opens another one, which a host
that lets few connections through refuses. So each order counts from its sending on, until a report
names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from msgspec import Struct


class _Effect(Enum):
    USE = auto()
    OPEN = auto()
    CLOSE = auto()


class _Order(Struct, frozen=True):
    origin: str
    effect: _Effect
    n_connections: int


class IdleConnections:
    """Idle connections by origin: those that have responded, and others (never used, or opening).

    Orders are identified by their numbers.
    """

    def __init__(self) -> None:
        self._reported: dict[str, tuple[int, int]] = {}
        self._orders: dict[int, _Order] = {}  # that no report has named yet

    def at(self, origin: str) -> tuple[int, int]:
        """Return how many there are to *origin*: responded before, and others."""
        n_idle, n_unused = self._reported.get(origin, (0, 0))
        for order in self._orders.values():
            if order.origin == origin:
                n_idle, n_unused = _applied(order, n_idle, n_unused)
        return n_idle, n_unused

    def note_move(self, origin: str, number: int) -> bool:
        """Note that a move is ordered; return whether it gets a connection that has responded."""
        n_idle, _ = self.at(origin)
        self._orders[number] = _Order(origin, _Effect.USE, 1)
        return n_idle > 0

    def note_opening(self, origin: str, n_connections: int, number: int) -> None:
        """Note that this many are ordered to be opened ahead of need."""
        self._orders[number] = _Order(origin, _Effect.OPEN, n_connections)

    def note_closing(self, origin: str, n_connections: int, number: int) -> None:
        """Note that this many are ordered to be closed, those that have not responded first."""
        self._orders[number] = _Order(origin, _Effect.CLOSE, n_connections)

    def note_kept(self, origin: str) -> None:
        """Note that a move has ended, and that its connection is idle now."""
        n_idle, n_unused = self._reported.get(origin, (0, 0))
        self._reported[origin] = (n_idle + 1, n_unused)

    def note_opening_left(self, origin: str) -> None:
        """Note that a move was taken back from a connection that is being opened."""
        n_idle, n_unused = self._reported.get(origin, (0, 0))
        self._reported[origin] = (n_idle, n_unused + 1)

    def note_report(self, origin: str, n_idle: int, n_unused: int, orders: Iterable[int]) -> None:
        """Note a report, made after *orders* about this origin were carried out."""
        for number in orders:
            self._orders.pop(number, None)
        self._reported[origin] = (n_idle, n_unused)


def _applied(order: _Order, n_idle: int, n_unused: int) -> tuple[int, int]:
    match order.effect:
        case _Effect.USE:
            return (n_idle - 1, n_unused) if n_idle else (0, max(0, n_unused - 1))
        case _Effect.OPEN:
            return n_idle, n_unused + order.n_connections
        case _Effect.CLOSE:
            n_of_unused = min(n_unused, order.n_connections)
            n_of_idle = min(n_idle, order.n_connections - n_of_unused)
            return n_idle - n_of_idle, n_unused - n_of_unused
