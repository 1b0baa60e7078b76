"""Reading over a line that loses packets, all the time or all of them for some seconds.

    scripts/bench losses [--case 5%] [--work sequential] [--round-trip-ms 600] [--reps 3]

Each figure is a new mount of the demo origin, as a rule 50 ms away over TLS, and one file whose
size is known. It is read from its first byte to its last, or in pieces of 64 KiB at random places.
Every byte is compared. Besides the time the table has the longest read, the connections that were
opened to the origin, and those that the kernel ended since nothing was acknowledged
(`net/socket_options.py`): `TCPAbortOnTimeout` of the client's side.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.connections import mounted, serving
from benchmarks.line import Line, open_line
from benchmarks.profiles import MB, Profile
from satfs.demo.contents import RampContent

ROUND_TRIP_S = 0.05
#: Bytes per second of one connection: a transfer takes seconds, so that an outage is in its middle.
CONNECTION_RATE = 1 * MB
READ_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024
N_PIECES = 40
#: When an outage begins, in seconds after the first read.
OUTAGE_AT_S = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A line: how many of a thousand packets it loses, and for how many seconds all of them."""

    lost_per_mille: int
    outage_s: float
    size_bytes: int


#: TCP carries less over a line the more that loses, so that these files are smaller.
CASES = {
    "0%": Case(0, 0.0, 40 * MB),
    "5%": Case(50, 0.0, 20 * MB),
    "20%": Case(200, 0.0, 3 * MB),
    "2 s": Case(0, 2.0, 40 * MB),
    "4 s": Case(0, 4.0, 40 * MB),
    "8 s": Case(0, 8.0, 40 * MB),
}
WORKS = ("sequential", "random")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a read took, and what the kernel of the client counted meanwhile."""

    took_s: float
    longest_s: float
    n_opened: int
    n_given_up: int


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser("scripts/bench losses", description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="(repeatable)")
    parser.add_argument("--work", action="append", choices=WORKS, help="(repeatable)")
    parser.add_argument("--round-trip-ms", type=float, default=1000 * ROUND_TRIP_S)
    parser.add_argument("--reps", type=int, default=1, help="the median counts")
    given = parser.parse_args(arguments)
    print("| line | read | seconds | longest read | connections | given up |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, work in itertools.product(given.case or CASES, given.work or WORKS):
        samples = [
            measured(CASES[name], work, given.round_trip_ms / 1000) for _ in range(given.reps)
        ]
        print(
            f"| {name} | {work} | {statistics.median(each.took_s for each in samples):.1f} |"
            f" {statistics.median(each.longest_s for each in samples):.1f} |"
            f" {max(each.n_opened for each in samples)} |"
            f" {max(each.n_given_up for each in samples)} |",
            flush=True,
        )
    return 0


def measured(case: Case, work: str, round_trip_s: float) -> Sample:
    """Return what reading one file takes on a new mount.

    Raises:
        AssertionError: a byte is wrong.
        OSError: a read failed.
    """
    with contextlib.ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="satfs-bench-")))
        profile = Profile("lossy", "", tls=True, round_trip_s=round_trip_s)
        line = stack.enter_context(open_line(profile, room, lost_per_mille=case.lost_per_mille))
        origin = stack.enter_context(serving(line, room, connection_rate=CONNECTION_RATE, tls=True))
        scene = origin.call("scenes")[0]
        origin.call("replace_by_ramp", scene_id=scene, size_bytes=case.size_bytes)
        mount = room / "mnt"
        mount.mkdir()
        stack.enter_context(mounted(line, origin, mount, room))
        path = mount / "scenes" / scene / f"{scene}.zip"
        assert path.stat().st_size == case.size_bytes
        before = _counted(line)
        stack.callback(_outage(line, case.outage_s).join)
        began_s = time.monotonic()
        longest_s = _read(path, _pieces(case, work))
        took_s = time.monotonic() - began_s
        after = _counted(line)
        return Sample(
            took_s,
            longest_s,
            after["ActiveOpens"] - before["ActiveOpens"],
            after["TCPAbortOnTimeout"] - before["TCPAbortOnTimeout"],
        )


def _pieces(case: Case, work: str) -> list[tuple[int, int]]:
    """Return what to read: places and lengths."""
    if work == "sequential":
        starts = range(0, case.size_bytes, READ_BYTES)
        return [(start, min(READ_BYTES, case.size_bytes - start)) for start in starts]
    dice = random.Random(7)  # noqa: S311 - repeatable, no secret
    last = case.size_bytes - PIECE_BYTES
    return [(dice.randrange(last), PIECE_BYTES) for _ in range(N_PIECES)]


def _read(path: Path, pieces: list[tuple[int, int]]) -> float:
    """Read *pieces* and return the seconds of the longest read."""
    longest_s, right = 0.0, RampContent(path.stat().st_size)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for start, n_bytes in pieces:
            at = start
            while at < start + n_bytes:
                began_s = time.monotonic()
                got = os.pread(descriptor, start + n_bytes - at, at)
                longest_s = max(longest_s, time.monotonic() - began_s)
                if not got or got != bytes(right.read(at, at + len(got))):
                    raise AssertionError(f"wrong bytes at {at}")
                at += len(got)
    finally:
        os.close(descriptor)
    return longest_s


def _outage(line: Line, outage_s: float) -> threading.Thread:
    """Begin a thread that has *line* lose everything for a while."""

    def work() -> None:
        if not outage_s or line.control is None:
            return
        for byte, wait_s in ((b"x", OUTAGE_AT_S), (b"-", outage_s)):
            time.sleep(wait_s)
            line.control.write(byte)
            line.control.flush()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _counted(line: Line) -> dict[str, int]:
    """Return the kernel's counters of the client's side (/proc/net/snmp, /proc/net/netstat)."""
    command = [*line.client_prefix, "cat", "/proc/net/snmp", "/proc/net/netstat"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = iter(done.stdout.splitlines())
    counters: dict[str, int] = {}
    for names, values in zip(lines, lines, strict=True):
        counters.update(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    return counters
