"""In which order programs read blocks: GDAL's windows, points and whole rasters, without GDAL."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from satfs.imagery.layout import Block, Image, Layout, Window
from satfs.imagery.pattern import ALLOWANCE_BYTES, AccessPattern
from satfs.model import ByteRange

#: A block of 4 bands of 16 bits compresses to about this share of its pixels' 8 bytes each.
_SHARE = 0.7


def spans(image: Image, *, gap_bytes: int = 0, start: int = 1000) -> list[ByteRange]:
    """Return where the blocks of an image lie when they lie one behind the other."""
    n_bytes = image.block_width * image.block_height * 2
    n_bytes *= 1 if image.is_band_interleaved else image.n_bands
    size = max(1, int(n_bytes * _SHARE))
    step = size + gap_bytes
    return [ByteRange(start + k * step, start + k * step + size) for k in range(image.n_blocks)]


def window_reads(
    image: Image, window: Window, bands: Sequence[int] | None = None
) -> Iterator[Block]:
    """Yield the blocks of one RasterIO: by rows and columns, in band interleave band by band."""
    yield from Layout("<", False, (image,)).blocks_of_window(image, window, bands)


def chips(image: Image, side: int, n: int, seed: int = 0) -> Iterator[list[Block]]:
    """Yield the blocks of each of *n* random square chips."""
    dice = random.Random(seed)
    for _ in range(n):
        top = dice.randrange(max(1, image.height - side))
        left = dice.randrange(max(1, image.width - side))
        window = Window(top, top + side, left, left + side)
        yield list(window_reads(image, window))


def in_file_order(image: Image) -> Iterator[Block]:
    """Yield every block by its number."""
    yield from (Block(image.number, number) for number in range(image.n_blocks))


@dataclass
class Outcome:
    """The result of a trace: the requests that were waited for, and the predictions."""

    n_waits: int = 0
    predicted: set[Block] = field(default_factory=set)
    read: set[Block] = field(default_factory=set)

    @property
    def unread(self) -> set[Block]:
        """Return what was predicted and never read."""
        return self.predicted - self.read


def follow(
    pattern: AccessPattern, image: Image, reads: Iterator[Block], before: Outcome | None = None
) -> Outcome:
    """Read blocks, fetch predicted ones; check each prediction.

    Blocks fetched *before* need not be waited for.
    """
    where = spans(image)
    outcome = Outcome()
    if before is not None:
        outcome = Outcome(0, set(before.predicted), set(before.read))
    for block in reads:
        if block not in outcome.read and block not in outcome.predicted:
            outcome.n_waits += 1
        outcome.read.add(block)
        pattern.read(image, block.number, where[block.number])
        for predicted in pattern.predict(lambda each: where[each.number]):
            assert predicted.image == image.number
            assert 0 <= predicted.number < image.n_blocks
            assert predicted not in outcome.read
            outcome.predicted.add(predicted)
        wasted = pattern.unread_bytes + pattern.outstanding_bytes
        assert wasted <= pattern.read_bytes / 5 + ALLOWANCE_BYTES
    return outcome
