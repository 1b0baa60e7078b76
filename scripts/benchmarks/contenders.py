"""The contenders: satfs, and the programs that a user would run instead, as a user runs them."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks import children
from benchmarks.objects import StoredObject
from benchmarks.origin import Origin

#: Words and environment that mount an origin at a place, with a directory for what is kept on disk.
#: The object is the one that will be read, for programs that mount an object and not a store.
Command: TypeAlias = Callable[[Origin, Path, Path, StoredObject], tuple[list[str], dict[str, str]]]

#: The variable that names a checkout of an earlier commit, to be measured beside this one.
BEFORE = "SATFS_BENCH_BEFORE"
#: How long a mount may take to appear. httpdirfs requests every size before it does.
MOUNT_S = 60.0


class DidNotMount(Exception):
    """A contender ended or never showed its mount; the text is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted contender. `pid` is the head of all its processes."""

    point: Path
    pid: int
    path_of: Callable[[StoredObject], Path]
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that shows the origin's objects as files.

    `command` gives the words and the environment that mount *origin* at a place, in the foreground,
    and stay there; `missing` says what is not installed, or None.
    """

    name: str
    title: str
    command: Command
    missing: Callable[[], str | None]
    path_in_mount: Callable[[StoredObject], str] = field(default=lambda stored: stored.file_name)
    #: It shows the members of a zip, not the zip.
    shows_members: bool = False

    @contextlib.contextmanager
    def mounted(
        self,
        origin: Origin,
        room: Path,
        stored: StoredObject,
        contract: str | None = None,
        given: Mapping[str, str] | None = None,
    ) -> Iterator[Mount]:
        """Mount for the time of the block, with what is kept on disk below *room*.

        *given* is put into its environment besides.

        Raises:
            DidNotMount: it did not come up within `MOUNT_S`.
        """
        point = room / "mnt"
        cache = room / "cache"
        point.mkdir(parents=True, exist_ok=True)
        cache.mkdir(exist_ok=True)
        command, environment = self.command(origin, point, cache, stored)
        if contract is not None:
            environment["SATFS_CONTRACT_ID"] = contract
        environment |= given or {}
        log_file = room / f"{self.name}.log"
        with (
            log_file.open("wb") as log,
            children.running(
                [*origin.line.client_prefix, *command],
                environment=environment,
                log=log,
                patience_s=20,
            ) as process,
        ):
            try:
                patience = time.monotonic() + MOUNT_S
                while not _is_fuse_mount(point):
                    if process.poll() is not None or time.monotonic() > patience:
                        raise DidNotMount(log_file.read_text(errors="replace")[-2000:])
                    time.sleep(0.01)
                yield Mount(
                    point, process.pid, lambda stored: point / self.path_in_mount(stored), cache
                )
            finally:
                _unmount(point)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=20)


def _is_fuse_mount(point: Path) -> bool:
    # Not os.path.ismount: it calls the file system, which may not respond yet.
    mounts = Path("/proc/self/mounts").read_text()
    return any(line.split(" ")[1] == str(point) for line in mounts.splitlines())


def _unmount(point: Path) -> None:
    for patience in range(20):
        if not _is_fuse_mount(point):
            return
        lazily = ["-z"] if patience > 10 else []
        subprocess.run(["fusermount3", "-u", *lazily, str(point)], capture_output=True, check=False)
        if _is_fuse_mount(point):
            time.sleep(0.2)


def program(name: str) -> str | None:
    """Return where *name* is: beside this Python, in SATFS_BENCH_PEERS, or on the PATH."""
    beside = [str(Path(sys.executable).parent), os.environ.get("SATFS_BENCH_PEERS", "")]
    return shutil.which(name, path=":".join([*beside, os.environ.get("PATH", "")]))


def _needs(name: str) -> Callable[[], str | None]:
    return lambda: None if program(name) else f"{name} is not installed"


def _satfs(
    origin: Origin, point: Path, cache: Path, stored: StoredObject
) -> tuple[list[str], dict[str, str]]:
    environment = {**origin.environment(), "SATFS_CACHE_DIR": str(cache)}
    return [sys.executable, "-m", "satfs", "mount", "-f", str(point)], environment


def _satfs_before(
    origin: Origin, point: Path, cache: Path, stored: StoredObject
) -> tuple[list[str], dict[str, str]]:
    words, environment = _satfs(origin, point, cache, stored)
    # -P: `-m` would take what the working directory has before it, which is the present commit.
    return [words[0], "-P", *words[1:]], {**environment, "PYTHONPATH": os.environ[BEFORE]}


def _rclone(*tuning: str) -> Command:
    def command(
        origin: Origin, point: Path, cache: Path, stored: StoredObject
    ) -> tuple[list[str], dict[str, str]]:
        words = [program("rclone") or "rclone", "mount", ":http:", str(point), "--read-only"]
        words += ["--http-url", origin.directory_url, "--config", "/dev/null"]
        words += ["--cache-dir", str(cache)]
        if origin.ca_file is not None:
            words += ["--ca-cert", str(origin.ca_file)]
        return [*words, *tuning], {}

    return command


def _httpdirfs(
    origin: Origin, point: Path, cache: Path, stored: StoredObject
) -> tuple[list[str], dict[str, str]]:
    # The check takes a 206 without Accept-Ranges for a server that knows no ranges.
    words = ["httpdirfs", "-f", "--no-range-check"]
    if origin.ca_file is not None:
        words += ["--cacert", str(origin.ca_file)]
    return [*words, origin.directory_url, str(point)], {"XDG_CACHE_HOME": str(cache)}


def _s3fs(
    origin: Origin, point: Path, cache: Path, stored: StoredObject
) -> tuple[list[str], dict[str, str]]:
    options = f"url={origin.store_url},use_path_request_style,public_bucket=1,ro"
    options += ",parallel_count=16,multipart_size=10"
    environment = {"CURL_CA_BUNDLE": str(origin.ca_file)} if origin.ca_file else {}
    return ["s3fs", origin.directory, str(point), "-f", "-o", options], environment


def _ratarmount(
    origin: Origin, point: Path, cache: Path, stored: StoredObject
) -> tuple[list[str], dict[str, str]]:
    words = [program("ratarmount") or "ratarmount", "-f", origin.url(stored.file_name), str(point)]
    environment = {"XDG_CACHE_HOME": str(cache)}
    if origin.ca_file is not None:
        environment["SSL_CERT_FILE"] = str(origin.ca_file)
    return words, environment


SATFS = Contender(
    "satfs",
    "satfs",
    _satfs,
    lambda: None,
    path_in_mount=lambda stored: f"scenes/{stored.scene_id}/{stored.file_name}",
)

#: The same of an earlier commit, in the environment of this one.
SATFS_BEFORE = Contender(
    "satfs-before",
    "satfs, before",
    _satfs_before,
    lambda: None if os.environ.get(BEFORE) else f"{BEFORE} is not set",
    path_in_mount=SATFS.path_in_mount,
)
STREAMS = ("--vfs-read-chunk-streams", "16", "--vfs-read-chunk-size", "4M")

MOUNTED = (
    SATFS,
    SATFS_BEFORE,
    Contender("rclone", "rclone mount", _rclone(), _needs("rclone")),
    Contender(
        "rclone-streams",
        "rclone mount, 16 streams of 4 MiB",
        _rclone(*STREAMS),
        _needs("rclone"),
    ),
    Contender(
        "rclone-cached",
        "rclone mount, 16 streams, disk cache",
        _rclone(*STREAMS, "--vfs-cache-mode", "full"),
        _needs("rclone"),
    ),
    Contender("s3fs", "s3fs, 16 times 10 MB", _s3fs, _needs("s3fs")),
    Contender(
        "ratarmount",
        "ratarmount (the zip's member)",
        _ratarmount,
        _needs("ratarmount"),
        path_in_mount=lambda stored: stored.member_name,
        shows_members=True,
    ),
    Contender("httpdirfs", "httpdirfs", _httpdirfs, _needs("httpdirfs")),
)


def is_satfs(name: str) -> bool:
    """Return whether the contender called *name* is satfs, now or before."""
    return name in (SATFS.name, SATFS_BEFORE.name)


#: Those that are not mounts: the line's limit, and GDAL's own remote files.
CURL = "curl"
VSICURL = "vsicurl"


def gdal_library() -> str | None:
    """Return the name of GDAL's library, or None."""
    return ctypes.util.find_library("gdal")


def gdal_environment(origin: Origin) -> dict[str, str]:
    """Return variables that make GDAL trust *origin*, and look at nothing beside the file."""
    given = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    if origin.ca_file is not None:
        # The build of GDAL and its curl decides which of them counts.
        given |= dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE"), str(origin.ca_file))
    return given
