"""The libraries that people read imagery with, over `satfs://` without a mount: same values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from embedded.conftest import OpenFs, StartOrigin, catalogue_with

from satfs.demo.server import DemoOrigin
from satfs.fsspec import SatfsFileSystem

np = pytest.importorskip("numpy")
rasterio = pytest.importorskip("rasterio")

SIZE, BLOCK = 1024, 256
RASTER = "scenes/one/contents/rasters/one_TOA_0.tif"

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # of affine, in rasterio
]


@dataclass(frozen=True)
class Site:
    """A filesystem with one scene, and the values of its raster."""

    origin: DemoOrigin
    fs: SatfsFileSystem
    values: Any


@pytest.fixture(scope="module")
def raster() -> tuple[bytes, Any]:
    """Return a tiled GeoTIFF of four bands, and its values."""
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin

    generator = np.random.default_rng(1)
    values = generator.integers(1, 10_000, (4, SIZE, SIZE), dtype="uint16")
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=SIZE,
            height=SIZE,
            count=4,
            dtype="uint16",
            crs="EPSG:32721",
            transform=from_origin(300_000, 6_200_000, 10, 10),
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            nodata=0,
        ) as made:
            made.write(values)
        return memory.read(), values


@pytest.fixture
def site(start_origin: StartOrigin, open_fs: OpenFs, raster: tuple[bytes, Any]) -> Site:
    data, values = raster
    origin = start_origin(catalogue_with({"rasters/one_TOA_0.tif": data}))
    return Site(origin, open_fs(), values)


@pytest.mark.slow
def test_geopandas_reads_footprints(site: Site) -> None:
    geopandas = pytest.importorskip("geopandas")
    (path,) = site.fs.glob("tasks/*/*/footprints.geojson")
    with site.fs.open(path) as file:
        table = geopandas.read_file(file)
    assert list(table["scene_id"]) == ["one"]
    assert table.geometry.is_valid.all()


def test_pandas_reads_records_by_address(site: Site) -> None:
    pandas = pytest.importorskip("pandas")
    try:
        table = pandas.read_json(
            "satfs://tasks/1/captures.json", storage_options={"mount": "never"}
        )
    finally:
        fsspec.filesystem("satfs", mount="never").close()
    assert list(table["capture_id"]) == ["capture"]


def test_rasterio_reads_through_an_open_file_and_an_opener(site: Site) -> None:
    window = rasterio.windows.Window(BLOCK, 2 * BLOCK, BLOCK, BLOCK)
    part = site.values[:, 2 * BLOCK : 3 * BLOCK, BLOCK : 2 * BLOCK]
    with site.fs.open(RASTER) as file, rasterio.open(file) as dataset:
        assert np.array_equal(dataset.read(window=window), part)
    with rasterio.open(RASTER, opener=site.fs) as dataset:
        assert dataset.crs.to_epsg() == 32721
        assert np.array_equal(dataset.read(window=window), part)
        assert np.array_equal(dataset.read(), site.values)


def test_a_window_costs_its_blocks(site: Site) -> None:
    """Read-ahead follows the layout of the raster: no other blocks are fetched."""
    with rasterio.open(RASTER, opener=site.fs) as dataset:
        dataset.read(window=rasterio.windows.Window(0, 0, BLOCK, BLOCK))
    site.origin.journal.wait_until_idle()
    one_block = BLOCK * BLOCK * 2 * 4
    assert site.origin.bytes_sent() < 3 * one_block


def test_rioxarray_chunks_are_the_plain_values(site: Site) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    with site.fs.open(RASTER) as file:
        array = rioxarray.open_rasterio(
            file, chunks={"band": 4, "y": 2 * BLOCK, "x": 2 * BLOCK}, lock=True
        )
        assert np.array_equal(array.compute(scheduler="synchronous").values, site.values)
        assert array.rio.crs.to_epsg() == 32721
    # xarray has pickled the file: what comes of that belongs to a filesystem that fsspec keeps.
    fsspec.filesystem("satfs", mount="never").close()


@pytest.mark.slow
def test_xarray_reads_a_zarr_reference_by_ranges(site: Site) -> None:
    """Kerchunk's way: a description of the file's own blocks, read by `cat_ranges`."""
    zarr = pytest.importorskip("zarr")
    tifffile = pytest.importorskip("tifffile")
    from fsspec.implementations.reference import ReferenceFileSystem

    with site.fs.open(RASTER) as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        shape = page.shape
        offsets, counts = page.dataoffsets, page.databytecounts
        chunks = page.chunks
    assert shape == (SIZE, SIZE, 4)
    n_side = SIZE // BLOCK
    meta = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": [BLOCK, BLOCK, 4],
        "dtype": "<u2",
        "compressor": None,
        "filters": None,
        "fill_value": 0,
        "order": "C",
    }
    assert tuple(chunks) == (BLOCK, BLOCK, 4)
    references: dict[str, Any] = {".zarray": json.dumps(meta)}
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        y, x = divmod(number, n_side)
        references[f"{y}.{x}.0"] = [RASTER, offset, count]
    # One filesystem for everything: its coroutines and zarr's run in one loop.
    described = ReferenceFileSystem(references, fs=site.fs, asynchronous=False)
    ranges = described.cat([f"{y}.{x}.0" for y in range(2) for x in range(2)])
    assert {len(data) for data in ranges.values()} == {BLOCK * BLOCK * 8}
    alone = SatfsFileSystem(mount="never", asynchronous=True, skip_instance_cache=True)
    array = zarr.open_array(
        zarr.storage.FsspecStore(
            ReferenceFileSystem(
                references,
                fs=alone,
                asynchronous=True,
            ),
            read_only=True,
            path="",
        ),
        mode="r",
        zarr_format=2,
    )
    try:
        assert np.array_equal(np.moveaxis(array[:], -1, 0), site.values)
    finally:
        alone.close()


def test_pystac_reads_and_resolves_items_with_our_io(site: Site) -> None:
    """A `StacIO` over `satfs://`: what is in the tree is read, and links lead on inside of it."""
    pystac = pytest.importorskip("pystac")
    from pystac.stac_io import DefaultStacIO

    fs = site.fs

    class SatfsIO(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            return str(fs.cat(href).decode())

    text = SatfsIO().read_text_from_href("satfs://scenes/one/footprint.geojson")
    feature = json.loads(text)
    item = pystac.Item("one", feature["geometry"], None, datetime(2026, 1, 1, tzinfo=UTC), {})
    item.add_asset("analytic", pystac.Asset(f"satfs://{RASTER}"))
    assert fs.exists(item.assets["analytic"].href)


@pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")  # odc's own
def test_odc_stac_loads_the_values(site: Site, tmp_path: Path) -> None:
    """odc-stac opens what GDAL opens by name: a path on a mount, or a copy."""
    odc = pytest.importorskip("odc.stac")
    pystac = pytest.importorskip("pystac")
    from rasterio.warp import transform_bounds

    left, top = 300_000, 6_200_000
    bounds = (left, top - 10 * SIZE, left + 10 * SIZE, top)
    west, south, east, north = transform_bounds("EPSG:32721", "EPSG:4326", *bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = pystac.Item(
        "one",
        {"type": "Polygon", "coordinates": [ring]},
        [west, south, east, north],
        datetime(2026, 1, 1, tzinfo=UTC),
        {},
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v1.2.0/schema.json",
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
    )
    item.properties["proj:epsg"] = 32721
    asset = pystac.Asset(
        RASTER,
        media_type="image/tiff; application=geotiff",
        roles=["data"],
        extra_fields={
            "proj:shape": [SIZE, SIZE],
            "proj:transform": [10, 0, left, 0, -10, top],
            "eo:bands": [{"name": name} for name in ("red", "green", "blue", "nir")],
            "raster:bands": [{"data_type": "uint16", "nodata": 0}] * 4,
        },
    )
    item.add_asset("analytic", asset)
    assert site.fs.local_path(RASTER) is None
    asset.href = str(tmp_path / "one.tif")
    site.fs.get_file(RASTER, asset.href)
    loaded = odc.load([item], bands=["red", "nir"], crs="EPSG:32721", resolution=10)
    assert np.array_equal(loaded["red"].isel(time=0).values, site.values[0])
    assert np.array_equal(loaded["nir"].isel(time=0).values, site.values[3])
