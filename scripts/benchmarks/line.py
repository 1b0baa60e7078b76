"""The way between clients and origin: loopback, or a line with a real delay that we make.

Knows addresses and how to start a program on either side; knows nothing of what is sent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.profiles import Profile

SOURCE = Path(__file__).with_name("line.c")

#: Private addresses inside namespaces of our own: nothing outside can see or clash with them.
CLIENT_ADDRESS = "10.77.0.1"
ORIGIN_ADDRESS = "10.77.0.2"


@dataclass(frozen=True, slots=True)
class Line:
    """Where the origin listens, and the words that start a program on either side."""

    origin_address: str
    client_prefix: tuple[str, ...] = ()
    origin_prefix: tuple[str, ...] = ()
    #: Delay and cap are made by a relay (scripts/benchmarks/relay.py) instead of by the line.
    is_relayed: bool = False
    #: How the delay is made, for the report.
    how: str = "loopback"
    #: Takes a byte: `x` has all packets be lost, any other one ends that (`line.c`).
    control: IO[bytes] | None = None


def what_is_missing() -> str | None:
    """Return why no line with a delay can be made here, or None when one can."""
    if os.geteuid() != 0:
        return "not root (namespaces and TUN interfaces need it)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    for program in ("cc", "ip", "nsenter"):
        if shutil.which(program) is None:
            return f"no {program}"
    return None


@contextlib.contextmanager
def open_line(
    profile: Profile, workspace: Path, *, relay: bool = False, lost_per_mille: int = 0
) -> Iterator[Line]:
    """Hold the line of *profile* open; everything it is made of is gone afterwards.

    Of a thousand packets *lost_per_mille* are lost, where packets can be made to arrive late.

    Where packets cannot be made to arrive late, or with *relay*, the line is loopback with a relay
    on it; `Line.how` has that.
    """
    if not profile.is_far:
        yield Line(origin_address="127.0.0.1")
        return
    missing = "as asked for" if relay else what_is_missing()
    if missing is not None:
        yield Line(
            origin_address="127.0.0.1",
            is_relayed=True,
            how=f"a relay in front of the origin that passes bytes on late ({missing}): no slow "
            "start; connections capped by SO_MAX_PACING_RATE",
        )
        return
    program = workspace / "line"
    subprocess.run(["cc", "-O2", "-o", program, SOURCE, "-lpthread"], check=True)
    # Half of the round trip on each way.
    delay_ns = round(profile.round_trip_s * 1e9 / 2)
    carrier = subprocess.Popen(
        [program, str(delay_ns), str(lost_per_mille)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=True,
    )
    assert carrier.stdout is not None
    assert carrier.stdin is not None
    try:
        if carrier.stdout.readline() != b"ready\n":
            raise RuntimeError(
                "no namespaces or TUN interfaces; scripts/bench --relay does without"
            )
        client = ("nsenter", f"--net=/proc/{carrier.pid}/fd/3", "--")
        origin = ("nsenter", f"--net=/proc/{carrier.pid}/fd/4", "--")
        for prefix, address in ((client, CLIENT_ADDRESS), (origin, ORIGIN_ADDRESS)):
            _run(*prefix, "ip", "link", "set", "lo", "up")
            _run(*prefix, "ip", "address", "add", f"{address}/24", "dev", "wan0")
            # A burst waits, as in a router: long enough that nothing is lost while the carrier is
            # kept from its processor for some milliseconds, and short enough that senders whom the
            # line cannot carry notice. The queue counts packets of up to 64 KiB.
            _run(*prefix, "ip", "link", "set", "wan0", "mtu", "1500", "txqueuelen", "4000", "up")
            # Room for the product of the fastest connection and the longest delay, twice over.
            _run(*prefix, "sysctl", "-qw", "net.ipv4.tcp_wmem=4096 65536 16777216")
            # A capped socket is paced below its cap as well, at twice its window per round trip,
            # which adds half a round trip to every small answer. Senders without pacing add none.
            _run(*prefix, "sysctl", "-qw", "net.ipv4.tcp_pacing_ss_ratio=1000")
            _run(*prefix, "sysctl", "-qw", "net.ipv4.tcp_pacing_ca_ratio=1000")
        yield Line(
            origin_address=ORIGIN_ADDRESS,
            client_prefix=client,
            origin_prefix=origin,
            how="a user-space delay line between two TUN interfaces in network namespaces; "
            "connections capped by SO_MAX_PACING_RATE",
            control=carrier.stdin,
        )
    finally:
        carrier.stdin.close()
        try:
            carrier.wait(timeout=10)
        except subprocess.TimeoutExpired:
            carrier.kill()
            carrier.wait()
        carrier.stdout.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
