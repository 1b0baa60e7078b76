"""One limit for the memory of all decoders of members that are unpacked as a whole.

A decoder of xz or zstandard holds a dictionary of up to 128 MiB, and a program may have hundreds of
such members open. So a decoder is not a member's own: the member reserves memory for it, and loses
it to another member when it is idle. The decoder's output is in the derived store; the member makes
a new decoder when it needs more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from satfs.archive.decoders import MAX_DECODER_BYTES

if TYPE_CHECKING:
    from satfs.archive.spooled import SpooledMember

#: Memory of all decoders together: one of the largest, or two with the dictionary of `xz -9`
#: (64 MiB), or a dozen of plain `xz` (8 MiB). With what a mount holds besides, its ceiling of
#: 200 MiB (docs/RELIABILITY.md) stays.
MAX_ALL_DECODERS_BYTES: Final = MAX_DECODER_BYTES

#: Time after which a waiting member looks again whether a busy one has become idle without a word,
#: because the network keeps it waiting.
_RETRY_S: Final = 0.5


class DecoderMemory:
    """Reservations of memory for decoders. One per mount; used by the event loop alone."""

    def __init__(self, max_bytes: int = MAX_ALL_DECODERS_BYTES) -> None:
        self._max_bytes = max_bytes
        # Those reserved first come first.
        self._reserved: dict[SpooledMember, int] = {}
        self._turn = trio.StrictFIFOLock()
        self._changed = trio.Event()

    @property
    def n_bytes(self) -> int:
        """Return how many bytes are reserved."""
        return sum(self._reserved.values())

    async def reserve(self, owner: SpooledMember, n_bytes: int) -> None:
        """Reserve *n_bytes*, at most the limit, for *owner*, which has none reserved.

        Takes them from idle owners, and waits while the others are busy. Members that wait are
        served in their order. Cancelled, nothing is reserved.
        """
        async with self._turn:
            while self.n_bytes + n_bytes > self._max_bytes:
                idle = next((other for other in self._reserved if not other.is_busy), None)
                if idle is not None:
                    idle.drop_decoder()
                    continue
                self._changed = trio.Event()
                with trio.move_on_after(_RETRY_S):
                    await self._changed.wait()
            self._reserved[owner] = n_bytes

    def release(self, owner: SpooledMember) -> None:
        """Give back what *owner* has reserved, if anything."""
        if self._reserved.pop(owner, None) is not None:
            self._changed.set()

    def became_idle(self) -> None:
        """Let a waiting member look for an idle owner now."""
        self._changed.set()
