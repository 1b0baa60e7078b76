"""Data derived from fetched bytes counts, stays and is evicted as they are."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from satfs.content.cache import maintenance
from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.derived import Derived, DerivedFile
from satfs.content.cache.directory import object_name
from satfs.model import ByteRange

MIB = 1024 * 1024
SIZE = 3 * MIB + 777


@asynccontextmanager
async def opened(directory: Path, **changes: Any) -> AsyncIterator[tuple[BlockCache, Derived]]:
    how: dict[str, Any] = {"limit_bytes": 10**9, "free_fraction": 0.0, "memory_bytes": 16 * MIB}
    cache = await BlockCache.open(directory, **{**how, **changes})
    try:
        yield cache, Derived(cache, "account")
    finally:
        await cache.close()


def noise(seed: int, n_bytes: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(n_bytes)


async def fill(file: DerivedFile, data: bytes) -> None:
    for start in range(0, len(data), MIB):
        await file.write(start, data[start : start + MIB])


def labels(directory: Path) -> dict[str, int]:
    return {each.label: each.held_bytes for each in maintenance.info(directory).objects}


async def test_a_record_is_there_for_the_next_mount(tmp_path: Path) -> None:
    """Whole, under its key and for its account."""
    async with opened(tmp_path) as (_, derived):
        assert await derived.get("a") is None
        await derived.put("a", noise(1), "S/contents/a (checkpoints)")
        assert await derived.get("a") == noise(1)
    async with opened(tmp_path) as (cache, derived):
        assert await derived.get("a") == noise(1)
        assert await derived.get("b") is None
        assert await Derived(cache, "somebody else").get("a") is None


async def test_a_newer_record_takes_the_place_of_the_older(tmp_path: Path) -> None:
    """Longer or shorter, and the older one fills no room any more."""
    async with opened(tmp_path) as (cache, derived):
        await derived.put("a", noise(1), "x")
        await cache.commit()
        await derived.put("a", noise(2, 100), "x")
        await cache.commit()
        assert await derived.get("a") == noise(2, 100)
    assert labels(tmp_path) == {"x": BLOCK_BYTES}
    assert len([each for each in (tmp_path / "objects").rglob("*") if each.is_file()]) == 1


async def test_a_damaged_record_is_none(tmp_path: Path, expect_log: Callable[..., None]) -> None:
    """Flipped bits are noticed, and the record is gone."""
    expect_log("cached blocks were damaged: fetching them again", n_blocks=1)
    async with opened(tmp_path) as (_, derived):
        await derived.put("a", noise(1), "x")
    (path,) = (each for each in (tmp_path / "objects").rglob("*") if each.is_file())
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"!!!")
    async with opened(tmp_path) as (_, derived):
        assert await derived.get("a") is None
        await derived.put("a", noise(1), "x")
        assert await derived.get("a") == noise(1)


async def test_it_counts_as_cached_and_is_shown_and_cleared(tmp_path: Path) -> None:
    """Checkpoints and unpacked members count as cached; `satfs cache` shows and clears them."""
    async with opened(tmp_path) as (cache, derived):
        await derived.put("a", noise(1), "checkpoints")
        file = await derived.open("b", SIZE, "unpacked")
        await fill(file, noise(2))
        file.close()
        await cache.commit()
        held = 2 * -(-SIZE // BLOCK_BYTES) * BLOCK_BYTES
        assert cache.statistics()["disk_bytes"] == held
    assert labels(tmp_path) == {"checkpoints": held // 2, "unpacked": held // 2}
    assert maintenance.clear(tmp_path) == held
    async with opened(tmp_path) as (_, derived):
        assert await derived.get("a") is None
        file = await derived.open("b", SIZE, "unpacked")
        assert await file.first_gap(ByteRange(0, SIZE)) == 0
        file.close()


async def test_it_is_evicted_with_the_least_recently_used(tmp_path: Path) -> None:
    """Under a limit that holds for all together; evicted blocks are reported as missing."""
    limit = 8 * MIB
    async with opened(tmp_path, limit_bytes=limit) as (cache, derived):
        await derived.put("old", noise(1), "old")
        await cache.commit()
        files = []
        for n in range(3):
            files.append(await derived.open(str(n), SIZE, str(n)))
            await fill(files[n], noise(n))
            await cache.commit()
        assert cache.statistics()["disk_bytes"] <= limit
        assert await derived.get("old") is None
        assert await files[0].read(ByteRange(0, SIZE)) is None, "open or not"
        assert await files[2].read(ByteRange(0, SIZE)) == noise(2)
        for file in files:
            file.close()


@pytest.mark.parametrize("means", [{"limit_bytes": 0}, {"free_fraction": 0.9999}])
async def test_without_room_on_disk_files_are_kept_in_memory(
    tmp_path: Path, means: dict[str, Any], allow_log: Any
) -> None:
    """As content is; records, which are for later mounts, not at all."""
    allow_log(".*: keeping new content in memory")
    async with opened(tmp_path, **means) as (_, derived):
        file = await derived.open("a", SIZE, "a")
        await fill(file, noise(1))
        assert await file.read(ByteRange(MIB, SIZE)) == noise(1)[MIB:]
        file.close()
        if "limit_bytes" in means:
            await derived.put("b", noise(1), "b")
            assert await derived.get("b") is None
            assert derived.max_bytes == 8 * MIB


async def test_a_key_is_never_a_delivery(tmp_path: Path) -> None:
    """Names of derived data are never those of scenes, for any name of a scene."""
    async with opened(tmp_path) as (cache, derived):
        await derived.put("x", b"1", "made")
        await cache.commit()
        assert cache.index is not None
        assert cache.index.find(object_name("account", "derived", "x")) == []
