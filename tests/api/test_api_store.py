"""Listings on disk: kept over a restart, shared, and never in the way."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from fakes.record_lists import list_of

from satfs.api import listing_store, record_parsers
from satfs.api.listing_store import FILE_NAME, ListingStore
from satfs.api.record_list import RecordPage, page_bytes

RECORDS = list_of(
    [{"scene_id": "s", "name": "ü€😀", "deep": [1, None, {"a": 0.5}]}], record_parsers.scene
).pages
MORE = list_of([{"scene_id": f"t/{n}\ud800"} for n in range(3)], record_parsers.scene).pages


async def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    """By kind and id, the last one of each."""
    store = ListingStore(tmp_path / "a")
    await store.save("scenes", "c/1\n", RECORDS)
    await store.save("scenes", "c/1\n", [*RECORDS, *MORE])
    await store.save("captures", "c/1\n", [])
    await store.aclose()

    store = ListingStore(tmp_path / "a")
    found = await store.load("scenes", "c/1\n")
    assert found is not None
    assert list(found.pages) == [*RECORDS, *MORE]
    assert abs(found.requested_at_s - os.stat(tmp_path / "a").st_mtime) < 60
    assert await store.load("scenes", "other") is None
    assert {(one.kind, len(one.pages)) for one in await store.load_all(10)} == {
        ("scenes", 2),
        ("captures", 0),
    }
    assert len(await store.load_all(1)) == 1
    await store.delete("scenes", "c/1\n")
    assert await store.load("scenes", "c/1\n") is None
    await store.aclose()


async def test_files_are_ours_alone(tmp_path: Path) -> None:
    """Directories 0700, files 0600, with any umask."""
    before = os.umask(0)
    try:
        store = ListingStore(tmp_path / "cache" / "account")
        await store.save("tasks", "", RECORDS)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "cache" / "account").iterdir()
        }
        assert FILE_NAME in modes
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "cache" / "account").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
        await store.aclose()
    finally:
        os.umask(before)


async def test_two_mounts_share_one_file(tmp_path: Path) -> None:
    """Both write, each sees what the other kept."""
    stores = [ListingStore(tmp_path / "a") for _ in range(2)]

    async def fill(store: ListingStore, name: str) -> None:
        for number in range(50):
            await store.save(name, str(number), RECORDS)

    async with trio.open_nursery() as nursery:
        for number, store in enumerate(stores):
            nursery.start_soon(fill, store, f"kind-{number}")
    for store in stores:
        assert len(await store.load_all(1000)) == 100
        await store.aclose()


@pytest.mark.slow
async def test_mounts_that_start_at_the_same_moment_all_keep_their_listings(tmp_path: Path) -> None:
    """As at a login: each finds the file in use while another one makes it."""
    for attempt in range(20):
        stores = [ListingStore(tmp_path / str(attempt)) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for number, store in enumerate(stores):
                nursery.start_soon(store.save, f"kind-{number}", "", RECORDS)
        for store in stores:
            assert len(await store.load_all(10)) == 4
            await store.aclose()


@pytest.mark.parametrize("while_it_is", ["new", "open"])
async def test_a_file_in_use_costs_the_call_and_not_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, while_it_is: str
) -> None:
    """Another mount may write for longer than a call waits."""
    monkeypatch.setattr(listing_store, "_BUSY_LIMIT_S", 0.0)
    store, other = ListingStore(tmp_path / "a"), ListingStore(tmp_path / "a")
    await other.save("tasks", "", RECORDS)
    if while_it_is == "open":
        await store.save("scenes", "a", RECORDS)
    with writing(tmp_path / "a"):
        await store.save("scenes", "b", RECORDS)

    await store.save("scenes", "c", RECORDS)

    kept = {one.id for one in await other.load_all(10)}
    assert kept == {"", "c"} | ({"a"} if while_it_is == "open" else set())
    await store.aclose()
    await other.aclose()


async def test_a_file_that_stays_in_use_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Any
) -> None:
    """By a process that was stopped while it wrote: not each listing waits for it."""
    expect_log("listings are not kept on disk", reason="OperationalError")
    monkeypatch.setattr(listing_store, "_BUSY_LIMIT_S", 0.0)
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    with writing(tmp_path / "a"):
        for _ in range(3):
            await store.save("tasks", "", MORE)

    assert await store.load("tasks", "") is None
    assert open_files(tmp_path) == []
    await store.aclose()


async def test_a_disk_that_is_full_for_a_moment_costs_the_calls_of_that_time(
    tmp_path: Path,
) -> None:
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    assert store._db is not None
    store._db.execute("PRAGMA max_page_count = 1")  # the least is what the file has
    for number in range(9):
        await store.save("scenes", str(number), large_pages())
        assert await store.load("scenes", str(number)) is None
        assert await store.load("tasks", "") is not None
    store._db.execute("PRAGMA max_page_count = 100000")
    await store.save("scenes", "later", large_pages())
    assert [one.id for one in await store.load_all(1)] == ["later"]
    await store.aclose()


async def test_space_of_old_listings_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_store, "_SHRUNK_BYTES", 100_000)
    store, file = ListingStore(tmp_path / "a"), tmp_path / "a" / FILE_NAME
    await store.save("scenes", "old", large_pages(), time.time() - listing_store.KEPT_FOR_S - 1)
    await store.save("tasks", "", RECORDS)
    await store.aclose()
    assert file.stat().st_size > 100_000

    store = ListingStore(tmp_path / "a")
    assert [one.kind for one in await store.load_all(9)] == ["tasks"]
    await store.aclose()
    assert file.stat().st_size < 100_000


def large_pages() -> Sequence[RecordPage]:
    """Return records of 200 kB, however well they are packed."""
    records = [{"scene_id": str(n), "name": os.urandom(1000).hex()} for n in range(200)]
    return list_of(records, record_parsers.scene).pages


def open_files(directory: Path) -> list[str]:
    """Return the files below *directory* that this process has open."""
    descriptors = [file for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    paths = [os.readlink(file) for file in descriptors]
    return [path for path in paths if path.startswith(str(directory))]


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Hold the file in *directory* as another mount does that writes."""
    db = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield
    db.execute("ROLLBACK")
    db.close()


async def test_a_broken_file_is_put_away(tmp_path: Path, expect_log: Any) -> None:
    """It is discarded with a word, and keeping goes on."""
    expect_log("kept listings were unreadable and are discarded")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FILE_NAME).write_bytes(b"this is no database" * 1000)
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    assert await store.load("tasks", "") is not None
    await store.aclose()


@pytest.mark.parametrize(
    "damage",
    ["packed = x'00ff'", "ends = x'00'", "ids = x'5b5d'", "number = 7, ids = x''", "checksum = 5"],
)
async def test_a_broken_page_is_not_found(tmp_path: Path, damage: str) -> None:
    """One row that is not what was written costs that listing, no other."""
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    await store.save("scenes", "c", RECORDS)
    await store.aclose()
    with sqlite3.connect(tmp_path / "a" / FILE_NAME) as db:
        db.execute(f"UPDATE page SET {damage} WHERE kind = 'tasks'")
    db.close()
    store = ListingStore(tmp_path / "a")
    assert await store.load("tasks", "") is None
    assert [one.kind for one in await store.load_all(10)] == ["scenes"]
    await store.aclose()


@pytest.mark.parametrize("obstacle", ["a file", "a symlink", "a directory for the file"])
async def test_where_nothing_can_be_kept_one_warning_is_all(
    tmp_path: Path, expect_log: Any, log_book: Any, obstacle: str
) -> None:
    """Memory is used instead: no call fails, and one line is logged."""
    expect_log("listings are not kept on disk")
    place = tmp_path / "a"
    match obstacle:
        case "a file":
            place.write_bytes(b"")
        case "a symlink":
            (tmp_path / "elsewhere").mkdir()
            place.symlink_to(tmp_path / "elsewhere")
        case _:
            (place / FILE_NAME).mkdir(parents=True)
    store = ListingStore(place)
    for _ in range(3):
        await store.save("tasks", "", RECORDS)
        assert await store.load("tasks", "") is None
        assert await store.load_all(10) == ()
        await store.delete("tasks", "")
    await store.aclose()
    assert len(log_book.named("listings are not kept on disk")) == 1
    assert not (tmp_path / "elsewhere").exists() or not os.listdir(tmp_path / "elsewhere")


async def test_somebody_elses_directory_is_refused(
    tmp_path: Path, expect_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that others may write could hold anything."""
    expect_log("listings are not kept on disk", reason="PermissionError")
    (tmp_path / "a").mkdir()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    assert await store.load("tasks", "") is None


async def test_a_directory_that_vanishes_is_no_error(tmp_path: Path) -> None:
    """Somebody cleaned the cache while the mount is up."""
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    (tmp_path / "a").rmdir()
    await store.save("tasks", "", RECORDS)
    await store.load("tasks", "")
    await store.aclose()


async def test_only_so_much_is_read_back(tmp_path: Path) -> None:
    """The newest listings whose bytes fit; one that does not fit is left out, not the rest."""
    store = ListingStore(tmp_path / "a")
    for number in range(5):
        await store.save("scenes", str(number), MORE if number == 3 else RECORDS)
    room = 3 * sum(map(page_bytes, RECORDS))
    assert [one.id for one in await store.load_all(10, room)] == ["4", "2", "1"]
    await store.aclose()


async def test_a_file_of_the_first_version_is_emptied(tmp_path: Path) -> None:
    """Files of an earlier release are not read, and take no space."""
    store = ListingStore(tmp_path / "a")
    await store.save("tasks", "", RECORDS)
    await store.aclose()
    with sqlite3.connect(tmp_path / "a" / FILE_NAME) as db:
        db.executescript(
            "DROP TABLE listing; DROP TABLE page; PRAGMA user_version = 1;"
            "CREATE TABLE listings (kind TEXT, id TEXT, asked_at_s REAL, records BLOB);"
            "INSERT INTO listings VALUES ('tasks', '', 0, x'00')"
        )
    db.close()
    store = ListingStore(tmp_path / "a")
    assert await store.load("tasks", "") is None
    await store.save("tasks", "", RECORDS)
    found = await store.load("tasks", "")
    assert found is not None
    assert found.pages == RECORDS
    await store.aclose()
    with sqlite3.connect(tmp_path / "a" / FILE_NAME) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    db.close()
    assert "listings" not in tables
