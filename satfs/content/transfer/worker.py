"""The worker process: receives ranges straight into mapped cache files, and tells how far it is.

Started as `python -m satfs.content.transfer.worker FD`, where FD is a socket to the mount. Knows no
credential but the links it is sent, decides nothing but whether an answer holds the bytes asked
for, and ends when the mount does. Blocking calls in threads, http.client reading into the mapping:
three times what the event loop receives over TLS (measured: docs/PERFORMANCE.md).
"""

from __future__ import annotations

import contextlib
import http.client
import mmap
import os
import signal
import socket
import ssl
import sys
import threading
import time
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

import xxhash

from satfs.content.transfer import messages
from satfs.content.transfer.messages import BLOCK_BYTES, Move, Outcome, Progress
from satfs.content.verdicts import (
    Meaning,
    Verdict,
    judge_error,
    judge_success,
    request_headers,
)
from satfs.model import ByteRange, Version

#: Bytes received before their arrival is told: more means fewer wake-ups of the mount, less means
#: that a reader on a slow line is woken sooner. The time rules when the bytes come slowly.
REPORT_BYTES: Final = 1024 * 1024
REPORT_AFTER_S: Final = 0.02
#: Time after which an unused connection is not trusted any more (S3 closes idle ones).
IDLE_CONNECTION_S: Final = 15.0


class _Cut(Exception):
    """The mount took the order back, or the body ended early."""


class _Job:
    """One move under way."""

    def __init__(self, move: Move) -> None:
        self.move = move
        self.stop = move.stop
        self.is_cancelled = False
        self.connection: http.client.HTTPConnection | None = None
        self.answer: http.client.HTTPResponse | None = None

    def let_go(self) -> None:
        """Close what is still open: a connection is given back only after a whole body."""
        for each in (self.answer, self.connection):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.close()

    def cancel(self) -> None:
        """Make the thread that receives notice at once."""
        self.is_cancelled = True
        connection = self.connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            # Not `SSLSocket.shutdown`, which takes the TLS away from the thread that is reading:
            # it would go on, and take ciphertext for the object's bytes.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Worker:
    """Carries out the orders that come over *channel* until it closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._send_lock = threading.Lock()
        self._files: dict[int, mmap.mmap] = {}
        self._jobs: dict[int, _Job] = {}
        self._idle: dict[tuple[str, str], list[tuple[http.client.HTTPConnection, float]]] = {}
        self._idle_lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._connect_timeout_s = 5.0
        self._progress_timeout_s = 15.0
        self._ca_file: str | None = None
        self._user_agent = "satfs"

    def serve(self) -> None:
        """Read orders until the mount is gone."""
        while True:
            packet, fds, _, _ = socket.recv_fds(self._channel, messages.MOST_BYTES, 1)
            if not packet:
                return
            kind, fields = messages.read_order(packet)
            self._obey(kind, fields, fds)

    def _obey(self, kind: str, fields: dict[str, object], fds: list[int]) -> None:
        if kind == "move":
            job = _Job(Move(**fields))  # type: ignore[arg-type]  # as packed by order_move
            self._jobs[job.move.move] = job
            threading.Thread(target=self._run, args=(job,), daemon=True).start()
        elif kind == "file":
            number, size_bytes = cast(int, fields["file"]), cast(int, fields["size_bytes"])
            self._files[number] = mmap.mmap(fds[0], size_bytes)
            os.close(fds[0])
        elif kind == "forget":
            self._files.pop(cast(int, fields["file"]), None)
        elif kind == "cancel":
            if (held := self._jobs.get(cast(int, fields["move"]))) is not None:
                held.cancel()
        elif kind == "cut":
            if (held := self._jobs.get(cast(int, fields["move"]))) is not None:
                held.stop = min(held.stop, cast(int, fields["stop"]))
        elif kind == "warm":
            origin = urlsplit(cast(str, fields["origin"]))
            for _ in range(cast(int, fields["n_connections"]) - self._n_connections(origin)):
                threading.Thread(target=self._warm, args=(origin,), daemon=True).start()
        elif kind == "settings":
            self._connect_timeout_s = float(cast(float, fields["connect_timeout_s"]))
            self._progress_timeout_s = float(cast(float, fields["progress_timeout_s"]))
            self._ca_file = cast("str | None", fields["ca_file"])
            self._user_agent = str(fields["user_agent"])

    def _tell(self, packet: bytes) -> None:
        with self._send_lock:
            try:
                self._channel.send(packet)
            except OSError:
                os._exit(0)  # the mount is gone, and nothing here is worth keeping

    # -- one move, in its own thread -------------------------------------------------------------

    def _run(self, job: _Job) -> None:
        number = job.move.move
        try:
            outcome = self._fetch(job)
        except _Cut:
            outcome = Outcome(number, broken="the body was cut short")
        except TimeoutError:
            outcome = Outcome(number, broken="no byte in time", is_timeout=True)
        except (OSError, http.client.HTTPException) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else None
            outcome = Outcome(number, broken=reason or type(problem).__name__)
        except Exception as problem:  # whatever it is: without an outcome the mount would wait
            outcome = Outcome(number, broken=type(problem).__name__)
        finally:
            self._jobs.pop(number, None)
            job.let_go()
        self._tell(messages.pack_outcome(outcome))

    def _fetch(self, job: _Job) -> Outcome:
        move = job.move
        version = Version(move.etag, move.size_bytes)
        asked = ByteRange(move.start, move.stop)
        parts = urlsplit(move.url)
        headers = {"User-Agent": self._user_agent, **request_headers(asked, version)}
        connection, answer = self._ask(job, parts, headers)
        plain = {name.lower(): value for name, value in answer.getheaders()}
        if answer.status not in (200, 206):
            verdict = judge_error(answer.status, answer.read(64 * 1024))
        else:
            verdict = judge_success(answer.status, plain, asked, version)
        if verdict.meaning is Meaning.BYTES and verdict.skip_bytes:
            # The loop slices whole bodies; here they are refused.
            verdict = Verdict(Meaning.GARBLED, "200 for a range")
        if verdict.meaning is not Meaning.BYTES:
            return Outcome(move.move, verdict, retry_after=plain.get("retry-after"))
        if self._receive(job, answer) and answer.isclosed():
            job.connection = None
            self._give_back(parts, connection)
        return Outcome(move.move)

    def _ask(
        self, job: _Job, parts: SplitResult, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send the request; a kept connection that turns out closed is replaced once."""
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        while True:
            connection, is_kept = self._connection(parts)
            job.connection = connection
            if job.is_cancelled:
                connection.close()
                raise _Cut
            try:
                if not is_kept:
                    connection.connect()
                    cast(socket.socket, connection.sock).settimeout(self._progress_timeout_s)
                connection.request("GET", target, headers=headers)
                job.answer = connection.getresponse()
                return connection, job.answer
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if not is_kept:
                    raise

    def _receive(self, job: _Job, answer: http.client.HTTPResponse) -> bool:
        """Receive the body into the mapping; return whether all of it was read."""
        move = job.move
        target = memoryview(self._files[move.file])
        front = told = move.start
        began_at_s = told_at_s = time.monotonic()
        while front < job.stop:
            if job.is_cancelled:
                raise _Cut
            limit = min(job.stop, front + REPORT_BYTES)
            n_bytes = _receive_some(answer, target[front:limit])
            if not n_bytes:
                raise _Cut
            now_s = time.monotonic()
            if front == move.start:
                began_at_s = now_s
            front += n_bytes
            whole = front if front == job.stop else front // BLOCK_BYTES * BLOCK_BYTES
            is_due = whole - told >= REPORT_BYTES or now_s - told_at_s >= REPORT_AFTER_S
            if whole > told and (is_due or front >= job.stop):
                self._report(move.move, target, told, whole, now_s - began_at_s)
                told, told_at_s = whole, now_s
        if job.stop == move.stop:
            # The body's last byte has been read; this closes the answer, so that the connection
            # may be used again.
            answer.read(1)
            return True
        return False

    def _report(
        self, number: int, target: memoryview, start: int, stop: int, receiving_s: float
    ) -> None:
        while start < stop:
            upto = min(stop, start + messages.MOST_BLOCKS * BLOCK_BYTES)
            hashes = [
                xxhash.xxh3_64_intdigest(target[at : min(at + BLOCK_BYTES, upto)])
                for at in range(start, upto, BLOCK_BYTES)
            ]
            self._tell(messages.pack_progress(Progress(number, upto, hashes, receiving_s)))
            start = upto

    # -- connections -----------------------------------------------------------------------------

    def _connection(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        now_s = time.monotonic()
        with self._idle_lock:
            kept = self._idle.get((parts.scheme, parts.netloc), [])
            while kept:
                connection, since_s = kept.pop()
                if now_s - since_s < IDLE_CONNECTION_S:
                    return connection, True
                connection.close()
        return self._new_connection(parts), False

    def _n_connections(self, parts: SplitResult) -> int:
        with self._idle_lock:
            return len(self._jobs) + len(self._idle.get((parts.scheme, parts.netloc), []))

    def _warm(self, parts: SplitResult) -> None:
        """Open a connection that somebody will want soon; a failure is theirs to meet."""
        connection = self._new_connection(parts)
        with contextlib.suppress(OSError):
            connection.connect()
            cast(socket.socket, connection.sock).settimeout(self._progress_timeout_s)
            self._give_back(parts, connection)

    def _give_back(self, parts: SplitResult, connection: http.client.HTTPConnection) -> None:
        with self._idle_lock:
            kept = self._idle.setdefault((parts.scheme, parts.netloc), [])
            kept.append((connection, time.monotonic()))

    def _new_connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        host, timeout_s = parts.hostname or "", self._connect_timeout_s
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        with self._idle_lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                if self._ca_file is not None:
                    self._tls.load_verify_locations(cafile=self._ca_file)
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=self._tls)


def _receive_some(answer: http.client.HTTPResponse, target: memoryview) -> int:
    """Receive what is there, up to the length of *target*; 0 at the end of the body.

    `HTTPResponse.readinto` waits until the target is full: a reader on a slow line would wait for a
    megabyte. The buffered file below it can be asked for what has come.
    """
    if answer.isclosed():
        return 0
    length = answer.length
    if length is None:  # chunked: only http.client knows where chunks end
        return answer.readinto(target)
    wanted = target[: min(len(target), length)]
    if not wanted:
        return 0
    n_bytes = answer.fp.readinto1(wanted)
    answer.length = length - n_bytes
    return n_bytes


def main(arguments: list[str]) -> None:
    """Serve the socket whose number is the only argument."""
    # Ctrl-C in a terminal goes to the whole group; the mount decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(arguments[0]))
    try:
        Worker(channel).serve()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
