"""One worker process in the pool: its channel, its moves, its start and its end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import Final

import trio

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import BLOCK_BYTES, start_of_blocks
from satfs.content.cache.kernelcalls import cpu_seconds_of
from satfs.content.transfer import messages
from satfs.content.transfer.idle_connections import IdleConnections
from satfs.content.transfer.interface import Download, UnusableResponse, WorkerDied
from satfs.content.transfer.messages import OutcomeReport, ProgressReport
from satfs.content.transfer.store_responses import ResponseClass, ResponseKind
from satfs.errors import DeadlineReached, Unreachable
from satfs.model import Link
from satfs.net.host_connections import Permit, TakenBack
from satfs.settings import worker_environment

#: Another worker is started when each existing one uses this share of a processor. If a worker
#: waits for bytes, or for a processor that other processes use, a second one would receive no more.
SATURATED_SHARE: Final = 0.8
#: Shortest time over which a worker's processor time is measured, in seconds.
LOOK_S: Final = 0.2
#: Packets of a worker that are received before other tasks run: a millisecond or two. With many
#: connections some come at the same time, and one wake-up costs as much as three of them.
MAX_PACKETS: Final = 32
#: Time for a worker to take an order; it takes microseconds.
SEND_TIMEOUT_S: Final = 5.0
#: Time for a worker to end by itself once its channel is closed, and once it was killed: a process
#: in an uninterruptible call of the kernel (a disk that hangs) ends when that call returns.
END_TIMEOUT_S: Final = 2.0


class WorkerProcess:
    """One worker, its channel, and the moves it has been given."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process = process
        self._incoming = channel
        self.channel = trio.socket.from_stdlib_socket(channel)  # which never blocks from now on
        self.sending = trio.Lock()
        self.moves: dict[int, Move] = {}
        #: Moves that were cancelled, of which the worker has not reported the end yet.
        self.cancelled: set[int] = set()
        self.files: dict[BlockFile, int] = {}
        self.slow: tuple[str, ...] = ()  # addresses that were sent to it
        self.idle = IdleConnections()
        self.idle_since_s = trio.current_time()
        self.reported_at_s = trio.current_time()
        self.is_suspect = False  # overdue at the last look
        self.is_ready = False  # its interpreter runs, and has imported what it needs
        #: Where it is to open connections when it is ready, and how many all workers together.
        self.to_prepare: tuple[Link, int] | None = None
        self.is_dead = False
        self.is_saturated = False  # by the last look at its processor time
        self._looked_s = trio.current_time()
        self._cpu_s = 0.0

    def look(self, now_s: float) -> None:
        """Measure from time to time whether it uses a whole processor."""
        elapsed_s = now_s - self._looked_s
        if elapsed_s < LOOK_S:
            return
        cpu_s = cpu_seconds_of(self.process.pid)
        self.is_saturated = cpu_s - self._cpu_s >= SATURATED_SHARE * elapsed_s
        self._looked_s, self._cpu_s = now_s, cpu_s

    async def receive(self) -> list[bytes]:
        """Wait for a packet, and return all that have come, `MAX_PACKETS` at most; b"" is the end.

        Raises:
            OSError, trio.ClosedResourceError: the channel is broken, or closed here.
        """
        await trio.lowlevel.wait_readable(self._incoming)
        packets: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(packets) < MAX_PACKETS and (not packets or packets[-1]):
                packets.append(self._incoming.recv(messages.MAX_BYTES))
        return packets

    async def send_slow_addresses(self, slow: tuple[str, ...]) -> None:
        """Send the slow addresses that the worker does not know yet."""
        new = [each for each in slow if each not in self.slow]
        self.slow = slow
        if new:
            await self.send_order("slow", {"addresses": new})

    async def send_order(self, kind: str, fields: dict[str, object]) -> None:
        """Send an order, if the worker still runs."""
        with contextlib.suppress(WorkerDied):
            await self.send(messages.pack_order(kind, fields))

    async def send(self, packet: bytes, fd: int | None = None) -> None:
        """Send a packet, with a descriptor.

        Raises:
            WorkerDied: the worker does not take it.
        """
        ancillary = []
        if fd is not None:
            rights = fd.to_bytes(4, sys.byteorder)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        # In order, and whole: a file that was announced has been sent before any move names it,
        # also when the task that sends it is cancelled. A worker that takes nothing counts as dead.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_TIMEOUT_S):
            async with self.sending:
                try:
                    await self.channel.sendmsg([packet], ancillary)
                except (OSError, trio.ClosedResourceError):
                    raise WorkerDied from None
                return
        self.process.kill()
        raise WorkerDied


class Move:
    """One range that a worker moves."""

    def __init__(self, delivery: Download) -> None:
        self.delivery = delivery
        self.stop = delivery.stop  # as ordered
        self.ended = trio.Event()
        self.outcome: OutcomeReport | None = None
        self.failure: Exception | None = None

    def check_outcome(self, where: str, permit: Permit | None) -> None:
        """Return when the move is complete; *where* is the address, for messages.

        Raises: as `Mover.move`.
        """
        outcome, delivery = self.outcome, self.delivery
        if outcome is None or outcome.is_file_failure:
            raise WorkerDied(is_of_file=outcome is not None)
        if outcome.is_taken_back:
            raise TakenBack
        if permit is not None:
            if outcome.is_refused:
                permit.refused()
            elif outcome.response_class is not None:
                permit.responded()
            elif outcome.broken is not None:
                permit.broke()
        if outcome.response_class is not None:
            raise UnusableResponse(outcome.response_class, outcome.retry_after_s)
        if delivery.is_done:
            return
        if outcome.broken is None:
            raise UnusableResponse(ResponseClass(ResponseKind.RETRY, "body cut short"))
        if outcome.is_timeout:
            raise DeadlineReached("the object store sent nothing in time")
        if outcome.is_permanent:
            raise Unreachable(f"{where}: no connection: {outcome.broken}", is_permanent=True)
        raise Unreachable(f"the object store broke the connection off: {outcome.broken}")


def fitting(delivery: Download, report: ProgressReport) -> list[int]:
    """Return the checksums of the blocks that *delivery* still takes."""
    first = start_of_blocks(report.front, len(report.hashes))
    skip = max(0, delivery.held_until - first) // BLOCK_BYTES
    front = min(report.front, delivery.stop)
    n_blocks = -(-(front - max(first, delivery.held_until)) // BLOCK_BYTES)
    return report.hashes[skip : skip + max(0, n_blocks)]


async def start_worker() -> WorkerProcess:
    """Start a worker process and return it; it is ready after its first report.

    Raises:
        OSError: it could not be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = await trio.to_thread.run_sync(_spawn, theirs)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return WorkerProcess(process, ours)


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    environment = worker_environment()
    # The package may have been found by the way this process was started.
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
        [sys.executable, "-P", "-m", "satfs.content.transfer.worker_main", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a worker whose channel is closed; kill it if it does not end. Waits."""
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
