"""Spans of a file in any order: joined, remembered, and given to parsers that state what they need.

A parser here is sent spans as they come, and states which spans it needs next.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from satfs.errors import Damaged
from satfs.model import ByteRange

T = TypeVar("T")

#: A parser in steps: yields the spans that it needs, is sent their bytes, and returns its result.
#: Raises Damaged when the bytes contradict themselves.
Steps: TypeAlias = Generator[tuple[ByteRange, ...], tuple[bytes, ...], T]

#: A span that a parser needs is widened to this length, in bytes: an image directory with its small
#: values is rarely longer, and a request for twelve bytes costs as much time as one for 4 KiB.
WINDOW_BYTES: Final = 4096
#: Bytes that a parser keeps while it waits for others. Its largest need is 64 KiB.
MAX_HELD_BYTES: Final = 1024 * 1024
#: Adjacent pieces are joined up to this length, in bytes, so that a file that is fed byte by byte
#: costs neither a list of single bytes nor a copy of everything for each of them.
_MAX_JOINED_BYTES: Final = 64 * 1024


def merge_spans(spans: Iterable[ByteRange], gap_bytes: int = 0) -> list[ByteRange]:
    """Return *spans* in order, those joined that are at most *gap_bytes* apart; no empty ones."""
    merged: list[ByteRange] = []
    for span in sorted(span for span in spans if span):
        if merged and span.start - merged[-1].stop <= gap_bytes:
            merged[-1] = ByteRange(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return merged


class RecentSpans:
    """The last spans of a file that were added, at most *max_spans*, joined where they touch."""

    def __init__(self, max_spans: int) -> None:
        self._max_spans = max_spans
        self._spans: list[ByteRange] = []

    def add(self, span: ByteRange) -> bool:
        """Add a span; return whether it continues one: begins in it, or at its end."""
        joined = [each for each in self._spans if not _are_apart(each, span)]
        others = [each for each in self._spans if _are_apart(each, span)]
        start = min((span.start, *(each.start for each in joined)))
        stop = max((span.stop, *(each.stop for each in joined)))
        self._spans = [*others[1 - self._max_spans :], ByteRange(start, stop)]
        return any(each.start < span.start <= each.stop for each in joined)

    def cover(self, start: int, stop: int) -> bool:
        """Return whether one of them has all bytes from *start* to *stop*."""
        return any(each.start <= start and stop <= each.stop for each in self._spans)


def _are_apart(first: ByteRange, second: ByteRange) -> bool:
    return first.stop < second.start or second.stop < first.start


class HeldSpans:
    """Pieces of one file, bounded: when too many are held, the oldest are dropped."""

    def __init__(self, max_bytes: int = MAX_HELD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[tuple[int, bytes]] = []
        self._n_bytes = 0

    def add(self, start: int, data: bytes) -> None:
        """Hold the bytes of the file that begin at *start*; what exceeds the bound is cut off."""
        data = data[: self._max_bytes]
        if self._pieces:
            last_start, last = self._pieces[-1]
            is_adjacent = last_start + len(last) == start
            if is_adjacent and len(last) + len(data) <= _MAX_JOINED_BYTES:
                self._pieces.pop()
                self._n_bytes -= len(last)
                start, data = last_start, last + data
        self._pieces.append((start, data))
        self._n_bytes += len(data)
        while self._n_bytes > self._max_bytes:
            _, dropped = self._pieces.pop(0)
            self._n_bytes -= len(dropped)

    def get(self, span: ByteRange) -> bytes | None:
        """Return the bytes of a span, or None when some of them are not held."""
        parts: list[bytes] = []
        position = span.start
        for start, data in sorted(self._pieces):
            if position >= span.stop:
                break
            if start <= position < start + len(data):
                part = data[position - start : span.stop - start]
                parts.append(part)
                position += len(part)
        return b"".join(parts) if position >= span.stop else None

    def pieces(self) -> list[tuple[int, bytes]]:
        """Return what is held, as pairs of start and bytes."""
        return list(self._pieces)

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self._n_bytes = 0


class SpanParser(Generic[T]):
    """Runs a parser's steps with the bytes that come by. It never raises for what they hold.

    Bytes may come in any order, more than once, and cut anywhere. A parser that needs bytes beyond
    the end of the file ends without a result.
    """

    def __init__(self, steps: Steps[T], size_bytes: int) -> None:
        self.held = HeldSpans()
        self._steps = steps
        self._size_bytes = size_bytes
        self._wanted: tuple[ByteRange, ...] = ()
        self.result: T | None = None
        #: Why there is no result, for a log; None while there may still be one.
        self.reason: str | None = None
        self.is_done = False
        self._step(None)
        self._advance()

    def needs(self) -> tuple[ByteRange, ...]:
        """Return the spans that are needed next, within the file; empty when nothing is."""
        if self.is_done:
            return ()
        missing = [span for span in self._wanted if self.held.get(span) is None]
        return tuple(
            merge_spans(
                ByteRange(span.start, max(span.stop, span.start + WINDOW_BYTES)).clip(
                    self._size_bytes
                )
                for span in missing
            )
        )

    def feed(self, start: int, data: bytes | memoryview) -> None:
        """Take the bytes of the file that begin at *start*, and go on as far as they allow."""
        if self.is_done or not data:
            return
        if len(data) > MAX_HELD_BYTES:
            # Of a piece that is too long to be held, what begins with the next need is held.
            inside = [s.start for s in self._wanted if start <= s.start < start + len(data)]
            skip = min(inside, default=start) - start
            start, data = start + skip, data[skip : skip + MAX_HELD_BYTES]
        self.held.add(start, bytes(data))
        self._advance()

    def _advance(self) -> None:
        while not self.is_done:
            found = [self.held.get(span) for span in self._wanted]
            known = tuple(data for data in found if data is not None)
            if len(known) < len(found):
                return
            self._step(known)

    def _step(self, data: tuple[bytes, ...] | None) -> None:
        try:
            self._wanted = next(self._steps) if data is None else self._steps.send(data)
            if any(span.stop > self._size_bytes for span in self._wanted):
                raise Damaged("something is stated to lie beyond the end of the file")
        except StopIteration as end:
            self.result = end.value
            self.is_done = True
        except Damaged as error:
            self.reason = str(error)
            self.is_done = True
