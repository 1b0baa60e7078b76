"""Windows, chips, points and whole rasters, read with rasterio."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import children
from benchmarks.contenders import (
    SATFS,
    Mount,
)
from benchmarks.objects import StoredObject
from benchmarks.rasters import WORK, least
from benchmarks.samples import (
    PATIENCE_S,
    SCRIPTS,
    Sample,
    Scene,
    WrongBytes,
    fresh_room,
    traffic_of,
)

#: What the kernel asked for ahead of a program that has ended is fetched, or given up, by then.
SETTLING_S = 0.5
WINDOW_CONTENTS = "satfs-contents"
WINDOW_MOUNTED_ZIP = "satfs-vsizip"
WINDOW_VSICURL = "vsizip-vsicurl"


#: Who reads rasters, each of every layout and for every work.
WINDOW_READERS = (WINDOW_CONTENTS, WINDOW_MOUNTED_ZIP, WINDOW_VSICURL)
#: What separates reader, layout and work in the name of a contender.
CASE = "@"


def window(scene: Scene, name: str, repetition: int) -> Sample:
    """Do one work on one raster, stored in a zip, with rasterio: seconds, requests and bytes.

    A mount is fresh, and the raster's size is known, as after a listing.
    """
    reader, layout, work = name.split(CASE)
    stored = scene.stored(layout)
    member = stored.member_name
    task = WORK[work]
    if task.is_copy and reader != WINDOW_CONTENTS:
        return {"skipped": "cp copies files"}
    shown = scene.copies.get(layout, [stored])[: task.n_rasters]
    with fresh_room(scene) as room, contextlib.ExitStack() as stack:
        prefix: tuple[str, ...] = ()
        sources = []
        if reader == WINDOW_VSICURL:
            prefix = scene.origin.line.client_prefix
            for each in shown:
                source = f"/vsizip//vsicurl/{scene.origin.url(each.file_name)}/{member}"
                sources.append(source)
        else:
            mount: Mount = stack.enter_context(SATFS.mounted(scene.origin, room, stored))
            for each in shown:
                path = mount.path_of(each)
                contents = path.parent / "contents" / member
                os.stat(contents)
                is_file = reader == WINDOW_CONTENTS
                sources.append(str(contents) if is_file else f"/vsizip/{path}/{member}")
        mark = scene.origin.mark()
        digests, took_s = _read_rasters(prefix, sources, work)
        time.sleep(SETTLING_S)
        sample = traffic_of(scene, mark)
    if task.is_copy:
        original = stored.member()
        digest = hashlib.blake2b(b"".join(original.pieces()), digest_size=16).hexdigest()
        is_right = digests == [digest]
        unpack_s = 0.0
    else:
        expected, unpack_s = _read_locally(stored, work)
        is_right = digests == expected
    if not is_right:
        raise WrongBytes(f"{name}: other pixels")
    needed = least(stored, task)
    return sample | {
        "took_s": took_s,
        "least_bytes": needed.size_bytes,
        "least_ranges": needed.n_ranges,
        "least_round_trips": needed.n_round_trips,
        "unpack_s": unpack_s,
    }


@functools.cache
def _read_locally(stored: StoredObject, work: str) -> tuple[list[str], float]:
    """Return the digests of a work on the original, and the seconds that it takes from memory."""
    source = f"/vsizip/{stored.path}/{stored.member_name}"
    _read_rasters((), [source], work)  # into memory
    return _read_rasters((), [source], work)


def _read_rasters(
    prefix: tuple[str, ...], sources: Sequence[str], work: str
) -> tuple[list[str], float]:
    """Have each process of a work read its part of one of *sources*, all at once.

    Returns the digest of each, and the seconds until the last one had ended.
    """
    readers = [
        subprocess.Popen(
            children.tied(
                [
                    *prefix, sys.executable, "-m", "benchmarks.raster_reader",
                    sources[process % len(sources)], work, str(process),
                ]
            ),
            cwd=SCRIPTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(WORK[work].n_processes)
    ]  # fmt: skip
    for reader in readers:
        assert reader.stdout is not None
        if reader.stdout.readline() != "ready\n":
            raise RuntimeError("a reader did not start")
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    found = [json.loads(reader.communicate(timeout=PATIENCE_S)[0]) for reader in readers]
    return [each["digest"] for each in found], max(each["took_s"] for each in found)
