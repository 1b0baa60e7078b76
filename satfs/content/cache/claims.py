"""Which blocks this process fetches, for all processes that share the cache directory.

A claim is a lock on the numbers of blocks (`node_locks.py`). It is taken when a range is requested,
and released block by block as soon as the index has the blocks, so that a waiting process finds
them there. The kernel releases it when the process dies.

A stopped process keeps its claims. A process that has waited for long claims the same blocks on the
next *level*, where one of the waiting processes gets the claim.

A process that ends enters its last blocks in the index, and is gone. The cache counts as shared
until this process has looked for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.content.cache.objects import CachedObject
from satfs.model import ByteRange
from satfs.node_locks import NodeLocks

#: Levels of claims on one block. On the last one no process waits.
MAX_LEVEL: Final = 3

_BLOCK_BITS: Final = 28  # 4 TiB of 16 KiB each, as large as any object of the store's (5 TiB)
_OBJECT_BITS: Final = 28
_LEVEL_SHIFT: Final = _BLOCK_BITS + _OBJECT_BITS


class Claim:
    """The blocks of [start, stop) of one object, which this process fetches.

    Invariants:
        Locked are the blocks from `start` on up to `stop`; `start` only grows, `stop` only shrinks.
        For the kernel this process owns each lock: blocks that another of its claims in *active*
        (those that have not ended) has as well stay locked.
    """

    __slots__ = ("_active", "_base", "_locks", "has_ended", "held_until", "start", "stop")

    def __init__(self, locks: NodeLocks, base: int, span: ByteRange, active: set[Claim]) -> None:
        self._locks = locks
        self._base = base
        self._active = active
        self.start, self.stop = span.start, span.stop
        #: Up to here the blocks may be served in this process.
        self.held_until = span.start
        self.has_ended = False

    def cut(self, stop: int) -> None:
        """Leave the bytes from *stop* on to other processes."""
        stop = max(self.start, stop)
        if stop < self.stop:
            self._unlock(stop, self.stop)
            self.stop = stop

    def entered(self, until: int) -> None:
        """Release the blocks that the index has: those up to *until*."""
        until = min(until, self.stop)
        if until > self.start:
            self._unlock(self.start, until)
            self.start = until

    def _unlock(self, start: int, stop: int) -> None:
        """Unlock [start, stop), except blocks that other claims of this process have."""
        position, last = self._number(start), self._number(stop)
        held = [
            (other._number(other.start), other._number(other.stop))
            for other in self._active
            # By bytes first, of which there may be hundreds; ends are rounded up to blocks.
            if other.start < stop + BLOCK_BYTES
            and other.stop > start - BLOCK_BYTES
            and other is not self
            and other._base == self._base
        ]
        for other_first, other_last in sorted(held):
            if other_first >= last:
                break
            self._locks.unlock(position, max(position, other_first))
            position = max(position, other_last)
        self._locks.unlock(position, last)

    def _number(self, position: int) -> int:
        return self._base + -(-position // BLOCK_BYTES)


class Claims:
    """The claims of one process. Never waits."""

    def __init__(self, locks: NodeLocks) -> None:
        self._locks = locks
        self._active: set[Claim] = set()
        #: Other processes may have entered blocks that the open objects do not show yet.
        self._may_lack_blocks = False

    def is_shared(self, now_s: float) -> bool:
        """Return whether other processes use the cache, or did, and left blocks not looked for.

        *now_s* is any steady clock's; the answer may be half a second old.
        """
        return self._noted(is_shared=self._locks.is_shared(now_s))

    def is_shared_now(self, now_s: float) -> bool:
        """Return the same for this moment; takes some microseconds."""
        return self._noted(is_shared=self._locks.is_shared_now(now_s))

    def is_alone_now(self, now_s: float) -> bool:
        """Return whether no other process uses the cache at this moment."""
        return not self._locks.is_shared_now(now_s)

    def others_blocks_loaded(self) -> None:
        """Note that all blocks are known that other processes had entered when it was alone."""
        self._may_lack_blocks = False

    def _noted(self, *, is_shared: bool) -> bool:
        self._may_lack_blocks |= is_shared
        return self._may_lack_blocks

    def take(self, cached: CachedObject, span: ByteRange, level: int = 0) -> Claim | None:
        """Return a claim on the blocks of *span*, or None when another process has one of them.

        To be ended with `end`.
        """
        span = ByteRange(span.start // BLOCK_BYTES * BLOCK_BYTES, span.stop)
        if cached.object_id is None or level >= MAX_LEVEL:
            base = None
        else:
            base = _base_of(cached.object_id, level)
            start, stop = _numbers(base, span)
            if not self._locks.try_lock(start, stop):
                return None
        locks = self._locks if base is not None else NodeLocks()
        claim = Claim(locks, base or 0, span, self._active)
        self._active.add(claim)
        return claim

    def other(self, cached: CachedObject, span: ByteRange, level: int = 0) -> ByteRange | None:
        """Return the first part of *span* that another process fetches, or None."""
        if cached.object_id is None or level >= MAX_LEVEL:
            return None
        base = _base_of(cached.object_id, level)
        found = self._locks.holder(*_numbers(base, span))
        if found is None:
            return None
        first, last = (number - base for number in found)
        return ByteRange(
            max(span.start, first * BLOCK_BYTES),
            max(span.start, min(span.stop, last * BLOCK_BYTES)),
        )

    def end(self, claim: Claim) -> None:
        """Release blocks that were not fetched at once, and the others when the index has them."""
        claim.has_ended = True
        claim.cut(max(claim.start, claim.held_until))
        if claim.start >= claim.stop:
            self._active.discard(claim)

    def marks(self) -> Sequence[tuple[Claim, int]]:
        """Return each claim with its progress, to be passed to `entered` after the next commit."""
        return [(claim, claim.held_until) for claim in self._active]

    def entered(self, marks: Sequence[tuple[Claim, int]]) -> None:
        """Release the blocks that were held at the time of *marks*: the index has them by now."""
        for claim, held_until in marks:
            claim.entered(held_until)
            if claim.has_ended and claim.start >= claim.stop:
                self._active.discard(claim)


def _base_of(object_id: int, level: int) -> int:
    return level << _LEVEL_SHIFT | (object_id % (1 << _OBJECT_BITS)) << _BLOCK_BITS


def _numbers(base: int, span: ByteRange) -> tuple[int, int]:
    return base + span.start // BLOCK_BYTES, base + -(-span.stop // BLOCK_BYTES)
