"""The existing worker processes: started where one more helps, watched, and replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import structlog
import trio

from satfs.content.transfer import messages
from satfs.content.transfer.interface import WorkerDied
from satfs.content.transfer.messages import Report
from satfs.content.transfer.worker_process import WorkerProcess, reap, start_worker

log = structlog.get_logger(__name__)

#: Number of workers that may die without a byte in between before workers are not used any more:
#: this machine kills them, and the loop can do their work.
MAX_DEATHS: Final = 5
#: Bytes that one worker moves before another is started: a process costs a tenth of a second of
#: processor time, and one receives 1 GB/s on a processor of its own (docs/decisions/0008).
GROW_AFTER_BYTES: Final = 128 * 1024 * 1024
#: A worker with moves that has reported nothing for the progress timeout counts as stopped, and is
#: killed. Never earlier than this: on a machine whose processors are all busy, a healthy worker may
#: have to wait.
MIN_SILENCE_S: Final = 1.0


class WorkerProcesses:
    """Up to *n_workers* processes, each with a task that takes in its reports and one that watches.

    A worker that has been idle for *idle_s* seconds ends, and so does one with moves that reports
    nothing for *silence_s*. Each gets *settings* first. *on_ready* is called with a worker when it
    has reported for the first time, *take_report* with each report.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        n_workers: int,
        idle_s: float,
        silence_s: float,
        settings: dict[str, object],
        on_ready: Callable[[WorkerProcess], None],
        take_report: Callable[[WorkerProcess, Report], None],
    ) -> None:
        self._nursery = nursery
        self._n_workers = n_workers
        self._idle_s = idle_s
        self._silence_s = max(silence_s, MIN_SILENCE_S)
        self._settings = settings
        self._on_ready = on_ready
        self._take_report = take_report
        self._processes: list[WorkerProcess] = []
        self._starting = trio.Lock()
        self._n_deaths = 0
        self._n_moved_bytes = 0  # since there was no worker

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(tuple(self._processes))

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def is_given_up(self) -> bool:
        """Return whether workers are not used any more: they keep dying, or cannot be started."""
        return self._n_deaths >= MAX_DEATHS

    def note_moved(self, n_bytes: int) -> None:
        """Note that a worker has moved bytes."""
        self._n_deaths = 0
        self._n_moved_bytes += n_bytes

    def is_room(self) -> bool:
        """Return whether another process would help: a first one, or one beside busy ones."""
        living = [each for each in self._processes if not each.is_dead]
        if self.is_given_up or len(living) >= self._n_workers:
            return False
        if self._n_moved_bytes < GROW_AFTER_BYTES:
            return not living
        now_s = trio.current_time()
        for process in living:
            process.look(now_s)
        return all(process.is_saturated for process in living)

    async def grow(self) -> None:
        """Start a process, unless there are enough by now."""
        async with self._starting:
            while self.is_room():
                try:
                    await self._start()
                except OSError as problem:
                    log.warning("no worker process: receiving in the loop", reason=problem.strerror)
                    self._n_deaths = MAX_DEATHS
                except WorkerDied:
                    pass  # counted

    async def _start(self) -> None:
        worker = await start_worker()
        self._processes.append(worker)
        self._nursery.start_soon(self._listen, worker)
        self._nursery.start_soon(self._watch_over, worker)
        await worker.send(messages.pack_order("settings", self._settings))

    async def _listen(self, worker: WorkerProcess) -> None:
        """Receive the reports of a worker, until it ends or has been idle for long."""
        try:
            while True:
                with trio.move_on_after(self._idle_s):
                    packets = await worker.receive()
                    if not worker.is_ready:
                        worker.is_ready = True
                        self._on_ready(worker)
                    worker.reported_at_s, worker.is_suspect = trio.current_time(), False
                    for packet in packets:
                        if not packet:
                            return
                        self._take_report(worker, messages.read_report(packet))
                    continue
                if not worker.moves and trio.current_time() - worker.idle_since_s >= self._idle_s:
                    break
        except (OSError, ValueError, trio.ClosedResourceError):
            pass
        finally:
            self._bury(worker)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(reap, worker.process)

    async def _watch_over(self, worker: WorkerProcess) -> None:
        """Kill a worker that has moves and reports nothing: it was stopped, or its disk hangs.

        Its moves end with `WorkerDied`, and are made in another way. This does not count as a
        failure of the store.
        """
        while not worker.is_dead:
            await trio.sleep(self._silence_s / messages.ALIVE_PER_TIMEOUT)
            is_overdue = trio.current_time() - worker.reported_at_s >= self._silence_s
            if not (worker.moves or worker.cancelled) or not is_overdue:
                continue
            if not worker.is_suspect:
                # Perhaps this process itself was stopped, and the reports wait to be read.
                worker.is_suspect = True
                continue
            log.info("worker process stands still", pid=worker.process.pid)
            worker.process.kill()
            # Not when it has ended: in a call to a disk that hangs it cannot.
            self._bury(worker)

    def _bury(self, worker: WorkerProcess) -> None:
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

    def _note_death(self) -> None:
        self._n_deaths += 1
        if self._n_deaths == MAX_DEATHS:
            log.warning("worker processes keep dying: receiving in the loop from now on")
