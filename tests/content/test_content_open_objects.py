"""Opening an object: one task at a time, and one process at a time where its file is new."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
import trio.testing

from satfs.content.cache import blockfile, kernelcalls
from satfs.content.cache.blockfile import BlockFile
from satfs.content.cache.open_objects import alone_with
from satfs.errors import Damaged
from satfs.model import ByteRange


async def test_a_lock_goes_when_what_it_guarded_failed() -> None:
    """A failed `open` must not leave its lock behind: there is one for each version ever tried."""
    locks: dict[str, trio.Lock] = {}

    with pytest.raises(ValueError, match="no"):
        async with alone_with(locks, "a version"):
            raise ValueError("no")

    assert locks == {}


async def test_a_lock_stays_for_the_next_in_line() -> None:
    locks: dict[str, trio.Lock] = {}
    order: list[int] = []

    async def enter(number: int) -> None:
        async with alone_with(locks, "a version"):
            await trio.testing.wait_all_tasks_blocked()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(enter, number)

    assert sorted(order) == [0, 1, 2]
    assert locks == {}


def test_of_two_processes_that_make_a_file_one_finds_it_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one waits until the index knows the file: both use one number for the object.

    With two numbers they would not see each other's claims, and fetch every byte twice.
    """
    place, is_waiting = tmp_path / "object", threading.Event()
    take = kernelcalls.try_lock_shared

    def watched(fd: int) -> bool:
        is_taken = take(fd)
        if not is_taken:
            is_waiting.set()
        return is_taken

    monkeypatch.setattr(kernelcalls, "try_lock_shared", watched)
    first, is_new = BlockFile.on_disk(place, 100)
    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(BlockFile.on_disk, place, 100)
        assert is_waiting.wait(10)
        assert not other.done()
        first.share()
        second, is_second_new = other.result(10)
    assert (is_new, is_second_new) == (True, False)
    first.close()
    second.close()


def test_a_file_that_was_cut_to_nothing_is_replaced_while_another_has_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that uses the old blocks keeps the old file, and its reads notice."""
    place = tmp_path / "object"
    old, _ = BlockFile.on_disk(place, 100)
    old.write(0, b"x" * 100)
    old.share()
    os.truncate(place, 0)
    monkeypatch.setattr(blockfile, "_MAKING_S", 0.0)
    new, is_new = BlockFile.on_disk(place, 100)
    assert is_new
    with pytest.raises(Damaged):
        old.read_from_disk(ByteRange(0, 100))
    old.close()
    new.close()


def test_a_process_that_stands_still_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped in the middle of an eviction has the file alone, perhaps for ever."""
    monkeypatch.setattr(blockfile, "_EVICTING_S", 0.05)
    file, _ = BlockFile.on_disk(tmp_path / "object", 100)
    assert file.try_alone()

    with pytest.raises(BlockingIOError):
        BlockFile.on_disk(tmp_path / "object", 100)

    file.share()
    BlockFile.on_disk(tmp_path / "object", 100)[0].close()
    file.close()
