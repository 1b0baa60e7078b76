"""Inspect, verify and clear a cache directory, without a mount.

All functions here wait for the disk. Mounts may use the directory at the same time: they keep their
open files, and enter no blocks under a name that was cleared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.blockmap import BLOCK_BYTES, BLOCKS_PER_SEGMENT, BlockMap
from satfs.content.cache.directory import open_index, path_of
from satfs.content.cache.index import CachedVersion, Index
from satfs.errors import BadCache, NotThere
from satfs.model import Json


class CacheInfo(Struct, frozen=True):
    """The content of a cache directory; `disk_bytes` is the space of its files on the disk."""

    directory: Path
    objects: list[CachedVersion]
    held_bytes: int
    disk_bytes: int


class Checked(Struct, frozen=True):
    """The result of one object's check, in bytes. Damaged blocks have been removed."""

    kept: CachedVersion
    good_bytes: int
    damaged_bytes: int


def info(directory: Path) -> CacheInfo:
    """Return the content of *directory*.

    Raises: as `index_of`.
    """
    with index_of(directory) as index:
        kept = index.kept()
    disk_bytes = 0
    for each in kept:
        with suppress(FileNotFoundError):  # pinned and not fetched so far, or evicted meanwhile
            disk_bytes += path_of(directory, each.name).stat().st_blocks * 512
    return CacheInfo(directory, kept, sum(each.held_bytes for each in kept), disk_bytes)


def clear(directory: Path, *, with_pinned: bool = False) -> int:
    """Remove all objects from *directory*, or those not pinned; return the bytes they held.

    Raises: as `index_of`.
    """
    freed_bytes = 0
    with index_of(directory) as index:
        for each in index.kept():
            if each.is_pinned and not with_pinned:
                continue
            # The row goes first: a crash leaves a file without one, which is empty.
            index.remove_object(each.name)
            path_of(directory, each.name).unlink(missing_ok=True)
            freed_bytes += each.held_bytes
    return freed_bytes


def verify(directory: Path) -> Iterator[Checked]:
    """Check every block of every object against its checksum, yielding each object's result.

    Raises: as `index_of`.
    """
    with index_of(directory) as index:
        for each in index.kept():
            yield _verify(directory, index, each)


@contextmanager
def index_of(directory: Path) -> Iterator[Index]:
    """Yield the index of the cache in *directory*, for work that waits for the disk.

    Raises:
        NotThere: there is no cache.
        BadCache: it is not ours, or not a cache; or its disk fails, or a mount that was stopped
            in the middle of a commit has it.
    """
    if not (directory / "index.sqlite").exists():
        raise NotThere(f"there is no cache in {directory}")
    try:
        with closing(open_index(directory)) as index:
            yield index
    except (OSError, sqlite3.Error) as problem:
        raise BadCache(f"cache_dir: {directory} cannot be used as a cache") from problem


def _verify(directory: Path, index: Index, kept: CachedVersion) -> Checked:
    path = path_of(directory, kept.name)
    if not path.exists():
        if kept.is_pinned:  # perhaps nothing was fetched so far
            index.open_object(kept.name, kept.label, kept.size_bytes, is_new=True)
        else:
            index.remove_object(kept.name)
        return Checked(kept, 0, kept.held_bytes)
    try:
        file, _ = BlockFile.on_disk(path, kept.size_bytes)
    except OSError:
        return Checked(kept, 0, kept.held_bytes)
    good = damaged = 0
    try:
        # Read under the file's lock, so that no other mount frees these blocks meanwhile.
        blocks = BlockMap(kept.size_bytes)
        object_id = index.open_object(kept.name, kept.label, kept.size_bytes, is_new=False)
        for segment in index.segments(object_id):
            blocks.load(segment)
        for number in list(blocks.present_segments()):
            keep = 0
            for run in list(blocks.unchecked(blocks.span_of(number))):
                first, last = run.start // BLOCK_BYTES, -(-run.stop // BLOCK_BYTES)
                results = file.verify(run, list(blocks.hashes(first, last)))
                good += sum(results) * BLOCK_BYTES
                damaged += (len(results) - sum(results)) * BLOCK_BYTES
                for block, is_good in enumerate(results, first):
                    keep |= int(is_good) << (block - number * BLOCKS_PER_SEGMENT)
            if keep != blocks.mask_of(number):
                index.forget_blocks(object_id, number, keep)
    finally:
        file.close()
    return Checked(kept, good, damaged)


def records_of(kept: Iterable[CachedVersion]) -> list[Json]:
    """Return the objects as records, for programs."""
    return [
        {
            "label": each.label,
            "size_bytes": each.size_bytes,
            "held_bytes": min(each.held_bytes, each.size_bytes),  # the last block is a whole one
            "is_pinned": each.is_pinned,
            "used_at_s": each.used_at_s,
        }
        for each in kept
    ]
