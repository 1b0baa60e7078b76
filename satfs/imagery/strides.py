"""Blocks of an image that a program reads at equal distances.

A picture of a few hundred rows is made of each tenth strip of a raster, and rasters are also read
from the last block to the first.
"""

from __future__ import annotations

from typing import Final

from satfs.imagery.layout import Block, Image

#: Equal distances that show a habit. Three blocks one above the other are a program that goes back.
_MIN_STEPS: Final = 3
#: Blocks that were read for each one that is expected. A program that stops has then read two
#: thirds of what was fetched, as far as the rest may be fetched in vain
#: (`pattern.ALLOWANCE_BYTES`). With four for each one, a picture of 288 rows takes 36 requests in a
#: row, and 24 with this.
_READ_PER_AHEAD: Final = 2


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
