"""What the runs on rasters show: times beside GDAL's, and what the line allows at best. Pure."""

from __future__ import annotations

from typing import Final

from benchmarks.profiles import PROFILES
from benchmarks.rasters import WORK, cases
from benchmarks.results import Run
from benchmarks.window_works import CASE, WINDOW_READERS

#: satfs through `contents/`, and GDAL without a mount.
OURS: Final = WINDOW_READERS[0]
GDAL: Final = WINDOW_READERS[-1]
#: Requests that follow on each other until a raster is open: its header, and its tables.
N_OPENING_ROUND_TRIPS: Final = 2
#: How many bytes may be fetched for those of the blocks, and how many requests more than ranges.
MAX_BYTES_SHARE: Final = 1.25
MAX_MORE_BYTES: Final = 500_000
MAX_MORE_REQUESTS: Final = 4


def ideal_s(run: Run, layout: str, work: str, *, is_gdal: bool = False) -> float | None:
    """Return what a work takes at least: round trips that wait for each other, bytes, unpacking.

    Nobody knows where a random window lies before its first block is read: a round trip for each
    window with new blocks, and two to open (the header, and the tables that it leads to). The bytes
    come at the rate of one connection for each process. With *is_gdal* that is counted for GDAL's
    own requests and bytes, each of which waits for the one before.
    """
    profile, task = PROFILES[run.profile], WORK[work]
    ours, theirs = (CASE.join((reader, layout, work)) for reader in (OURS, GDAL))
    unpack_s = run.median(ours, "unpack_s")
    n_trips, n_bytes = (
        (run.median(theirs, "content_requests"), run.median(theirs, "content_bytes"))
        if is_gdal
        else (run.median(ours, "least_round_trips"), run.median(ours, "least_bytes"))
    )
    if unpack_s is None or n_trips is None or n_bytes is None:
        return None
    n_waits = n_trips / task.n_processes if is_gdal else n_trips + N_OPENING_ROUND_TRIPS
    line_s = n_waits * profile.round_trip_s
    if profile.connection_rate is not None:
        line_s += n_bytes / (profile.connection_rate * task.n_processes)
    return line_s + unpack_s


def window_ratios(run: Run, reader: str) -> dict[tuple[str, str], float]:
    """Return the time of a reader over that of GDAL without a mount, by layout and work."""
    found = {}
    for layout, work in cases():
        ours = run.median(CASE.join((reader, layout, work)), "took_s")
        others = run.median(CASE.join((GDAL, layout, work)), "took_s")
        if ours is not None and others:
            found[layout, work] = ours / others
    return found


def excesses(run: Run) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Return, by layout and work, the bytes and the requests beyond what is allowed, if any."""
    more_bytes, more_requests = {}, {}
    for layout, work in cases():
        name = CASE.join((OURS, layout, work))
        keys = ("content_bytes", "least_bytes", "content_requests", "least_ranges")
        n_bytes, least_bytes, n_requests, n_ranges = (run.median(name, key) for key in keys)
        if n_bytes is None or least_bytes is None or n_requests is None or n_ranges is None:
            continue
        more_bytes[layout, work] = n_bytes - MAX_BYTES_SHARE * least_bytes - MAX_MORE_BYTES
        more_requests[layout, work] = n_requests - n_ranges - MAX_MORE_REQUESTS
    return more_bytes, more_requests
