"""Moves of sequential bulk reads in worker processes, and the connections that these have."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
import trio
from cachetools import TTLCache

from satfs.content.cache.blockfile import BlockFile
from satfs.content.transfer import messages
from satfs.content.transfer.interface import Download, Mover, UnusableResponse, WorkerDied
from satfs.content.transfer.messages import (
    Connections,
    LookReport,
    MoveOrder,
    OutcomeReport,
    Report,
)
from satfs.content.transfer.store_responses import ResponseClass, ResponseKind
from satfs.content.transfer.worker_process import Move, WorkerProcess, fitting
from satfs.content.transfer.worker_supervisor import WorkerProcesses
from satfs.model import Link, Version
from satfs.net.addresses import origin_of, shown
from satfs.net.permits import Permits

log = structlog.get_logger(__name__)

#: Longest host and port that connections are opened to ahead of need; names end at 253 (RFC 1035).
MAX_HOST_CHARACTERS: Final = 300
#: Number of hosts that are remembered as redirecting, and for how long, in seconds: each range
#: would be requested there twice.
MAX_REDIRECTING: Final = 64
REDIRECTING_S: Final = 60.0


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
        user_agent: str,
        allows_private: bool,
        is_proxied: Callable[[str], bool],
        permits: Permits,
        slow_addresses: Callable[[], tuple[str, ...]] = tuple,
        responds_once: Callable[[str], bool] = lambda origin: False,
    ) -> None:
        self._permits = permits
        permits.add_holder(self)
        self._nursery = nursery
        self._in_loop = in_loop
        self._is_proxied = is_proxied
        #: Whether a host responds once on each connection, as the loop has found.
        self._responds_once = responds_once
        #: Addresses that were slow in the loop: a worker tries them last from the start.
        self._slow_addresses = slow_addresses
        settings: dict[str, object] = {
            "connect_timeout_s": connect_timeout_s,
            "progress_timeout_s": progress_timeout_s,
            "ca_file": str(ca_file) if ca_file is not None else None,
            "tls_strict": tls_strict,
            "allows_private": allows_private,
            "user_agent": user_agent,
        }
        self._workers = WorkerProcesses(
            nursery,
            n_workers=n_workers,
            idle_s=idle_s,
            silence_s=progress_timeout_s,
            settings=settings,
            on_ready=self._note_ready,
            take_report=self._take_report,
        )
        #: See `BulkMover`.
        self.on_ready: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        #: Hosts that have redirected: for a while the loop, which follows, requests there alone.
        self._redirecting: TTLCache[str, bool] = TTLCache(
            MAX_REDIRECTING, REDIRECTING_S, timer=trio.current_time
        )

    @property
    def is_ready(self) -> bool:
        """See `BulkMover`."""
        return any(each.is_ready for each in self._workers)

    async def move(self, link: Link, delivery: Download, version: Version) -> None:
        """See `Mover.move`."""
        process = None if self._is_for_loop(link, delivery) else self._at_hand(link)
        if process is not None:
            try:
                await self._move_in(process, link, delivery, version)
                return
            except UnusableResponse as refusal:
                # The loop follows redirects, finds a range in a whole body, and knows no packets.
                kind = refusal.response_class.kind
                if kind not in (ResponseKind.REDIRECT, ResponseKind.GARBLED):
                    raise
                if kind is ResponseKind.REDIRECT:
                    self._redirecting[origin_of(link.url)] = True
        permit = delivery.attempt.permit
        if permit is not None and permit.holder is self:
            # It was for a connection of a worker, which is idle now, closed or not needed.
            delivery.attempt.permit = None
            permit.end()
        await self._in_loop.move(link, delivery, version)

    async def _move_in(
        self, process: WorkerProcess, link: Link, delivery: Download, version: Version
    ) -> None:
        delivery.begin()
        # Workers write whole blocks, from where whole blocks end.
        delivery.front = delivery.held_until
        number = next(self._numbers)
        state = Move(delivery)
        file = await self._file_of(process, delivery.layer.file)
        missing = delivery.missing
        order = MoveOrder(
            number,
            file,
            link.url,
            missing.start,
            missing.stop,
            version.etag,
            version.size_bytes,
            delivery.attempt.is_conditional,
        )
        if not (process.moves or process.cancelled):
            # A worker without moves reports nothing: its time begins now.
            process.reported_at_s, process.is_suspect = trio.current_time(), False
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
            named: dict[str, object] = {"move": number}
            permit.look = partial(self._nursery.start_soon, process.send_order, "look", named)
            permit.recall = partial(self._nursery.start_soon, process.send_order, "recall", named)
            permit.begin()
        stop = missing.stop
        try:
            await process.send_slow_addresses(self._slow_addresses())
            await process.send(packet)
            await state.ended.wait()
        finally:
            process.moves.pop(number, None)
            process.idle_since_s = trio.current_time()
            # A move that was cut has ended here, but not in the worker.
            if (state.outcome is None or delivery.stop < stop) and not process.is_dead:
                if state.outcome is None:
                    process.cancelled.add(number)
                is_silent = permit is not None and permit.wait_s is not None
                if permit is not None and permit.has_responded:
                    self._permits.note_closed(permit.origin)
                await process.send_order("cancel", {"move": number, "is_silent": is_silent})
        if state.failure is not None:
            raise state.failure
        state.check_outcome(shown(link.url), permit)

    async def start(self) -> None:
        """Start the first process, unless there is one."""
        await self._workers.grow()

    async def prepare(self, link: Link, n_connections: int) -> None:
        """Start the processes and open connections to the host of *link*, ahead of need.

        A process takes a tenth of a second to start, a connection three round trips: together more
        than half of a short transfer over a far line. A process opens its share when it is ready:
        until then connections to a host with few of them are for the loop.
        """
        if self._is_proxied(link.url):
            return
        parts, origin = urlsplit(link.url), origin_of(link.url)
        if self._permits.limit(origin) is not None:
            return  # every connection has its use already
        await self._workers.grow()
        if len(parts.netloc) > MAX_HOST_CHARACTERS:
            return
        # Beside those that have something to do now.
        n_here = sum(sum(process.idle.at(origin)) for process in self._workers)
        n_here += sum(len(process.moves) for process in self._workers)
        n_wanted = n_connections
        n_connections = min(n_connections, n_here + self._permits.room(origin))
        share = n_connections // max(1, len(self._workers))
        fields = {"origin": f"{parts.scheme}://{parts.netloc}", "n_connections": share}
        for process in self._workers:
            if not process.is_ready:
                process.to_prepare = (link, n_wanted)
                continue
            await process.send_slow_addresses(self._slow_addresses())
            n_more = max(0, share - sum(process.idle.at(origin)) - len(process.moves))
            if n_more:
                number = next(self._numbers)
                process.idle.note_opening(origin, n_more, number)
                await process.send_order("warm", {**fields, "order": number})

    # -- connections (`permits.Holder`) ----------------------------------------------------------

    def n_idle(self, origin: str) -> tuple[int, int]:
        """Return the connections to *origin* that no move has (`permits.Holder`)."""
        idle = [each.idle.at(origin) for each in self._workers]
        return sum(each[0] for each in idle), sum(each[1] for each in idle)

    def n_unused_since(self, origin: str, at_s: float) -> int:
        """Return 0 (`permits.Holder`): workers open connections when ranges are about to come."""
        return 0

    def close_some_idle(self, origin: str, n_connections: int) -> None:
        """Have workers close connections to *origin* that no move has (`permits.Holder`)."""
        for process in self._workers:
            n_closed = min(n_connections, sum(process.idle.at(origin)))
            if n_closed:
                n_connections -= n_closed
                number = next(self._numbers)
                process.idle.note_closing(origin, n_closed, number)
                fields = {"origin": origin, "n_connections": n_closed, "order": number}
                self._nursery.start_soon(process.send_order, "close", fields)

    # -- which worker ----------------------------------------------------------------------------

    def is_at_hand(self, link: Link, delivery: Download) -> bool:
        """Return whether a worker can move *delivery* now; starts one where it helps."""
        return not self._is_for_loop(link, delivery) and self._at_hand(link) is not None

    def _is_for_loop(self, link: Link, delivery: Download) -> bool:
        # The loop uses proxies, whose lines are slow enough for it. It also writes to memory
        # without a descriptor, to which no other process can write.
        return (
            self._is_proxied(link.url)
            or delivery.cached.top.file.fd is None
            or origin_of(link.url) in self._redirecting
            or self._responds_once(origin_of(link.url))
        )

    def _at_hand(self, link: Link) -> WorkerProcess | None:
        """Return the process for the next move, or None where the loop must move it. Never waits.

        If all are busy another one is started. The start of an interpreter takes more than half of
        a short transfer; until then the loop moves the ranges that would have to wait.
        """
        if self._workers.is_given_up:
            return None
        ready = [each for each in self._workers if each.is_ready and not each.is_dead]
        origin = origin_of(link.url)

        def rank(process: WorkerProcess) -> tuple[bool, bool, bool, int]:
            n_idle, n_unused = process.idle.at(origin)
            return bool(process.cancelled), not n_idle, not n_unused, len(process.moves)

        least_busy = min(ready, key=rank, default=None)
        if (least_busy is None or least_busy.moves) and self._workers.is_room():
            self._nursery.start_soon(self._workers.grow)
        return least_busy

    # -- reports ---------------------------------------------------------------------------------

    def _note_ready(self, worker: WorkerProcess) -> None:
        self.on_ready()
        if worker.to_prepare is not None:
            self._nursery.start_soon(self._prepare_soon, *worker.to_prepare)

    async def _prepare_soon(self, link: Link, n_connections: int) -> None:
        with contextlib.suppress(WorkerDied):
            await self.prepare(link, n_connections)

    def _take_report(self, worker: WorkerProcess, report: Report) -> None:
        if isinstance(report, Connections):
            origin = origin_of(report.origin)
            worker.idle.note_report(origin, report.n_idle, report.n_unused, report.orders)
            self._permits.note_refused_ahead(origin, report.n_refused)
            self._permits.note_changed(origin)
            return
        state = worker.moves.get(report.move)
        permit = None if state is None else state.delivery.attempt.permit
        if isinstance(report, OutcomeReport):
            worker.cancelled.discard(report.move)
            if permit is not None:
                # Its connection is idle, closed or another move's: not once more, until its task
                # has ended it.
                permit.is_counted = False
            if report.passed_to in worker.moves:
                following = worker.moves[report.passed_to].delivery.attempt.permit
                if following is not None:
                    following.responded()
        if state is None or state.ended.is_set():
            return
        if isinstance(report, LookReport):
            if permit is not None:
                if report.has_begun:
                    permit.responded()
                else:
                    permit.note_waited(report.waited_s)
                permit.not_taken_back()
            return
        if isinstance(report, OutcomeReport):
            if permit is not None:
                if report.is_kept:
                    worker.idle.note_kept(permit.origin)
                elif report.is_taken_back:
                    worker.idle.note_opening_left(permit.origin)
                    permit.taken_back()
            state.outcome = report
            state.ended.set()
            return
        delivery = state.delivery
        self._workers.note_moved(max(0, report.front - delivery.held_until))
        delivery.attempt.response_s = report.response_s
        delivery.attempt.arriving_since(trio.current_time() - report.receiving_s)
        try:
            # After a cut, the worker may have continued for a moment; its blocks are right as well.
            delivery.report(min(report.front, delivery.stop), fitting(delivery, report))
        except Exception as spilled:  # raised in the task that waits for the move
            state.failure = spilled
            state.ended.set()
            return
        if delivery.is_done and delivery.stop < state.stop:
            # It was cut. Else the outcome follows at once: until then its connection is not idle.
            state.outcome = OutcomeReport(report.move) if report.front >= delivery.stop else None
            state.ended.set()

    async def _file_of(self, process: WorkerProcess, file: BlockFile) -> int:
        number = process.files.get(file)
        if number is None:
            number = process.files[file] = next(self._numbers)
            packet = messages.pack_order("file", {"file": number, "size_bytes": file.size_bytes})
            await process.send(packet, file.fd)
        return number

    def file_closed(self, file: BlockFile) -> None:
        """Let the workers close a file that was closed here. Never waits."""
        if any(file in process.files for process in self._workers):
            self._nursery.start_soon(self._forget, file)

    async def _forget(self, file: BlockFile) -> None:
        for process in self._workers:
            number = process.files.pop(file, None)
            if number is not None:
                await process.send_order("forget", {"file": number})

    def statistics(self) -> dict[str, int]:
        """Return how many worker processes there are, and how many downloads they move."""
        return {
            "workers": len(self._workers),
            "moves": sum(len(each.moves) for each in self._workers),
        }
