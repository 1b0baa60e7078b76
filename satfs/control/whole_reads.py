"""Read whole files as a program would, and go on where a line broke."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from satfs.errors import Misuse, Unreachable
from satfs.model import ByteRange
from satfs.tree.nodes import File

#: Bytes read at once: as much as the kernel asks for at most.
PIECE_BYTES: Final = 1024 * 1024
#: Pauses before a read that failed is tried again, in seconds. Each try goes on for nearly the
#: deadline of a read by itself, or fails at once where nobody answered a moment ago.
PAUSES_S: Final = (2.0, 8.0)

#: Told each piece, and where it ends. The piece is good until the next checkpoint.
Take = Callable[[bytes | memoryview, int], Awaitable[None]]


async def read_whole(
    file: File, take: Take, *, pauses_s: tuple[float, ...] = PAUSES_S, start: int = 0
) -> int:
    """Read *file* from *start* to its end, hand each piece to *take*, and return the length.

    Where the network fails the piece is tried again after each of *pauses_s*, counted anew when
    something has come.

    Raises:
        SatfsError: a part cannot be had.
    """
    reader = await file.open()
    try:
        position, n_tries = start, 0
        while position < reader.size_bytes:
            span = ByteRange(position, min(position + PIECE_BYTES, reader.size_bytes))
            try:
                data = await reader.read(span)
            except Unreachable as failure:
                if n_tries == len(pauses_s) or failure.is_lasting:
                    raise
                await trio.sleep(pauses_s[n_tries])
                n_tries += 1
                continue
            if len(data) != len(span):
                raise Misuse(f"{len(data)} bytes read for [{span.start}, {span.stop})")
            position, n_tries = span.stop, 0
            await take(data, position)
            await trio.lowlevel.checkpoint()  # what is held comes without waiting
        return reader.size_bytes
    finally:
        reader.close()
