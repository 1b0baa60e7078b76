"""Which blocks a window, a box on Earth, and the overviews of a raster are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from imagery.rasters import EPSG, LAYOUTS, TRANSFORM, learn, plain_image
from msgspec.structs import replace
from rasterio.warp import transform_bounds

from satfs.errors import Unsupported
from satfs.imagery.block_choice import (
    BlockChoice,
    block_spans,
    chosen_blocks,
    table_needs,
    windows_of_box,
)
from satfs.imagery.geotiff import Facts
from satfs.imagery.layout import Layout, Window
from satfs.imagery.raster import Raster
from satfs.imagery.utm import degrees_of, metres_of

RasterOf = Callable[[str], Path]

_PLACED = Facts(epsg=EPSG, transform=tuple(TRANSFORM)[:6])
_IMAGE = plain_image(900, 700, 256)


@given(
    st.sampled_from([*range(32601, 32661), *range(32701, 32761)]),
    st.floats(-9, 9),
    st.floats(-84, 84),
)
def test_metres_are_those_of_proj_and_lead_back(epsg: int, across: float, latitude: float) -> None:
    """Degrees become the metres that PROJ gives, to a millimetre, and these the same degrees."""
    longitude = epsg % 100 * 6 - 183 + across
    found = metres_of(epsg, longitude, latitude)
    assert found is not None
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", f"EPSG:{epsg}", [longitude], [latitude])
    assert found == pytest.approx((x, y), abs=2e-3)
    assert degrees_of(epsg, *found) == pytest.approx((longitude, latitude), abs=1e-7)


@given(st.floats(), st.floats(), st.sampled_from([4326, 3857, 32631, 32731, 2154, 0]))
def test_no_number_is_too_odd_to_be_projected(x: float, y: float, epsg: int) -> None:
    for found in (degrees_of(epsg, x, y), metres_of(epsg, x, min(max(y, -90.0), 90.0))):
        assert found is None or len(found) == 2


def test_what_a_projection_does_not_show_has_no_metres() -> None:
    assert metres_of(32631, 93.1, 0.0) is None
    assert metres_of(32631, 3.0, 90.0) is None
    assert metres_of(3857, 3.0, -90.0) is None
    assert metres_of(2154, 3.0, 45.0) is None


@given(
    st.integers(0, 890), st.integers(0, 690), st.integers(1, 400), st.integers(1, 400),
)  # fmt: skip
def test_a_box_is_the_pixels_that_it_touches(
    column: int, row: int, width: int, height: int
) -> None:
    """The box around some pixels is a window that holds them all, and at most a few more."""
    right, bottom = min(900, column + width), min(700, row + height)
    left_m, top_m = TRANSFORM @ (column, row)
    right_m, bottom_m = TRANSFORM @ (right, bottom)
    box = transform_bounds(
        f"EPSG:{EPSG}", "EPSG:4326", left_m, bottom_m, right_m, top_m, densify_pts=51
    )
    (found,) = windows_of_box(_IMAGE, _PLACED, box)
    # The grid of a zone is turned against the meridian by some degrees: a box around the box.
    spare = 2 + (right - column + bottom - row) // 10
    assert found.top - 1 <= row <= found.top + spare
    assert found.left - 1 <= column <= found.left + spare
    assert found.bottom - spare <= bottom <= found.bottom + 1
    assert found.right - spare <= right <= found.right + 1


def test_a_box_that_the_raster_lies_in_is_all_of_it_and_one_elsewhere_nothing() -> None:
    everything = [Window(0, 700, 0, 900)]
    assert windows_of_box(_IMAGE, _PLACED, (-180.0, -90.0, 180.0, 90.0)) == everything
    assert windows_of_box(_IMAGE, _PLACED, (0.0, 40.0, 10.0, 50.0)) == []


def test_a_box_across_the_antimeridian_is_not_the_other_side_of_the_earth() -> None:
    """West of it and east of it the same raster is found; the box of all else leaves it out."""
    x, y = 200_000.0, 4_000_000.0  # in zone 1, at 177.5° west or so
    placed = Facts(epsg=32601, transform=(10.0, 0.0, x, 0.0, -10.0, y))
    everything = [Window(0, 700, 0, 900)]
    assert windows_of_box(_IMAGE, placed, (179.0, 30.0, -170.0, 40.0)) == everything
    assert windows_of_box(_IMAGE, placed, (-170.0, 30.0, 179.0, 40.0)) == []


def test_a_box_across_the_edge_of_a_raster_around_the_earth_is_two_windows() -> None:
    image, box = plain_image(720, 280, 256), (170.0, 0.0, -170.0, 10.0)
    placed = Facts(epsg=4326, transform=(0.5, 0.0, -180.0, 0.0, -0.5, 70.0))
    assert windows_of_box(image, placed, box) == [
        Window(120, 140, 700, 720),
        Window(120, 140, 0, 20),
    ]
    blocks = chosen_blocks(Layout("<", False, (image,)), placed, BlockChoice(box=box))
    assert [image.place(block.number).column for block in blocks] == [2, 0]


@pytest.mark.parametrize("epsg", [3857, 32631, 32731])
@pytest.mark.parametrize("tiny", [0.0, 1e-14, 1e-12, 1e-8])
def test_a_point_next_to_a_pole_is_projected(epsg: int, tiny: float) -> None:
    """There the sine of a latitude is 1, whose inverse hyperbolic tangent has no value."""
    for latitude in (90 - tiny, tiny - 90):
        found = metres_of(epsg, 3.0, latitude)
        assert (found is None) is (abs(latitude) == 90)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(has_rpc=True), "no map projection"),
        (Facts(epsg=2154, transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)), "EPSG:2154"),
    ],
)
def test_a_box_needs_a_projection_that_is_known(facts: Facts, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        windows_of_box(_IMAGE, facts, (-180.0, -90.0, 180.0, 90.0))


@given(st.lists(st.floats(), min_size=6, max_size=6), st.sampled_from([4326, 3857, 32721]))
def test_no_transform_is_too_odd(numbers: list[float], epsg: int) -> None:
    """A header may state any numbers: a window inside of the image, nothing, or a sentence."""
    a, b, c, d, e, f = numbers
    try:
        found = windows_of_box(
            _IMAGE, Facts(epsg=epsg, transform=(a, b, c, d, e, f)), (-1, -1, 1, 1)
        )
    except Unsupported:
        return
    for window in found:
        assert 0 <= window.top < window.bottom <= 700
        assert 0 <= window.left < window.right <= 900


def _learnt(path: Path) -> tuple[Raster, Layout]:
    raster = learn(path.read_bytes())
    assert raster.layout is not None
    return raster, raster.layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_chosen_blocks_are_found_by_their_tables_alone(raster_of: RasterOf, name: str) -> None:
    """Of header and the tables named, each block's place is known, as a full read has it."""
    path = raster_of(name)
    data = path.read_bytes()
    raster, layout = _learnt(path)
    choice = BlockChoice(window=(100, 50, 300, 200), has_overviews=True)
    blocks = chosen_blocks(layout, Facts(), choice)
    while needs := table_needs(raster, blocks):
        for span in needs:
            raster.feed(span.start, data[span.start : span.stop])
    whole = learn(data, whole=True)
    spans = block_spans(raster, blocks, 0)
    assert spans == block_spans(whole, blocks, 0)
    levels = {layout.images[block.image].level for block in blocks}
    full = layout.image()
    assert full is not None
    is_touched = full.width > 100 and full.height > 50
    assert levels == {i.level for i in layout.images if i.page == 0 and (i.level or is_touched)}
    gaps = [after.start - before.stop for before, after in pairwise(spans)]
    joined = block_spans(raster, blocks, 1000)
    assert len(joined) == len(spans) - sum(gap <= 1000 for gap in gaps)


def test_masks_go_with_their_images(raster_of: RasterOf) -> None:
    _, layout = _learnt(raster_of("mask and overviews"))
    blocks = chosen_blocks(layout, Facts(), BlockChoice(window=(0, 0, 10, 10)))
    assert [layout.images[block.image].is_mask for block in blocks] == [False, True]


def test_more_blocks_than_are_looked_up_are_refused() -> None:
    """A header may state a million blocks a row; the file is fetched as a whole then."""
    image = plain_image(1_000_000, 1_000_000, 1)
    layout = Layout("<", True, (image,))
    with pytest.raises(Unsupported, match="as a whole"):
        chosen_blocks(layout, Facts(), BlockChoice(window=(0, 0, 1_000_000, 1_000_000)))


def test_the_blocks_of_a_large_window_are_never_a_list() -> None:
    """A packed member of zeros may state two milliards of strips, in a few megabytes of a zip."""
    image = replace(plain_image(1, 2**31 - 1, 1), is_tiled=False)
    tracemalloc.start()
    try:
        with pytest.raises(Unsupported, match="as a whole"):
            chosen_blocks(Layout("<", True, (image,)), Facts(), BlockChoice((0, 0, 1, 2**31 - 1)))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
