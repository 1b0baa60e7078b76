"""Connections that a host let through, remembered for the next process."""

from __future__ import annotations

import json
from pathlib import Path

import trio
from content.fakestore import run
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.cache.blocks import BlockCache
from satfs.content.fetch.host_limit_store import KEEP_EVERY_S, MAX_AGE_S, HostLimitStore, parsed
from satfs.net.permits import Permits

HOST, OTHER = "https://store:443", "https://other:443"


async def opened(directory: Path) -> BlockCache:
    return await BlockCache.open(
        directory, limit_bytes=10**9, free_fraction=0.0, memory_bytes=10**6
    )


async def learn(cache: BlockCache, n_responding: int, now_s: float, origin: str = HOST) -> None:
    """Keep what a process has seen that had *n_responding* connections to *origin*."""
    permits = Permits()
    memory = HostLimitStore(permits, cache, lambda: now_s)
    await memory.load()
    permits.known(origin).note_responding(0.0, n_responding)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.keep)
        await trio.sleep(1.5 * KEEP_EVERY_S)
        nursery.cancel_scope.cancel()


async def allowed(cache: BlockCache, now_s: float, origin: str = HOST) -> int:
    """Return how many connections a new process may open at once."""
    permits = Permits()
    await HostLimitStore(permits, cache, lambda: now_s).load()
    return permits.room(origin)


def test_a_new_process_takes_no_steps_to_what_a_host_has_let_through(tmp_path: Path) -> None:
    """For a day; each process adds what it has seen to what others have kept."""

    async def main() -> None:
        cache = await opened(tmp_path)
        assert await allowed(cache, 0.0) == 2
        await learn(cache, 40, now_s=1000.0)
        await learn(cache, 12, now_s=1001.0, origin=OTHER)
        assert await allowed(cache, 1002.0) == 40
        assert await allowed(cache, 1002.0, OTHER) == 12
        assert await allowed(cache, 1002.0 + MAX_AGE_S) == 2
        index = cache.index
        assert index is not None
        assert b"store" not in (index.note("connections of hosts") or b"")
        await cache.close()

    run(main)


def test_a_limit_that_was_found_is_what_is_kept(tmp_path: Path) -> None:
    permits = Permits()
    permits.known(HOST).note_responding(0.0, 40)
    permits.known(HOST).note_refused(10.0, n_others=6, n_responding=6)
    assert permits.n_responding() == {HOST: 6}


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each),
    ).map(lambda value: json.dumps(value).encode())
)
def test_what_makes_no_sense_is_not_believed(text: bytes) -> None:
    assert all(n > 0 and 0 <= 100.0 - at_s <= MAX_AGE_S for n, at_s in parsed(text, 100.0).values())
