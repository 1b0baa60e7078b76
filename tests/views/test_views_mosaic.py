"""Mosaics have the pixels of gdalbuildvrt, and true colour is true for both orders of bands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from views.delivered import Taken, delivered

from satfs.facts.scene import BandFacts, MemberKind
from satfs.imagery.utm import degrees_of, zone_of
from satfs.views.mosaic import (
    expected_mosaics,
    expected_true_colours,
    mosaics_of,
    nothing_of,
    true_colour_of,
)

pytestmark = pytest.mark.slow
TASKS = {
    "one scene": [Taken()],
    "neighbours": [Taken(), Taken(east=70), Taken(east=-33)],
    "frames": [Taken("L1C", n_frames=3), Taken(east=50)],
    "tiles": [Taken(form="tiles"), Taken(form="upper case tiles", east=45)],
    "alpha": [Taken(form="alpha"), Taken(form="alpha", east=45)],
    "masks": [Taken(), Taken(form="masks", east=45), Taken(form="masks", east=-20)],
    "floats": [Taken(form="floats"), Taken(form="floats", east=45)],
    "no data in the first alone": [Taken(), Taken(form="no value without data", east=45)],
    "no data in the second alone": [Taken(form="no value without data"), Taken(east=45)],
    "two resolutions": [Taken(), Taken("L1D_SR", east=10, pixel_m=0.7)],
}


def write_all(view: Path, made: dict[str, bytes]) -> None:
    for name, content in made.items():
        (view / name).write_bytes(content)


def sources_of(vrt: Path) -> list[str]:
    """Return the files of the first band, in order."""
    band = ElementTree.parse(vrt).getroot().find("VRTRasterBand")
    assert band is not None
    return [str(source.text) for source in band.iter("SourceFilename")]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.skipif(shutil.which("gdalbuildvrt") is None, reason="no gdalbuildvrt")
def test_a_mosaic_has_the_pixels_of_gdalbuildvrt(name: str, tmp_path: Path) -> None:
    """Of the same files in the same order: extent, grid and every pixel of every band."""
    made = mosaics_of(delivered(tmp_path, TASKS[name]))
    assert set(made) == {f"mosaic_{kind}_32721.vrt" for kind in ("VISUAL", "TOA", "CLOUD")}
    write_all(tmp_path, made)
    theirs_path = tmp_path / "theirs.vrt"
    for mosaic in made:
        command = ["gdalbuildvrt", "-q", "-overwrite", theirs_path.name]
        command += sources_of(tmp_path / mosaic)
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
        with rasterio.open(tmp_path / mosaic) as ours, rasterio.open(theirs_path) as theirs:
            assert (ours.width, ours.height) == (theirs.width, theirs.height)
            assert ours.transform.almost_equals(theirs.transform, 1e-9)
            assert ours.crs == theirs.crs
            assert (str(ours.nodata), ours.dtypes) == (str(theirs.nodata), theirs.dtypes)
            is_float = "float32" in ours.dtypes
            assert np.array_equal(ours.read(), theirs.read(), equal_nan=is_float)
            assert np.array_equal(ours.dataset_mask(), theirs.dataset_mask())
            assert ours.read().any()


def test_the_newest_scene_is_on_top(tmp_path: Path) -> None:
    """Where scenes overlap, the pixels are those of the last one taken."""
    scenes = delivered(tmp_path, TASKS["neighbours"])
    write_all(tmp_path, mosaics_of(scenes[::-1]))
    newest = scenes[-1].path_of(scenes[-1].facts.rasters_of(MemberKind.VISUAL)[0])
    with rasterio.open(tmp_path / str(newest)) as raster:
        bounds, pixels = raster.bounds, raster.read()
    with rasterio.open(tmp_path / "mosaic_VISUAL_32721.vrt") as mosaic:
        window = mosaic.window(*bounds).round_offsets().round_lengths()
        seen = pixels != 0
        assert np.array_equal(mosaic.read(window=window)[seen], pixels[seen])


def test_opening_a_mosaic_opens_no_raster(tmp_path: Path) -> None:
    """Its rasters may be gone: size, bands and place are known without them."""
    made = mosaics_of(delivered(tmp_path, TASKS["tiles"]))
    write_all(tmp_path, made)
    shutil.rmtree(tmp_path / "captures")
    for mosaic in made:
        with rasterio.open(tmp_path / mosaic) as file:
            assert file.width == 165
            assert file.crs.to_epsg() == 32721


def test_bands_are_matched_by_name(tmp_path: Path) -> None:
    """Blue first and red first in one mosaic: each band has one colour throughout."""
    scenes = delivered(tmp_path, [Taken(), Taken(form="red first", east=120)])
    write_all(tmp_path, mosaics_of(scenes))
    rasters = [scene.facts.rasters_of(MemberKind.ANALYTIC)[0] for scene in scenes]
    assert [raster.band_number("red") for raster in rasters] == [3, 1]
    with rasterio.open(tmp_path / "mosaic_TOA_32721.vrt") as mosaic:
        assert mosaic.descriptions == ("Blue", "Green", "Red", "NIR")
        for scene, raster in zip(scenes, rasters, strict=True):
            with rasterio.open(tmp_path / str(scene.path_of(raster))) as file:
                window = mosaic.window(*file.bounds).round_offsets().round_lengths()
                red = file.read(raster.band_number("red"))
                assert np.array_equal(mosaic.read(3, window=window), red)


def test_what_does_not_fit_is_left_out_and_named(tmp_path: Path) -> None:
    """Rational polynomials, other bands, no delivery: not in the mosaic, but in its comments."""
    scenes = delivered(tmp_path, [Taken(), Taken("L1C", "rpc"), Taken(), Taken()])
    raster = scenes[2].facts.rasters_of(MemberKind.VISUAL)[0]
    odd = replace(raster, bands=(BandFacts("grey"),))
    scenes[2] = replace(scenes[2], facts=replace(scenes[2].facts, rasters=(odd,)))
    scenes[3] = replace(scenes[3], facts=replace(scenes[3].facts, rasters=()))
    made = mosaics_of(scenes)["mosaic_VISUAL_32721.vrt"].decode()
    comments = re.findall("<!-- left out: (.*) -->", made)
    assert [comment.split(": ", 1)[1] for comment in comments] == [
        f"rasters/{scenes[1].name[:-7]}_VISUAL_0.tif has no known grid",
        "no raster of this kind is known",
        "other bands or data type",
    ]
    ElementTree.fromstring(made)


@pytest.mark.parametrize("form", ["frames", "red first", "tiles"])
def test_true_colour_is_true_for_both_orders(form: str, tmp_path: Path) -> None:
    """Bands 1, 2, 3 are red, green and blue, as interpreted and as described; 4 is infrared."""
    (scene,) = delivered(tmp_path, [Taken(form=form)])
    made = true_colour_of(scene)
    assert made is not None
    path = tmp_path / "truecolor" / f"{scene.name}.vrt"
    path.parent.mkdir()
    path.write_bytes(made)
    with rasterio.open(path) as file:
        assert [each.name for each in file.colorinterp[:3]] == ["red", "green", "blue"]
        assert file.descriptions == ("red", "green", "blue", "nir")
        for raster in scene.facts.rasters_of(MemberKind.ANALYTIC):
            with rasterio.open(tmp_path / str(scene.path_of(raster))) as source:
                named = {name: n for n, name in enumerate(source.descriptions, 1)}
                window = file.window(*source.bounds).round_offsets().round_lengths()
                for band, name in enumerate(("Red", "Green", "Blue", "NIR"), 1):
                    pixels = source.read(named[name])
                    assert np.array_equal(file.read(band, window=window), pixels)


def test_without_names_there_is_no_true_colour(tmp_path: Path) -> None:
    """Four bands of which nothing is known are no picture: the order is not guessed."""
    (scene,) = delivered(tmp_path, [Taken()])
    rasters = tuple(replace(each, bands=(BandFacts(),) * 4) for each in scene.facts.rasters)
    nameless = replace(scene, facts=replace(scene.facts, rasters=rasters))
    assert true_colour_of(nameless) is None
    assert true_colour_of(replace(scene, contents=None)) is None
    assert mosaics_of([replace(scene, contents=None)]) == {}
    assert os.listdir(tmp_path) == ["captures"]


@pytest.mark.parametrize("name", TASKS)
def test_what_records_let_expect_is_what_zips_have(name: str, tmp_path: Path) -> None:
    """Names by the records alone: the zone of the footprint, and no products without a grid."""
    scenes = delivered(tmp_path, [taken for taken in TASKS[name] if taken.level != "L1C"])
    recorded = [replace(s, facts=replace(s.facts, rasters=(), epsg=None)) for s in scenes]
    assert expected_mosaics(recorded) == set(mosaics_of(scenes))
    found = {f"{scene.name}.vrt" for scene in scenes if true_colour_of(scene) is not None}
    assert expected_true_colours(recorded) == found
    for changed in (
        [replace(s, delivery=None) for s in recorded],
        [replace(s, contents=None) for s in recorded],
        [replace(s, facts=replace(s.facts, product="L1C")) for s in recorded],
    ):
        assert not expected_mosaics(changed)
        assert not expected_true_colours(changed)


@given(st.floats(-180, 180), st.floats(-80, 84))
def test_a_point_is_near_the_meridian_of_its_zone(longitude: float, latitude: float) -> None:
    epsg = zone_of(longitude, latitude)
    middle = degrees_of(epsg, 500_000, 1_000_000)
    assert middle is not None
    assert abs((middle[0] - longitude + 180) % 360 - 180) <= 3
    assert (epsg // 100 == 327) == (latitude < 0)


@given(st.text("-<>!a\x00", max_size=12))
def test_any_text_is_a_comment_of_xml(text: str) -> None:
    """Names of a vendor may hold any number of hyphens, which end or break a comment (XML §2.5)."""
    ElementTree.fromstring(nothing_of(text))


def test_a_file_without_rasters_opens(tmp_path: Path) -> None:
    """GDAL opens it, and finds no data; it holds the reason, of any text."""
    (tmp_path / "none.vrt").write_bytes(nothing_of("see <b>--a--</b>"))
    ElementTree.fromstring((tmp_path / "none.vrt").read_bytes())
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "none.vrt") as file,
    ):
        assert not file.dataset_mask().any()
