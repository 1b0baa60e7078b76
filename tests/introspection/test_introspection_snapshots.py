"""Files that change from look to look: one moment as a whole, and little kept."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.errors import Changed
from satfs.introspection.snapshots import (
    FRESH_S,
    GRACE_S,
    MAX_BYTES,
    MAX_S,
    SnapshotFile,
    Snapshots,
)
from satfs.model import ByteRange
from satfs.tree.nodes import Directory, Entry, Node


class EmptyDirectory(Directory):
    """A directory that no program looks into."""

    async def lookup(self, name: bytes) -> Node:
        raise NotImplementedError

    async def children(self) -> list[Entry]:
        raise NotImplementedError


class Stage:
    """A clock, a file that is another each time it is made, and looks at it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.numbers = count()
        self.snapshots = Snapshots(lambda: self.now_s, lambda: int(self.now_s * 1e9))
        self.directory = EmptyDirectory(None, b"")

    def make(self) -> bytes:
        number = next(self.numbers)
        return b"%d" % number + b"." * number

    def look(self, name: bytes = b"status") -> SnapshotFile:
        return self.snapshots.file(self.directory, name, self.make)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def read(file: SnapshotFile) -> bytes:
    reader = await file.open()
    return bytes(await reader.read(ByteRange(0, reader.size_bytes)))


async def test_size_and_bytes_belong_together(stage: Stage) -> None:
    """`stat` shows the size of the bytes that are read, also when it is opened much later."""
    for _ in range(5):
        file = stage.look()
        stage.now_s += FRESH_S
        stage.look()
        assert len(await read(file)) == file.attributes().size_bytes


async def test_two_quick_looks_see_one_file(stage: Stage) -> None:
    """A program that looks twice, as cp does, finds the same file, whenever it begins."""
    for started_s in (0.0, 0.3, FRESH_S - 0.001, FRESH_S + 5):
        stage.now_s = started_s
        first = stage.look()
        stage.now_s += GRACE_S * 0.9
        assert stage.look().identity == first.identity


async def test_a_second_later_it_is_another(stage: Stage) -> None:
    first = stage.look()
    stage.now_s += FRESH_S
    assert stage.look().identity != first.identity


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=60))
def test_however_often_somebody_looks_it_is_never_old(pauses: list[float]) -> None:
    """No look gets what is older than two seconds, also when looks never cease."""
    stage = Stage()
    for pause in pauses:
        stage.now_s += pause
        file = stage.look()
        assert stage.now_s - file.attributes().mtime_ns / 1e9 <= MAX_S + 1e-6


async def test_what_is_kept_no_more_is_changed(stage: Stage) -> None:
    """An open that comes too late raises Changed: the name leads to another file by then."""
    file = stage.look()
    for number in range(100):
        stage.snapshots.file(
            stage.directory,
            b"%d" % number,
            lambda n=number: b"%03d" % n * (MAX_BYTES // 90),  # type: ignore[misc]
        )
    with pytest.raises(Changed):
        await file.open()


async def test_a_listing_keeps_nothing_and_yet_can_be_opened(stage: Stage) -> None:
    listed = stage.snapshots.listed(stage.directory, b"one", lambda: b"the same as ever")
    assert stage.snapshots.content(listed.identity[-1].lstrip("/")) is None
    assert await read(listed) == b"the same as ever"
    looked_up = stage.snapshots.file(stage.directory, b"one", lambda: b"the same as ever")
    assert looked_up.identity == listed.identity
