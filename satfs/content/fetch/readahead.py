"""Decides which bytes to fetch next, from the earlier reads of one handle.

Pure: offsets in, ranges out. The kernel sends the reads of a program in pieces of up to 128 KiB (1
MiB when its own read-ahead could be raised), two or three in flight, sometimes out of order; so
"next" means near the front of the run, not exactly at it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from satfs.model import KIB, MIB, ByteRange

#: How far past the front of a run a read may start and still belong to it: on any intended line
#: this gap takes less time than a round trip, so it is fetched as well.
FORWARD_TOLERANCE_BYTES: Final = 2 * MIB
#: How far behind the front a read may start and still belong to it (a re-read of a header, an
#: out-of-order piece of the kernel's read-ahead).
BACKWARD_TOLERANCE_BYTES: Final = 2 * MIB

#: Window of a reader that has begun at the very beginning, before anything else is known: a header
#: and what follows it, in one request.
OPENING_WINDOW_BYTES: Final = 128 * KIB
#: (bytes of the run read so far, window ahead of its front) of a reader that began at the very
#: beginning; the last is "as much as the share allows". Steep, since a line of 400 MB/s and 120 ms
#: holds 48 MB in flight: doubling from 128 KiB would take nine round trips. The first step is what
#: the kernel requests first for a program that announces to read all (sha256sum reads 32
#: KiB at a time, cp 128), and more than on behalf of one that looks at a header of 16 KiB. The
#: second is what it requests at once for one that reads a mebibyte: over a far line that takes
#: seven round trips to come, and until then the next connections would have nothing to fetch.
#: Requests made in vain are cancelled with the handle.
WINDOW_STEPS: Final = (
    (0, 0),
    (128 * KIB, 4 * MIB),
    (512 * KIB, 16 * MIB),
    (2 * MIB, 64 * MIB),
    (8 * MIB, 256 * MIB),
    (32 * MIB, 2048 * MIB),
)
#: The same over a far line, four times as steep: over that, 512 KiB and 8 MiB take longer to come
#: than the handshakes of the connections which could carry what lies behind them. So the windows
#: come before the first ranges end: those behind them are fitted to what is known to be wanted, and
#: a connection that gets a share of all that is left pauses for one round trip and not for several.
FAR_WINDOW_STEPS: Final = (
    (0, 0),
    (128 * KIB, 16 * MIB),
    (512 * KIB, 64 * MIB),
    (2 * MIB, 256 * MIB),
    (32 * MIB, 2048 * MIB),
)
#: A run that began elsewhere may be a row of tiles as well as the beginning of a copy: up to this
#: length it gets no window, only the kernel's own read-ahead.
PLACE_BYTES: Final = 2 * MIB
#: Pieces no longer than this, one behind the other, are read by a program for which the kernel does
#: not read ahead: page by page where that is switched off, or where its own attempt has failed.
PAGEWISE_BYTES: Final = 16 * KIB
#: Window of such a run at most; it grows with the run.
PAGEWISE_WINDOW_BYTES: Final = 512 * KIB
#: A run this long is not ended by a stray read or two: the kernel's read-ahead pieces of several
#: tasks overtake each other, and some readers look at an index in between.
SETTLED_BYTES: Final = 1 * MIB
STRAYS_FORGIVEN: Final = 2
#: Equal distances in a row that make a stride.
STRIDES_TO_BELIEVE: Final = 3
#: Pieces fetched ahead of a strided reader.
STRIDES_AHEAD: Final = 4


class Pattern(StrEnum):
    """How a handle is being read."""

    START = "start"
    SEQUENTIAL = "sequential"
    STRAY = "stray"  #: one read elsewhere, from a reader that is still taken for sequential
    STRIDED = "strided"
    RANDOM = "random"
    BLOCKS = "blocks"  #: block by block of a raster (`raster_reads`)


class Plan(Struct, frozen=True):
    """Ranges to fetch: `now` for the read, `ahead` for read-ahead, in order."""

    now: ByteRange
    ahead: tuple[ByteRange, ...]
    pattern: Pattern


def window_for(run_bytes: int, *, is_far: bool = False) -> int:
    """Return the window, in bytes, that a run of *run_bytes* has earned over a near or far line."""
    earned = 0
    for read_bytes, window_bytes in FAR_WINDOW_STEPS if is_far else WINDOW_STEPS:
        if run_bytes >= read_bytes:
            earned = max(earned, window_bytes)
    return earned


class ReadAhead:
    """The reading habit of one handle on `bounds`: a whole file, or a member inside one.

    Invariants:
        Plans never leave the bounds.
        `ahead` never holds more than the window that the caller allows.
    """

    def __init__(self, bounds: ByteRange) -> None:
        self._bounds = bounds
        self._run_start = bounds.start
        self._front = bounds.start
        self._pattern = Pattern.START
        self._last_start: int | None = None
        self._stride = 0
        self._n_strides = 0
        self._n_strays = 0

    def limit(self, bounds: ByteRange) -> None:
        """Plan nothing beyond *bounds* from now on; earlier reads are remembered."""
        self._bounds = bounds
        if self._pattern is Pattern.START:
            self._run_start = self._front = bounds.start

    @property
    def bounds(self) -> ByteRange:
        """Return the bounds of plans."""
        return self._bounds

    def note(self, span: ByteRange, window_limit_bytes: int, *, is_far: bool = False) -> Plan:
        """Note one read; return the plan, with at most *window_limit_bytes* ahead.

        *is_far*: the line is far, as `window_for` takes it.
        """
        now = self._clip(span)
        distance = span.start - self._front
        belongs = -BACKWARD_TOLERANCE_BYTES <= distance <= FORWARD_TOLERANCE_BYTES
        if self._pattern is Pattern.START:
            # A program that does not begin at the beginning looks for a part of the file.
            belongs = span.start == self._bounds.start or distance == 0
        self._note_stride(span.start)
        is_settled = self._front - self._run_start >= SETTLED_BYTES
        if belongs:
            self._n_strays = 0
            self._front = max(self._front, span.stop)
            self._pattern = Pattern.SEQUENTIAL
            is_pagewise = distance == 0 and len(span) <= PAGEWISE_BYTES
            ahead = self._sequential(window_limit_bytes, is_pagewise=is_pagewise, is_far=is_far)
            return Plan(now, ahead, self._pattern)
        if self._pattern is Pattern.SEQUENTIAL and is_settled:
            self._n_strays += 1
            if self._n_strays <= STRAYS_FORGIVEN:
                return Plan(now, (), Pattern.STRAY)
        self._run_start = span.start
        self._front = span.stop
        if self._n_strides >= STRIDES_TO_BELIEVE:
            self._pattern = Pattern.STRIDED
            return Plan(now, self._strided(span, window_limit_bytes), self._pattern)
        self._pattern = Pattern.RANDOM
        return Plan(now, (), self._pattern)

    def _clip(self, span: ByteRange) -> ByteRange:
        start = min(max(span.start, self._bounds.start), self._bounds.stop)
        return ByteRange(start, max(start, min(span.stop, self._bounds.stop)))

    def _sequential(
        self, limit_bytes: int, *, is_pagewise: bool, is_far: bool
    ) -> tuple[ByteRange, ...]:
        run_bytes = self._front - self._run_start
        earned = window_for(run_bytes, is_far=is_far)
        if self._run_start == self._bounds.start:
            earned = max(earned, OPENING_WINDOW_BYTES)
        elif run_bytes < PLACE_BYTES:
            earned = min(run_bytes, PAGEWISE_WINDOW_BYTES) if is_pagewise else 0
        window = min(earned, limit_bytes)
        ahead = self._clip(ByteRange(self._front, self._front + window))
        return (ahead,) if ahead else ()

    def _note_stride(self, start: int) -> None:
        if self._last_start is not None:
            stride = start - self._last_start
            if stride == self._stride and stride != 0:
                self._n_strides += 1
            else:
                self._stride = stride
                self._n_strides = 1
        self._last_start = start

    def _strided(self, span: ByteRange, limit_bytes: int) -> tuple[ByteRange, ...]:
        ahead: list[ByteRange] = []
        left = limit_bytes
        for step in range(1, STRIDES_AHEAD + 1):
            start = span.start + step * self._stride
            if start < 0:
                break
            piece = self._clip(ByteRange(start, start + len(span)))
            if not piece or len(piece) > left:
                break
            left -= len(piece)
            ahead.append(piece)
        return tuple(ahead)
