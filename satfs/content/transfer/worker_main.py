"""The worker process: receives ranges into cache files and reports its progress.

Started as `python -m satfs.content.transfer.worker_main FD`, where FD is a socket to the mount. Its
only credentials are the links that it is sent. It decides only whether a response has the requested
bytes, and ends when the mount does.

One thread receives from all connections in turn: threads that receive together wait for each other
at the interpreter's lock, once for each 16 KiB that TLS delivers, and take four times the processor
time for the same bytes (docs/decisions/0008). Only the opening of a connection, which has to wait,
has a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import ssl
import sys
import time
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from satfs.content.transfer import messages
from satfs.content.transfer.exchange import Exchange, FileFailure
from satfs.content.transfer.messages import LookReport, MoveOrder, OutcomeReport
from satfs.content.transfer.opener import Failure, Origin, is_refusal
from satfs.content.transfer.store_responses import ResponseClass, ResponseKind
from satfs.content.transfer.tls_connection import is_body_coming
from satfs.content.transfer.worker_connections import JobConnection, WorkerConnections
from satfs.errors import BadSettings, NotAllowed
from satfs.net.addresses import origin_of
from satfs.net.socket_options import is_unacknowledged
from satfs.net.trust import untrusted

#: Pause between checks of the time while moves are in progress: the longest delay of a report of
#: blocks after which no more come, and a fraction of any time limit.
TICK_S: Final = 0.02
#: How much less urgent than the mount a worker is (nice(2)). Where all processors are busy, the
#: mount's one thread, which replies to `ls` and `stat` as well, runs first; elsewhere it has no
#: effect. More would starve reads beside programs that compute (docs/decisions/0008).
LESS_URGENT: Final = 3
#: How often in a row one connection may receive a buffer full before the others have their turn.
RECEIVES_PER_TURN: Final = 4


class _File:
    """A cache file that was sent; closed when it is forgotten and nothing writes to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._n_users = 1

    def use(self) -> int:
        """Return the descriptor, which stays open until `leave`."""
        self._n_users += 1
        return self.fd

    def leave(self) -> None:
        """End one use."""
        self._n_users -= 1
        if not self._n_users:
            os.close(self.fd)


class _Job(Struct, eq=False):
    """One order: not begun while it waits for a connection."""

    move: MoveOrder
    origin: Origin
    file: _File
    exchange: Exchange
    connection: JobConnection[_Job] | None = None


class MountGone(Exception):
    """The mount takes no reports any more: the worker ends."""


class Worker:
    """Carries out the orders that come over *channel* until it closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._files: dict[int, _File] = {}
        self._jobs: dict[int, _Job] = {}
        self._connections: WorkerConnections[_Job] = WorkerConnections(
            self._selector, self._send, self._fail
        )
        self._unfinished: set[JobConnection[_Job]] = set()  # have more bytes than one turn takes
        self._progress_timeout_s = 15.0
        self._alive_s = 0.0  # when `ALIVE` was last sent
        self._user_agent = "satfs"

    def serve(self) -> None:
        """Work until the mount is gone."""
        self._selector.register(self._channel, selectors.EVENT_READ)
        wake_reader = self._connections.opener.wake_reader
        self._selector.register(wake_reader, selectors.EVENT_READ)
        looked_s = 0.0
        try:
            self._send_report(messages.pack_progress(messages.ALIVE))
            while True:
                pause_s = TICK_S if self._jobs else self._connections.pause_s()
                ready = self._selector.select(0 if self._unfinished else pause_s)
                receiving = self._unfinished
                self._unfinished = set()
                for key, _ in ready:
                    if key.fileobj is self._channel:
                        if not self._take_order():
                            return
                    elif key.fileobj is wake_reader:
                        self._connections.take_opened()
                    else:
                        receiving.add(key.data)
                for connection in receiving:
                    self._receive(connection)
                for change in self._connections.changes():
                    self._send_report(messages.pack_connections(change))
                if (now_s := time.monotonic()) - looked_s >= TICK_S:
                    looked_s = now_s
                    self._look_at_clock(now_s)
        except MountGone:
            pass
        finally:
            for job in self._jobs.values():
                if job.connection is not None:
                    job.connection.sock.close()
            self._selector.close()
            self._connections.close()

    # -- orders ----------------------------------------------------------------------------------

    def _take_order(self) -> bool:
        """Take one order; return False when the mount is gone."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._channel, messages.MAX_BYTES, 1)
        except ConnectionResetError:  # the mount ended before it had read all reports
            return False
        if not packet:
            return False
        kind, fields = messages.read_order(packet)
        connections, opener = self._connections, self._connections.opener
        if kind == "move":
            self._begin(MoveOrder(**fields))  # type: ignore[arg-type]  # as packed by order_move
        elif kind == "file":
            self._files[cast(int, fields["file"])] = _File(fds[0])
        elif kind == "forget":
            if (file := self._files.pop(cast(int, fields["file"]), None)) is not None:
                file.leave()
        elif kind == "cancel":
            if (job := self._jobs.get(cast(int, fields["move"]))) is not None:
                if job.connection is None and fields.get("is_silent"):
                    # A connection that is being opened for it would be silent as well.
                    opener.abandon(job.origin)
                self._end(job, OutcomeReport(job.move.move, broken="taken back"))
        elif kind == "recall":
            self._recall(cast(int, fields["move"]))
        elif kind == "look":
            self._look(cast(int, fields["move"]))
        elif kind == "warm":
            origin = _origin_of(urlsplit(cast(str, fields["origin"])))
            connections.open_ahead(origin, cast(int, fields["n_connections"]) - len(self._jobs))
            connections.note_carried_out(origin, cast(int, fields["order"]))
        elif kind == "slow":
            opener.avoid([str(each) for each in cast("list[object]", fields["addresses"])])
        elif kind == "close":
            origin = _origin_of(urlsplit(cast(str, fields["origin"])))
            connections.close_idle(origin, cast(int, fields["n_connections"]))
            connections.note_carried_out(origin, cast(int, fields["order"]))
        elif kind == "settings":
            opener.connect_timeout_s = float(cast(float, fields["connect_timeout_s"]))
            self._progress_timeout_s = float(cast(float, fields["progress_timeout_s"]))
            opener.ca_file = cast("str | None", fields["ca_file"])
            opener.tls_strict = bool(fields.get("tls_strict", True))
            opener.allows_private = bool(fields.get("allows_private", True))
            self._user_agent = str(fields["user_agent"])
            opener.prepare()
        return True

    def _send_report(self, packet: bytes) -> None:
        try:
            self._channel.send(packet)
        except OSError:
            raise MountGone from None

    # -- the life of a job -----------------------------------------------------------------------

    def _begin(self, move: MoveOrder) -> None:
        file = self._files[move.file]
        exchange = Exchange(move, file.use(), self._send_report, time.monotonic())
        job = _Job(move, _origin_of(urlsplit(move.url)), file, exchange)
        self._jobs[move.move] = job
        self._connections.note_carried_out(job.origin, move.move)
        self._connections.take(job.origin, job)

    def _send(self, connection: JobConnection[_Job], job: _Job) -> None:
        """Request the bytes of *job* on *connection*."""
        job.connection, connection.job = connection, job
        try:
            request = job.exchange.request(self._user_agent)
        except ValueError:
            # The loop's client handles unusual links.
            response_class = ResponseClass(ResponseKind.GARBLED, "not a target")
            self._end(job, OutcomeReport(job.move.move, response_class))
            return
        try:
            # No other bytes are being sent here, so this does not wait.
            connection.sock.settimeout(self._progress_timeout_s)
            connection.sock.sendall(request)
            connection.sock.setblocking(False)
        except OSError as problem:
            self._lose(connection, problem)
            return
        job.exchange.received_s = job.exchange.requested_s = time.monotonic()

    def _receive(self, connection: JobConnection[_Job]) -> None:
        """Receive from *connection*, up to the limit of its turn."""
        job = connection.job
        if job is None:
            self._connections.look_at_idle(connection)
            return
        exchange, recv_into = job.exchange, connection.sock.recv_into
        try:
            for _ in range(RECEIVES_PER_TURN):
                is_more = exchange.receive(recv_into, time.monotonic)
                if exchange.is_over or not is_more:
                    break
            else:
                # TLS may have decrypted bytes left, which no selector sees.
                self._unfinished.add(connection)
        except FileFailure:
            self._end_by_file(job, "the file")
            return
        except OSError as problem:
            self._lose(connection, problem)
            return
        is_waiting = not exchange.has_begun
        if is_waiting and is_body_coming(connection.sock) and not connection.is_body_coming:
            connection.is_body_coming = True
            self._send_report(messages.pack_look(LookReport(job.move.move, has_begun=True)))
        if exchange.outcome is None:
            return
        if exchange.outcome.broken is not None and connection.has_responded and is_waiting:
            self._lose(connection, ConnectionResetError())
            return
        self._end(job, exchange.outcome)

    def _recall(self, move: int) -> None:
        """End a move whose bytes have not been requested; report on any other one."""
        job = self._jobs.get(move)
        if job is None or job.connection is not None:
            self._look(move)
            return
        self._end(job, OutcomeReport(move, is_taken_back=True))

    def _look(self, move: int) -> None:
        """Receive the bytes of a move that have come, and report whether its response has begun."""
        if (job := self._jobs.get(move)) is not None and job.connection is not None:
            self._receive(job.connection)
        if (job := self._jobs.get(move)) is not None:
            if job.connection is None:
                waited_s = self._connections.waited_s(job.origin, job)
            else:
                waited_s = time.monotonic() - job.exchange.requested_s
            look = LookReport(move, job.exchange.has_begun, waited_s)
            self._send_report(messages.pack_look(look))

    def _lose(self, connection: JobConnection[_Job], problem: OSError) -> None:
        """Note that a connection broke; send the request again if the connection was reused."""
        job = connection.job
        if job is None:
            return
        is_lost, is_timeout = is_unacknowledged(problem), isinstance(problem, TimeoutError)
        if is_lost:  # the route may be gone, and with it all connections that were idle as long
            self._connections.close_all_idle(job.origin)
        if connection.has_responded and not job.exchange.has_begun and (is_lost or not is_timeout):
            self._part(connection)
            old = job.exchange
            job.exchange = Exchange(job.move, job.file.fd, self._send_report, time.monotonic())
            job.exchange.stop = old.stop
            self._connections.take(job.origin, job)
            return
        self._break(job, "no byte in time" if is_timeout else _reason(problem), is_timeout)

    def _break(self, job: _Job, reason: str, is_timeout: bool) -> None:
        try:
            job.exchange.broke(reason, is_timeout=is_timeout, now_s=time.monotonic())
        except FileFailure:
            self._end_by_file(job, reason)
            return
        self._end(job, job.exchange.outcome or OutcomeReport(job.move.move, broken=reason))

    def _end(self, job: _Job, outcome: OutcomeReport) -> None:
        """Report the end of *job*, and keep its connection if it may be used again."""
        del self._jobs[job.move.move]
        connection = job.connection
        if connection is None:
            self._connections.stop_waiting(job.origin, job)
        else:
            is_new = not connection.has_responded
            is_lost = outcome.broken is not None and not job.exchange.has_begun
            is_refusal = job.exchange.refuses_connection or (is_lost and not outcome.is_timeout)
            if is_new and is_refusal:
                outcome = replace(outcome, is_refused=True)
            connection.has_responded = connection.has_responded or job.exchange.has_begun
            if job.exchange.may_follow:
                connection.job = None
                following = self._connections.keep(connection)
                if following is None:
                    outcome = replace(outcome, is_kept=True)
                elif following.move.move in self._jobs:
                    # For the mount it must not count as the new connection that was ordered.
                    outcome = replace(outcome, passed_to=following.move.move)
            else:
                self._part(connection)
        job.file.leave()
        self._send_report(messages.pack_outcome(outcome))

    def _end_by_file(self, job: _Job, reason: str) -> None:
        self._end(job, OutcomeReport(job.move.move, broken=reason, is_file_failure=True))

    def _fail(self, job: _Job, problem: Failure) -> None:
        """End *job*, for which no connection could be opened."""
        self._end(job, _unopened(job.move.move, problem))

    def _part(self, connection: JobConnection[_Job]) -> None:
        """Close a connection for good."""
        self._unfinished.discard(connection)
        if connection.job is not None:
            connection.job.connection = None
        self._connections.part(connection)

    def _look_at_clock(self, now_s: float) -> None:
        if self._jobs and now_s - self._alive_s >= (
            self._progress_timeout_s / messages.ALIVE_PER_TIMEOUT
        ):
            self._alive_s = now_s
            self._send_report(messages.pack_progress(messages.ALIVE))
        self._connections.close_expired()
        for job in list(self._jobs.values()):
            if job.connection is None:
                continue
            try:
                job.exchange.look_at_clock(now_s)
            except FileFailure:
                self._end_by_file(job, "the file")
                continue
            if now_s - job.exchange.received_s >= self._progress_timeout_s:
                self._break(job, "no byte in time", is_timeout=True)


def _unopened(move: int, problem: Failure) -> OutcomeReport:
    """Return the end of a move for which there is no connection."""
    if isinstance(problem, NotAllowed):
        # The loop finds the reason.
        return OutcomeReport(move, ResponseClass(ResponseKind.GARBLED, "peer"))
    if isinstance(problem, BadSettings):
        # `ca_file` has changed since the mount read it; the mount's own client still has it.
        return OutcomeReport(move, ResponseClass(ResponseKind.GARBLED, "no TLS context"))
    if isinstance(problem, ssl.SSLCertVerificationError):
        return OutcomeReport(move, broken=untrusted(problem), is_permanent=True)
    is_timeout = isinstance(problem, TimeoutError)
    reason = "no connection in time" if is_timeout else _reason(problem)
    return OutcomeReport(move, broken=reason, is_timeout=is_timeout, is_refused=is_refusal(problem))


def _origin_of(parts: SplitResult) -> Origin:
    """Return the origin as the mount names it, with its port."""
    scheme, _, place = origin_of(f"{parts.scheme}://{parts.netloc}").partition("://")
    return scheme, place


def _reason(problem: OSError) -> str:
    return problem.strerror or type(problem).__name__


def main(arguments: list[str]) -> None:
    """Serve the socket whose number is the only argument."""
    # Ctrl-C reaches the whole process group; the mount decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(LESS_URGENT)
    channel = socket.socket(fileno=int(arguments[0]))
    try:
        Worker(channel).serve()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
