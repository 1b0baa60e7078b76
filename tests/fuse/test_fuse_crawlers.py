"""Programs that may not fetch: by name and by file; one log line for each."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LogBook
from hypothesis import given
from hypothesis import strategies as st

from satfs.fuse.callers import Caller, Callers
from satfs.fuse.crawlers import (
    PICTURE_BYTES,
    QUIET_S,
    CrawlerGate,
    CrawlerRules,
    ProgramBehaviour,
    crawler_rules,
)
from satfs.model import Reader
from satfs.tree.nodes import Attributes, BytesFile, Directory, Entry, File, Kind, Node

DEFAULT = crawler_rules("default")


def program(name: str, thread: str = "") -> Caller:
    """Return a caller as the kernel names it: 15 bytes."""
    return Caller(name[:15], (thread or name)[:15])


@pytest.mark.parametrize(
    "name",
    [
        "updatedb",
        "updatedb.plocate",
        "updatedb.mlocate",
        "tracker-miner-fs",
        "tracker-miner-fs-3",
        "tracker-extract-3",
        "localsearch-3",
        "localsearch-extractor-3",
        "baloo_file",
        "baloo_file_extractor",
        "recollindex",
    ],
)
def test_indexers_crawl(name: str) -> None:
    """Indexers are known under their names, also those that the kernel cuts."""
    assert DEFAULT.behaviour(program(name)) is ProgramBehaviour.CRAWLS
    assert not DEFAULT.may_fetch(ProgramBehaviour.CRAWLS, "preview.png", 10)
    assert not DEFAULT.may_list(ProgramBehaviour.CRAWLS)


@pytest.mark.parametrize(
    "name",
    ["tumblerd", "gdk-pixbuf-thumbnailer", "ffmpegthumbnailer", "evince-thumbnailer"],
)
def test_thumbnailers_draw(name: str) -> None:
    """A thumbnailer may have small pictures, and no raster."""
    behaviour = DEFAULT.behaviour(program(name))
    assert behaviour is ProgramBehaviour.DRAWS
    assert DEFAULT.may_list(behaviour)
    assert DEFAULT.may_fetch(behaviour, "a_preview.PNG", PICTURE_BYTES)
    assert not DEFAULT.may_fetch(behaviour, "a_preview.png", PICTURE_BYTES + 1)
    for raster in ("a.tif", "a.TIFF", "a.jp2", "a.vrt", "a.zip", "png", ".png"):
        assert not DEFAULT.may_fetch(behaviour, raster, 10)


def test_a_file_manager_that_draws_may_copy() -> None:
    """Of a file manager that draws thumbnails itself, only the thread that does is kept out."""
    assert DEFAULT.behaviour(program("pcmanfm", "loader")) is ProgramBehaviour.DRAWS
    assert DEFAULT.behaviour(program("pcmanfm", "pool-pcmanfm")) is ProgramBehaviour.PEOPLE
    assert DEFAULT.behaviour(program("pcmanfm")) is ProgramBehaviour.PEOPLE
    assert DEFAULT.behaviour(program("gdal", "loader")) is ProgramBehaviour.PEOPLE


@pytest.mark.parametrize(
    "name",
    ["cp", "rsync", "borg", "restic", "duplicity", "find", "python3", "clamscan", "gdalinfo"],
)
def test_backups_and_people_read(name: str) -> None:
    """Backup programs and other programs of users are no crawlers."""
    behaviour = DEFAULT.behaviour(program(name))
    assert behaviour is ProgramBehaviour.PEOPLE
    assert DEFAULT.may_fetch(behaviour, "a.tif", 10**12)
    assert DEFAULT.may_list(behaviour)


@given(st.text(min_size=1, max_size=40))
def test_nobody_is_kept_out_when_the_guard_is_off(name: str) -> None:
    """`none` lets everybody in."""
    guard = crawler_rules("none")
    assert not guard.is_active
    assert guard.behaviour(program(name)) is ProgramBehaviour.PEOPLE


def test_the_list_can_be_made_longer() -> None:
    """Words beside `default` are added to it; without `default` they are the whole list."""
    longer = crawler_rules("default clamscan my-crawler-with-a-long-name bot-*")
    for name in ("updatedb", "clamscan", "my-crawler-with-a-long-name", "bot-7"):
        assert longer.behaviour(program(name)) is ProgramBehaviour.CRAWLS
    only = crawler_rules("clamscan")
    assert only.behaviour(program("clamscan")) is ProgramBehaviour.CRAWLS
    assert only.behaviour(program("updatedb")) is ProgramBehaviour.PEOPLE
    assert only.behaviour(program("tumblerd")) is ProgramBehaviour.PEOPLE


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="*?[]/ \0\n"), min_size=1, max_size=40)
)
def test_a_name_means_itself_however_long(name: str) -> None:
    """A program is recognised by its full name, though the kernel keeps 15 bytes of it."""
    kept = name.encode()[:15].decode("utf-8", "ignore")
    guard = CrawlerRules([name], [])
    if len(kept.encode()) == min(15, len(name.encode())):
        assert guard.behaviour(Caller(kept, kept)) is ProgramBehaviour.CRAWLS
    other = f"x{kept}"[:15]
    assert other == kept or guard.behaviour(Caller(other, other)) is ProgramBehaviour.PEOPLE


# -- names from procfs --------------------------------------------------------------------------


def test_callers_have_the_names_of_process_and_thread() -> None:
    """The kernel names a thread; its process is named too, with any name of the thread."""
    callers = Callers(lambda: 0.0)
    seen: list[Caller | None] = []

    def work() -> None:
        (Path("/proc/self/task") / str(threading.get_native_id()) / "comm").write_text("loader")
        seen.append(callers.caller(threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    own = Path("/proc/self/comm").read_text().rstrip("\n")
    assert seen == [Caller(own, "loader")]
    assert callers.caller(os.getpid()) == Caller(own, own)


def test_whoever_cannot_be_named_is_nobody(tmp_path: Path) -> None:
    """A thread that is gone, or of another process namespace, has no name."""
    assert Callers(lambda: 0.0).caller(0) is None
    assert Callers(lambda: 0.0, proc=tmp_path).caller(4711) is None
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711" / "status").write_text("Name:\tx\nTgid:\tnonsense\n")
    assert Callers(lambda: 0.0, proc=tmp_path).caller(4711) is None


def test_names_are_looked_up_once_in_a_while(tmp_path: Path) -> None:
    """A program that opens a thousand files is logged once, and again after some time."""
    now_s = 0.0
    name_it(tmp_path, 7, "first")
    callers = Callers(lambda: now_s, proc=tmp_path)
    assert callers.caller(7) == Caller("first", "first")
    name_it(tmp_path, 7, "second")
    assert callers.caller(7) == Caller("first", "first")
    now_s = 10.0
    assert callers.caller(7) == Caller("second", "second")


def name_it(proc: Path, number: int, name: str) -> None:
    (proc / str(number)).mkdir(exist_ok=True)
    (proc / str(number) / "status").write_text(f"Name:\t{name}\nUmask:\t0022\nTgid:\t{number}\n")


# -- in the FUSE operations ---------------------------------------------------------------------


class Top(Directory):
    __slots__ = ()

    async def lookup(self, name: bytes) -> Node:
        raise NotImplementedError

    async def children(self) -> list[Entry]:
        return []


class Remote(File):
    is_cached = False

    def attributes(self) -> Attributes:
        return Attributes(Kind.FILE, 0o444, 1000)

    async def is_held(self) -> bool:
        return self.is_cached

    async def open(self) -> Reader:
        raise NotImplementedError


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[Callable[[], float]], CrawlerGate]:
    for number, name in enumerate(("updatedb", "tumblerd", "cp"), start=1):
        name_it(tmp_path, number, name)
    return lambda clock: CrawlerGate(DEFAULT, Callers(clock, proc=tmp_path), clock)


def test_a_name_may_expire_while_it_is_looked_up() -> None:
    """Time passes between any two lines: no call fails because a name became too old in one."""
    ticks = itertools.count()
    callers = Callers(lambda: 0.7 * next(ticks))
    for _ in range(50):
        assert callers.caller(os.getpid()) is not None


async def test_what_is_cached_is_anybodys(
    gate: Callable[[Callable[[], float]], CrawlerGate], expect_log: Callable[..., None]
) -> None:
    """An indexer reads what is in the cache, and nothing else; others read everything."""
    it = gate(lambda: 0.0)
    top = Top(None, b"")
    tasks, raster = Top(top, b"tasks"), Remote(top, b"a.tif")
    raster.is_cached = False
    expect_log("crawler kept out", program="updatedb")
    assert await it.refuses_open(1, raster)
    assert await it.refuses_open(2, raster)
    assert not await it.refuses_open(3, raster)
    assert not await it.refuses_open(1, BytesFile(top, b"README.txt", b"hello"))
    raster.is_cached = True
    assert not await it.refuses_open(1, raster)
    assert [it.refuses_list(number, tasks) for number in (1, 2, 3)] == [True, False, False]
    assert not it.refuses_list(1, top)


async def test_a_crawler_is_told_of_once(
    gate: Callable[[Callable[[], float]], CrawlerGate],
    expect_log: Callable[..., None],
    log_book: LogBook,
) -> None:
    """However much an indexer is refused, the log has one line, and one more the next day."""
    now_s = 0.0
    it = gate(lambda: now_s)
    top = Top(None, b"")
    expect_log("crawler kept out", program="updatedb", path="/tasks")
    for _ in range(1000):
        assert it.refuses_list(1, Top(top, b"tasks"))
        now_s += QUIET_S / 10
    assert len(log_book.named("crawler kept out")) == 1
    now_s += 24 * 3600
    assert it.refuses_list(1, Top(top, b"tasks"))
    assert len(log_book.named("crawler kept out")) == 2
