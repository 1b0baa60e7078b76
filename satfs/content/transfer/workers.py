"""Worker processes for sequential bulk reads: started on demand, ended when idle, replaced."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
import trio

import satfs
from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import BLOCK_BYTES, start_of_blocks
from satfs.content.cache.kernelcalls import cpu_seconds_of
from satfs.content.fetch.store_responses import ResponseClass, ResponseKind
from satfs.content.transfer import messages
from satfs.content.transfer.idle import IdleConnections
from satfs.content.transfer.interface import Download, Mover, UnusableResponse, WorkerDied
from satfs.content.transfer.messages import (
    Connections,
    LookReport,
    MoveOrder,
    OutcomeReport,
    ProgressReport,
)
from satfs.errors import DeadlineReached, Unreachable
from satfs.model import Link, Version
from satfs.net.addresses import origin_of, shown
from satfs.net.permits import Permit, Permits
from satfs.settings import worker_environment

log = structlog.get_logger(__name__)

#: Deaths without a byte in between after which workers are not used any more: something on this
#: machine kills them, and the loop can do their work.
MAX_DEATHS: Final = 5
#: Bytes that one worker moves before another is started: a process costs a tenth of a second of
#: processor time, and one receives 1 GB/s on a processor of its own (docs/decisions/0008).
GROW_AFTER_BYTES: Final = 128 * 1024 * 1024
#: Another one is started where those there are use this share of a processor each: one that is
#: waiting for bytes, or for a processor that others have, receives no more if it is two.
SATURATED_SHARE: Final = 0.8
#: So many connections make a far line, where processes wait for bytes more than bytes for them. All
#: start at once there: one that joined later would have to open its share while somebody waits.
MANY_CONNECTIONS: Final = 16
#: How long a worker's processor time is looked at, at least, in seconds.
LOOK_S: Final = 0.2
#: Longest host and port that connections are opened to ahead of need; names end at 253 (RFC 1035).
MAX_HOST_CHARACTERS: Final = 300
#: Time for a worker to take an order; it takes microseconds.
SEND_TIMEOUT_S: Final = 5.0
#: Time for a worker to end by itself once its channel is closed, and once it was killed: a process
#: in an uninterruptible call of the kernel (a disk that hangs) ends when that call returns.
END_TIMEOUT_S: Final = 2.0
#: A worker with moves that has reported nothing for the progress timeout stands still, and is
#: killed. Never earlier than this: on a machine whose processors are all busy, a worker that is
#: well may have to wait.
MIN_SILENCE_S: Final = 1.0


class _Process:
    """One worker, its channel, and the moves it has been given."""

    def __init__(self, process: subprocess.Popen[bytes], channel: trio.socket.SocketType) -> None:
        self.process = process
        self.channel = channel
        self.sending = trio.Lock()
        self.moves: dict[int, _MoveState] = {}
        #: Moves that were cancelled, of which the worker has not reported the end yet.
        self.cancelled: set[int] = set()
        self.files: dict[BlockFile, int] = {}
        self.slow: tuple[str, ...] = ()  # addresses that it was told of
        self.idle = IdleConnections()
        self.idle_since_s = trio.current_time()
        self.heard_at_s = trio.current_time()
        self.is_suspect = False  # overdue at the last look
        self.is_ready = False  # its interpreter runs, and has imported what it needs
        #: Where it is to open connections when it is ready, and how many all workers together.
        self.to_prepare: tuple[Link, int] | None = None
        self.is_dead = False
        self.is_saturated = False  # by the last look at its processor time
        self._looked_s = trio.current_time()
        self._cpu_s = 0.0

    def look(self, now_s: float) -> None:
        """Find out, now and then, whether it has a processor's whole time to do."""
        elapsed_s = now_s - self._looked_s
        if elapsed_s < LOOK_S:
            return
        cpu_s = cpu_seconds_of(self.process.pid)
        self.is_saturated = cpu_s - self._cpu_s >= SATURATED_SHARE * elapsed_s
        self._looked_s, self._cpu_s = now_s, cpu_s


class _MoveState:
    def __init__(self, delivery: Download) -> None:
        self.delivery = delivery
        self.stop = delivery.stop  # as ordered
        self.ended = trio.Event()
        self.outcome: OutcomeReport | None = None
        self.failure: Exception | None = None


class WorkerPool:
    """Moves bytes in up to `n_workers` processes; falls back to *in_loop* where they cannot help.

    Invariants:
        A move belongs to one process; it ends with an outcome, with that process, or cancelled.
        A file's descriptor is sent to a process once, before the first move that names it.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        in_loop: Mover,
        *,
        n_workers: int,
        idle_s: float,
        connect_timeout_s: float,
        progress_timeout_s: float,
        ca_file: Path | None,
        tls_strict: bool,
        allows_private: bool,
        is_proxied: Callable[[str], bool],
        permits: Permits,
        slow_addresses: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._permits = permits
        permits.add_holder(self)
        self._nursery = nursery
        self._in_loop = in_loop
        self._n_workers = n_workers
        self._idle_s = idle_s
        self._silence_s = max(progress_timeout_s, MIN_SILENCE_S)
        self._is_proxied = is_proxied
        #: Addresses that the loop has found slow: a worker tries them last from the start.
        self._slow_addresses = slow_addresses
        self._settings = {
            "connect_timeout_s": connect_timeout_s,
            "progress_timeout_s": progress_timeout_s,
            "ca_file": str(ca_file) if ca_file is not None else None,
            "tls_strict": tls_strict,
            "allows_private": allows_private,
            "user_agent": f"satfs/{satfs.__version__}",
        }
        self._processes: list[_Process] = []
        self._numbers = itertools.count(1)
        self._starting = trio.Lock()
        self._n_deaths = 0
        self._n_moved_bytes = 0  # since there was no worker

    async def move(self, link: Link, delivery: Download, version: Version) -> None:
        """See `Mover.move`."""
        process = None if self._is_for_loop(link, delivery) else self._at_hand(link)
        if process is not None:
            try:
                await self._move_in(process, link, delivery, version)
                return
            except UnusableResponse as refusal:
                # The loop follows redirects, finds a range in a whole body, and knows no packets.
                if refusal.verdict.meaning not in (ResponseKind.REDIRECT, ResponseKind.GARBLED):
                    raise
        permit = delivery.attempt.permit
        if permit is not None and permit.holder is self:
            # It was for a connection of a worker, which is idle now, closed or not needed.
            delivery.attempt.permit = None
            permit.end()
        await self._in_loop.move(link, delivery, version)

    async def _move_in(
        self, process: _Process, link: Link, delivery: Download, version: Version
    ) -> None:
        delivery.begin()
        # Workers write whole blocks, from where whole blocks end.
        delivery.front = delivery.held_until
        number = next(self._numbers)
        state = _MoveState(delivery)
        file = await self._file_of(process, delivery.layer.file)
        missing = delivery.missing
        order = MoveOrder(
            number, file, link.url, missing.start, missing.stop, version.etag, version.size_bytes
        )
        if not (process.moves or process.cancelled):
            # A worker without moves reports nothing: its time begins now.
            process.heard_at_s, process.is_suspect = trio.current_time(), False
        packet = messages.pack_move(order)
        if len(packet) > messages.MAX_BYTES:
            raise UnusableResponse(
                ResponseClass(ResponseKind.GARBLED, "a link too long for a worker")
            )
        process.moves[number] = state
        is_new = not process.idle.note_move(origin_of(link.url), number)
        permit = delivery.attempt.permit
        if permit is not None:
            permit.is_new |= is_new
            permit.begin()
            named: dict[str, object] = {"move": number}
            permit.look = partial(self._nursery.start_soon, self._tell, process, "look", named)
        stop = missing.stop
        try:
            await self._tell_slow(process)
            await self._send(process, packet)
            await state.ended.wait()
        finally:
            process.moves.pop(number, None)
            process.idle_since_s = trio.current_time()
            # What was cut is done here, but not there.
            if (state.outcome is None or delivery.stop < stop) and not process.is_dead:
                if state.outcome is None:
                    process.cancelled.add(number)
                is_silent = permit is not None and permit.wait_s is not None
                if permit is not None and permit.has_answered:
                    self._permits.note_closed(permit.origin)
                await self._tell(process, "cancel", {"move": number, "is_silent": is_silent})
        if state.failure is not None:
            raise state.failure
        self._judge(state, stop, shown(link.url), permit)

    def _judge(self, state: _MoveState, stop: int, where: str, permit: Permit | None) -> None:
        outcome, delivery = state.outcome, state.delivery
        if outcome is None or outcome.is_file_failure:
            raise WorkerDied(is_of_file=outcome is not None)
        if permit is not None:
            if outcome.is_refused:
                permit.refused()
            elif outcome.verdict is not None:
                permit.answered()
            elif outcome.broken is not None:
                permit.broke()
        if outcome.verdict is not None:
            raise UnusableResponse(outcome.verdict, outcome.retry_after_s)
        if delivery.is_done:
            return
        if outcome.broken is None:
            raise UnusableResponse(ResponseClass(ResponseKind.RETRY, "body cut short"))
        if outcome.is_timeout:
            raise DeadlineReached("the object store sent nothing in time")
        if outcome.is_lasting:
            lasting = Unreachable(f"{where}: no connection: {outcome.broken}")
            lasting.is_lasting = True
            raise lasting
        raise Unreachable(f"the object store broke the connection off: {outcome.broken}")

    async def prepare(self, link: Link, n_connections: int) -> None:
        """Start the processes and open connections to where *link* leads, ahead of need.

        A process takes a tenth of a second to start, a connection three round trips: together the
        better part of a short transfer over a far line. A process opens its share when it is ready:
        until then connections to a host with few of them are for the loop.
        """
        if self._is_proxied(link.url):
            return
        parts, origin = urlsplit(link.url), origin_of(link.url)
        if self._permits.limit(origin) is not None:
            return  # every connection has its use already
        await self._grow(is_far=n_connections >= MANY_CONNECTIONS)
        if len(parts.netloc) > MAX_HOST_CHARACTERS:
            return
        # Beside those that have something to do now.
        n_here = sum(sum(process.idle.at(origin)) for process in self._processes)
        n_here += sum(len(process.moves) for process in self._processes)
        n_wanted = n_connections
        n_connections = min(n_connections, n_here + self._permits.room(origin))
        share = n_connections // max(1, len(self._processes))
        fields = {"origin": f"{parts.scheme}://{parts.netloc}", "n_connections": share}
        for process in list(self._processes):
            if not process.is_ready:
                process.to_prepare = (link, n_wanted)
                continue
            await self._tell_slow(process)
            n_more = max(0, share - sum(process.idle.at(origin)) - len(process.moves))
            if n_more:
                number = next(self._numbers)
                process.idle.note_opening(origin, n_more, number)
                await self._tell(process, "warm", {**fields, "order": number})

    async def _tell_slow(self, process: _Process) -> None:
        """Send the addresses that are slow, if *process* does not know them."""
        slow = self._slow_addresses()
        new = [each for each in slow if each not in process.slow]
        process.slow = slow
        if new:
            await self._tell(process, "slow", {"addresses": new})

    # -- processes -------------------------------------------------------------------------------

    def _is_room(self, *, is_far: bool = False) -> bool:
        """Tell whether another process would help: a first one, or one beside busy ones."""
        living = [each for each in self._processes if not each.is_dead]
        if self._n_deaths >= MAX_DEATHS or len(living) >= self._n_workers:
            return False
        if is_far:
            return True
        if self._n_moved_bytes < GROW_AFTER_BYTES:
            return not living
        now_s = trio.current_time()
        for process in living:
            process.look(now_s)
        return all(process.is_saturated for process in living)

    def n_idle(self, origin: str) -> tuple[int, int]:
        """Return the connections to *origin* that no move has (`permits.Holder`)."""
        idle = [each.idle.at(origin) for each in self._processes]
        return sum(each[0] for each in idle), sum(each[1] for each in idle)

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        """Have workers close connections to *origin* that no move has (`permits.Holder`)."""
        for process in self._processes:
            n_closed = min(n_connections, sum(process.idle.at(origin)))
            if n_closed:
                n_connections -= n_closed
                number = next(self._numbers)
                process.idle.note_closing(origin, n_closed, number)
                fields = {"origin": origin, "n_connections": n_closed, "order": number}
                self._nursery.start_soon(self._tell, process, "close", fields)

    def is_at_hand(self, link: Link, delivery: Download) -> bool:
        """Return whether a worker can move *delivery* now; starts one where it helps."""
        return not self._is_for_loop(link, delivery) and self._at_hand(link) is not None

    def _is_for_loop(self, link: Link, delivery: Download) -> bool:
        # Proxies are the loop's business: their lines are slow enough for it. So is memory without
        # a descriptor, which no other process can write to.
        return self._is_proxied(link.url) or delivery.cached.top.file.fd is None

    def _at_hand(self, link: Link) -> _Process | None:
        """Return the process for the next move, or None where the loop must move it. Never waits.

        Where all are busy another one is started. Until it is there, which takes an interpreter
        the better part of a short transfer, the loop moves what would have to wait for it.
        """
        if self._n_deaths >= MAX_DEATHS:
            return None
        ready = [each for each in self._processes if each.is_ready and not each.is_dead]
        origin = origin_of(link.url)

        def rank(process: _Process) -> tuple[bool, bool, bool, int]:
            n_idle, n_unused = process.idle.at(origin)
            return bool(process.cancelled), not n_idle, not n_unused, len(process.moves)

        least_busy = min(ready, key=rank, default=None)
        if (least_busy is None or least_busy.moves) and self._is_room():
            self._nursery.start_soon(self._grow)
        return least_busy

    async def _grow(self, *, is_far: bool = False) -> None:
        """Start a process, or all for a far line, unless there are enough by now."""
        async with self._starting:
            while self._is_room(is_far=is_far):
                try:
                    await self._start()
                except OSError as problem:
                    log.warning("no worker process: receiving in the loop", reason=problem.strerror)
                    self._n_deaths = MAX_DEATHS
                except WorkerDied:
                    pass  # counted

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = await trio.to_thread.run_sync(_spawn, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = _Process(process, trio.socket.from_stdlib_socket(ours))
        self._processes.append(worker)
        self._nursery.start_soon(self._listen, worker)
        self._nursery.start_soon(self._watch_over, worker)
        await self._send(worker, messages.pack_order("settings", self._settings))

    def _note_death(self) -> None:
        self._n_deaths += 1
        if self._n_deaths == MAX_DEATHS:
            log.warning("worker processes keep dying: receiving in the loop from now on")

    async def _listen(self, worker: _Process) -> None:
        """Take in what a worker reports, until it ends or has been idle for long."""
        try:
            while True:
                with trio.move_on_after(self._idle_s):
                    packet = await worker.channel.recv(messages.MAX_BYTES)
                    if not packet:
                        break
                    if not worker.is_ready:
                        self._note_ready(worker)
                    worker.heard_at_s, worker.is_suspect = trio.current_time(), False
                    self._hear(worker, messages.read_report(packet))
                    continue
                if not worker.moves and trio.current_time() - worker.idle_since_s >= self._idle_s:
                    break
        except (OSError, ValueError, trio.ClosedResourceError):
            pass
        finally:
            self._bury(worker)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_reap, worker.process)

    def _note_ready(self, worker: _Process) -> None:
        worker.is_ready = True
        if worker.to_prepare is not None:
            self._nursery.start_soon(self._prepare_soon, *worker.to_prepare)

    async def _prepare_soon(self, link: Link, n_connections: int) -> None:
        with contextlib.suppress(WorkerDied):
            await self.prepare(link, n_connections)

    async def _watch_over(self, worker: _Process) -> None:
        """Kill a worker that has moves and reports nothing: it was stopped, or its disk hangs.

        What it was moving ends with `WorkerDied`, and is moved otherwise. Of the store this says
        nothing.
        """
        while not worker.is_dead:
            await trio.sleep(self._silence_s / messages.ALIVE_PER_TIMEOUT)
            is_overdue = trio.current_time() - worker.heard_at_s >= self._silence_s
            if not (worker.moves or worker.cancelled) or not is_overdue:
                continue
            if not worker.is_suspect:
                # Perhaps it was this process that stood still, and the reports wait to be read.
                worker.is_suspect = True
                continue
            log.info("worker process stands still", pid=worker.process.pid)
            worker.process.kill()
            # Not when it has ended: in a call to a disk that hangs it cannot.
            self._bury(worker)

    def _hear(
        self,
        worker: _Process,
        report: ProgressReport | OutcomeReport | LookReport | Connections,
    ) -> None:
        if isinstance(report, Connections):
            origin = origin_of(report.origin)
            worker.idle.note_report(origin, report.n_idle, report.n_unused, report.orders)
            self._permits.note_refused_ahead(origin, report.n_refused)
            self._permits.note_idle(origin)
            return
        if isinstance(report, OutcomeReport):
            worker.cancelled.discard(report.move)
        state = worker.moves.get(report.move)
        if state is None or state.ended.is_set():
            return
        permit = state.delivery.attempt.permit
        if isinstance(report, LookReport):
            if permit is not None:
                (permit.answered if report.has_begun else permit.looked)()
            return
        if isinstance(report, OutcomeReport):
            if permit is not None and report.is_kept:
                worker.idle.note_kept(permit.origin)
                permit.is_counted = False  # not once more, until its task has ended it
            state.outcome = report
            state.ended.set()
            return
        self._n_deaths = 0
        delivery = state.delivery
        self._n_moved_bytes += max(0, report.front - delivery.held_until)
        delivery.attempt.response_s = report.response_s
        delivery.attempt.arriving_since(trio.current_time() - report.receiving_s)
        try:
            # After a cut, the worker may have gone on for a moment; its blocks are as good.
            delivery.report(min(report.front, delivery.stop), _fitting(delivery, report))
        except Exception as spilled:  # heard by whoever waits for the move
            state.failure = spilled
            state.ended.set()
            return
        if delivery.is_done and delivery.stop < state.stop:
            # It was cut. Else the outcome follows at once: until then its connection is not idle.
            state.outcome = OutcomeReport(report.move) if report.front >= delivery.stop else None
            state.ended.set()

    def _bury(self, worker: _Process) -> None:
        if worker.is_dead:
            return
        worker.is_dead = True
        if worker in self._processes:
            self._processes.remove(worker)
        if not self._processes:
            self._n_moved_bytes = 0
        worker.channel.close()
        if worker.moves or not worker.is_ready:
            self._note_death()
            log.info("worker process died", n_moves=len(worker.moves), pid=worker.process.pid)
        for state in worker.moves.values():
            state.ended.set()

    async def _file_of(self, process: _Process, file: BlockFile) -> int:
        number = process.files.get(file)
        if number is None:
            number = process.files[file] = next(self._numbers)
            packet = messages.pack_order("file", {"file": number, "size_bytes": file.size_bytes})
            await self._send(process, packet, file.fd)
        return number

    def file_closed(self, file: BlockFile) -> None:
        """Let the workers close a file that was closed here. Never waits."""
        if any(file in process.files for process in self._processes):
            self._nursery.start_soon(self._forget, file)

    async def _forget(self, file: BlockFile) -> None:
        for process in list(self._processes):
            number = process.files.pop(file, None)
            if number is not None:
                await self._tell(process, "forget", {"file": number})

    async def _tell(self, process: _Process, kind: str, fields: dict[str, object]) -> None:
        with contextlib.suppress(WorkerDied):
            await self._send(process, messages.pack_order(kind, fields))

    async def _send(self, process: _Process, packet: bytes, fd: int | None = None) -> None:
        ancillary = []
        if fd is not None:
            rights = fd.to_bytes(4, sys.byteorder)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        # In order, and whole: a file that was announced has been sent before any move names it,
        # also when whoever sends it is cancelled. A worker that does not listen is as good as dead.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_TIMEOUT_S):
            async with process.sending:
                try:
                    await process.channel.sendmsg([packet], ancillary)
                except (OSError, trio.ClosedResourceError):
                    raise WorkerDied from None
                return
        process.process.kill()
        raise WorkerDied

    def statistics(self) -> dict[str, int]:
        """Return how many processes there are, and what they do."""
        return {
            "workers": len(self._processes),
            "moves": sum(len(each.moves) for each in self._processes),
        }


def _fitting(delivery: Download, report: ProgressReport) -> list[int]:
    """Return the checksums of the blocks that *delivery* still takes."""
    first = start_of_blocks(report.front, len(report.hashes))
    skip = max(0, delivery.held_until - first) // BLOCK_BYTES
    front = min(report.front, delivery.stop)
    n_blocks = -(-(front - max(first, delivery.held_until)) // BLOCK_BYTES)
    return report.hashes[skip : skip + max(0, n_blocks)]


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    environment = worker_environment()
    # The package may have been found by the way this process was started.
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
        [sys.executable, "-P", "-m", "satfs.content.transfer.worker", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
