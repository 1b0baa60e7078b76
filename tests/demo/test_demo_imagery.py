"""Imagery looks like what it says it is: land, bands, clouds, and a place on earth."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from rasterio.errors import NotGeoreferencedWarning

from satfs.demo import terrain
from satfs.demo.georeference import Place
from satfs.demo.imagery import (
    LARGE_LAYOUTS,
    Tile,
    develop,
    vrt,
    write_enlarged,
    write_geotiff,
    write_png,
)

N = 160
PLACE = Place(-58.37, -34.6, N, 1.0)


@pytest.fixture(scope="module", params=terrain.KINDS)
def land(request: pytest.FixtureRequest) -> terrain.Reflectance:
    return terrain.draw(request.param, 5, N, 0.1)


def test_land_is_reflectance(land: terrain.Reflectance) -> None:
    """Four bands of reflectance, none of them flat; the mask has clear, haze and cloud."""
    assert land.bands.shape == (4, N, N)
    assert land.bands.min() >= 1
    assert land.bands.max() <= 10_000
    assert all(band.std() > 50 for band in land.bands)
    assert set(np.unique(land.mask)) <= {terrain.CLEAR, terrain.HAZE, terrain.CLOUD}


def test_land_is_the_same_every_time() -> None:
    """A seed gives one land; another gives another."""
    one, same, other = (terrain.draw("coast", seed, 64) for seed in (1, 1, 2))
    assert np.array_equal(one.bands, same.bands)
    assert not np.array_equal(one.bands, other.bands)


def test_detail_changes_nothing_of_the_shape() -> None:
    """Drawn with twice the pixels it is the same land, seen more sharply."""
    coarse = terrain.draw("coast", 3, 100, 0.0).bands
    fine = terrain.draw("coast", 3, 200, 0.0).bands
    halved = fine.reshape(4, 100, 2, 100, 2).mean((2, 4))
    assert np.corrcoef(coarse.ravel(), halved.ravel())[0, 1] > 0.9


def test_weather_moves_clouds_only() -> None:
    """On another day the same fields lie under other clouds; a clear day has none."""
    one, other = (terrain.draw("farmland", 3, N, 0.15, weather=day) for day in (1, 2))
    assert not np.array_equal(one.mask, other.mask)
    both_clear = (one.mask == terrain.CLEAR) & (other.mask == terrain.CLEAR)
    same = np.abs(one.bands[2] - other.bands[2])[both_clear] < 1
    assert same.mean() > 0.5  # where neither has a shadow
    assert (terrain.draw("farmland", 3, N, 0.0).mask == terrain.CLEAR).all()


def test_cloudiness_is_about_the_share_under_cloud() -> None:
    """A fifth of cloud is neither none nor half."""
    mask = terrain.draw("farmland", 8, N, 0.2).mask
    assert 0.08 < (mask > terrain.CLEAR).mean() < 0.35


def test_rasters_agree_about_what_was_seen(land: terrain.Reflectance) -> None:
    """Outside the footprint all three rasters hold 0, inside none of them does."""
    rasters = develop(land, PLACE)
    seen = PLACE.seen(slice(0, N), slice(0, N))
    assert 0.7 < seen.mean() < 0.8
    for pixels in (rasters.toa, rasters.visual, rasters.cloud):
        assert ((pixels != 0) == seen).all()


def test_geotiff_is_what_the_vendor_delivers(land: terrain.Reflectance, tmp_path: Path) -> None:
    """Tiled, LZW, with overviews, its bands named, lying where the footprint says."""
    path = tmp_path / "toa.tif"
    place = Place(-58.37, -34.6, 400, 1.0)
    rasters = develop(land.resized(400), place)
    write_geotiff(path, rasters.toa, place)
    with rasterio.open(path) as file:
        assert file.profile["tiled"]
        assert file.block_shapes[0] == (256, 256)
        assert file.compression.name == "lzw"
        assert file.overviews(1) == [2, 4]
        assert file.descriptions == ("Blue", "Green", "Red", "NIR")
        assert (file.crs.to_epsg(), file.nodata) == (32721, 0)
        assert np.array_equal(file.read(), rasters.toa)
        around = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    west, south, east, north = place.bbox
    assert around[0] <= west < -58.37 < east <= around[2]
    assert around[1] <= south < -34.6 < north <= around[3]


def test_footprint_is_a_closed_ring_turned_against_north() -> None:
    """GeoJSON wants it closed and counter-clockwise."""
    ring = PLACE.footprint["coordinates"][0]
    assert ring[0] == ring[-1]
    assert len({tuple(corner) for corner in ring}) == 4
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(ring))
    assert area > 0
    assert len({lon for lon, _ in ring}) == 4


@pytest.mark.parametrize(
    ("longitude", "latitude", "epsg"),
    [(-58.37, -34.6, 32721), (4.9, 52.6, 32631), (179.9, 10.0, 32660), (-179.9, -1.0, 32701)],
)
def test_zone(longitude: float, latitude: float, epsg: int) -> None:
    """Each place is in its UTM zone."""
    assert Place(longitude, latitude, 10, 1.0).epsg == epsg


def test_vrt_shows_its_tiles(land: terrain.Reflectance, tmp_path: Path) -> None:
    """A virtual raster over frames, by relative path, shows the picture they were cut from."""
    (tmp_path / "rasters").mkdir()
    rasters, tiles = develop(land, PLACE), []
    for number, (top, bottom) in enumerate(((0, 90), (70, N))):
        part = rasters.part(top, bottom)
        name = f"rasters/{number}.tif"
        write_geotiff(tmp_path / name, part.visual, PLACE, top=top)
        tiles.append(Tile(name, bottom - top, N, top))
    path = tmp_path / "x.vrt"
    path.write_text(vrt(tiles, PLACE, 3, "uint8"))
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), rasters.visual)
        assert file.transform == PLACE.transform()


def test_enlarged_raster_has_the_size_of_its_place(
    land: terrain.Reflectance, tmp_path: Path
) -> None:
    """It shows the land over the whole place, with a border that was not seen."""
    place = Place(-58.37, -34.6, 1300, 0.7)
    write_enlarged(tmp_path / "x.tif", land, place)
    with rasterio.open(tmp_path / "x.tif") as file:
        assert file.shape == (1300, 1300)
        assert file.overviews(1) == [2, 4, 8]
        small = file.read(3, out_shape=(N, N)).astype(float)
    seen = place.from_afar(N).seen(slice(0, N), slice(0, N))
    assert np.corrcoef(small[seen], land.bands[2][seen])[0, 1] > 0.9
    assert small[0, 0] == 0


def test_png_is_about_as_large_as_asked(land: terrain.Reflectance, tmp_path: Path) -> None:
    """A preview is an RGB picture in pixels of its own."""
    write_png(tmp_path / "x.png", develop(land, PLACE).visual, 40)
    visual = develop(land, PLACE).visual
    with (
        pytest.warns(NotGeoreferencedWarning),
        rasterio.open(tmp_path / "x.png") as file,
    ):
        small = file.read()
    assert small.shape == (3, 40, 40)
    means = visual.reshape(3, 40, 4, 40, 4).mean((2, 4))
    assert np.array_equal(small, means.astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LARGE_LAYOUTS)
def test_a_large_raster_is_laid_out_as_asked(tmp_path: Path, layout: str) -> None:
    """Band interleave, or a COG; the pixels are those of the layout of deliveries."""
    land = terrain.draw("coast", 5, N, 0.1)
    place = Place(PLACE.longitude, PLACE.latitude, 1300, PLACE.pixel_m)
    write_enlarged(tmp_path / "x.tif", land, place, layout=layout)
    write_enlarged(tmp_path / "vendor.tif", land, place)
    with rasterio.open(tmp_path / "x.tif") as file, rasterio.open(tmp_path / "vendor.tif") as other:
        assert file.interleaving.value.lower() == ("band" if layout == "bands" else "pixel")
        assert (file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (layout == "cog")
        assert file.block_shapes == [(512, 512)] * 4
        assert file.overviews(1)[:2] == [2, 4][: len(file.overviews(1))]
        assert file.descriptions == other.descriptions
        assert np.array_equal(file.read(), other.read())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"x.tif", "vendor.tif"})
