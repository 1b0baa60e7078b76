"""Which reads the kernel makes ahead of a program that may never use them.

Pure: spans in, a guess out. A program that has sought and reads a row of tiles gets from the kernel
half a megabyte behind its first tile, and as much again as soon as it touches the second
(mm/readahead.c). A FUSE request does not show whether a program waits for it. The order of requests
often does: a small piece at the place of the program, a whole read-ahead behind it, and then
another one, sent while the program still processes the first.

A request that looks like read-ahead is delayed for a moment. A program that seeks on meanwhile does
not need it; the request then fails, which the kernel forgets (it requests a page of it again when a
program needs it, mm/filemap.c). So the blocks around a window in a raster are not fetched.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from satfs.model import KIB, ByteRange

#: A piece this long is the kernel's read-ahead; its limit is 512 KiB, or 128 where it cannot be
#: raised: there it runs so little ahead that most of it is needed.
AHEAD_BYTES: Final = 256 * KIB
#: Up to this length a run may be a single access; beyond it, a program reads on.
PLACE_BYTES: Final = 2048 * KIB
#: How long a piece is delayed at first, in seconds: a program has the piece before it, and takes
#: some milliseconds for half a megabyte of tiles. The wait doubles each time the guess was right,
#: up to what a busy viewer may take; it halves each time the guess was wrong, as in a raster whose
#: tiles are longer than the kernel's read-ahead, down to what no user notices.
PATIENCE_S: Final = 0.05
MAX_PATIENCE_S: Final = 0.2
MIN_PATIENCE_S: Final = 0.003


class ReadKind(StrEnum):
    """The kind of a read."""

    NEEDED = "needed"
    AHEAD = "ahead"  #: requested by the kernel alone, not by a program
    ELSEWHERE = "elsewhere"  #: needed, and no program reads on where the last one was


class KernelReadAhead:
    """The reads of one handle, and what they show about the next one.

    Invariants:
        No read of a run that begins at the file's beginning, or with a long piece, counts as
        read-ahead: so copies are not delayed, nor are reads of a megabyte at any place.
    """

    def __init__(self) -> None:
        self._run_start = self._front = 0
        self._last_bytes = 0
        self._is_reading_on = True
        self.patience_s = PATIENCE_S

    def note(self, span: ByteRange) -> ReadKind:
        """Note one read, and return its kind."""
        if not self._run_start <= span.start <= self._front:
            self._run_start, self._front = span.start, span.stop
            self._last_bytes = len(span)
            self._is_reading_on = span.start == 0 or len(span) >= AHEAD_BYTES
            return ReadKind.ELSEWHERE
        is_next = span.start == self._front
        is_after_ahead = self._last_bytes >= AHEAD_BYTES
        self._front = max(self._front, span.stop)
        self._last_bytes = len(span)
        if self._front - self._run_start > PLACE_BYTES:
            self._is_reading_on = True
        if is_next and is_after_ahead and len(span) >= AHEAD_BYTES and not self._is_reading_on:
            return ReadKind.AHEAD
        return ReadKind.NEEDED

    def was_right(self) -> None:
        """Note that the program sought on while a piece was delayed."""
        self.patience_s = min(2 * self.patience_s, MAX_PATIENCE_S)

    def was_wrong(self) -> None:
        """Note that it did not: no more pieces of this run are delayed."""
        self.patience_s = max(self.patience_s / 2, MIN_PATIENCE_S)
        self._is_reading_on = True
