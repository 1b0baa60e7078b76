"""Idle connections of a worker: what is counted when reports and orders cross."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from satfs.content.transfer.idle_connections import IdleConnections

HERE, ELSEWHERE = "https://store:443", "https://other:443"


def test_a_report_that_crosses_an_order_does_not_give_a_connection_twice() -> None:
    """The worker has reported two connections, and is ordered to use them meanwhile."""
    idle = IdleConnections()
    idle.note_report(HERE, 1, 1, [])
    assert idle.note_move(HERE, 1)
    assert not idle.note_move(HERE, 2)
    idle.note_report(HERE, 1, 1, [])  # made before the orders came
    assert idle.at(HERE) == (0, 0)
    idle.note_report(HERE, 0, 1, [1])
    assert idle.at(HERE) == (0, 0)
    idle.note_report(HERE, 0, 0, [2])
    assert idle.at(HERE) == (0, 0)
    idle.note_kept(HERE)
    assert idle.at(HERE) == (1, 0)
    assert idle.at(ELSEWHERE) == (0, 0)


class Worker:
    """A worker that carries orders out late, and whose reports come later still."""

    def __init__(self) -> None:
        self.orders: deque[tuple[str, int, int]] = deque()
        self.reports: deque[tuple[int, int, list[int]]] = deque()
        self.n_idle = self.n_unused = 0

    def carry_out(self) -> None:
        kind, n_connections, number = self.orders.popleft()
        if kind == "use":
            if self.n_idle:
                self.n_idle -= 1
            else:
                self.n_unused = max(0, self.n_unused - 1)
        elif kind == "open":
            self.n_unused += n_connections
        else:
            n_of_unused = min(self.n_unused, n_connections)
            self.n_unused -= n_of_unused
            self.n_idle -= min(self.n_idle, n_connections - n_of_unused)
        self.reports.append((self.n_idle, self.n_unused, [number]))


@given(
    st.lists(
        st.sampled_from(["use", "open", "close", "carry out", "deliver"])
        | st.tuples(st.sampled_from(["open", "close"]), st.integers(1, 4)),
        max_size=40,
    )
)
def test_what_is_counted_is_what_there_will_be(steps: list[str | tuple[str, int]]) -> None:
    """At any moment: what the worker has once it has carried out what was ordered."""
    idle, worker = IdleConnections(), Worker()
    for number, step in enumerate(steps):
        kind, n_connections = (step, 1) if isinstance(step, str) else step
        match kind:
            case "carry out":
                if worker.orders:
                    worker.carry_out()
            case "deliver":
                if worker.reports:
                    n_idle, n_unused, orders = worker.reports.popleft()
                    idle.note_report(HERE, n_idle, n_unused, orders)
            case "use":
                idle.note_move(HERE, number)
                worker.orders.append(("use", 1, number))
            case "open":
                idle.note_opening(HERE, n_connections, number)
                worker.orders.append(("open", n_connections, number))
            case _:
                idle.note_closing(HERE, n_connections, number)
                worker.orders.append(("close", n_connections, number))
    counted = idle.at(HERE)
    while worker.orders:
        worker.carry_out()
    assert counted == (worker.n_idle, worker.n_unused)
    while worker.reports:
        n_idle, n_unused, orders = worker.reports.popleft()
        idle.note_report(HERE, n_idle, n_unused, orders)
    assert idle.at(HERE) == counted
