"""The statements of a raster agree with GDAL's about it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from imagery.rasters import LAYOUTS, directory, learn, pixels, tiff, tiled_fields, write
from rasterio.transform import Affine

from satfs.imagery.geotiff import Facts, affine_transform, band_descriptions, geo_keys
from satfs.imagery.layout import Block
from satfs.imagery.raster import Raster

RasterOf = Callable[[str], Path]

WRITTEN_BY_GDAL = [name for name in LAYOUTS if "tifffile" not in name]


def facts_of(data: bytes) -> Facts:
    raster = learn(data)
    for _ in range(5):
        for span in raster.needs_for_facts():
            raster.feed(span.start, data[span.start : span.stop])
    facts = raster.facts()
    assert facts is not None
    return facts


@pytest.mark.parametrize("name", WRITTEN_BY_GDAL)
def test_facts_are_those_of_gdal(raster_of: RasterOf, name: str) -> None:
    """Data type, system, transform, no-data value and names of bands."""
    path = raster_of(name)
    facts = facts_of(path.read_bytes())
    with rasterio.open(path) as file:
        assert facts.data_type == file.dtypes[0]
        assert facts.epsg == file.crs.to_epsg()
        assert facts.transform is not None
        assert facts.transform == pytest.approx(tuple(file.transform)[:6])
        stated = None if facts.no_data is None else float(facts.no_data)
        assert stated == file.nodata
        names = file.descriptions
    assert facts.descriptions == {k: name for k, name in enumerate(names) if name}
    assert not facts.has_rpc


@pytest.mark.parametrize("name", WRITTEN_BY_GDAL)
def test_a_cog_is_told_by_its_header(raster_of: RasterOf, name: str) -> None:
    """GDAL's COG driver makes one; tiles alone, without overviews to put in order, do too."""
    raster = learn(raster_of(name).read_bytes())
    expected = "strips" not in name and "overviews" not in name
    if raster.is_cog() is None:
        assert raster.layout is not None
        content = raster_of(name).read_bytes()
        for image in raster.layout.images:
            for span in raster.needs_of(Block(image.number, 0)):
                raster.feed(span.start, content[span.start : span.stop])
    assert raster.is_cog() is expected


@pytest.mark.parametrize("name", ["COG, deflate", "COG, deflate, mask", "COG, BigTIFF"])
def test_leaders_and_trailers_are_fetched_with_their_blocks(raster_of: RasterOf, name: str) -> None:
    """Four bytes before each block hold its size, and four behind it repeat its last ones."""
    content = raster_of(name).read_bytes()
    raster = learn(content, whole=True)
    assert raster.layout is not None
    structure = raster.layout.structure
    assert structure.has_leaders
    assert structure.has_trailers
    assert structure.has_directories_first
    for image in raster.layout.images:
        for number in range(image.n_blocks):
            block = Block(image.number, number)
            span, whole = raster.span_of(block), raster.fetch_span_of(block)
            assert span is not None
            assert whole is not None
            if not span:
                assert not whole
                continue
            data = content[whole.start : whole.stop]
            assert len(data) == len(span) + 8
            assert int.from_bytes(data[:4], "little") == len(span)
            assert data[-4:] == data[-8:-4]


def test_an_edited_cog_is_not_taken_at_its_word(tmp_path: Path, raster_of: RasterOf) -> None:
    """A program that edits a COG in place says so in it, and leaders hold no longer."""
    content = bytearray(raster_of("COG, deflate").read_bytes())
    place = content.index(b"KNOWN_INCOMPATIBLE_EDITION=NO\n ")
    content[place : place + 31] = b"KNOWN_INCOMPATIBLE_EDITION=YES\n"
    raster = learn(bytes(content), whole=True)
    assert raster.layout is not None
    assert not raster.layout.structure.has_leaders
    assert raster.fetch_span_of(Block(0, 0)) == raster.span_of(Block(0, 0))


@pytest.mark.parametrize(
    ("dtype", "transform"),
    [
        ("uint8", Affine(10, 0, 5, 0, -10, 7)),
        ("int16", Affine(3, 1, 5, 2, -3, 7)),
        ("float64", Affine(1e-5, 0, -58.3, 0, -1e-5, -34.6)),
        ("complex64", Affine(1, 0, 0, 0, 2, 0)),
    ],
)
def test_types_and_turned_rasters(tmp_path: Path, dtype: str, transform: Affine) -> None:
    """A raster that is turned, or south up, has a matrix; one in degrees a geographic system."""
    path = tmp_path / "one.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, width=20, height=30, dtype=dtype,
        crs="EPSG:4326", transform=transform, nodata=-1 if "int16" in dtype else None,
    ) as file:  # fmt: skip
        file.write(pixels(1, 30, 20, dtype))
        file.update_tags(AREA_OR_POINT="Point")
    facts = facts_of(path.read_bytes())
    with rasterio.open(path) as file:
        assert facts.transform == pytest.approx(tuple(file.transform)[:6])
    assert facts.epsg == 4326
    assert facts.data_type == dtype


def test_rpc_are_noticed(tmp_path: Path) -> None:
    """RPCTIFF's field is there, or not."""
    rpc = rasterio.rpc.RPC(
        height_off=1.0, height_scale=1.0, lat_off=1.0, lat_scale=1.0, line_den_coeff=[1.0] * 20,
        line_num_coeff=[1.0] * 20, line_off=1.0, line_scale=1.0, long_off=1.0, long_scale=1.0,
        samp_den_coeff=[1.0] * 20, samp_num_coeff=[1.0] * 20, samp_off=1.0, samp_scale=1.0,
    )  # fmt: skip
    path = write(tmp_path / "rpc.tif", pixels(1, 40, 40), rpcs=rpc)
    assert facts_of(path.read_bytes()).has_rpc


def test_facts_that_make_no_sense_count_as_missing() -> None:
    """Wrong types, counts of 2^31, broken XML: the layout stays, and the facts are empty."""
    fields = [
        (258, 2, b"16\0"),
        *tiled_fields(1, offsets=(4, [512]), sizes=(4, [256])),
        (339, 3, [77]),
        (33550, 3, [1, 1, 0]),
        (33922, 2, b"nowhere at all\0"),
        (34735, 3, [1, 1, 0, 1, 3072, 0, 1, 32767]),
        (42112, 2, b"<GDALMetadata><Item\0"),
        (42113, 3, [7]),
    ]
    made = directory(sorted(fields, key=lambda entry: entry[0]))
    facts = facts_of(tiff(made, size_bytes=1000))
    assert facts == Facts(data_type="unknown")


@pytest.mark.parametrize(
    ("projection", "epsg"),
    [
        ("+proj=laea +lat_0=10 +lon_0=5 +datum=WGS84 +units=m", None),
        ("+proj=sinu +lon_0=0 +R=6371007 +units=m", None),
        ("EPSG:32631", 32631),
        ("EPSG:4258", 4258),
        ("EPSG:3035", 3035),
    ],
)
def test_a_projection_without_a_code_is_not_the_system_it_is_based_on(
    tmp_path: Path, projection: str, epsg: int | None
) -> None:
    """Metres of a user's own projection are no degrees of WGS 84."""
    path = tmp_path / "one.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, width=20, height=30, dtype="uint8",
        crs=projection, transform=Affine(10, 0, 5, 0, -10, 7),
    ) as file:  # fmt: skip
        file.write(pixels(1, 30, 20, "uint8"))
    assert facts_of(path.read_bytes()).epsg == epsg


def test_a_field_beyond_the_end_costs_no_other_field() -> None:
    """A file that is cut off in its metadata still has its data type."""
    fields = [
        (258, 3, [16]),
        *tiled_fields(1, offsets=(4, [512]), sizes=(4, [256])),
        (42112, 2, b"<GDALMetadata></GDALMetadata>\0"),
    ]
    made = directory(sorted(fields, key=lambda entry: entry[0]))
    data = bytearray(tiff(made, size_bytes=1000))
    entry = data.index(struct.pack("<HH", 42112, 2))
    data[entry + 8 : entry + 12] = struct.pack("<I", 990)
    assert facts_of(bytes(data)) == Facts(data_type="uint16")


def test_the_bits_of_many_samples_are_those_of_the_first() -> None:
    """A value for each of 40,000 bands is longer than what is read of one field."""
    fields = [
        (258, 3, [16] * 40_000),
        *tiled_fields(1, offsets=(4, [512]), sizes=(4, [256])),
    ]
    made = directory(sorted(fields, key=lambda entry: entry[0]))
    assert facts_of(tiff(made, size_bytes=100_000)).data_type == "uint16"


def test_facts_wait_for_their_bytes(raster_of: RasterOf) -> None:
    """None while a span is missing; what is needed is stated, and read with the head as a rule."""
    content = raster_of("256 tiles, pixel, LZW").read_bytes()
    raster = Raster(len(content))
    assert raster.facts() is None
    (span,) = raster.needs_for_facts()
    raster.feed(span.start, content[span.start : span.stop])
    assert raster.needs_for_facts() == ()
    assert raster.facts() is not None


@given(st.text(max_size=200) | st.text("<>ItemrolesampdcpGDALM\"'=/ 0123&;!?", max_size=200))
def test_any_text_as_metadata(text: str) -> None:
    """Names of bands, or none: never an error."""
    assert isinstance(band_descriptions(text), dict)
    assert isinstance(band_descriptions(f"<GDALMetadata>{text}</GDALMetadata>"), dict)


def test_entities_are_not_expanded() -> None:
    """A document type, which GDAL never writes, could make gigabytes of one line."""
    bomb = '<!DOCTYPE x [<!ENTITY a "ha">]><GDALMetadata><Item role="description" sample="0">&a;'
    assert band_descriptions(bomb + "</Item></GDALMetadata>") == {}


@given(st.lists(st.integers(0, 65535), max_size=30), st.lists(st.floats(), max_size=20))
def test_any_keys_and_numbers(keys: list[int], numbers: list[float]) -> None:
    """A transform of finite numbers, or none."""
    assert isinstance(geo_keys(tuple(keys)), dict)
    some: Any = tuple(numbers)
    for transform in (affine_transform(some, some, ()), affine_transform((), (), some)):
        assert transform is None or struct.pack("<6d", *transform)
