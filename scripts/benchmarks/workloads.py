"""The workloads: each by its name, the lines that it runs on, and its contenders.

A workload is one function from a contender to one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from benchmarks.contenders import (
    MOUNTED,
    SATFS,
    SATFS_BEFORE,
    VSICURL,
)
from benchmarks.file_works import (
    another_scene,
    checksum,
    eight_readers,
    first_byte,
    processor_time,
    random_reads,
    reread_disk,
    reread_kernel,
    sequential,
    two_files,
    unannounced,
)
from benchmarks.name_works import interactivity, listing, long_listing
from benchmarks.rasters import cases
from benchmarks.samples import (
    LOCAL,
    LOCAL_SMALL_PAGES,
    Sample,
    Scene,
)
from benchmarks.window_works import CASE, WINDOW_READERS, window


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload: where it runs, who takes part, and how one sample comes about."""

    name: str
    title: str
    run: Callable[[Scene, str, int], Sample]
    profiles: tuple[str, ...]
    contenders: tuple[str, ...]
    objects: tuple[str, ...] = ()
    #: Curl's numbers of connections, by profile; "matched" is what satfs chose in the same round.
    curls: dict[str, tuple[str, ...]] | None = None
    #: Files of the largest size that are read whole: each fills as much memory again.
    n_whole_files: int = 1


#: satfs of an earlier commit takes part where it is named (--only).
ALL_MOUNTED = tuple(one.name for one in MOUNTED if one.name != SATFS_BEFORE.name)
EVERYWHERE = ("plain", "tls", "wan", "far")

WORKLOADS = {
    one.name: one
    for one in (
        Workload(
            "sequential",
            "cold sequential read of 1 GiB",
            sequential,
            EVERYWHERE,
            (*ALL_MOUNTED, SATFS_BEFORE.name, VSICURL),
            ("a",),
            {
                "plain": ("matched", "4"),
                "tls": ("matched", "4"),
                "wan": ("matched", "16"),
                "far": ("matched", "16", "64"),
            },
        ),
        Workload(
            "dd", "cold `dd` of 1 GiB", unannounced, ("tls", "wan", "far"),
            ("satfs", SATFS_BEFORE.name, "rclone-streams", "rclone-cached", "s3fs"), ("a",),
        ),
        Workload(
            "cpu", "processor seconds of a cold sequential read of 1 GiB", processor_time,
            ("tls", "wan"),
            (SATFS.name, SATFS_BEFORE.name, "rclone-streams", "rclone-cached", "s3fs"), ("a",),
        ),
        Workload(
            "first-byte", "time to the first byte", first_byte, ("tls", "wan", "far"),
            ("satfs", SATFS_BEFORE.name, "rclone", "rclone-streams", "s3fs", "httpdirfs"), ("a",),
            dict.fromkeys(EVERYWHERE, ("1",)),
        ),
        Workload(
            "another-scene", "first bytes of other files in a mount that is in use", another_scene,
            ("wan",),
            ("satfs", SATFS_BEFORE.name, "rclone", "rclone-streams", "rclone-cached", "s3fs"),
            ("a", "b", "zip"),
        ),
        Workload(
            "random", "200 random reads of 64 KiB", random_reads, ("tls", "wan"),
            (*ALL_MOUNTED, VSICURL), ("a",), dict.fromkeys(EVERYWHERE, ("1",)),
        ),
        Workload(
            "two-files", "two sequential readers of two files", two_files, ("tls", "wan", "far"),
            ("satfs", SATFS_BEFORE.name, "rclone-streams", "rclone-cached", "s3fs"), ("a", "b"),
            n_whole_files=2,
        ),
        Workload(
            "eight-readers", "eight sequential readers of one file", eight_readers,
            ("tls", "wan", "far"),
            ("satfs", SATFS_BEFORE.name, "rclone-streams", "rclone-cached", "s3fs"), ("a",),
        ),
        Workload(
            "checksum", "`sha256sum` of a 230 MB zip, fresh mount", checksum, ("tls", "wan", "far"),
            (*ALL_MOUNTED, SATFS_BEFORE.name), ("zip",),
        ),
        Workload(
            "reread-kernel", "re-read from the kernel", reread_kernel, ("tls",),
            ("satfs", LOCAL, LOCAL_SMALL_PAGES, "rclone-streams"), ("a",),
        ),
        Workload(
            "reread-disk", "re-read after remount, from the disk cache", reread_disk, ("tls",),
            ("satfs",), ("a",),
        ),
        Workload(
            "listing", "listing 10,000 entries", listing, ("tls", "wan"),
            ("satfs", "rclone", "httpdirfs"), ("many",),
        ),
        Workload(
            "long-listing", "`find` over 100,000 entries", long_listing, ("tls",),
            ("satfs",), (),
        ),
        Workload(
            "interactivity", "`stat` and lookup during a bulk read", interactivity, ("tls", "wan"),
            ("satfs", SATFS_BEFORE.name), ("a",),
        ),
        Workload(
            "window", "windows, chips and points of a GeoTIFF in the zip", window, ("wan", "far"),
            tuple(
                CASE.join((reader, layout, work))
                for (layout, work), reader in product(cases(), WINDOW_READERS)
            ),
            ("rasters",),
        ),
    )
}  # fmt: skip
