"""How often the loop looks for the bytes of a range."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.transfer.inloop import ENOUGH_BYTES, MAX_PAUSE_S, InLoopMover, pause_s
from satfs.model import ByteRange

KIB = 1024


@given(
    n_bytes=st.integers(0, 1 << 20),
    n_missing=st.integers(0, 1 << 30),
    response_s=st.none() | st.floats(0, 100),
)
def test_the_loop_pauses_where_little_came_of_much(
    n_bytes: int, n_missing: int, response_s: float | None
) -> None:
    """Never for long, never before the end of a range, and never where enough comes at once."""
    found_s = pause_s(n_bytes, n_missing, response_s)
    assert 0 <= found_s <= MAX_PAUSE_S
    if response_s is not None:
        assert found_s <= response_s / 10 + 1e-12
    if n_bytes >= ENOUGH_BYTES or n_missing < ENOUGH_BYTES:
        assert found_s == 0


class Arriving:
    """A body that comes at a rate: each look gets what has come since the last one."""

    def __init__(self, n_bytes: int, bytes_per_s: float) -> None:
        self._n_left = n_bytes
        self._bytes_per_s = bytes_per_s
        self._looked_at_s = trio.current_time()
        self.n_looks = 0

    def chunks(self) -> AsyncIterator[bytes]:
        self._body = self._chunks()
        return self._body

    async def end(self) -> None:
        """Read on to the end, as a response does whose bytes have all come."""
        async for _ in self._body:
            pass

    async def _chunks(self) -> AsyncIterator[bytes]:
        while self._n_left:
            packet_s = 1500 / self._bytes_per_s
            await trio.sleep(max(0.0, self._looked_at_s + packet_s - trio.current_time()))
            now_s = trio.current_time()
            n_come = min(self._n_left, round((now_s - self._looked_at_s) * self._bytes_per_s))
            self._looked_at_s, self.n_looks = now_s, self.n_looks + 1
            self._n_left -= n_come
            yield bytes(n_come)


class Kept:
    """A range whose bytes are counted."""

    def __init__(self, n_bytes: int, response_s: float) -> None:
        self._n_bytes = n_bytes
        self._n_received = 0
        self.attempt = SimpleNamespace(response_s=response_s)

    @property
    def missing(self) -> ByteRange:
        return ByteRange(self._n_received, self._n_bytes)

    @property
    def is_done(self) -> bool:
        return self._n_received == self._n_bytes

    def receive(self, data: bytes) -> None:
        self._n_received += len(data)


@pytest.fixture
def mover() -> InLoopMover:
    http: Any = SimpleNamespace()  # nothing is requested
    return InLoopMover(http, check_url=lambda url: None)


async def test_a_range_over_a_long_line_is_received_in_some_dozen_looks(
    mover: InLoopMover, autojump_clock: Any
) -> None:
    """At 50 MB/s a packet comes each 30 µs; 1.2 MB are there as soon as they would be."""
    n_bytes, rate = 1200 * KIB, 50e6
    kept: Any = Kept(n_bytes, 0.03)
    body: Any = Arriving(n_bytes, rate)
    began_s = trio.current_time()
    await mover._receive(body, kept, 0)
    assert kept.is_done
    assert body.n_looks <= 100
    assert trio.current_time() - began_s <= n_bytes / rate + MAX_PAUSE_S


async def test_over_a_near_line_nothing_is_waited_for(
    mover: InLoopMover, autojump_clock: Any
) -> None:
    n_bytes, rate = 1200 * KIB, 1e9
    kept: Any = Kept(n_bytes, 0.0002)
    body: Any = Arriving(n_bytes, rate)
    began_s = trio.current_time()
    await mover._receive(body, kept, 0)
    assert trio.current_time() - began_s <= n_bytes / rate + 0.0001
