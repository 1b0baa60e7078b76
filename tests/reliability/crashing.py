"""Kill a mount, or one of its workers, at any moment, and see what is left: a round of a loop."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from reliability.stand import KIB, MIB, Stand, Wrong

from satfs.demo.contents import Content


def workers_of(pid: int) -> list[int]:
    """Return the ids of a mount's worker processes."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


@dataclass
class CrashLoop:
    """Readers on a stand whose mount is killed again and again, its cache kept.

    A byte is *verified* when a reader has compared it and half a second, the index's interval, has
    passed: from then on it must not be fetched again.
    """

    stand: Stand
    dice: random.Random
    n_files: int = 3
    size_bytes: int = 12 * MIB
    scenes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scenes = [self.stand.publish(self.size_bytes) for _ in range(self.n_files)]

    def round(self) -> None:
        """Read with several readers, kill at a random moment, mount again, compare everything."""
        stand, dice = self.stand, self.dice
        # Always something new, so that there is something on its way to be interrupted.
        self.scenes = [*self.scenes[1:], stand.publish(self.size_bytes)]
        moment_s = dice.choice((0.02, 0.1, 0.3, 0.8)) * dice.random()
        target = dice.choice(("mount", "mount", "worker"))
        readers = [
            stand.calls.start("reader", 30, self._read, scene, dice.random())
            for scene in self.scenes
        ]
        time.sleep(moment_s)
        if target == "worker" and (pids := workers_of(stand.current.process.pid)):
            stand.tally.n_kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(pids), signal.SIGKILL)
            self._end(readers)  # no thread waits for a dead worker
            return
        stand.current.process.kill()
        stand.tally.n_kills += 1
        stand.current.process.wait()
        self._end(readers, is_killed=True)
        stand.current.clean()
        stand.mount()

    def _end(self, readers: list[Future[None]], *, is_killed: bool = False) -> None:
        done, waiting = wait(readers, self.stand.read_call_s + 30)
        assert not waiting, "a reader was left behind by the mount's death"
        for reader in done:
            failure = reader.exception()
            if failure is None or (is_killed and isinstance(failure, OSError)):
                continue
            raise failure

    def _read(self, scene: str, where: float) -> None:
        """Read on from a place to the end of the file, and some at random; all bytes are right.

        Not by the stand's own calls: each of these would take a second thread.
        """
        content = self.stand.content(scene)
        start = int(where * content.size_bytes)
        with self.stand.opened(scene) as file:
            for at in range(start, content.size_bytes, 256 * KIB):
                self._compare(file, content, at, 256 * KIB)
            for n in range(20):
                self._compare(file, content, start * (n + 1) % content.size_bytes, 4 * KIB)

    def _compare(self, file: int, content: Content, start: int, n_bytes: int) -> None:
        wanted = min(n_bytes, content.size_bytes - start)
        while wanted:
            n_got = self.stand.check(os.pread(file, wanted, start), content, start, wanted)
            start, wanted = start + n_got, wanted - n_got

    def verify_all(self) -> None:
        """Compare every byte of every file."""
        for scene in self.scenes:
            with self.stand.opened(scene) as file:
                self.stand.compare(file, self.stand.content(scene))

    def check_kept(self) -> None:
        """A file that was read to its end and committed is read again without the store."""
        stand = self.stand
        self.verify_all()
        time.sleep(1.2)  # two rounds of the index
        stand.remount(signal.SIGKILL)
        stand.origin.journal.clear()
        self.verify_all()
        fetched = stand.origin.bytes_sent()
        if fetched:
            raise Wrong(f"{fetched} bytes that were committed were fetched again after the crash")
