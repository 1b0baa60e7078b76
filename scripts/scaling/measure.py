"""Measure reading without a mount, one cache for many processes, and simulated nodes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.quiet import wait_until_quiet

from scaling import nodes

HERE = Path(__file__).parent
KIB, MB = 1024, 1e6
#: Longest wait for a quiet machine before a sample of a third of a second, in seconds.
PATIENCE_S = 5.0

#: Reads whole deliveries in pieces of a megabyte once a line comes in; prints the seconds it took.
READ = """
import json, sys, time
from satfs.fsspec import SatfsFileSystem
fs = SatfsFileSystem(mount="never")
paths = json.loads(sys.argv[1])
fs.ls("")
print("ready", flush=True)
sys.stdin.readline()
began_s, n_bytes = time.perf_counter(), 0
for path in paths:
    with fs.open(path) as file:
        while piece := file.read(1 << 20):
            n_bytes += len(piece)
print(json.dumps({"took_s": time.perf_counter() - began_s, "n_bytes": n_bytes}), flush=True)
fs.close()
"""

#: The same from a mount.
READ_MOUNT = """
import json, os, sys, time
paths = json.loads(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
began_s, n_bytes = time.perf_counter(), 0
for path in paths:
    with open(os.path.join(sys.argv[2], path), "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            n_bytes += len(piece)
print(json.dumps({"took_s": time.perf_counter() - began_s, "n_bytes": n_bytes}), flush=True)
"""

#: 200 random ranges: at once, or one after another.
RANGES = """
import json, sys, time
from satfs.fsspec import SatfsFileSystem
fs = SatfsFileSystem(mount="never")
path, starts, length = json.loads(sys.argv[1])
fs.info(path)
with fs.open(path) as file:
    file.read(1)
print("ready", flush=True)
sys.stdin.readline()
began_s, cpu_s = time.perf_counter(), time.process_time()
ends = [start + length for start in starts]
if sys.argv[2] == "at once":
    found = fs.cat_ranges([path] * len(starts), starts, ends)
else:
    found = [fs.cat_file(path, start, end) for start, end in zip(starts, ends)]
took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
assert all(len(each) == length for each in found), found[0]
print(json.dumps({"took_s": took_s, "cpu_s": cpu_s}), flush=True)
fs.close()
"""

#: The same ranges by aiohttp over as many connections, with the link at hand.
AIOHTTP = """
import asyncio, json, sys, time, aiohttp
url, starts, length, n_connections = json.loads(sys.argv[1])
async def main():
    connector = aiohttp.TCPConnector(limit=n_connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        async def get(start):
            headers = {"Range": f"bytes={start}-{start + length - 1}"}
            async with session.get(url, headers=headers) as answer:
                return await answer.read()
        await get(0)
        print("ready", flush=True)
        sys.stdin.readline()
        began_s, cpu_s = time.perf_counter(), time.process_time()
        found = await asyncio.gather(*(get(start) for start in starts))
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    assert all(len(each) == length for each in found)
    print(json.dumps({"took_s": took_s, "cpu_s": cpu_s}), flush=True)
asyncio.run(main())
"""


@dataclass
class Origin:
    """An origin in a process of its own."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    links: dict[str, str]

    def counts(self) -> dict[str, Any]:
        """Return bytes sent and requests since the last time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        counts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return counts


@contextlib.contextmanager
def origin(*arguments: str, prefix: Sequence[str] = ()) -> Iterator[Origin]:
    """Run an origin with *arguments* of `serve.py`."""
    command = [*prefix, sys.executable, str(HERE / "serve.py"), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        yield Origin(process, first["environment"], first["links"])
    finally:
        process.communicate("")


def start(
    program: str,
    arguments: Sequence[str],
    environment: dict[str, str],
    prefix: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start *program* and return it when it waits for its first line."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError("a reader did not start")
    return process


def together(processes: Sequence[subprocess.Popen[str]]) -> float:
    """Have all go at once; return the seconds that the slowest took."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return float(
        max(json.loads(each.communicate()[0].splitlines()[-1])["took_s"] for each in processes)
    )


def path_of(number: int) -> str:
    """Return the path of a delivery."""
    return f"scenes/s{number}/s{number}.zip"


def sequential(repetitions: int, size_mb: float, latency_ms: float) -> dict[str, float]:
    """Return MB/s of one cold delivery, by fsspec and through a mount, on one line."""
    rates: dict[str, list[float]] = {"fsspec": [], "mount": []}
    where = ("--scene-mb", str(size_mb), "--latency-ms", str(latency_ms))
    for _ in range(repetitions):
        with origin(*where) as served, tempfile.TemporaryDirectory() as place:
            environment = {**served.environment, "SATFS_CACHE_DIR": f"{place}/fsspec"}
            reader = start(READ, [json.dumps([path_of(0)])], environment)
            rates["fsspec"].append(size_mb / together([reader]))
        with origin(*where) as served, tempfile.TemporaryDirectory() as place:
            environment = {**served.environment, "SATFS_CACHE_DIR": f"{place}/mount"}
            satfs = [sys.executable, "-m", "satfs"]
            mountpoint = f"{place}/mnt"
            os.mkdir(mountpoint)
            subprocess.run(
                [*satfs, "mount", mountpoint], env={**os.environ, **environment}, check=True
            )
            try:
                reader = start(READ_MOUNT, [json.dumps([path_of(0)]), mountpoint], environment)
                rates["mount"].append(size_mb / together([reader]))
            finally:
                subprocess.run([*satfs, "umount", mountpoint], check=True, capture_output=True)
    return {name: median(values) for name, values in rates.items()}


def undisturbed(process: subprocess.Popen[str]) -> dict[str, float]:
    """Have *process* go when the machine is quiet, or after `PATIENCE_S`; return its figures."""
    wait_until_quiet(PATIENCE_S)
    figures: dict[str, float] = json.loads(process.communicate("go\n")[0].splitlines()[-1])
    return figures


def random_ranges(
    repetitions: int, latency_ms: float, n_connections: int
) -> dict[str, dict[str, float]]:
    """Return seconds for 200 random ranges of 64 KiB: at once, in turn, and by aiohttp.

    Seconds that passed (`took_s`), and those of a processor (`cpu_s`).

    At once twice: by a process that is the first to read from the host, and by the next one, which
    knows how many connections the host lets through.
    """
    length, size_mb = 64 * KIB, 256.0
    starts = [(n * 7_654_321) % (int(size_mb * MB) - length) for n in range(1, 201)]
    ways_of_all = ("first", "at once", "in turn", "aiohttp")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways_of_all}
    where = ("--scenes", "2", "--scene-mb", str(size_mb), "--latency-ms", str(latency_ms))

    def took(way: str, number: int, environment: dict[str, str]) -> dict[str, float]:
        asked = json.dumps([path_of(number), starts, length])
        mode = "in turn" if way == "in turn" else "at once"
        return undisturbed(start(RANGES, [asked, mode], environment))

    for number in range(repetitions):
        # What is compared runs at nearly the same time; one after another takes long.
        in_turn = () if number % 3 else (("in turn",),)
        for ways in (("first", "at once"), ("aiohttp",), *in_turn):
            with origin(*where) as served, tempfile.TemporaryDirectory() as place:
                environment = {
                    **served.environment,
                    "SATFS_CACHE_DIR": place,
                    "SATFS_MAX_CONNECTIONS": str(n_connections),
                }
                for scene, way in enumerate(ways):
                    if way == "aiohttp":
                        asked = json.dumps([served.links["s0"], starts, length, n_connections])
                        found[way].append(undisturbed(start(AIOHTTP, [asked], {})))
                    else:
                        found[way].append(took(way, scene, environment))
    return {
        kind: {way: median(each[kind] for each in samples) for way, samples in found.items()}
        for kind in ("took_s", "cpu_s")
    }


def one_cache(n_processes: int, n_scenes: int, size_mb: float) -> dict[str, Any]:
    """Return what *n_processes* of one node that read the same scenes fetch, over what there is."""
    where = ("--scenes", str(n_scenes), "--scene-mb", str(size_mb), "--latency-ms", "10")
    with origin(*where) as served, tempfile.TemporaryDirectory() as place:
        environment = {**served.environment, "SATFS_CACHE_DIR": place}
        paths = [path_of(n) for n in range(n_scenes)]
        readers = [
            start(READ, [json.dumps(paths[n % n_scenes :] + paths[: n % n_scenes])], environment)
            for n in range(n_processes)
        ]
        took_s = together(readers)
        counts = served.counts()
    share = counts["sent_bytes"] / (n_scenes * size_mb * MB)
    return {"share": share, "took_s": took_s, "counts": counts["counts"]}


def scaled(
    counts: Sequence[int], node_mb_s: float, origin_mb_s: float, total_mb: float
) -> dict[int, float]:
    """Return the seconds that each number of nodes takes for the same work."""
    import trustme

    took: dict[int, float] = {}
    n_scenes = 2 * max(counts)
    for n_nodes in counts:
        with (
            tempfile.TemporaryDirectory() as place,
            nodes.simulated(n_nodes, node_mb_s, origin_mb_s) as made,
        ):
            authority = trustme.CA()
            certificate = authority.issue_cert(nodes.ORIGIN_ADDRESS)
            ca_file, chain, key = (Path(place, name) for name in ("ca.pem", "chain.pem", "key.pem"))
            authority.cert_pem.write_to_path(ca_file)
            certificate.cert_chain_pems[0].write_to_path(chain)
            certificate.private_key_pem.write_to_path(key)
            where = (
                *("--host", nodes.ORIGIN_ADDRESS, "--scenes", str(n_scenes)),
                *("--scene-mb", str(total_mb / n_scenes), "--ca-file", str(ca_file)),
                *("--certificate", str(chain), "--key", str(key)),
            )
            with origin(*where, prefix=made.origin) as served:
                readers = []
                for number, prefix in enumerate(made.nodes):
                    paths = [path_of(n) for n in range(number, n_scenes, n_nodes)]
                    environment = {**served.environment, "SATFS_CACHE_DIR": f"{place}/node{number}"}
                    readers.append(start(READ, [json.dumps(paths)], environment, prefix))
                took[n_nodes] = together(readers)
    return took


def stamp() -> str:
    """Return the day of a measurement."""
    return time.strftime("%Y-%m-%d")
