"""The connections of a worker: which job has which, which are idle, and which are being opened.

No message of the mount is known here, and nothing is received: `worker_main.py` does both.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from satfs.content.transfer.messages import Connections
from satfs.content.transfer.opener import Failure, Opener, Origin, is_refusal
from satfs.content.transfer.tls_connection import Connection

J = TypeVar("J")

#: Time after which an unused connection is not trusted any more (S3 closes idle ones).
IDLE_CONNECTION_S: Final = 15.0


def idle_clock_s() -> float:
    """Return the seconds of a clock that goes on while the machine is suspended (clock_gettime(2)).

    After a suspension the other side, or a router that translates addresses, has lost the
    connection.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class JobConnection(Struct, Generic[J], eq=False):
    """A connection, and the job that has it.

    Attributes:
        since_s: when it was opened, or had a job last, by `idle_clock_s`.
        is_body_coming: it was reported that the body of its first response comes.
    """

    sock: Connection
    origin: Origin
    since_s: float
    job: J | None = None
    has_responded: bool = False
    is_body_coming: bool = False


class WorkerConnections(Generic[J]):
    """The connections of one worker, and the jobs that wait for one of them.

    *selector* waits for bytes on each. *begin* is called with a connection and the job that gets
    it; *fail* with a job for which none could be opened, and the reason.

    Invariants:
        A connection is idle, or one job has it, or it is closed.
        While a job waits, as many connections as jobs wait are being opened, at least.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        begin: Callable[[JobConnection[J], J], None],
        fail: Callable[[J, Failure], None],
    ) -> None:
        self.opener = Opener()
        self._selector = selector
        self._begin = begin
        self._fail = fail
        self._idle: defaultdict[Origin, list[JobConnection[J]]] = defaultdict(list)
        self._waiting: defaultdict[Origin, list[J]] = defaultdict(list)
        self._n_refused: Counter[Origin] = Counter()  # ahead of need, not reported yet
        self._reported: dict[Origin, Connections] = {}
        self._carried_out: defaultdict[Origin, list[int]] = defaultdict(list)  # not reported yet

    def pause_s(self) -> float | None:
        """Return the longest pause between two checks of idle connections; None without any."""
        return IDLE_CONNECTION_S if any(self._idle.values()) else None

    def take(self, origin: Origin, job: J) -> None:
        """Begin *job* on an idle connection, or make it wait for one."""
        now_s = idle_clock_s()
        kept = self._idle[origin]
        while kept:
            # One that has responded before will respond now, too.
            connection = max(kept, key=lambda each: (each.has_responded, each.since_s))
            kept.remove(connection)
            if now_s - connection.since_s < IDLE_CONNECTION_S:
                self._begin(connection, job)
                return
            self.part(connection)
        waiting = self._waiting[origin]
        waiting.append(job)
        if len(waiting) > self.opener.n_opening(origin):
            self.opener.open(origin)

    def waited_s(self, origin: Origin, job: J) -> float:
        """Return how long the connection that *job* waits for has waited for the host."""
        return self.opener.waited_s(origin, self._waiting[origin].index(job))

    def stop_waiting(self, origin: Origin, job: J) -> None:
        """Remove *job* from the jobs that wait."""
        self._waiting[origin].remove(job)

    def keep(self, connection: JobConnection[J]) -> J | None:
        """Give a connection to a waiting job, which is returned, or keep it idle."""
        connection.since_s = idle_clock_s()
        waiting = self._waiting[connection.origin]
        if not waiting:
            self._idle[connection.origin].append(connection)
            return None
        job = waiting.pop(0)
        self._begin(connection, job)
        return job

    def take_opened(self) -> None:
        """Give connections that were opened to the jobs that wait for them."""
        for origin, found in self.opener.opened():
            if not isinstance(found, Exception):
                found.setblocking(False)
                connection: JobConnection[J] = JobConnection(found, origin, idle_clock_s())
                self._selector.register(found.fileno(), selectors.EVENT_READ, connection)
                self.keep(connection)
            elif waiting := self._waiting[origin]:
                self._fail(waiting[0], found)
            else:
                self._n_refused[origin] += is_refusal(found)

    def open_ahead(self, origin: Origin, n_connections: int) -> None:
        """Begin to open connections before there are jobs for them; never waits."""
        for _ in range(n_connections - self.opener.n_opening(origin) - len(self._idle[origin])):
            self.opener.open(origin)

    def close_idle(self, origin: Origin, n_connections: int) -> None:
        """Close connections that no job has; first those that never responded, or are opening."""
        connections = self._idle[origin]
        for _ in range(n_connections):
            unused = next((each for each in connections if not each.has_responded), None)
            if unused is None and self._n_spare(origin):
                self.opener.abandon(origin)
            elif connections:
                connection = unused or connections[0]
                connections.remove(connection)
                self.part(connection)

    def close_all_idle(self, origin: Origin) -> None:
        """Close all connections to *origin* that no job has."""
        connections = self._idle[origin]
        while connections:
            self.part(connections.pop())

    def close_expired(self) -> None:
        """Close connections that have been idle for too long."""
        now_s = idle_clock_s()
        for connections in self._idle.values():
            while connections and now_s - connections[0].since_s >= IDLE_CONNECTION_S:
                self.part(connections.pop(0))

    def look_at_idle(self, connection: JobConnection[J]) -> None:
        """Receive from an idle connection: its end, or records of TLS itself."""
        try:
            connection.sock.recv_into(memoryview(bytearray(1)))
        except BlockingIOError:
            return
        except OSError:
            pass
        # Nothing was requested: these bytes do not belong there.
        idle = self._idle[connection.origin]
        if connection in idle:
            idle.remove(connection)
            self._n_refused[connection.origin] += not connection.has_responded
            self.part(connection)

    def part(self, connection: JobConnection[J]) -> None:
        """Close a connection for good."""
        with contextlib.suppress(KeyError):  # its request was never sent
            self._selector.unregister(connection.sock.fileno())
        connection.job = None
        connection.sock.close()

    def close(self) -> None:
        """Close the idle connections, and the sockets that wake the selector."""
        for connections in self._idle.values():
            for connection in connections:
                connection.sock.close()
        self.opener.close()

    def note_carried_out(self, origin: Origin, order: int) -> None:
        """Note that an order about *origin* is carried out, for the next report."""
        self._carried_out[origin].append(order)

    def changes(self) -> Iterator[Connections]:
        """Yield the connections that no job has, where they have changed since the last call."""
        for origin in {*self._idle, *self._n_refused, *self._carried_out}:
            connections = self._idle[origin]
            n_idle = sum(connection.has_responded for connection in connections)
            name = f"{origin[0]}://{origin[1]}"
            now = Connections(name, n_idle, len(connections) - n_idle + self._n_spare(origin))
            n_refused = self._n_refused.pop(origin, 0)
            orders = self._carried_out.pop(origin, [])
            if n_refused or orders or now != self._reported.get(origin, Connections(name, 0, 0)):
                self._reported[origin] = now
                yield replace(now, n_refused=n_refused, orders=orders)

    def _n_spare(self, origin: Origin) -> int:
        """Return how many connections are being opened for which no job waits."""
        return max(0, self.opener.n_opening(origin) - len(self._waiting[origin]))
