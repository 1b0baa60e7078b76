"""How much of the machine we really had: waits for quiet, and tells what a hypervisor took away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

#: Busier than this, in shares of all cores, is not quiet.
QUIET_SHARE = 0.10
#: A sample during which more than this share of the processors was taken away says nothing.
STOLEN_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Moment:
    """The processors' counters at one moment, in ticks since boot (proc_stat(5))."""

    idle: int
    stolen: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Moment:
        """Return the counters in the text of /proc/stat."""
        user, nice, system, idle, waiting, irq, softirq, steal = (
            int(word) for word in text.partition("\n")[0].split()[1:9]
        )
        total = user + nice + system + idle + waiting + irq + softirq + steal
        return cls(idle + waiting, steal, total)

    @classmethod
    def now(cls) -> Moment:
        """Return the counters as they are."""
        return cls.parse(Path("/proc/stat").read_text())

    def busy_since(self, earlier: Moment) -> float:
        """Return the share of time in which the processors were not idle, ours or not."""
        return 1 - (self.idle - earlier.idle) / max(1, self.total - earlier.total)

    def stolen_since(self, earlier: Moment) -> float:
        """Return the share of time in which we wanted a processor that others were given."""
        return (self.stolen - earlier.stolen) / max(1, self.total - earlier.total)


def wait_until_quiet(patience_s: float) -> None:
    """Wait until nobody else uses the machine, at most *patience_s* seconds."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        before = Moment.now()
        time.sleep(0.25)
        if Moment.now().busy_since(before) <= QUIET_SHARE:
            return
