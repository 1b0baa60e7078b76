"""Progress of work on many files, reported at a bounded rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import trio
from msgspec import Struct, field

from satfs.control.server import SendNotice
from satfs.errors import SatfsError
from satfs.model import Json

#: Time between two messages about one file, in seconds: bars move, and the socket carries few
#: messages.
INTERVAL_S: Final = 0.2


class CommandProgress(Struct):
    """Counts files that are found, begun, in progress and ended, and sends notices of them."""

    send: SendNotice
    n_files: int = 0
    n_bytes: int = 0
    n_bytes_done: int = 0
    failures: list[dict[str, Json]] = field(default_factory=list)
    _reported_s: dict[str, float] = field(default_factory=dict)

    async def found(self, n_files: int, n_bytes: int) -> None:
        """Send how much has been found so far."""
        if self._is_due(""):
            await self.send({"event": "found", "files": n_files, "bytes": n_bytes})

    async def planned(self, sizes: Sequence[int]) -> None:
        """Send how much there is to do."""
        self.n_files, self.n_bytes = len(sizes), sum(sizes)
        await self.send({"event": "planned", "files": self.n_files, "bytes": self.n_bytes})

    async def begun(self, path: str, size_bytes: int) -> None:
        """Send that a file is begun."""
        self._reported_s[path] = trio.current_time()
        await self.send({"event": "begun", "path": path, "bytes": size_bytes})

    async def moved(self, path: str, n_bytes: int) -> None:
        """Send that the first *n_bytes* of a file are done."""
        if self._is_due(path):
            await self.send({"event": "moved", "path": path, "bytes_done": n_bytes})

    async def ended(
        self,
        path: str,
        n_bytes: int,
        failure: SatfsError | None = None,
        facts: Mapping[str, Json] | None = None,
    ) -> None:
        """Send that a file of *n_bytes* is done, or (with *failure*) given up; add *facts*."""
        self._reported_s.pop(path, None)
        if failure is None:
            self.n_bytes_done += n_bytes
        else:
            self.failures.append({"path": path, **failure_record(failure)})
        outcome = failure_record(failure) if failure is not None else {"error": None}
        message = {"event": "ended", "path": path, "bytes": n_bytes, **outcome, **(facts or {})}
        await self.send(message)

    def result(self) -> dict[str, Json]:
        """Return the counts, and the failures."""
        return {
            "files": self.n_files,
            "bytes": self.n_bytes,
            "bytes_done": self.n_bytes_done,
            "failed": self.failures,
        }

    def _is_due(self, path: str) -> bool:
        now_s = trio.current_time()
        if now_s - self._reported_s.get(path, float("-inf")) < INTERVAL_S:
            return False
        self._reported_s[path] = now_s
        return True


def failure_record(failure: SatfsError) -> dict[str, Json]:
    """Return *failure* as fields of a message."""
    return {"error": type(failure).__name__, "message": str(failure) or type(failure).__name__}
