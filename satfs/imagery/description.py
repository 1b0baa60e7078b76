"""The description of a raster for `satfs info`: its layout, and the cost of a window."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from satfs.imagery.block_choice import block_spans
from satfs.imagery.geotiff import Facts
from satfs.imagery.layout import Block, Image, Layout, Window
from satfs.imagery.raster import Raster

#: The side of the window whose cost is stated, in pixels: a chip for a model, or a screen's tile.
WINDOW_SIDE: Final = 512
#: Blocks whose places are looked up for it: a row of pixels a strip, in 32 bands.
MAX_SAMPLE_BLOCKS: Final = 32 * WINDOW_SIDE
#: Bands that are named: more are counted only.
MAX_NAMED_BANDS: Final = 64

#: Names of compressions by their numbers in TIFF (TIFF 6.0, page 30; libtiff's tiff.h).
COMPRESSIONS: Final[Mapping[int, str]] = {
    1: "none",
    2: "CCITT",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    5: "LZW",
    6: "JPEG (old)",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "zstd",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


def sample_window(image: Image) -> Window:
    """Return a window of 512 by 512 pixels in the middle of *image*; all of a smaller one."""
    height, width = min(WINDOW_SIDE, image.height), min(WINDOW_SIDE, image.width)
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return Window(top, top + height, left, left + width)


def blocks_of_sample(layout: Layout) -> list[Block]:
    """Return the blocks of the sample window of the full image; none where there are too many."""
    image = layout.image()
    if image is None or image.n_planes > MAX_SAMPLE_BLOCKS:
        return []
    chosen = layout.blocks_of_window(image, sample_window(image))
    blocks = list(islice(chosen, MAX_SAMPLE_BLOCKS + 1))
    return blocks if len(blocks) <= MAX_SAMPLE_BLOCKS else []


def describe(raster: Raster, gap_bytes: int) -> dict[str, Any] | None:
    """Return what is known of a raster, as JSON; None when it has no layout.

    Lengths are in pixels unless a name ends otherwise. Blocks that lie at most *gap_bytes* apart
    count as one range of the window. `window` is left out while the places of its blocks are not
    known, and `is_cog` is None where the header does not show it.
    """
    layout, facts = raster.layout, raster.facts() or Facts()
    image = layout.image() if layout is not None else None
    if layout is None or image is None:
        return None
    descriptions = facts.descriptions or {}
    n_named = min(image.n_bands, MAX_NAMED_BANDS)
    described = {
        "width": image.width,
        "height": image.height,
        "data_type": facts.data_type,
        "bands": image.n_bands,
        "band_names": [descriptions.get(band) for band in range(n_named)] if descriptions else [],
        "epsg": facts.epsg,
        "transform": None if facts.transform is None else list(facts.transform),
        "has_rpc": facts.has_rpc,
        "no_data": facts.no_data,
        **_blocks(image),
        "interleave": "band" if image.is_band_interleaved else "pixel",
        "compression": COMPRESSIONS.get(image.compression, f"number {image.compression}"),
        "predictor": image.predictor,
        "is_bigtiff": layout.is_big,
        "overviews": [
            {"width": each.width, "height": each.height, **_blocks(each)}
            for each in layout.images
            if each.page == 0 and each.level > 0 and not each.is_mask
        ],
        "has_mask": layout.image(is_mask=True) is not None,
        "pages": layout.n_pages,
        "is_cog": raster.is_cog(),
    }
    window = _window_cost(raster, layout, image, gap_bytes)
    return described if window is None else {**described, "window": window}


def _blocks(image: Image) -> dict[str, Any]:
    return {
        "block_width": image.block_width,
        "block_height": image.block_height,
        "is_tiled": image.is_tiled,
        "blocks": image.n_blocks,
    }


def _window_cost(
    raster: Raster, layout: Layout, image: Image, gap_bytes: int
) -> dict[str, Any] | None:
    window, blocks = sample_window(image), blocks_of_sample(layout)
    if not blocks or any(raster.span_of(block) is None for block in blocks):
        return None
    return {
        "column": window.left,
        "row": window.top,
        "width": window.right - window.left,
        "height": window.bottom - window.top,
        "blocks": len(blocks),
        "bytes": sum(len(raster.fetch_span_of(block) or ()) for block in blocks),
        "ranges": len(block_spans(raster, blocks, gap_bytes)),
    }
