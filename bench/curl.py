"""curl, as the physical limit: nobody is faster than a process that only fetches a range."""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from pathlib import Path

from bench import children
from bench.objects import StoredObject
from bench.origin import Origin


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

    What comes is thrown away, or kept as files 0, 1, … in the directory *into*.

    Raises:
        RuntimeError: one of them did not get what it asked for.
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

    The rate is that of the transfer's second half, when TCP has found its window: what a cap that
    let its first second through would betray is `first_half_rate` above `rate`.
    """
    half = min(stored.size_bytes, 128 << 20) // 2
    form = "%{time_connect} %{time_appconnect} %{time_starttransfer} %{time_total}"
    times = []
    for stop in (half, 2 * half):
        said = subprocess.run(
            [
                *_words(origin),
                "--range",
                f"0-{stop - 1}",
                "--output",
                "/dev/null",
                "--write-out",
                form,
                origin.url(stored.file_name),
            ],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.decode()
        times.append([float(word) for word in said.split()])
    (connect_s, tls_s, first_s, half_total_s), (_, _, first_again_s, total_s) = times
    half_s, whole_s = half_total_s - first_s, total_s - first_again_s
    return {
        "connect_s": connect_s,
        "tls_s": max(0.0, tls_s - connect_s),
        "first_byte_s": first_s - max(tls_s, connect_s),
        "first_half_rate": half / half_s,
        "rate": half / (whole_s - half_s) if whole_s > half_s else 2 * half / whole_s,
    }


def version() -> str | None:
    """Return curl's version, or None when it is not installed."""
    try:
        said = subprocess.run(["curl", "--version"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(rb"curl (\S+)", said)
    return found[1].decode() if found else None
