"""The share of the machine that was ours: wait for quiet, and measure what a hypervisor took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: Busier than this, in shares of all cores, is not quiet.
QUIET_SHARE = 0.10
#: A sample during which more than this share of the processors was taken away says nothing.
STOLEN_SHARE = 0.05
#: A kernel with this module may report free memory to its hypervisor, which takes it back.
GIVES_MEMORY_BACK = Path("/sys/module/page_reporting")
#: Writes to the number of MiB of memory in its argument, and frees them.
TOUCH = """
import mmap, sys
piece = bytes(1 << 20)
memory = mmap.mmap(-1, len(piece) * int(sys.argv[1]))
for _ in range(int(sys.argv[1])):
    memory.write(piece)
"""


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
    """Wait until no other program uses the machine, at most *patience_s* seconds."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        before = Moment.now()
        time.sleep(0.25)
        if Moment.now().busy_since(before) <= QUIET_SHARE:
            return


def claim_memory(size_bytes: int) -> None:
    """Have this much free memory for certain, as a machine of its own has.

    A hypervisor takes back a guest's free memory, and the first write to a page of it waits for the
    hypervisor: that would slow a contender that writes a gigabyte, and not one that just passes it
    on. Does nothing on a machine that gives no memory back.
    """
    if not GIVES_MEMORY_BACK.exists():
        return
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    n_mib = min(size_bytes, free_bytes * 3 // 4) >> 20
    subprocess.run([sys.executable, "-I", "-S", "-c", TOUCH, str(n_mib)], check=False)
