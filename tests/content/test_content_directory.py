"""The cache directory: the share of a disk that is used by default."""

from __future__ import annotations

from pathlib import Path

from satfs.content.cache.directory import default_bytes


def test_the_default_cache_is_a_tenth_of_its_disk_at_most(tmp_path: Path) -> None:
    """Of the nearest directory that exists, as the cache itself may not exist yet."""
    size_bytes = default_bytes(tmp_path / "not" / "yet")

    assert 0 < size_bytes <= 20 * 10**9
    assert size_bytes == default_bytes(tmp_path)
