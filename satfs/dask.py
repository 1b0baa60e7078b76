"""satfs on the workers of a Dask cluster: prepare each node, place work, report what was read.

    client = Client(…)
    satfs.dask.prepare(client, "work", mountpoint="~/satfs")
    with satfs.dask.near(client, path):                    # a hint, not an order
        raster = rioxarray.open_rasterio(satfs.dask.path(path, "work"), chunks=…, lock=False)
    print(satfs.dask.report(client, "work"))

All workers of a node share one cache directory, so a node fetches each byte once. A graph holds
paths and the name of a profile, never a link, so that no link in it can expire.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from dask import annotate  # type: ignore[attr-defined]  # it is there, and not in `__all__`
from distributed import Client, Nanny, NannyPlugin, Worker, WorkerPlugin

from satfs.embedded.access import MountUse
from satfs.fsspec import SatfsFileSystem

log = logging.getLogger(__name__)


def prepare(
    client: Client,
    profile: str | None = None,
    *,
    mountpoint: str | None = None,
    mount: MountUse = "auto",
) -> None:
    """Get every node ready, those that join later as well.

    With *mountpoint* the first worker of a node mounts the profile there; `~` is the home directory
    on the node. Where a node has no FUSE, its workers read without a mount. The settings of the
    profile and its credential are those of the node; none is sent.
    """
    if mountpoint is not None:
        client.register_plugin(_MountOnNode(profile, mountpoint))
    client.register_plugin(_OpenOnWorker(profile, mount))


def filesystem(profile: str | None = None, mount: MountUse = "auto") -> SatfsFileSystem:
    """Return the filesystem of this process; on a worker the one that `prepare` has opened."""
    return SatfsFileSystem(profile=profile, mount=mount)


def path(name: str, profile: str | None = None) -> str:
    """Return what a task is to open *name* by: a path on the node's mount, else `satfs://`.

    To be called on the worker: each node may have its mount elsewhere, or none.
    """
    return filesystem(profile).local_path(name) or f"satfs://{name}"


# -- where work is done --------------------------------------------------------------------------


def near(client: Client, raster: str) -> AbstractContextManager[None]:
    """Have what is built in the body tend to one node, the same for every chunk of *raster*.

    A node that has fetched a block of a raster, its header or its links serves other chunks of it
    from its cache. Another node takes them when that one is busy: idle workers cost more than
    bytes that are fetched twice.
    """
    nodes: dict[str, list[str]] = {}
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        nodes.setdefault(worker["host"], []).append(address)
    if not nodes:
        annotated: AbstractContextManager[None] = annotate()
        return annotated
    workers = nodes[node_for(raster, nodes)]
    annotated = annotate(workers=workers, allow_other_workers=True)
    return annotated


def node_for(raster: str, nodes: Iterable[str]) -> str:
    """Return the one of *nodes* that *raster* tends to (rendezvous hashing).

    A node that joins or leaves moves only the rasters that go to it or came from it.
    """
    return max(nodes, key=lambda node: blake2b(f"{node}\0{raster}".encode()).digest())


# -- what was read -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeBytes:
    """Bytes that one node has fetched from the object store and served to its workers."""

    node: str
    n_workers: int
    fetched_bytes: int
    served_bytes: int
    requests: int


class Report(tuple[NodeBytes, ...]):
    """One `NodeBytes` for each node; as text a table."""

    __slots__ = ()

    def __str__(self) -> str:
        lines = [f"{'node':<24}{'workers':>8}{'fetched MB':>12}{'served MB':>12}{'requests':>10}"]
        lines += [
            f"{each.node:<24}{each.n_workers:>8}{each.fetched_bytes / 1e6:>12.1f}"
            f"{each.served_bytes / 1e6:>12.1f}{each.requests:>10}"
            for each in self
        ]
        return "\n".join(lines)


def report(client: Client, profile: str | None = None, mount: MountUse = "auto") -> Report:
    """Return what each node has fetched and served so far, by its mount or its workers."""
    found: Mapping[str, Mapping[str, Any]] = client.run(_statistics_here, profile, mount)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    nodes: dict[str, dict[str, Mapping[str, Any]]] = {}
    n_workers: dict[str, int] = {}
    for address, statistics in found.items():
        host = workers[address]["host"]
        n_workers[host] = n_workers.get(host, 0) + 1
        # Workers that read through one mount report the same numbers: they count once.
        nodes.setdefault(host, {})[statistics["place"]] = statistics
    return Report(
        NodeBytes(
            host,
            n_workers[host],
            *(
                sum(int(each[word]) for each in places.values())
                for word in ("fetched_bytes", "served_bytes", "requests")
            ),
        )
        for host, places in sorted(nodes.items())
    )


def _statistics_here(profile: str | None, mount: MountUse) -> Mapping[str, Any]:
    return filesystem(profile, mount).statistics()


#: Columns of the dashboard: title, name in the statistics, and how many of them make one.
_COLUMNS: Final = (
    ("fetched MB", "fetched_bytes", 1e6),
    ("served MB", "served_bytes", 1e6),
    ("requests", "requests", 1),
)


# -- preparing a node ----------------------------------------------------------------------------


class _OpenOnWorker(WorkerPlugin):
    """Opens the filesystem before the first task, and closes it with the worker.

    Meanwhile each heartbeat reports what was read, as columns of the dashboard's page of workers.
    """

    idempotent = True

    def __init__(self, profile: str | None, mount: MountUse) -> None:
        self.name = f"satfs-{profile}-{mount}"
        self._options: tuple[str | None, MountUse] = (profile, mount)

    async def setup(self, worker: Worker) -> None:
        fs = filesystem(*self._options)
        await asyncio.to_thread(fs.ls, "")
        for title, read in self._columns():
            worker.metrics[title] = read

    async def teardown(self, worker: Worker) -> None:
        for title, _ in self._columns():
            worker.metrics.pop(title, None)
        await asyncio.to_thread(filesystem(*self._options).close)

    def _columns(self) -> Iterator[tuple[str, Callable[[Worker], Awaitable[float]]]]:
        """Yield title and content of each column; the statistics are those of `report`."""
        profile = self._options[0]
        for words, name, unit in _COLUMNS:

            async def read(worker: Worker, name: str = name, unit: float = unit) -> float:
                statistics = await asyncio.to_thread(_statistics_here, *self._options)
                return round(int(statistics[name]) / unit, 1)

            yield f"satfs {words}" if profile is None else f"satfs {words} ({profile})", read


class _MountOnNode(NannyPlugin):
    """Mounts the profile, once for all nannies of a node; the nanny that mounted it unmounts it."""

    idempotent = True

    def __init__(self, profile: str | None, mountpoint: str) -> None:
        self.name = f"satfs-mount-{profile}"
        self._profile = profile
        self._mountpoint = mountpoint
        self._has_mounted = False

    async def setup(self, nanny: Nanny) -> None:
        await asyncio.to_thread(self._mount)

    async def teardown(self, nanny: Nanny) -> None:
        if self._has_mounted:
            await asyncio.to_thread(_satfs, "umount", "--lazy", str(self._place()))

    def _place(self) -> Path:
        return Path(os.path.expanduser(self._mountpoint)).absolute()

    def _mount(self) -> None:
        place = self._place()
        place.mkdir(parents=True, exist_ok=True)
        guard = os.open(place.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if filesystem(self._profile).local_path("") is not None:
                return
            chosen = [] if self._profile is None else ["--profile", self._profile]
            done = _satfs("mount", *chosen, str(place))
        finally:
            os.close(guard)
        self._has_mounted = done.returncode == 0
        if not self._has_mounted:
            log.warning("not mounted, reading without a mount: %s", done.stderr.strip())


def _satfs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter, our own module
        [sys.executable, "-m", "satfs", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
