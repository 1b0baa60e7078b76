"""The room on disk: read now and then, counted in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from satfs.content.cache import capacity
from satfs.content.cache.capacity import LOOK_INTERVAL_S, DiskRoom


async def test_who_knows_of_room_does_not_wait_for_another_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What is taken meanwhile is counted; one that lacks room by the numbers waits for the look."""

    async def look(directory: Path, free_fraction: float) -> int:
        await trio.sleep(5)
        return 1000

    monkeypatch.setattr(capacity, "spare_bytes", look)
    room = DiskRoom(tmp_path, limit_bytes=10_000, free_fraction=0)
    began_s = trio.current_time()
    assert await room.missing_bytes(100) <= 0  # waits: nothing is known yet
    assert trio.current_time() - began_s == pytest.approx(5)
    await trio.sleep(2 * LOOK_INTERVAL_S)
    missing: dict[str, int] = {}
    waited_s: dict[str, float] = {}

    async def take(name: str, n_bytes: int) -> None:
        began_s = trio.current_time()
        missing[name] = await room.missing_bytes(n_bytes)
        waited_s[name] = trio.current_time() - began_s

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "looks", 100)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, "knows", 300)
        await trio.testing.wait_all_tasks_blocked()
        assert missing == {"knows": 300 - 900}
        nursery.start_soon(take, "lacks", 650)
    # The last one looks itself, since it lacks room by the first look as well.
    assert missing == {"knows": 300 - 900, "looks": 100 + 300 - 1000, "lacks": 650 - 1000}
    assert waited_s == pytest.approx({"knows": 0, "looks": 5, "lacks": 10})
