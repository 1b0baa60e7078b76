"""Blocks of an image that a program reads in a sequence: at equal distances, or all in a row.

A picture of a few hundred rows is made of each tenth strip of a raster, and rasters are also read
from the last block to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from satfs.imagery.layout import Block, Image
from satfs.imagery.windows import ReadWindow, WindowShape
from satfs.model import ByteRange

#: Equal distances that show a habit. Three blocks one above the other are a program that goes back.
_MIN_STEPS: Final = 3
#: Blocks that were read for each one that is expected. A program that stops has then read two
#: thirds of what was fetched, as far as the rest may be fetched in vain
#: (`pattern.ALLOWANCE_BYTES`). With four for each one, a picture of 288 rows takes 36 requests in a
#: row, and 24 with this.
_READ_PER_AHEAD: Final = 2

#: A read of everything has begun when this number of bytes was read in the order of the file, over
#: at least two whole rows of blocks: from an image's first block on, and from anywhere else. The
#: second is more than a window of 512 rows takes in strips (16 bytes a pixel, 1000 pixels).
BULK_BYTES: Final = 2 * 1024 * 1024
BULK_BYTES_ELSEWHERE: Final = 8 * 1024 * 1024
#: The same in strips: a window of 1024 rows of them takes 40 MB and more.
_BULK_BYTES_OF_STRIPS: Final = 64 * 1024 * 1024
_BULK_ROWS: Final = 2
#: How far apart two blocks may be that still count as one behind the other: what lies between a
#: COG's blocks is 8 bytes, or the block of a mask.
_BULK_GAP_BYTES: Final = 64 * 1024


class Stride:
    """The distance between the blocks that were read last, counted in blocks of the file."""

    def __init__(self) -> None:
        self._last: Block | None = None
        self._step = 0
        self._n_steps = 0

    def note(self, block: Block) -> None:
        """Note that a block is read."""
        if block == self._last:
            return
        is_same_image = self._last is not None and self._last.image == block.image
        step = block.number - self._last.number if self._last and is_same_image else 0
        self._n_steps = self._n_steps + 1 if step == self._step else 1
        self._step, self._last = step, block

    def goes_on(self, image: Image) -> bool:
        """Return whether a program reads blocks at one distance, other than that of neighbours.

        Of tiles that is the way back alone: what lies below others belongs to a window.
        """
        if self._n_steps < _MIN_STEPS or self._last is None or self._last.image != image.number:
            return False
        return self._step == -1 or (image.n_columns == 1 and self._step not in (0, 1))

    def is_forward(self, image: Image) -> bool:
        """Return whether a program reads block after block in the order of the file."""
        is_same = self._last is not None and self._last.image == image.number
        return is_same and self._n_steps >= _MIN_STEPS and self._step == 1

    def ahead(self, image: Image) -> list[Block]:
        """Return the next blocks of the same plane, half as many as were read at this distance.

        They are in vain where the program stops: the picture may be one of a part of the raster.
        """
        blocks: list[Block] = []
        if self._last is None:
            return blocks
        here = image.place(self._last.number)
        # Neighbours may be a window, which ends within the row; unless whole rows were read.
        is_in_row = self._step == 1 and self._n_steps < image.n_columns
        for n in range(1, max(_MIN_STEPS, self._n_steps // _READ_PER_AHEAD) + 1):
            number = self._last.number + n * self._step
            if not 0 <= number < image.n_blocks:
                break
            place = image.place(number)
            if place.plane != here.plane or (is_in_row and place.row != here.row):
                break
            blocks.append(Block(image.number, number))
        return blocks


class BulkRun:
    """The blocks of one image, and of its mask, that were read last in the order of the file.

    The overviews of an image often lie directly behind it. A program that has read the image does
    not go on with them, so that a run ends with its image.
    """

    def __init__(self) -> None:
        self._start, self._stop = 0, -1
        self._n_blocks = 0
        self._is_from_first = False
        #: Page and level of the image.
        self._image = (-1, -1)

    def note(self, image: Image, block: Block, span: ByteRange) -> None:
        """Note that a program reads a block of an image, which lies at *span*."""
        if not span:
            return
        is_behind = self._stop >= 0 and 0 <= span.start - self._stop <= _BULK_GAP_BYTES
        if not is_behind or self._image != (image.page, image.level):
            self._start, self._n_blocks = span.start, 0
            self._image = (image.page, image.level)
            self._is_from_first = block.number == 0
        self._stop = span.stop
        self._n_blocks += 1

    def ahead_bytes(self, window: ReadWindow, shapes: Sequence[WindowShape], share: int) -> int:
        """Return how far to read ahead of a program that reads everything; 0 for any other.

        That is as much again as was read in one piece from an image's first block on, and one part
        in *share* of what was read in one piece from anywhere else. It is 0 while the window is no
        higher than one of those before it, which had these *shapes*.
        """
        if self._n_blocks < _BULK_ROWS * window.image.n_columns:
            return 0
        if any(shape.n_rows >= window.bottom - window.top for shape in shapes):
            return 0
        n_bytes = self._stop - self._start
        if self._is_from_first:
            return n_bytes if n_bytes >= BULK_BYTES else 0
        is_strips = window.image.n_columns == 1
        least_bytes = _BULK_BYTES_OF_STRIPS if is_strips else BULK_BYTES_ELSEWHERE
        return n_bytes // share if n_bytes >= least_bytes else 0
