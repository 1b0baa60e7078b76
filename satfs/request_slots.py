"""Limits of requests: their time, and how many run at once, of one host or of one list.

A plain semaphore keeps a slot taken for as long as its request waits for a response: sixteen
requests that hang would keep all others of the host waiting for their deadline. Here a request that
has had no end for a while does not count any more, up to a second, higher limit (`RequestSlots`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final, Protocol, TypeVar

import trio
from msgspec import Struct

from satfs.errors import SatfsError

T = TypeVar("T")
R = TypeVar("R")

#: How long a request counts, in seconds. An API responds in a tenth of a second to one second: in
#: half a second a walk notices next to nothing, and a host that is merely slow is sent no more
#: than *n_slots* further requests each half second.
COUNTED_S: Final = 0.5
#: Requests in flight for each slot, at most, those included that do not count any more. Each is a
#: connection, that is a descriptor, here and at the host.
MAX_HELD_PER_SLOT: Final = 4
#: The share of its time that an operation leaves to the one that waits for it. So it ends first,
#: with a reason of its own: that of the kernel's call would be ETIMEDOUT.
LEFT_SHARE: Final = 0.03


class Slots(Protocol):
    """A limit of the requests that run at once."""

    def held(self) -> AbstractAsyncContextManager[None]:
        """Hold a slot for the body; waits until one is free."""


class NoLimit:
    """No limit (`Slots`)."""

    def held(self) -> AbstractAsyncContextManager[None]:
        """Hold nothing; never waits."""
        return nullcontext()


class Deadline(Struct, frozen=True):
    """The time of one operation, as moments on trio's clock."""

    since_s: float
    at_s: float

    @classmethod
    def within(cls, seconds: float, *, n_waiting: int = 0) -> Deadline:
        """Return the deadline of an operation that begins now.

        *n_waiting* operations wait for it, one for the other, of which the first one has *seconds*.
        """
        now_s = trio.current_time()
        return cls(now_s, now_s + seconds * (1 - LEFT_SHARE * n_waiting))


class RequestSlots:
    """Slots for *n_slots* requests at once, given out in the order in which they were requested.

    Each request holds one of the *shared* slots, too: those of all processes of the node.

    Invariants:
        At most *n_slots* slots are held that were taken within the last `COUNTED_S` seconds.
        At most `MAX_HELD_PER_SLOT` times *n_slots* are held altogether.
    """

    def __init__(self, n_slots: int, shared: Slots | None = None) -> None:
        self._n_slots = n_slots
        self._shared: Slots = shared or NoLimit()
        #: When each slot that is held was taken, the earliest first (trio's clock, in seconds).
        self._taken_at_s: dict[object, float] = {}
        self._queue = trio.Lock()
        self._returned = trio.Event()

    @property
    def max_held(self) -> int:
        """The upper limit of requests in flight."""
        return self._n_slots * MAX_HELD_PER_SLOT

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold a slot for the body; waits until one is free."""
        slot = object()
        async with self._queue:  # trio's lock is fair: the first one in line alone looks
            while (wait_s := self._wait_s()) > 0:
                with trio.move_on_after(wait_s):
                    await self._returned.wait()
            self._taken_at_s[slot] = trio.current_time()
        try:
            async with self._shared.held():
                yield
        finally:
            del self._taken_at_s[slot]
            self._returned.set()
            self._returned = trio.Event()

    def _wait_s(self) -> float:
        """Return how long it takes until a slot is free if none is returned, in seconds."""
        if len(self._taken_at_s) >= self.max_held:
            return float("inf")
        now_s = trio.current_time()
        # The moments until which they count, rather than the one since which they do: the
        # difference of two moments so close is exact, and the wait for it has an end.
        counted = [taken_s + COUNTED_S for taken_s in self._taken_at_s.values()]
        counted = [until_s for until_s in counted if until_s > now_s]
        return counted[-self._n_slots] - now_s if len(counted) >= self._n_slots else 0.0


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
