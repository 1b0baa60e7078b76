"""The same work for many subjects: how many run at once, the order, and the end by a failure."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from satfs.errors import NotThere
from satfs.request_slots import concurrent_map


@pytest.mark.parametrize(("n_at_once", "took_s"), [(1, 10.0), (2, 5.0), (9, 4.0), (None, 4.0)])
async def test_results_come_in_the_order_of_the_subjects(
    n_at_once: int | None, took_s: float, autojump_clock: MockClock
) -> None:
    began_s = trio.current_time()

    async def work(seconds: int) -> str:
        await trio.sleep(seconds)
        return f"{seconds} s"

    assert await concurrent_map(work, [4, 3, 2, 1], n_at_once) == ["4 s", "3 s", "2 s", "1 s"]
    assert trio.current_time() - began_s == took_s


async def test_the_first_failure_ends_the_others_and_is_raised_as_it_is(
    autojump_clock: MockClock,
) -> None:
    ended = []

    async def work(seconds: int) -> None:
        await trio.sleep(seconds)
        if seconds == 2:
            raise NotThere("two")
        ended.append(seconds)

    with pytest.raises(NotThere, match="two"):
        await concurrent_map(work, [1, 2, 3, 4])
    assert ended == [1]


async def test_no_subjects_are_no_results() -> None:
    async def work(_: int) -> None:
        raise AssertionError

    assert await concurrent_map(work, [], 3) == []
