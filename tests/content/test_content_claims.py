"""Claims: what this process fetches, as other processes see it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.claims import Claim, Claims
from satfs.model import ByteRange
from satfs.node_locks import NodeLocks

N_BLOCKS = 12
#: All that a claim needs of an object is its number.
CACHED: Any = SimpleNamespace(object_id=7)

places = st.integers(0, N_BLOCKS)
steps = st.lists(
    st.tuples(st.sampled_from(["take", "cut", "held", "entered", "end"]), places, places),
    max_size=20,
)


def span_of(start: int, stop: int) -> ByteRange:
    return ByteRange(start * BLOCK_BYTES, stop * BLOCK_BYTES)


def locks_on(directory: Path) -> NodeLocks:
    locks = NodeLocks()
    locks.open(directory)
    return locks


def test_a_claim_that_ends_leaves_what_another_one_of_this_process_has(tmp_path: Path) -> None:
    """A request that was given up may end after another one has claimed the same blocks."""
    locks, others_locks = locks_on(tmp_path), locks_on(tmp_path)
    try:
        claims, others = Claims(locks), Claims(others_locks)
        first = claims.take(CACHED, span_of(0, 8))
        second = claims.take(CACHED, span_of(4, 8))
        assert first is not None
        assert second is not None
        claims.end(first)
        assert others.other(CACHED, span_of(0, 8)) == span_of(4, 8)
        assert others.take(CACHED, span_of(6, 7)) is None
        claims.end(second)
        assert others.other(CACHED, span_of(0, 8)) is None
    finally:
        locks.close()
        others_locks.close()


@given(steps)
def test_others_see_the_blocks_of_all_claims(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        locks, others_locks = locks_on(Path(directory)), locks_on(Path(directory))
        try:
            claims, others = Claims(locks), Claims(others_locks)
            taken: list[Claim] = []
            for step, one, two in steps:
                if step == "take" and one < two:
                    claim = claims.take(CACHED, span_of(one, two))
                    assert claim is not None
                    taken.append(claim)
                elif taken and step != "take":
                    claim = taken[one % len(taken)]
                    if step == "cut":
                        claim.cut(two * BLOCK_BYTES)
                    elif step == "held" and not claim.has_ended:
                        grown = max(claim.held_until, two * BLOCK_BYTES)
                        claim.held_until = min(claim.stop, grown)
                    elif step == "entered":
                        claims.entered(claims.marks())
                    elif step == "end" and not claim.has_ended:
                        claims.end(claim)
                expected = {
                    number
                    for each in taken
                    for number in range(each.start // BLOCK_BYTES, each.stop // BLOCK_BYTES)
                }
                seen = {
                    number
                    for number in range(N_BLOCKS)
                    if others.other(CACHED, span_of(number, number + 1)) is not None
                }
                assert seen == expected
        finally:
            locks.close()
            others_locks.close()


def test_a_cache_counts_as_shared_until_the_last_blocks_of_others_are_loaded(
    tmp_path: Path,
) -> None:
    locks, others_locks = locks_on(tmp_path), locks_on(tmp_path)
    try:
        claims = Claims(locks)
        assert claims.is_shared_now(0.0)
        others_locks.close()
        assert claims.is_alone_now(0.1)
        assert claims.is_shared_now(0.2)
        claims.others_blocks_loaded()
        assert not claims.is_shared_now(0.3)
    finally:
        locks.close()
        others_locks.close()
