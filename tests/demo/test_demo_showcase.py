"""The default catalogue has something of everything, is drawn once, and is the same for a seed."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from demo.asking import Customer, ask
from fakes.processes import wait_until
from rasterio.io import MemoryFile
from rasterio.transform import RPCTransformer

from satfs.demo import products, scratch, showcase
from satfs.demo.catalogue import Catalogue
from satfs.demo.contents import FileContent
from satfs.demo.georeference import Place
from satfs.demo.server import DemoOrigin

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the showcase, drawn small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(showcase, "_PIXELS", 96)
        yield tmp_path_factory.mktemp("directory")


@pytest.fixture(scope="module")
def catalogue(directory: Path) -> Catalogue:
    return showcase.showcase_catalogue(directory, large_mb=3)


@pytest.fixture(scope="module")
def archives(catalogue: Catalogue) -> dict[str, Path]:
    paths = {}
    for scene in catalogue.published_scenes():
        held = scene.attachment("delivery_zip")
        if held is not None and isinstance(held.content, FileContent):
            paths[scene.scene_id] = held.content.path
    return paths


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*.zip")
    }


@pytest.mark.slow
def test_there_is_something_of_everything(catalogue: Catalogue) -> None:
    """Duplicate names, a slash, no captures, captures in several states, no scenes, no zip."""
    names = [task.record["task_name"] for task in catalogue.tasks]
    assert len(names) > len(set(names))
    assert any("/" in name for name in names)
    assert any(not task.captures for task in catalogue.tasks)
    captures = [capture for task in catalogue.tasks for capture in task.captures]
    assert {"published", "planned", "failed", "rejected"} <= {c.record["status"] for c in captures}
    assert any(capture.is_published and not capture.scenes for capture in captures)
    scenes = catalogue.published_scenes()
    assert any(not scene.attachments for scene in scenes)
    assert {s.record["productname"] for s in scenes} == {"L1C", "L1D", "L1D_SR"}


def test_zips_are_laid_out_as_delivered(archives: dict[str, Path]) -> None:
    """Each holds the documents, previews, VRTs and rasters, named without the task's id."""
    for scene_id, path in archives.items():
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            # Some are absolute, as some programs write them.
            inside = {name.removeprefix("/"): name for name in archive.namelist()}
            names = list(inside)
            stem = scene_id.rpartition("_")[0]
            folder = f"{scene_id}/" if names[0].startswith(f"{scene_id}/") else ""
            for end in (
                "metadata_stac.geojson",
                "solar_and_viewing_angles.geojson",
                "preview.png",
                "thumbnail.png",
                "TOA.vrt",
                "VISUAL.vrt",
                "CLOUD.vrt",
                "toa_factors.json",
            ):
                assert f"{folder}{stem}_{end}" in names
            toa = re.compile(r"_(TOA_\d|analytic)\.tif$", re.IGNORECASE)
            assert any(toa.search(name) for name in names)
            stac = json.loads(archive.read(inside[f"{folder}{stem}_metadata_stac.geojson"]))
            assert stac["id"] == scene_id
            assert stac["properties"]["satl:product_name"] in scene_id


def test_deliveries_have_every_form(archives: dict[str, Path]) -> None:
    """Both orders of bands, both layouts of files, RPCs; metadata and rasters agree about them."""
    orders, layouts, has_crs = set(), set(), set()
    for path in archives.values():
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            stac = json.loads(archive.read(next(n for n in names if n.endswith("_stac.geojson"))))
            asset, properties = stac["assets"]["analytic"], stac["properties"]
            raster = archive.read(next(name for name in names if name.endswith(asset["href"])))
        with MemoryFile(raster) as memory, memory.open() as file:
            assert file.descriptions == tuple(band["name"] for band in asset["eo:bands"])
            assert properties["proj:epsg"] == (file.crs and file.crs.to_epsg())
            assert (file.crs is None) == (file.rpcs is not None)
            orders.add("".join(name[0] for name in file.descriptions))
            has_crs.add(file.crs is not None)
        layouts.add(re.sub(r".*_MS_(\d+[NS]_\d+_\d+_)?", r"\1", asset["href"])[-13:])
        datetime.strptime(properties["datetime"], "%Y-%m-%dT%H:%M:%S.%fZ")
    assert orders == {"BGRN", "RGBN"}
    assert layouts == {"TOA_0.tif", "_analytic.tif", "_analytic.TIF"}
    assert has_crs == {True, False}


def test_virtual_rasters_show_the_tiles(archives: dict[str, Path], tmp_path: Path) -> None:
    """The VRT over tiles is one picture, wherever the tiles lie; that over RPCs has RPCs."""
    n_tiled = n_rpc = 0
    task_id = showcase._task_id(len(showcase.ORDERS) - 1, 1)
    for scene_id, path in archives.items():
        if not scene_id.endswith(f"_{task_id}"):
            continue
        with zipfile.ZipFile(path) as archive:
            n_toa = sum("_analytic" in name or "_TOA_" in name for name in archive.namelist())
            archive.extractall(tmp_path / scene_id)
        virtual = next((tmp_path / scene_id).rglob("*_TOA.vrt"))
        with rasterio.open(virtual) as file:
            pixels = file.read()
            assert (pixels != 0).mean() > 0.6
            n_rpc += file.rpcs is not None
            if n_toa == 4:
                n_tiled += 1
                part = next((tmp_path / scene_id).glob("*_1_1_analytic.*"))
                with rasterio.open(part) as tile:
                    window = file.window(*tile.bounds).round_offsets().round_lengths()
                    assert np.array_equal(file.read(window=window), tile.read())
    assert (n_tiled, n_rpc) == (3, 1)


def test_rational_polynomials_lead_to_the_place() -> None:
    """The polynomials map the middle and the corners into the scene, to a pixel."""
    place = Place(179.9995, -16.81, 200, 1.0)
    polynomials = place.rpc(60, 200, 30)
    with RPCTransformer(polynomials, rpc_height=0) as transformer:
        xs, ys = transformer.xy([0, 59, 30], [0, 199, 100], offset="center")
    left, top = place.corner
    want_x = [left + column + 0.5 for column in (0, 199, 100)]
    want_y = [top - 30 - row - 0.5 for row in (0, 59, 30)]
    got = rasterio.warp.transform("EPSG:4326", f"EPSG:{place.epsg}", xs, ys)
    assert np.allclose(got, (want_x, want_y), atol=1.0)


def test_some_records_do_not_tell_where_the_scene_lies(catalogue: Catalogue) -> None:
    """One has no footprint; those on the antimeridian have longitudes of both signs in one ring."""
    scenes = catalogue.published_scenes()
    footprints = [scene.record["footprint"] for scene in scenes]
    assert footprints.count(None) == 1
    rings = [footprint["coordinates"][0] for footprint in footprints if footprint]
    assert sum(min(lon for lon, _ in r) < -179 < 179 < max(lon for lon, _ in r) for r in rings) >= 3


def test_zips_are_packed_in_every_way(archives: dict[str, Path]) -> None:
    """Stored, deflated and mixed; a folder, 64-bit records, descriptors, and habits of programs."""
    methods, makes = set(), set()
    for path in archives.values():
        data = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        methods.add(frozenset(entry.compress_type for entry in entries))
        makes |= {"zip64"} if b"PK\x06\x06" in data[-200:] else set()
        makes |= {"descriptors"} if entries[0].flag_bits & 8 else set()
        makes |= {"absolute"} if all(e.filename.startswith("/") for e in entries) else set()
        makes |= (
            {"directories"} if any(stat.S_ISDIR(e.external_attr >> 16) for e in entries) else set()
        )
        makes |= {"zeros"} if data.endswith(bytes(1024)) else set()
        makes |= (
            {"folder"}
            if len({e.filename.partition("/")[0] for e in entries} - {""}) == 1
            else set()
        )
    assert methods == {frozenset({0}), frozenset({8}), frozenset({0, 8})}
    assert makes == {"zip64", "descriptors", "folder", "absolute", "directories", "zeros"}
    used = {
        packing for order in showcase.ORDERS for shot in order.shots for _, packing in shot.products
    }
    assert used - set(showcase.LARGE) == set(products.PACKINGS)
    assert set(showcase.LARGE) <= used
    forms = {shot.form for order in showcase.ORDERS for shot in order.shots}
    assert forms == set(products.FORMS)


def test_large_zip_is_about_as_large_as_asked(archives: dict[str, Path]) -> None:
    """Its size can be chosen; it is stored, so that it can be read at random."""
    largest = max(archives.values(), key=lambda path: path.stat().st_size)
    assert 3_000_000 < largest.stat().st_size < 7_000_000  # with what lies beside the raster


def test_second_start_draws_nothing(
    catalogue: Catalogue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawings are kept, and listed in the same records."""

    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(showcase, "_draw_all", refuse)
    again = showcase.showcase_catalogue(directory, large_mb=3)
    assert [t.record for t in again.tasks] == [t.record for t in catalogue.tasks]
    scenes = [scene.record for scene in catalogue.published_scenes()]
    assert [scene.record for scene in again.published_scenes()] == scenes


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes(
    catalogue: Catalogue, directory: Path, tmp_path: Path
) -> None:
    """Drawn again elsewhere, every zip is the same, byte for byte, under the same ETag."""
    again = showcase.showcase_catalogue(tmp_path, large_mb=3)
    assert digests(tmp_path) == digests(directory)
    for scene in catalogue.published_scenes():
        if scene.attachments:
            etag = catalogue.content(scene.scene_id).etag
            assert again.content(scene.scene_id).etag == etag


def test_broken_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails half-way leaves no directory that looks complete."""

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(showcase, "_draw_all", fail)
    with pytest.raises(OSError, match="no space"):
        showcase.showcase_catalogue(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_another_seed_has_other_ids(directory: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    """Two demos of different seeds do not share a task or a capture."""
    other = showcase.showcase_catalogue(tmp_path, seed=2, large_mb=1)
    assert not {t.task_id for t in other.tasks} & {t.task_id for t in catalogue.tasks}


def test_it_can_be_walked_and_read(catalogue: Catalogue) -> None:
    """Every object of the showcase opens over the wire and is the file on disk."""
    with DemoOrigin(catalogue) as origin:
        customer = Customer(origin)
        n_objects = 0
        for task in customer.results("/tasking/tasks/"):
            for capture in customer.results(f"/tasking/tasks/{task['task_id']}/captures/"):
                query = f"?sceneset_id={capture['capture_id']}"
                for scene in customer.results(f"/telluric/scenes/{query}"):
                    for attachment in scene["attachments"]:
                        content = catalogue.content(scene["scene_id"], attachment["name"])
                        assert isinstance(content, FileContent)
                        assert ask(attachment["url"]).body == content.path.read_bytes()
                        n_objects += 1
        assert n_objects == 51
        assert origin.leaks == []


def test_what_a_killed_drawing_has_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that another demo draws now."""
    monkeypatch.setattr(showcase, "_draw_all", lambda *_: {})
    (tmp_path / ".g5-seed1-64mb-left").mkdir()
    with scratch.scratch_directory(".g", tmp_path) as held:
        home = showcase.built(tmp_path, seed=1, large_mb=1)
        assert set(tmp_path.iterdir()) == {held, home}
    assert list(tmp_path.iterdir()) == [home]


def test_two_that_start_at_once_draw_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one waits for what the first one draws, and has it."""
    n_drawings = 0
    threads = ThreadPoolExecutor(1)
    homes = []

    def is_waiting() -> bool:
        inode = f":{tmp_path.stat().st_ino} "
        locks = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and inode in line for line in locks)

    def draw(work: Path, seed: int, large_mb: int) -> dict[str, object]:
        nonlocal n_drawings
        n_drawings += 1
        if n_drawings == 1:
            homes.append(threads.submit(showcase.built, tmp_path, seed=seed, large_mb=large_mb))
            wait_until(lambda: is_waiting() or n_drawings > 1)
        return {}

    monkeypatch.setattr(showcase, "_draw_all", draw)
    home = scratch.home_of(tmp_path, seed=1, large_mb=1)
    assert showcase.built(tmp_path, seed=1, large_mb=1) == home
    assert homes[0].result(20) == home
    assert n_drawings == 1
