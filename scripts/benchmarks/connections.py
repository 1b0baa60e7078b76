"""Reading from a host that lets few connections through: how long, and how many it refuses.

    scripts/bench connections [--line near] [--tls] [--how reset] [-n 4] [--reps 3]

Each figure is a new mount of the demo origin, whose store serves the number of connections and no
more (its fault `connection-limit`), and one file, whose size is known, read from its first byte to
its last. It is compared with what as many connections could do at best, opened together and each
with its share of the file (`Case.ideal_s`), and with what a client takes that knows their number
(`best_client`): that pays for TCP's slow start, and for this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import running
from benchmarks.line import Line, open_line
from benchmarks.origin import make_certificates
from benchmarks.profiles import MB, Profile
from satfs.demo.contents import RampContent
from satfs.demo.process import DemoProcess

NUMBERS = (1, 2, 3, 4, 6, 10, 16)
MODES = ("reset", "503", "queue")
#: `near` is loopback; `slow` waits before each answer, and connections cost nothing; on `far` every
#: packet is late, so that a connection costs two answers more.
LINES = ("near", "slow", "far")
DELAY_S = 0.1
#: Bytes per second of one connection, and of all: the origin must not be what limits.
CONNECTION_RATE = 10 * MB
TOTAL_RATE = 32 * MB
FILE_BYTES = 40 * MB
#: With many connections, so that the ideal is some seconds again.
LONG_FILE_BYTES = 60 * MB
MANY = 10
MOUNT_S = 30.0
READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Case:
    """One host: how many connections it serves, what becomes of others, and how far it is."""

    n_let_through: int
    how: str
    line: str
    tls: bool

    @property
    def size_bytes(self) -> int:
        """Return the length of the file."""
        return LONG_FILE_BYTES if self.n_let_through >= MANY else FILE_BYTES

    @property
    def connection_rate(self) -> float:
        """Return the bytes per second of one connection."""
        return min(CONNECTION_RATE, TOTAL_RATE / self.n_let_through)

    @property
    def ideal_s(self) -> float:
        """Return the seconds of as many connections, opened together, each with its share."""
        n_waits = {"near": 0, "slow": 1, "far": 3 if self.tls else 2}[self.line]
        return DELAY_S * n_waits + self.size_bytes / (self.n_let_through * self.connection_rate)


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of a read and of the best client; the number of refused connections (503: calls)."""

    took_s: float
    best_s: float
    n_refused: int


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser("scripts/bench connections", description=__doc__)
    parser.add_argument("-n", type=int, action="append", help="connections (repeatable)")
    parser.add_argument("--how", action="append", choices=MODES, help="(repeatable)")
    parser.add_argument("--line", action="append", choices=LINES, help="(repeatable)")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, help="both without")
    parser.add_argument("--reps", type=int, default=1, help="the median counts")
    given = parser.parse_args(arguments)
    print("| N | beyond | line | | seconds | ideal | times | best client | times | refused |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for line, tls in itertools.product(
        given.line or LINES, [False, True] if given.tls is None else [given.tls]
    ):
        if line == "far" and not tls:
            continue  # satfs sends no credential without TLS but over loopback
        for n, how in itertools.product(given.n or NUMBERS, given.how or MODES):
            case = Case(n, how, line, tls)
            samples = [measured(case) for _ in range(given.reps)]
            took_s = statistics.median(each.took_s for each in samples)
            best_s = statistics.median(each.best_s for each in samples)
            print(
                f"| {n} | {how} | {line} | {'TLS' if tls else 'plain'} | {took_s:.2f} |"
                f" {case.ideal_s:.2f} | {took_s / case.ideal_s:.2f} | {best_s:.2f} |"
                f" {took_s / best_s:.2f} |"
                f" {max(each.n_refused for each in samples)} |",
                flush=True,
            )
    return 0


def measured(case: Case) -> Sample:
    """Return what reading one file takes on a new mount.

    Raises:
        AssertionError: a byte is wrong.
    """
    with contextlib.ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="satfs-bench-")))
        profile = Profile("far", "", case.tls, DELAY_S if case.line == "far" else 0.0)
        line = stack.enter_context(open_line(profile, room))
        origin = stack.enter_context(
            serving(
                line,
                room,
                connection_rate=case.connection_rate,
                tls=case.tls,
                latency_s=DELAY_S if case.line == "slow" else 0.0,
            )
        )
        scene = origin.call("scenes")[0]
        origin.call("replace_by_ramp", scene_id=scene, size_bytes=case.size_bytes)
        best_s = _best_s(case, line, origin, scene)
        origin.call(
            "add_fault",
            name="connection-limit",
            endpoint="object",
            connections=case.n_let_through,
            how=case.how,
        )
        mount = room / "mnt"
        mount.mkdir()
        stack.enter_context(mounted(line, origin, mount, room))
        path = mount / "scenes" / scene / f"{scene}.zip"
        assert path.stat().st_size == case.size_bytes
        began_s = time.monotonic()
        pieces = []
        with path.open("rb", buffering=0) as file:
            while piece := file.read(READ_BYTES):
                pieces.append(piece)
        took_s = time.monotonic() - began_s
        right = RampContent(case.size_bytes).read(0, case.size_bytes)
        if b"".join(pieces) != bytes(right):
            raise AssertionError(f"wrong bytes: {case}")
        (fault,) = origin.call("faults")
        return Sample(took_s, best_s, fault["hits"])


def _best_s(case: Case, line: Line, origin: DemoProcess, scene: str) -> float:
    """Return the seconds of a client that knows how many connections there are."""
    words = [str(case.n_let_through), str(case.size_bytes), origin.call("link", scene_id=scene)]
    if case.tls:
        words.append(origin.environment["SATFS_CA_FILE"])
    command = [*line.client_prefix, sys.executable, "-m", "benchmarks.best_client", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextlib.contextmanager
def serving(
    line: Line, room: Path, *, connection_rate: float, tls: bool, latency_s: float = 0.0
) -> Iterator[DemoProcess]:
    """Run the demo origin at the end of *line*; each connection carries *connection_rate*."""
    arguments = ["--catalogue=sample", f"--host={line.origin_address}"]
    arguments.append(f"--connection-mb-s={connection_rate / MB}")
    if latency_s:
        arguments.append(f"--store-latency-ms={latency_s * 1000}")
    if tls:
        ca_file = make_certificates(room, line.origin_address)
        pem = room / "server.pem"
        arguments += [f"--tls-certificate={pem}", f"--tls-key={pem}", f"--ca-file={ca_file}"]
    with DemoProcess(arguments=tuple(arguments), prefix=line.origin_prefix) as origin:
        yield origin


@contextlib.contextmanager
def mounted(line: Line, origin: DemoProcess, mount: Path, room: Path) -> Iterator[None]:
    """Mount *origin* on the directory *mount*, on the client's side of *line*."""
    environment = {**origin.environment, "SATFS_CACHE_DIR": str(room / "cache")}
    environment |= {key: value for key, value in os.environ.items() if key.startswith("SATFS_")}
    words = [*line.client_prefix, sys.executable, "-m", "satfs", "mount", "-f", str(mount)]
    with (
        (room / "log").open("wb") as log,
        running(words, environment=environment, log=log, patience_s=20),
    ):
        patience_s = time.monotonic() + MOUNT_S
        while not (mount / "README.txt").exists():
            if time.monotonic() > patience_s:
                raise RuntimeError((room / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.02)
        yield
