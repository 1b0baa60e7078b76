"""The same work for many subjects, some at once; the first failure ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from satfs.errors import SatfsError

T = TypeVar("T")
R = TypeVar("R")


async def concurrent_map(
    work: Callable[[T], Awaitable[R]], subjects: Sequence[T], n_at_once: int | None = None
) -> list[R]:
    """Return what *work* returns for each of *subjects*, in order; *n_at_once* run, or all.

    Raises:
        SatfsError: the first failure, not as a group. The others are cancelled.
    """
    results: dict[int, R] = {}
    failures: list[SatfsError] = []
    left = iter(enumerate(subjects))

    async def work_off() -> None:
        for index, subject in left:
            try:
                results[index] = await work(subject)
            except SatfsError as failure:
                failures.append(failure)
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(len(subjects), n_at_once or len(subjects))):
            nursery.start_soon(work_off)
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(subjects))]
