"""The facts of a delivery, in any packing, and with any content of its members."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import rasterio
from facts.deliveries import SCENE_ID, delivery, facts_of_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from imagery.rasters import pixels, write
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.shutil import copy

from satfs.demo.products import INVENTED_FORMS, PACKINGS, DeliveryForm
from satfs.facts.delivery import DeliveryFacts, DeliveryParser, RasterHeader, combine
from satfs.facts.member_kinds import known_members
from satfs.facts.record import facts_of_record
from satfs.facts.scene import BandFacts, MemberFacts, MemberKind, RasterFacts
from satfs.facts.vendor_item import VendorItem, read_angles, read_item
from satfs.facts.vrt import read_vrt
from satfs.model import Scene, SceneId


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return delivery(tmp_path_factory.mktemp("facts") / "stored", n_frames=2)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_states_the_same(packing: str, tmp_path: Path, stored: Path) -> None:
    """Compression and order of a zip say nothing about what is in it; a folder only adds a path."""
    expected, _ = facts_of_zip(stored)
    found, _ = facts_of_zip(delivery(tmp_path / packing, packing, n_frames=2))
    prefix = f"{SCENE_ID}/" if packing == "folder" else ""
    assert [raster.path for raster in found.rasters] == [
        prefix + raster.path for raster in expected.rasters
    ]
    assert [(r.transform, r.bands, r.width) for r in found.rasters] == [
        (r.transform, r.bands, r.width) for r in expected.rasters
    ]
    assert found.item == expected.item


def test_rasters_are_as_gdal_reads_them(stored: Path) -> None:
    """Shape, type, no data, projection, transform and band names are GDAL's, value by value."""
    facts, n_rounds = facts_of_zip(stored)
    assert len(facts.rasters) == 6
    assert n_rounds <= 2
    for found in facts.rasters:
        with rasterio.open(f"/vsizip/{stored}/{found.path}") as file:
            assert (found.width, found.height) == (file.width, file.height)
            assert found.data_type == file.dtypes[0]
            assert found.no_data == file.nodata
            assert found.epsg == file.crs.to_epsg()
            assert found.transform == pytest.approx(tuple(file.transform)[:6], rel=1e-12)
            assert len(found.bands) == file.count
            assert (found.block_height, found.block_width) == file.block_shapes[0]


@pytest.mark.parametrize("form", [DeliveryForm(), *INVENTED_FORMS.values()])
def test_what_hides_pixels_is_known_as_gdal_knows_it(form: DeliveryForm, tmp_path: Path) -> None:
    """A value, a mask of the file's own, a band of opacity; a header far away is not known."""
    path = delivery(tmp_path / "made", form=form, n=120)
    facts, _ = facts_of_zip(path)
    for found in facts.rasters:
        with rasterio.open(f"/vsizip/{path}/{found.path}") as file:
            assert str(found.no_data) == str(file.nodata)
            assert found.has_alpha == (file.colorinterp[-1] is ColorInterp.alpha)
            is_masked = file.mask_flag_enums[0] == [MaskFlags.per_dataset]
            assert found.has_mask in (is_masked, None)
            assert (found.has_mask is None) <= is_masked, "a file of one image has none"
    kept = DeliveryFacts.of_bytes(facts.to_bytes())
    assert kept == facts


def test_band_order_is_the_items(stored: Path) -> None:
    """The vendor's item names the bands: both orders occur, so no position is a colour."""
    facts, _ = facts_of_zip(stored)
    analytic = next(r for r in facts.rasters if r.kind is MemberKind.ANALYTIC)
    with zipfile.ZipFile(stored) as archive:
        name = next(n for n in archive.namelist() if n.endswith("_metadata_stac.geojson"))
        item = json.loads(archive.read(name))
    stated = item["assets"]["analytic"]["eo:bands"]
    assert [band.common_name for band in analytic.bands] == [b["common_name"] for b in stated]
    assert analytic.band_number("red") == 1 + [b["common_name"] for b in stated].index("red")


def test_without_an_item_the_descriptions_name_the_bands(stored: Path) -> None:
    """TIFF descriptions are the delivery's own words, too."""
    facts = _facts(stored, without=".geojson")
    analytic = next(r for r in facts.rasters if r.kind is MemberKind.ANALYTIC)
    with rasterio.open(f"/vsizip/{stored}/{analytic.path}") as file:
        described = file.descriptions
    assert [band.name for band in analytic.bands] == list(described)
    assert [b.common_name for b in analytic.bands] == [name.lower() for name in described]


def test_without_a_header_the_vrt_states_the_raster(stored: Path) -> None:
    """A raster that cannot be read has size, type and place from the VRT, and no word on COGs."""
    expected = _facts(stored)
    facts = _facts(stored, without=".tif")
    for found, full in zip(facts.rasters, expected.rasters, strict=True):
        assert (found.width, found.height, found.data_type) == (
            full.width,
            full.height,
            full.data_type,
        )
        assert found.epsg == full.epsg
        assert found.transform == pytest.approx(full.transform, rel=1e-9)
        assert found.is_cog is None


def test_what_a_delivery_states_has_precedence_over_the_record(stored: Path) -> None:
    """The record's time has no more digits than the item's; what only one states is kept."""
    facts, _ = facts_of_zip(stored)
    assert facts.item is not None
    scene = Scene(SceneId(SCENE_ID), record={"cloud_percent": 99.0, "satellite_name": "newsat1"})
    found = combine(facts_of_record(scene), facts)
    assert found.cloud_percent == facts.item.cloud_percent
    assert found.platform == "newsat33"
    assert found.epsg == 32721
    assert found.gsd_m == 0.7
    assert found.view.sun_elevation_deg == 61.5
    assert found.vendor_properties["satl:product_version"] == "2.0.1"
    assert found.has_delivery


def test_facts_are_kept_as_they_are(stored: Path) -> None:
    """Stored bytes give the same facts; other bytes give None."""
    facts, _ = facts_of_zip(stored)
    data = facts.to_bytes()
    assert DeliveryFacts.of_bytes(data) == facts
    for other in (b"", data[1:], data[:-1], b"\0" + data[1:], data[:1] + b"[]"):
        assert DeliveryFacts.of_bytes(other) is None


def test_members_are_known_by_name_in_both_layouts() -> None:
    """With and without `rasters/`, tiles, capitals; files that macOS adds are OTHER."""
    stem = "20260128_155747_SN33_L1B_MS"
    kinds = {
        f"rasters/{stem}_TOA_0.tif": MemberKind.ANALYTIC,
        f"rasters/{stem}_VISUAL_10.TIF": MemberKind.VISUAL,
        f"{stem}_21S_667_6954_analytic.tif": MemberKind.ANALYTIC,
        f"{stem}_21S_667_6954_cloud.TIFF": MemberKind.CLOUD,
        f"{stem}_21S_667_6954_visual.tif": MemberKind.VISUAL,
        f"folder/{stem}_metadata_stac.geojson": MemberKind.ITEM,
        f"{stem}_solar_and_viewing_angles.geojson": MemberKind.ANGLES,
        f"{stem}_TOA.vrt": MemberKind.VRT,
        f"{stem}_toa_factors.json": MemberKind.TOA_FACTORS,
        f"{stem}_preview.png": MemberKind.PREVIEW,
        f"{stem}_thumbnail.png": MemberKind.THUMBNAIL,
    }
    others = [f"__MACOSX/rasters/{stem}_TOA_0.tif", f"rasters/._{stem}_TOA_0.tif", "readme.txt"]
    found = known_members((name, 1) for name in [*kinds, *others])
    assert {member.path: member.kind for member in found} == kinds


def test_numbers_in_names_are_sorted_by_value() -> None:
    """Raster 2 precedes raster 10, as people count."""
    names = [f"x_TOA_{n}.tif" for n in (10, 2, 1)]
    found = known_members((name, 1) for name in names)
    assert [member.path for member in found] == ["x_TOA_1.tif", "x_TOA_2.tif", "x_TOA_10.tif"]


def test_an_epsg_code_that_is_text_is_a_number() -> None:
    """The vendor's archive writes `proj:epsg` as text, against the projection extension."""
    for key, value in (("proj:epsg", "32721"), ("proj:epsg", 32721), ("proj:code", "EPSG:32721")):
        item = read_item(json.dumps({"type": "Feature", "properties": {key: value}}).encode())
        assert item is not None
        assert item.epsg == 32721


def test_no_link_and_no_token_of_an_item_is_kept() -> None:
    """The vendor's properties that are passed on hold no credential."""
    properties = {
        "satl:download": "https://bucket.example/x?X-Amz-Signature=abc",
        "satl:token": "eyJhbGciOiJIUzI1NiJ9.e30.abc",
        "satl:product_version": "2.0.1",
        "satl:nested": {"a": 1},
        "other": 1,
    }
    item = read_item(json.dumps({"type": "Feature", "properties": properties}).encode())
    assert item is not None
    assert item.vendor_properties == {"satl:product_version": "2.0.1"}


def test_a_collection_of_items_states_what_all_of_them_do() -> None:
    """Deliveries of older versions have a FeatureCollection where newer ones have one item."""
    west, east = (
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [longitude, 0]},
            "properties": {"gsd": 0.7, "eo:cloud_cover": clouds, "proj:epsg": "32721"},
            "assets": {"analytic": {"href": "x.tif", "eo:bands": [{"name": "Red"}]}},
        }
        for longitude, clouds in ((-58, 3), (-57, 9))
    )

    def read(*features: object) -> VendorItem | None:
        return read_item(json.dumps({"type": "FeatureCollection", "features": features}).encode())

    assert read(west) == read_item(json.dumps(west).encode())
    both = read(west, east)
    assert both is not None
    assert (both.gsd_m, both.epsg) == (0.7, 32721)
    assert (both.cloud_percent, both.geometry, both.bands) == (None, None, {})
    assert read() is None
    assert read({"type": "Catalog"}, 5) is None


def test_angles_are_read_in_both_forms() -> None:
    """The sun's zenith distance, as deliveries have it, and the names of the view extension."""
    body = {"features": [{"properties": {"solar": {"zenith": 30.5, "azimuth": -10}}}]}
    found = read_angles(json.dumps(body).encode())
    assert (found.sun_elevation_deg, found.sun_azimuth_deg) == (59.5, 350)


_KEYS = [
    "type",
    "properties",
    "assets",
    "eo:bands",
    "geometry",
    "coordinates",
    "features",
    "solar",
    "zenith",
    "name",
    "common_name",
    "proj:epsg",
    "gsd",
    "datetime",
    "analytic",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6)
    ),
    max_leaves=30,
)


@given(_JSON)
def test_any_json_is_an_item_or_none(value: Any) -> None:
    """No document raises, and what comes of it can be kept."""
    body = json.dumps(value).encode()
    item = read_item(body)
    facts = DeliveryFacts(item=item, angles=read_angles(body))
    assert DeliveryFacts.of_bytes(facts.to_bytes()) == facts


@given(st.binary(max_size=300))
def test_any_bytes_state_nothing_and_harm_nothing(data: bytes) -> None:
    """Documents, VRTs and rasters of any bytes end in facts that say less."""
    read_item(data)
    read_angles(data)
    read_vrt(data)
    parser = DeliveryParser(
        known_members((name, len(data)) for name in ("x_TOA_0.tif", "x_stac.geojson", "TOA.vrt"))
    )
    while wanted := parser.needs():
        for part in wanted:
            parser.feed(part, data[part.span.start : part.span.stop])
    assert len(parser.facts().rasters) == 1


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_delivery_never_raises(stored: Path, data: st.DataObject) -> None:
    """Any bytes of any member may be others."""
    with zipfile.ZipFile(stored) as archive:
        bodies = {name: archive.read(name) for name in archive.namelist()}
    parser = DeliveryParser(known_members((name, len(b)) for name, b in bodies.items()))
    while wanted := parser.needs():
        for part in wanted:
            body = bytearray(bodies[part.member.path][part.span.start : part.span.stop])
            for _ in range(data.draw(st.integers(0, 3))):
                place = data.draw(st.integers(0, min(len(body), 2000) - 1))
                body[place] = data.draw(st.integers(0, 255))
            parser.feed(part, bytes(body))
    facts = combine(facts_of_record(Scene(SceneId("x"))), parser.facts())
    assert len(facts.rasters) == 6


def test_entities_of_a_vrt_are_not_expanded() -> None:
    """A document type is refused before it can grow to gigabytes."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    body = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><VRTDataset><SRS>&l9;</SRS></VRTDataset>'
    assert read_vrt(body.encode()) is None
    deep = "<VRTDataset>" + "<a>" * 100 + "</a>" * 100 + "</VRTDataset>"
    assert read_vrt(deep.encode()) is None


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_raster_is_a_cog_only_where_its_header_says_so(driver: str, tmp_path: Path) -> None:
    """Tiles and overviews alone make none: in a GeoTIFF of GDAL's overviews lie behind."""
    path = tmp_path / "x_TOA_0.tif"
    write(tmp_path / "plain.tif", pixels(height=1500, width=1500))
    options = {"tiled": "yes"} if driver == "GTiff" else {"blocksize": 512}
    copy(tmp_path / "plain.tif", path, driver=driver, **options)
    if driver == "GTiff":
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
    header = RasterHeader(MemberFacts("x_TOA_0.tif", path.stat().st_size, MemberKind.ANALYTIC))
    data, n_rounds = path.read_bytes(), 0
    while spans := header.needs():
        n_rounds += 1
        for span in spans:
            header.feed(span.start, data[span.start : span.stop])
    assert bool(header.facts().is_cog) == (driver == "COG")
    assert n_rounds == 1


def test_a_delivery_of_many_tiles_has_a_bounded_number_of_headers_read() -> None:
    """Each header is a request: what lies behind the limit is listed, and not read."""
    parser = DeliveryParser(known_members((f"x_TOA_{n}.tif", 10**6) for n in range(500)))
    assert len(parser.needs()) == 64
    assert len(parser.facts().rasters) == 500


def test_a_band_is_found_by_its_common_name_alone() -> None:
    """No name, no number: a position is never guessed."""
    raster = RasterFacts(MemberKind.ANALYTIC, "x", 1, bands=(BandFacts(), BandFacts("Red", "red")))
    assert raster.band_number("red") == 2
    assert raster.band_number("nir") is None
    assert MemberFacts("x", 1).kind is MemberKind.OTHER


def _facts(path: Path, *, without: str | None = None) -> DeliveryFacts:
    """Return the facts of a zip of which members that end as *without* cannot be read."""
    with zipfile.ZipFile(path) as archive:
        parser = DeliveryParser(
            known_members((info.filename, info.file_size) for info in archive.infolist())
        )
        while wanted := parser.needs():
            for part in wanted:
                if without is None or not part.member.path.endswith(without):
                    body = archive.read(part.member.path)
                    parser.feed(part, body[part.span.start : part.span.stop])
    return parser.facts()
