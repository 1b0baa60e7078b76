"""Flame graphs as SVG, from stacks and how often each was seen. Pure.

The width of a box is the share of the samples that its function was in, itself or through what it
called; what it called stands on top of it.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 1200.0
ROW: Final = 16.0
#: Boxes narrower than this are left out, with what stands on them.
MIN_WIDTH: Final = 1.0
#: Width of a character, for cutting names to their boxes.
CHARACTER: Final = 6.2


@dataclass(slots=True)
class Box:
    """One function as called by those below it; `count` samples were in it."""

    count: int = 0
    children: dict[str, Box] = field(default_factory=dict)


def tree(stacks: Counter[str]) -> Box:
    """Return the boxes of *stacks*: functions from the outermost to the innermost, by `;`."""
    root = Box()
    for stack, count in stacks.items():
        box = root
        box.count += count
        for name in stack.split(";"):
            box = box.children.setdefault(name, Box())
            box.count += count
    return root


def depth(box: Box, least: float) -> int:
    """Return how many rows stand on *box*, of boxes that hold at least *least* samples."""
    wide = [child for child in box.children.values() if child.count >= least]
    return max((1 + depth(child, least) for child in wide), default=0)


def draw(stacks: Counter[str], title: str) -> str:
    """Return a flame graph of *stacks* as SVG; empty boxes and small ones are left out."""
    root = tree(stacks)
    least = MIN_WIDTH / WIDTH * max(1, root.count)
    n_rows = depth(root, least)
    height = (n_rows + 2) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {WIDTH:.0f} {height:.0f}" font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH:.0f}" height="{height:.0f}" fill="white"/>',
        f'<text x="4" y="12" font-size="12">{escape(title)}</text>',
    ]

    def put(box: Box, left: float, row: int) -> None:
        for name, child in sorted(box.children.items()):
            width = child.count / root.count * WIDTH
            if child.count >= least:
                top = height - (row + 1) * ROW
                share = 100 * child.count / root.count
                shown = name[: max(0, int(width / CHARACTER))]
                lines.append(
                    f'<g><title>{escape(name)}: {share:.1f} %</title><rect x="{left:.1f}"'
                    f' y="{top:.0f}" width="{width:.1f}" height="{ROW - 1:.0f}"'
                    f' fill="{_colour(name)}"/>'
                    + (
                        f'<text x="{left + 2:.1f}" y="{top + 11:.0f}">{escape(shown)}</text>'
                        if len(shown) > 2
                        else ""
                    )
                    + "</g>"
                )
                put(child, left, row + 1)
            left += width

    put(root, 0.0, 0)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _colour(name: str) -> str:
    """Return a colour: red for satfs, blue for trio, grey for all others; the shade by the name."""
    shade = zlib.crc32(name.encode()) % 40
    module = name.partition(".")[0].partition(":")[0]
    if module == "satfs":
        return f"rgb({225 + shade // 2},{110 + shade},{95 + shade})"
    if module == "trio":
        return f"rgb({120 + shade},{165 + shade},{205 + shade})"
    return f"rgb({185 + shade},{185 + shade},{185 + shade})"
