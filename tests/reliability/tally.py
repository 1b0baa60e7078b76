"""Figures of the reliability tests: calls, the longest call, bytes compared, faults injected.

`docs/RELIABILITY.md` quotes these figures; each run prints its own.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Tally:
    """Sums over a run. Safe to write from any thread."""

    n_calls: int = 0
    longest_s: float = 0.0
    longest_call: str = ""
    n_compared_bytes: int = 0
    n_wrong_bytes: int = 0
    n_late: int = 0
    errnos: Counter[str] = field(default_factory=Counter)
    n_faults: int = 0
    n_kills: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note_call(self, name: str, took_s: float, failure: OSError | None, limit_s: float) -> None:
        """Enter one call on the mount."""
        with self._lock:
            self.n_calls += 1
            self.n_late += took_s > limit_s
            if took_s > self.longest_s:
                self.longest_s, self.longest_call = took_s, name
            if failure is not None and failure.errno is not None:
                self.errnos[errno.errorcode[failure.errno]] += 1

    def note_bytes(self, n_right: int, n_wrong: int) -> None:
        """Enter the outcome of a comparison."""
        with self._lock:
            self.n_compared_bytes += n_right + n_wrong
            self.n_wrong_bytes += n_wrong

    def sums(self) -> dict[str, Any]:
        """Return everything as numbers and words that can be sent to another process."""
        return {
            field.name: dict(value) if isinstance(value, Counter) else value
            for field in fields(self)
            if not field.name.startswith("_")
            for value in (getattr(self, field.name),)
        }

    def add(self, sums: dict[str, Any]) -> None:
        """Add the figures of another process, its `sums`."""
        with self._lock:
            if sums["longest_s"] > self.longest_s:
                self.longest_s, self.longest_call = sums["longest_s"], sums["longest_call"]
            self.errnos.update(sums["errnos"])
            for name in ("calls", "compared_bytes", "wrong_bytes", "late", "faults", "kills"):
                setattr(self, f"n_{name}", getattr(self, f"n_{name}") + sums[f"n_{name}"])

    def rows(self) -> list[tuple[str, str]]:
        """Return the sums for people, a name and a value each."""
        errnos = ", ".join(f"{name} {n}" for name, n in self.errnos.most_common())
        return [
            ("calls on the mount", f"{self.n_calls:,}"),
            ("returned too late", f"{self.n_late:,}"),
            ("longest call", f"{self.longest_s:.2f} s ({self.longest_call})"),
            ("requests met by a fault", f"{self.n_faults:,}"),
            ("processes killed", f"{self.n_kills:,}"),
            ("bytes compared", f"{self.n_compared_bytes:,}"),
            ("wrong bytes", f"{self.n_wrong_bytes:,}"),
            ("errnos seen", errnos or "none"),
        ]


#: One for the whole process: tests of one run add to it, and its end prints it.
TALLY = Tally()
