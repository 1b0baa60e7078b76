"""Ranges of one file, merged into fewer and longer reads."""

from __future__ import annotations

from collections.abc import Sequence

from satfs.model import ByteRange

#: Ranges with a gap up to this are read together: on a line of 10 MB/s and 20 ms the bytes of the
#: gap take a third of the round trip that another request costs.
MAX_GAP_BYTES = 64 * 1024
#: Ranges that touch are read together up to this, the size of a request of the kernel; longer ones
#: would share one connection where several are faster.
MAX_MERGED_BYTES = 1024 * 1024


def merged(
    spans: Sequence[ByteRange],
    *,
    max_gap_bytes: int = MAX_GAP_BYTES,
    max_bytes: int = MAX_MERGED_BYTES,
) -> list[tuple[ByteRange, list[int]]]:
    """Return the reads that cover *spans*, each with the indices of the spans that it covers.

    Exactly one read covers each span. A read is longer than *max_bytes* only where one span is.
    """
    reads: list[tuple[ByteRange, list[int]]] = []
    for index in sorted(range(len(spans)), key=lambda each: (spans[each].start, spans[each].stop)):
        span = spans[index]
        if reads:
            last, members = reads[-1]
            stop = max(last.stop, span.stop)
            if span.start - last.stop <= max_gap_bytes and stop - last.start <= max_bytes:
                reads[-1] = (ByteRange(last.start, stop), [*members, index])
                continue
        reads.append((span, [index]))
    return reads
