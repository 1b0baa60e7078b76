"""A value with a lifetime, renewed once for all tasks that need it.

A token, a presigned link and a directory listing are the same thing: a value, a moment when it goes
stale, one renewal in flight, and many tasks that wait for it. This module is that, written once.

Two clocks judge a lifetime. trio's stands still while the machine sleeps, so a laptop that wakes
in the morning would go on with yesterday's token; the wall clock may be set back, so that a value
would live for ever. A value is stale as soon as it is by *either*. The error of both together is
to renew too early, which costs one request.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Generic, TypeVar

import trio
from msgspec import Struct, field

T = TypeVar("T")


class _Held(Struct, Generic[T], frozen=True):
    """A value and the moments at which it goes stale, on each clock."""

    value: T
    stale_at: float
    stale_at_wall: float


class _Renewal(Struct, Generic[T], eq=False):
    """One renewal in flight. Ended without outcome: its task was cancelled."""

    ended: trio.Event = field(default_factory=trio.Event)
    held: _Held[T] | None = None
    failure: Exception | None = None


class Refreshable(Generic[T]):
    """A value with a lifetime, renewed once for all tasks that need it.

    *renew* returns the value and its lifetime in seconds (`math.inf`: for ever; 0: for the tasks
    that wait now, and no later ones). *wall_clock* returns seconds.

    Invariants:
        At most one renewal runs whose outcome will be used.
        A value is returned only while it is fresh, or to tasks that waited for its renewal.
        A failed renewal is raised in all tasks that waited for it, then forgotten.
        When the renewing task is cancelled, one of the waiting tasks takes over.

    Only `get` waits, and it yields to the scheduler even on a hit.
    """

    def __init__(
        self,
        renew: Callable[[], Awaitable[tuple[T, float]]],
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._renew = renew
        self._wall_clock = wall_clock
        self._held: _Held[T] | None = None
        self._is_invalid = False
        self._renewal: _Renewal[T] | None = None

    def peek(self) -> T | None:
        """Return the value while it is fresh, else None."""
        held = self._held
        return held.value if held is not None and self._is_fresh(held) else None

    def last(self) -> T | None:
        """Return the last value renewed, fresh or not; None before the first."""
        return None if self._held is None else self._held.value

    def left_s(self) -> float | None:
        """Return for how many seconds the value will still be fresh; None when it is not."""
        held = self._held
        if held is None or not self._is_fresh(held):
            return None
        return min(held.stale_at - trio.current_time(), held.stale_at_wall - self._wall_clock())

    def recall(self, value: T, lifetime_s: float = float("-inf")) -> None:
        """Hold *value*, fresh for *lifetime_s* more seconds; does nothing when there is one.

        By default it is stale already.
        """
        if self._held is None:
            self._held = _Held(
                value, trio.current_time() + lifetime_s, self._wall_clock() + lifetime_s
            )

    def forget(self) -> None:
        """Hold no value; a renewal under way goes on, and its value is held."""
        self._held = None
        self._is_invalid = False

    def invalidate(self, value: T | None = None) -> None:
        """Make the value stale; with *value*, only if that very one is (still) held.

        A caller whose value was refused passes that value, so that a renewal that happened
        meanwhile is not undone. Without *value* the outcome of a renewal in flight is not held
        either: its response may be older than the caller's reason.
        """
        if value is None:
            self._is_invalid = True
            self._renewal = None
        elif self._held is not None and self._held.value == value:
            self._is_invalid = True

    async def get(self) -> T:
        """Return a fresh value, waiting for its renewal if need be.

        Raises the exception of *renew*, in all tasks that waited for it.
        """
        await trio.lowlevel.checkpoint()
        while True:
            held = self._held
            if held is not None and self._is_fresh(held):
                return held.value
            renewal = self._renewal
            if renewal is None:
                # No await since the look above: the next task must find this renewal.
                renewal = self._renewal = _Renewal()
                return (await self._run(renewal)).value
            await renewal.ended.wait()
            if renewal.held is not None:
                return renewal.held.value
            if renewal.failure is not None:
                # Everyone gets an own copy: a traceback grows in each task that raises it.
                raise copy(renewal.failure) from renewal.failure

    async def _run(self, renewal: _Renewal[T]) -> _Held[T]:
        try:
            value, lifetime_s = await self._renew()
        except Exception as failure:
            renewal.failure = failure
            raise
        else:
            held = _Held(value, trio.current_time() + lifetime_s, self._wall_clock() + lifetime_s)
            renewal.held = held
            if self._renewal is renewal:
                self._held = held
                self._is_invalid = False
            return held
        finally:
            if self._renewal is renewal:
                self._renewal = None
            renewal.ended.set()

    def _is_fresh(self, held: _Held[T]) -> bool:
        return (
            not self._is_invalid
            and trio.current_time() < held.stale_at
            and self._wall_clock() < held.stale_at_wall
        )
