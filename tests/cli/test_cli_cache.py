"""`satfs cache`, through its real entry point, on a cache that a mount has filled."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest
import trio
from cli.conftest import Program

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.directory import object_name
from satfs.model import ByteRange

SIZE = 5 * BLOCK_BYTES + 100


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache directory that holds one object, whole."""
    directory = tmp_path / "kept"

    async def fill() -> None:
        cache = await BlockCache.open(
            directory, limit_bytes=1 << 30, free_fraction=0.0, memory_bytes=1 << 24
        )
        cached = await cache.acquire(object_name("one"), "SCENE/delivery_zip", SIZE)
        landing = cache.begin_landing(cached, ByteRange(0, SIZE))
        cache.put(cached, cached.top, 0, b"x" * SIZE)
        cache.hold(cached, cached.top, 0, None, SIZE)
        landing.end()
        cached.release()
        await cache.close()

    trio.run(fill)
    return directory


def test_info_tells_what_is_kept(satfs: Program, filled: Path) -> None:
    done = satfs("cache", "info", "--json", "--cache-dir", filled)
    assert done.returncode == 0, done.stderr
    listing = json.loads(done.stdout)
    assert [each["label"] for each in listing["objects"]] == ["SCENE/delivery_zip"]
    assert listing["objects"][0]["size_bytes"] == SIZE
    shown = satfs("cache", "info", "--cache-dir", filled)
    assert "SCENE/delivery_zip" in shown.stdout
    assert shown.returncode == 0


def test_a_path_of_any_bytes_is_one_line_in_a_pipe(
    satfs: Program, filled: Path, tmp_path: Path
) -> None:
    """However long its name is, and whichever bytes are in it."""
    place = filled.rename(tmp_path / f"{'long' * 30}-\udcff")
    done = subprocess.run(
        satfs.command("cache", "info", "--cache-dir", place),
        env=satfs.environ(PYTHONIOENCODING="utf-8:strict"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.splitlines()
    assert [lines[0].split()[1], len(lines)] == [b"holds", 3]
    assert lines[0].startswith(f"{place.parent}/{'long' * 30}".encode())


def test_a_cache_that_is_not_there_holds_nothing(satfs: Program, tmp_path: Path) -> None:
    done = satfs("cache", "info", "--json", "--cache-dir", tmp_path / "none")
    assert done.returncode == 0
    assert json.loads(done.stdout)["held_bytes"] == 0
    assert satfs("cache", "clear", "--cache-dir", tmp_path / "none").returncode == 0


def test_verify_finds_flipped_bits_and_drops_them(satfs: Program, filled: Path) -> None:
    assert satfs("cache", "verify", "--cache-dir", filled).returncode == 0
    (data,) = (each for each in (filled / "objects").rglob("*") if each.is_file())
    with data.open("r+b") as file:
        file.seek(BLOCK_BYTES + 7)
        file.write(b"!")
    done = satfs("cache", "verify", "--json", "--cache-dir", filled)
    assert done.returncode == 7
    assert json.loads(done.stdout)["damaged"] == ["SCENE/delivery_zip"]
    again = satfs("cache", "verify", "--json", "--cache-dir", filled)
    assert again.returncode == 0
    assert json.loads(again.stdout)["good_bytes"] == 5 * BLOCK_BYTES


def test_clear_gives_the_space_back_but_not_what_is_pinned(satfs: Program, filled: Path) -> None:
    with sqlite3.connect(filled / "index.sqlite") as index:
        index.execute("UPDATE objects SET pinned = 1")
    index.close()
    assert satfs("cache", "clear", "--cache-dir", filled).returncode == 0
    assert any(each.is_file() for each in (filled / "objects").rglob("*"))
    assert satfs("cache", "clear", "--pinned", "--cache-dir", filled).returncode == 0
    assert not any(each.is_file() for each in (filled / "objects").rglob("*"))


def test_a_symbolic_link_is_no_cache(satfs: Program, filled: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(filled)
    done = satfs("cache", "info", "--cache-dir", link)
    assert done.returncode == 7
    assert "symbolic link" in done.stderr
