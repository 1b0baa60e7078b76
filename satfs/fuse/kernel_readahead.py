"""Which reads the kernel makes ahead of a program that may never use them.

Pure: spans in, a guess out. A program that has sought and reads a row of tiles gets from the kernel
half a megabyte behind its first tile, and as much again as soon as it touches the second
(mm/readahead.c). FUSE does not tell the one that a program waits for from the one that nobody does.
Their order does, often enough: a small piece where the program went, a whole read-ahead behind it,
and then another one, asked for while the program has yet to compute on the first.

What is taken for such a piece is held back for a moment. A program that seeks on meanwhile has no
use for it; the kernel is then told that it failed, which it forgets (it asks for a page of it again
when a program wants it, mm/filemap.c). What is not needed for a window in a raster is then neither
fetched nor waited for.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from satfs.model import ByteRange

KIB: Final = 1024

#: A piece this long is the kernel's read-ahead; its limit is 512 KiB, or 128 where it cannot be
#: raised: there it runs so little ahead that most of it is needed.
AHEAD_BYTES: Final = 256 * KIB
#: Up to this length a run may be a place that was looked at; beyond, somebody reads on.
PLACE_BYTES: Final = 2048 * KIB
#: How long a piece is held back at first, in seconds: a program has the piece before it, and takes
#: some milliseconds for half a megabyte of tiles. Twice as long each time it was right, as long as
#: a busy viewer may take; half each time it was wrong, as in a raster whose tiles are longer than
#: the kernel's read-ahead, down to what nobody notices.
PATIENCE_S: Final = 0.05
MAX_PATIENCE_S: Final = 0.2
MIN_PATIENCE_S: Final = 0.003


class Guess(StrEnum):
    """What a read looks like."""

    NEEDED = "needed"
    AHEAD = "ahead"  #: asked for by the kernel, of its own accord
    ELSEWHERE = "elsewhere"  #: needed, and nobody reads on where the last one was


class KernelReadAhead:
    """What one handle's reads tell of the next.

    Invariants:
        Nothing of a run that begins at the file's beginning, or with a long piece, is taken for
        read-ahead: so copies are not held up, nor are reads of a megabyte at any place.
    """

    def __init__(self) -> None:
        self._run_start = self._front = 0
        self._last_bytes = 0
        self._is_reading_on = True
        self.patience_s = PATIENCE_S

    def note(self, span: ByteRange) -> Guess:
        """Take in one read, and tell what it looks like."""
        if not self._run_start <= span.start <= self._front:
            self._run_start, self._front = span.start, span.stop
            self._last_bytes = len(span)
            self._is_reading_on = span.start == 0 or len(span) >= AHEAD_BYTES
            return Guess.ELSEWHERE
        is_next = span.start == self._front
        is_after_ahead = self._last_bytes >= AHEAD_BYTES
        self._front = max(self._front, span.stop)
        self._last_bytes = len(span)
        if self._front - self._run_start > PLACE_BYTES:
            self._is_reading_on = True
        if is_next and is_after_ahead and len(span) >= AHEAD_BYTES and not self._is_reading_on:
            return Guess.AHEAD
        return Guess.NEEDED

    def was_right(self) -> None:
        """Hear that a program sought on while a piece was held back."""
        self.patience_s = min(2 * self.patience_s, MAX_PATIENCE_S)

    def was_wrong(self) -> None:
        """Hear that it did not: hold back nothing more of this run."""
        self.patience_s = max(self.patience_s / 2, MIN_PATIENCE_S)
        self._is_reading_on = True
