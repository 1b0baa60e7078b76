"""curl, as the physical limit: no program is faster than one that only fetches a range."""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import children
from benchmarks.objects import StoredObject
from benchmarks.origin import Origin


def _words(origin: Origin) -> list[str]:
    trust = ["--cacert", str(origin.ca_file)] if origin.ca_file is not None else []
    return children.tied([*origin.line.client_prefix, "curl", "--silent", "--fail", *trust])


def split(size_bytes: int, n_parts: int) -> list[tuple[int, int]]:
    """Return [start, stop) of *n_parts* nearly equal parts that cover the whole, in order."""
    edges = [size_bytes * part // n_parts for part in range(n_parts + 1)]
    return list(itertools.pairwise(edges))


def fetch_in_parallel(
    origin: Origin, stored: StoredObject, n_connections: int, into: Path | None = None
) -> float:
    """Fetch the object in *n_connections* ranges at once, a process each; return the seconds.

    The bytes are dropped, or kept as files 0, 1, … in the directory *into*.

    Raises:
        RuntimeError: one of them did not get its range.
    """
    started = time.perf_counter()
    processes = [
        subprocess.Popen(
            [
                *_words(origin),
                "--range",
                f"{start}-{stop - 1}",
                "--output",
                "/dev/null" if into is None else str(into / str(part)),
                "--write-out",
                "%{http_code} %{size_download}",
                origin.url(stored.file_name),
            ],
            stdout=subprocess.PIPE,
        )
        for part, (start, stop) in enumerate(split(stored.size_bytes, n_connections))
    ]
    said = [process.communicate()[0].decode().split() for process in processes]
    took_s = time.perf_counter() - started
    for (start, stop), words in zip(split(stored.size_bytes, n_connections), said, strict=True):
        if words != ["206", str(stop - start)]:
            raise RuntimeError(f"curl got {words} for a range of {stop - start} bytes")
    return took_s


def fetch_one_by_one(
    origin: Origin, stored: StoredObject, ranges: list[tuple[int, int]], room: Path
) -> tuple[list[float], list[Path]]:
    """Fetch *ranges* one after the other on one connection; return the seconds and file of each.

    The seconds are those to the last byte, without the time that curl needs to start; the first
    include the connection's handshakes.
    """
    files = [room / f"range-{number}" for number in range(len(ranges))]
    stanzas = [
        f'url = "{origin.url(stored.file_name)}"\nrange = {start}-{stop - 1}\n'
        f'output = "{file}"\nwrite-out = "%{{time_total}}\\n"\n'
        for (start, stop), file in zip(ranges, files, strict=True)
    ]
    options = "fail\nsilent\n"
    if origin.ca_file is not None:
        options += f'cacert = "{origin.ca_file}"\n'
    # Options hold up to the next "next".
    script = "next\n".join(stanza + options for stanza in stanzas)
    done = subprocess.run(
        [*_words(origin), "--config", "-"],
        input=script.encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return [float(word) for word in done.stdout.split()], files


def calibrate(origin: Origin, stored: StoredObject) -> dict[str, float]:
    """Return what one connection is like: seconds to connect and to the first byte, bytes per s.

    The best of three tries, since the line is measured and not the other load of the machine.
    `rate` is that of the second half of a transfer of two seconds' worth, when TCP has found its
    window; a cap that let its first second through would show as a `first_half_rate` above the cap.
    """
    half = min(origin.profile.connection_rate or 64 << 20, stored.size_bytes // 2)
    tries = [
        (_time_range(origin, stored, half), _time_range(origin, stored, 2 * half)) for _ in range(3)
    ]
    half_s = min(first.body_s for first, _ in tries)
    whole_s = min(second.body_s for _, second in tries)
    # Small, so that it is not the first record of TLS, 16 KiB, that is waited for.
    every = [_time_range(origin, stored, 4096) for _ in range(3)]
    return {
        "connect_s": min(timing.connect_s for timing in every),
        "tls_s": min(timing.tls_s for timing in every),
        "first_byte_s": min(timing.first_byte_s for timing in every),
        "first_half_rate": half / half_s,
        "rate": half / (whole_s - half_s) if whole_s > half_s else 2 * half / whole_s,
    }


@dataclass(frozen=True, slots=True)
class _Timing:
    """The parts of one request on a connection of its own, in seconds."""

    connect_s: float
    tls_s: float
    first_byte_s: float
    body_s: float


def _time_range(origin: Origin, stored: StoredObject, stop: int) -> _Timing:
    form = "%{time_connect} %{time_appconnect} %{time_starttransfer} %{time_total}"
    words = ["--range", f"0-{stop - 1}", "--output", "/dev/null", "--write-out", form]
    said = subprocess.run(
        [*_words(origin), *words, origin.url(stored.file_name)], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    connected, secured, first, done = (float(word) for word in said.split())
    ready = max(secured, connected)  # without TLS curl says 0
    return _Timing(connected, ready - connected, first - ready, done - first)


def version() -> str | None:
    """Return curl's version, or None when it is not installed."""
    try:
        said = subprocess.run(["curl", "--version"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(rb"curl (\S+)", said)
    return found[1].decode() if found else None
