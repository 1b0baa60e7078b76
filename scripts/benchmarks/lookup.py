"""Time of one look-up among ranges in flight: `python -m benchmarks.lookup`, in scripts/.

Each read looks for the ranges that bring its bytes. *list* compares the read with each range, which
is how it was done before `SpanIndex`.
"""

from __future__ import annotations

import timeit
from typing import Final

from satfs.content.fetch.span_index import SpanIndex
from satfs.model import ByteRange

#: Numbers of ranges in flight: one reader, one mount on a far line, windows of a hundred tasks.
NUMBERS: Final = (1, 16, 256)
RANGE_BYTES: Final = 8 * 1024 * 1024
READ_BYTES: Final = 512 * 1024
N_CALLS: Final = 2000


def main() -> None:
    """Print microseconds for each look-up, with each number of ranges."""
    print("ranges  list, us  index, us")
    for number in NUMBERS:
        spans = [ByteRange(n * RANGE_BYTES, (n + 1) * RANGE_BYTES) for n in range(number)]
        index: SpanIndex[int] = SpanIndex()
        for n, span in enumerate(spans):
            index.add(n, span)
        middle = number // 2 * RANGE_BYTES
        read = ByteRange(middle, middle + READ_BYTES)

        def scan(spans: list[ByteRange] = spans, read: ByteRange = read) -> list[int]:
            return [n for n, span in enumerate(spans) if span.overlaps(read)]

        def look(index: SpanIndex[int] = index, read: ByteRange = read) -> list[int]:
            return index.overlapping(read)

        if scan() != look():
            raise AssertionError("the two ways differ")
        took = [min(timeit.repeat(each, number=N_CALLS, repeat=5)) for each in (scan, look)]
        print(f"{number:6}  {took[0] / N_CALLS * 1e6:8.2f}  {took[1] / N_CALLS * 1e6:9.2f}")


if __name__ == "__main__":
    main()
