"""Through the kernel: `views/`, what it shows, what it costs, and what opens from it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount
from stac.catalogue import product, scene_of
from views.browser import CHROMIUM, browser
from views.test_views_mosaic import sources_of
from views.test_views_qgis import opened

from satfs.demo import showcase
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.server import DemoOrigin

#: The harbour, and the island on the antimeridian.
TASK, ISLAND = "341271", "341404"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(showcase, "_PIXELS", 96)
        yield showcase.showcase_catalogue(tmp_path_factory.mktemp("shelf"), large_mb=3)


@pytest.fixture
def origin(start_origin: StartOrigin, catalogue: Catalogue) -> DemoOrigin:
    return start_origin(catalogue)


def n_requests(origin: DemoOrigin) -> int:
    """Return how many requests the API and the store have had since they were last counted."""
    n = origin.journal.n_requests()
    origin.journal.clear()
    return n


def scenes_of(mount: RealMount, task: str) -> list[Path]:
    return sorted((mount.path / "tasks" / task).glob("*/*_MS_*"))


# -- what is there ---------------------------------------------------------------------------------


def test_links_lead_to_the_tasks(mount: RealMount, origin: DemoOrigin) -> None:
    """`views/by-name` has a link for each task, and so have date, product and age for scenes."""
    views = mount.path / "views"
    assert sorted(os.listdir(views)) == ["by-date", "by-name", "by-product", "latest", "task"]
    by_name = views / "by-name"
    assert f"Harbour monitoring ({TASK})" in os.listdir(by_name)
    assert "Winter crops, west %2F east (341290)" in os.listdir(by_name)
    for link in by_name.iterdir():
        assert not os.readlink(link).startswith("/")
        assert link.resolve().parent == mount.path / "tasks"
    days = sorted(views.glob("by-date/*/*/*/*"))
    scenes = origin.catalogue.published_scenes()
    assert {day.name for day in days} == {scene.scene_id for scene in scenes}
    for day in days:
        assert day.resolve().parents[2] == mount.path / "tasks"
        record = json.loads((day / "scene.json").read_text())
        assert record["timestamp"].startswith("-".join(day.parts[-4:-1]))
    assert sorted(os.listdir(views / "by-product")) == ["L1C", "L1D", "L1D_SR"]
    newest = os.readlink(views / "latest" / "1")
    # A link has the time of what it leads to, so that `ls -lt` sorts by it.
    for link in (views / "latest").iterdir():
        assert link.lstat().st_mtime_ns == link.stat().st_mtime_ns
    assert newest.endswith(max(scene.scene_id for scene in scenes))
    assert len(os.listdir(views / "latest")) == len(scenes)


def test_names_are_listed_and_rendered_when_looked_up(mount: RealMount, origin: DemoOrigin) -> None:
    """A task's view has its files by name, rendered when they are looked up, with true sizes."""
    view = mount.path / "views" / "task" / TASK
    names = {"captures", "index.html", "map.js", "footprints.geojson", "project.qgz", "layers.qlr"}
    mosaics = {"mosaic_VISUAL_32721.vrt", "mosaic_TOA_32721.vrt", "mosaic_CLOUD_32721.vrt"}
    assert set(os.listdir(view)) == {*names, *mosaics, "truecolor"}
    for name in (names - {"captures"}) | mosaics:
        assert (view / name).stat().st_size == len((view / name).read_bytes()) > 100
    assert os.readlink(view / "captures") == f"../../../tasks/{TASK}"
    features = json.loads((view / "footprints.geojson").read_text())["features"]
    assert [f["id"] for f in features] == sorted(
        (p.name for p in scenes_of(mount, TASK)), key=lambda name: name[:19]
    ) or len(features) == len(scenes_of(mount, TASK))
    with pytest.raises(FileNotFoundError):
        (view / "mosaic_VISUAL_4326.vrt").stat()


# -- what it costs ---------------------------------------------------------------------------------


def test_looking_around_costs_next_to_nothing(mount_it: MountIt, start_origin: StartOrigin) -> None:
    """`ls views` sends no request, `ls views/by-name` one per 100 tasks, a second look none."""
    tasks = [make_task(100_000 + n, task_name=f"Task {n % 7}") for n in range(250)]
    origin = start_origin(Catalogue(tasks))
    mount = mount_it(origin)
    n_requests(origin)
    os.listdir(mount.path / "views")
    assert n_requests(origin) == 0
    assert len(os.listdir(mount.path / "views" / "by-name")) == 250
    assert n_requests(origin) == 3
    os.listdir(mount.path / "views" / "by-name")
    os.listdir(mount.path / "views" / "task")
    assert n_requests(origin) == 0


def test_the_index_is_made_in_the_background_and_kept(
    mount_it: MountIt, origin: DemoOrigin
) -> None:
    """The index takes one listing for each task and published capture, and outlives a mount."""
    mount = mount_it(origin)
    n_requests(origin)
    found = sorted((mount.path / "views").glob("by-date/*/*/*/*"))
    tasks = origin.catalogue.tasks
    n_published = sum(c.is_published for task in tasks for c in task.captures)
    assert n_requests(origin) <= 1 + len(tasks) + n_published
    status = json.loads((mount.path / ".satfs" / "status.json").read_text())["views"]
    assert status["tasks"] == status["indexed_tasks"] == len(tasks)
    assert status["scenes"] == len(found)
    assert status["completed"] is not None
    mount.stop()
    again = mount_it(origin)
    n_requests(origin)
    views = again.path / "views"
    by_date = {os.readlink(path).lstrip("./") for path in views.glob("by-date/*/*/*/*")}
    assert by_date == {os.readlink(path).lstrip("./") for path in views.glob("by-product/*/*")}
    assert len(by_date) == len(found)
    assert n_requests(origin) == 0


def test_listing_a_view_reads_no_zip(mount_it: MountIt, origin: DemoOrigin) -> None:
    """The names in a task's view cost the listings of the task, and no request for a zip.

    They stay the same once zips are read, except for products that have no grid as a rule (L1C) and
    have one. A file of true colour takes a look at its own scene, and at no other.
    """
    mount = mount_it(origin)
    view = mount.path / "views" / "task" / TASK
    n_requests(origin)
    listed = {name: sorted(os.listdir(view / name)) for name in (".", "truecolor")}
    assert not origin.journal.of("object")
    assert n_requests(origin) <= 2 + len(list((mount.path / "tasks" / TASK).glob("*/catalog.json")))
    one = listed["truecolor"][0]
    assert b"<ColorInterp>Red</ColorInterp>" in (view / "truecolor" / one).read_bytes()
    assert all(one[:-4] in each.path for each in origin.journal.of("object"))
    (view / "map.js").read_bytes()
    assert sorted(os.listdir(view)) == listed["."]
    known = sorted(os.listdir(view / "truecolor"))
    assert [name for name in known if "_L1C_" not in name] == listed["truecolor"]


def test_a_name_that_was_expected_in_vain_says_so(
    mount_it: MountIt, start_origin: StartOrigin, tmp_path: Path
) -> None:
    """A delivery in another zone than its footprint: the mosaic is where the delivery is."""
    made = product(0)
    scene = scene_of(tmp_path / "shelf", made)
    ring = [[-65.0, -34.0], [-64.9, -34.0], [-64.9, -33.9], [-65.0, -34.0]]
    scene.record["footprint"] = {"type": "Polygon", "coordinates": [ring]}
    late = make_scene("20260128_155800_636_SN33_L1D_MS_1", [make_delivery("late", b"no zip")])
    origin = start_origin(Catalogue([make_task(TASK, [make_capture("cap-1", [scene, late])])]))
    view = mount_it(origin).path / "views" / "task" / TASK
    assert "mosaic_TOA_32720.vrt" in os.listdir(view)
    for name in ("mosaic_TOA_32720.vrt", f"truecolor/{late.scene_id}.vrt"):
        content = (view / name).read_bytes()
        assert (view / name).stat().st_size == len(content)
        assert not list(ElementTree.fromstring(content).iter("SourceFilename"))
    assert b"mosaic_TOA_32721.vrt" in (view / "mosaic_TOA_32720.vrt").read_bytes()
    mosaics = [name for name in os.listdir(view) if name.startswith("mosaic")]
    assert sorted(mosaics) == [f"mosaic_{kind}_32721.vrt" for kind in ("CLOUD", "TOA", "VISUAL")]
    assert os.listdir(view / "truecolor") == [f"{made.scene_id}.vrt"]
    for name in ("mosaic_TOA_4326.vrt", "truecolor/nothing.vrt", "truecolor/x"):
        with pytest.raises(FileNotFoundError):
            (view / name).stat()


def test_opening_a_mosaic_opens_no_raster(mount_it: MountIt, origin: DemoOrigin) -> None:
    """The pixels of a mosaic are those of `gdalbuildvrt`; opening it reads no raster."""
    mount = mount_it(origin)
    view = mount.path / "views" / "task" / TASK
    (view / "map.js").read_bytes()
    n_requests(origin)
    for name in ("mosaic_VISUAL_32721.vrt", "mosaic_TOA_32721.vrt"):
        with rasterio.open(view / name) as file:
            assert file.width > 90
    assert n_requests(origin) == 0
    if shutil.which("gdalbuildvrt") is None:
        pytest.skip("no gdalbuildvrt")
    mosaic = view / "mosaic_VISUAL_32721.vrt"
    theirs_path = mount.log_path.with_name("theirs.vrt")
    files = [str(view / source) for source in sources_of(mosaic)]
    subprocess.run(["gdalbuildvrt", "-q", str(theirs_path), *files], check=True, timeout=60)
    with rasterio.open(mosaic) as ours, rasterio.open(theirs_path) as theirs:
        assert np.array_equal(ours.read(), theirs.read())


def test_a_gallery_that_was_looked_at_costs_nothing(mount_it: MountIt, origin: DemoOrigin) -> None:
    """All files of a view are made of one look at each zip, kept over remounts."""
    mount = mount_it(origin)
    view = mount.path / "views" / "task" / TASK
    first = {path.name: path.read_bytes() for path in view.iterdir() if path.is_file()}
    n_requests(origin)
    again = {path.name: path.read_bytes() for path in view.iterdir() if path.is_file()}
    assert again == first
    assert n_requests(origin) == 0
    mount.stop()
    second = mount_it(origin)
    view = second.path / "views" / "task" / TASK
    assert {p.name: p.read_bytes() for p in view.iterdir() if p.is_file()} == first


@pytest.mark.parametrize("setting", ["hidden", "off"])
def test_views_may_be_hidden_or_off(mount_it: MountIt, origin: DemoOrigin, setting: str) -> None:
    """Hidden, `views` is there by name and not listed; off, it is not there."""
    mount = mount_it(origin, views=setting)
    assert "views" not in os.listdir(mount.path)
    assert (mount.path / "views").exists() == (setting == "hidden")


def test_hostile_names_are_names(mount_it: MountIt, start_origin: StartOrigin) -> None:
    """A view has one file name for every name of a task or a product."""
    names = [
        "../../etc",
        "a/b",
        "",
        ".",
        "x (7)",
        "\u202egpj",
        "n" * 300,
        "n" * 300,
        "<b>&'\"",
        "\n",
    ]
    scene = make_scene("../evil_L1D_MS_1", productname="../../p", footprint=None)
    capture = make_capture("c/../1", [scene])
    tasks = [make_task(n, [capture] if n == 0 else (), task_name=t) for n, t in enumerate(names)]
    mount = mount_it(start_origin(Catalogue(tasks)))
    by_name = mount.path / "views" / "by-name"
    listed = os.listdir(by_name)
    assert len(set(listed)) == len(names)
    for name in listed:
        assert (by_name / name).resolve().parent == mount.path / "tasks"
    (product,) = os.listdir(mount.path / "views" / "by-product")
    (link,) = (mount.path / "views" / "by-product" / product).iterdir()
    assert link.resolve().parents[1] == mount.path / "tasks" / "0"
    view = mount.path / "views" / "task" / "0"
    assert json.loads((view / "footprints.geojson").read_text())["features"][0]["geometry"] is None


# -- what opens from it ----------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("task", [TASK, ISLAND])
def test_a_browser_shows_the_gallery(
    mount_it: MountIt, origin: DemoOrigin, task: str, tmp_path: Path
) -> None:
    """Opened as a file, the gallery shows each scene, and requests nothing but files."""
    mount = mount_it(origin)
    view = mount.path / "views" / "task" / task
    scenes = scenes_of(mount, task)
    with browser(tmp_path) as page:
        page.open(f"file://{view}/index.html")
        assert page.evaluate("document.querySelectorAll('.scene').length") == len(scenes)
        assert page.evaluate("document.querySelectorAll('#map path.outline').length") == len(scenes)
        page.wait_for("[...document.querySelectorAll('img.picture')].every((i) => i.complete)")
        pictures = "[...document.querySelectorAll('img.picture')].map((i) => i.naturalWidth)"
        assert all(page.evaluate(pictures))
        assert [a for a in page.requests if not a.startswith(("file:///", "data:"))] == []
        assert page.console == []


@pytest.mark.parametrize("name", ["project.qgz", "layers.qlr"])
def test_qgis_opens_the_project(
    mount_it: MountIt, origin: DemoOrigin, name: str, tmp_path: Path
) -> None:
    """QGIS opens the project and the layers of a task, all valid, also from a copy."""
    mount = mount_it(origin)
    view = mount.path / "views" / "task" / ISLAND
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-rL", str(view), str(copy)], check=True, timeout=100)
    mount.stop()
    layers = {layer["name"]: layer for layer in opened(copy / name)["layers"]}
    assert layers.pop("footprints")["features"] == 5
    # Three products in four tiles each, one in one raster; one without a grid is no layer.
    assert len(layers) == 3 * 2 * 4 + 2
    for layer in layers.values():
        assert layer["valid"]
        with rasterio.open(layer["source"]) as file:
            assert layer["extent"] == pytest.approx(list(file.bounds))
            bands = [file.descriptions[number - 1] for number in layer["bands"]]
            assert bands == ["Red", "Green", "Blue"]


def test_opening_a_project_reads_little_of_each_raster(
    mount_it: MountIt, origin: DemoOrigin, tmp_path: Path
) -> None:
    """QGIS opens a project in the mount for three requests a raster at most."""
    mount = mount_it(origin)
    view = mount.path / "views" / "task" / TASK
    (view / "map.js").read_bytes()
    n_requests(origin)
    layers = opened(view / "project.qgz", tmp_path / "home")["layers"]
    assert len(layers) > 1
    assert all(layer["valid"] for layer in layers)
    # QGIS 3.40 reads no more of a raster than the view has read of it: there it is none.
    assert n_requests(origin) <= 3 * (len(layers) - 1)


def test_true_colour_of_a_delivery(mount_it: MountIt, origin: DemoOrigin) -> None:
    """`truecolor/` has red, green and blue in this order, whichever the delivery has."""
    mount = mount_it(origin)
    for task in (TASK, ISLAND):
        directory = mount.path / "views" / "task" / task / "truecolor"
        (directory.parent / "map.js").read_bytes()
        found = os.listdir(directory)
        with_grid = [
            p.name for p in scenes_of(mount, task) if not (task == ISLAND and "_L1C_" in p.name)
        ]
        assert sorted(found) == sorted(f"{name}.vrt" for name in with_grid)
        for name in found:
            with rasterio.open(directory / name) as file:
                assert [each.name for each in file.colorinterp[:3]] == ["red", "green", "blue"]
                assert file.read(1).any()


def test_a_task_without_scenes_has_a_view(mount_it: MountIt, origin: DemoOrigin) -> None:
    """A task without scenes, or without a zip, has a view without mosaics."""
    mount = mount_it(origin)
    empty = next(t.task_id for t in origin.catalogue.tasks if not t.captures)
    view = mount.path / "views" / "task" / empty
    assert not [name for name in os.listdir(view) if name.startswith("mosaic")]
    assert json.loads((view / "footprints.geojson").read_text())["features"] == []
    assert re.search(rb'"scenes": \[\]', (view / "map.js").read_bytes())
    assert os.listdir(view / "truecolor") == []


def test_a_store_that_is_down_leaves_the_outlines(
    mount_it: MountIt, start_origin: StartOrigin, catalogue: Catalogue
) -> None:
    """Where zips cannot be read, the gallery shows what the records contain."""
    origin = start_origin(catalogue)
    mount = mount_it(origin, metadata_deadline_s=6)
    origin.faults.add("server-error", "object")
    began_s = time.monotonic()
    view = mount.path / "views" / "task" / TASK
    features = json.loads((view / "footprints.geojson").read_text())["features"]
    assert len(features) == len(scenes_of(mount, TASK))
    assert all(feature["geometry"] for feature in features)
    assert time.monotonic() - began_s < 30
    assert b'"unknown": 4' in (view / "map.js").read_bytes()
    for name in ("mosaic_TOA_32721.vrt", f"truecolor/{scenes_of(mount, TASK)[0].name}.vrt"):
        with pytest.raises(OSError, match=name) as raised:
            (view / name).stat()
        assert raised.value.errno != errno.ENOENT  # it may be there
