"""The description of a raster agrees with rasterio's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
from imagery.rasters import LAYOUTS, learn

from satfs.imagery.description import blocks_of_sample, describe, sample_window
from satfs.imagery.raster import Raster

RasterOf = Callable[[str], Path]


def _learnt(path: Path) -> Raster:
    return learn(path.read_bytes(), whole=True)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "tifffile" not in name])
def test_a_description_is_what_rasterio_states(raster_of: RasterOf, name: str) -> None:
    """Size, type, blocks, interleave, compression and overviews are those that GDAL states."""
    path = raster_of(name)
    found = describe(_learnt(path), 0)
    assert found is not None
    with rasterio.open(path) as file:
        assert (found["width"], found["height"], found["bands"]) == (
            file.width,
            file.height,
            file.count,
        )
        assert found["data_type"] == file.dtypes[0]
        assert (found["block_height"], found["block_width"]) == file.block_shapes[0]
        is_band = file.interleaving is not None and file.interleaving.value.lower() == "band"
        assert (found["interleave"] == "band") == (is_band and file.count > 1)
        stated = "none" if file.compression is None else file.compression.value.lower()
        assert found["compression"].lower() == stated.removeprefix("ycbcr ")
        sizes = [(file.width // n, file.height // n) for n in file.overviews(1)]
        assert len(found["overviews"]) == len(sizes)
        for each, (width, height) in zip(found["overviews"], sizes, strict=True):
            assert abs(each["width"] - width) <= 1
            assert abs(each["height"] - height) <= 1
        assert found["epsg"] == (None if file.crs is None else file.crs.to_epsg())
    assert found["is_cog"] is ("COG" in name) or found["is_cog"] is not False


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_cost_of_a_window_is_that_of_its_blocks(raster_of: RasterOf, name: str) -> None:
    raster = _learnt(raster_of(name))
    found = describe(raster, 0)
    assert found is not None
    assert raster.layout is not None
    blocks = blocks_of_sample(raster.layout)
    spans = [raster.fetch_span_of(block) for block in blocks]
    window = found["window"]
    assert window["blocks"] == len(blocks)
    assert window["bytes"] == sum(len(span or ()) for span in spans)
    assert 0 < window["ranges"] <= len(blocks)
    image = raster.layout.image()
    assert image is not None
    sample = sample_window(image)
    assert 0 <= sample.top < sample.bottom <= image.height
    assert 0 <= sample.left < sample.right <= image.width


def test_what_is_not_known_is_left_out(raster_of: RasterOf) -> None:
    """Without the tables nothing is stated of a window; without a layout nothing at all."""
    data = raster_of("BigTIFF, 256 tiles, deflate").read_bytes()
    layout = learn(data).layout
    assert layout is not None
    raster = Raster(len(data))
    assert describe(raster, 0) is None
    raster.feed(0, data[: layout.images[0].directory.stop])  # the tables lie behind it
    known = describe(raster, 0)
    assert known is not None
    assert known["width"] == 900
    assert "window" not in known
