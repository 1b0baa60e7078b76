"""STAC items by commands: exported, selected, reported by a watch; a real mount and a vendor."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import rasterio
from cli.conftest import Program
from cli.mounts import Mounted, vendor
from cli.test_cli_login import typed
from stac.catalogue import CAPTURE, TASK, every_scene, product, scene_of

from satfs.demo.catalogue import Catalogue, make_capture, make_task

pytestmark = [pytest.mark.mounts, pytest.mark.slow]

#: Appends what it is given to a file; with another one beside it, kills the watch that runs it.
HOOK = """
import os, pathlib, signal, sys
target = pathlib.Path(sys.argv[1])
with target.open("a") as file:
    file.write(sys.stdin.read())
killer = target.with_suffix(".kill")
if killer.exists():
    killer.unlink()
    os.kill(os.getppid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return every_scene(tmp_path_factory.mktemp("deliveries"))


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path, catalogue: Catalogue) -> Iterator[Mounted]:
    with vendor(satfs, place, tmp_path / "cache", catalogue) as mounted:
        mounted.mount()
        yield mounted


def test_an_export_leads_back_to_the_mount(aleph: Mounted, tmp_path: Path) -> None:
    """Every scene once, in one file, with paths that open; a second export requests no object."""
    file = tmp_path / "all.json"
    tasks = aleph.place / "tasks"

    done = aleph.program("stac", "export", "--absolute", tasks, "-o", file)

    assert done.returncode == 0, done.stderr
    features = json.loads(file.read_text())["features"]
    scenes = aleph.origin.catalogue.published_scenes()
    assert {item["id"] for item in features} == {scene.scene_id for scene in scenes}
    for item in features:
        for asset in item["assets"].values():
            assert Path(asset["href"]).is_file()
    aleph.origin.journal.clear()
    lines = aleph.lines("stac", "export", "--ndjson", tasks)
    assert {item["id"] for item in lines} == {item["id"] for item in features}
    assert all(a["href"].startswith("./tasks/") for i in lines for a in i["assets"].values())
    requests = aleph.origin.journal.of("object")
    assert not sum(each.bytes_sent for each in requests if each.status in (200, 206))


def test_an_export_goes_where_the_output_leads(aleph: Mounted, tmp_path: Path) -> None:
    """A new file has the permissions of any new file; a link and a pipe stay, and get the items."""
    new, pipe, link = tmp_path / "new.json", tmp_path / "pipe", tmp_path / "link"
    link.symlink_to(tmp_path / "behind.json")
    os.mkfifo(pipe)
    export = ("stac", "export", aleph.place / "tasks", "-o")

    done = aleph.program(*export, new)
    assert done.returncode == 0, done.stderr
    beside = tmp_path / "beside"
    beside.touch()
    assert new.stat().st_mode == beside.stat().st_mode
    assert aleph.program(*export, tmp_path / "made" / "new.json").returncode == 0
    (tmp_path / "directory").mkdir()
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "directory").stat().st_mode

    assert aleph.program(*export, link).returncode == 0
    assert link.is_symlink()
    assert (tmp_path / "behind.json").read_bytes() == new.read_bytes()
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert aleph.program(*export, pipe).returncode == 0
        assert reader.stdout is not None
        assert reader.stdout.read() == new.read_bytes()
    assert pipe.is_fifo()
    assert aleph.program(*export, "-").stdout == new.read_text()


def test_a_terminal_shows_how_far_an_export_is(aleph: Mounted, tmp_path: Path) -> None:
    """A bar while it lasts; then the bar is gone, and the last line has the number of items."""
    command = ("stac", "export", aleph.place / "tasks", "-o", tmp_path / "all.json")
    code, shown = typed(aleph.program, {}, *command)
    assert code == 0
    n_scenes = len(aleph.origin.catalogue.published_scenes())
    assert f"/{n_scenes}" in shown
    _, erased, last = shown.rpartition("\x1b[2K")
    assert erased
    assert re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", last).strip() == f"{n_scenes} items."


#: Run in a process of its own: GDAL waits for the mount with Python's lock held, and the demo
#: origin of a test runs in the process of the test.
_READ = """
import sys
import rasterio
mosaic, plain = (rasterio.open(name) for name in sys.argv[1:])
assert mosaic.bounds == plain.bounds, (mosaic.bounds, plain.bounds)
assert mosaic.crs == plain.crs
print("equal" if (mosaic.read() == plain.read()).all() else "different")
"""


def read_by_gdal(*command: object) -> str:
    """Return what a program of GDAL prints about an export."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100)
    if "not recognized as a supported file format" in done.stderr + done.stdout:
        pytest.skip("this GDAL has no driver STACIT")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("asset", ["visual", "analytic", "cloud"])
def test_gdal_opens_an_export(aleph: Mounted, tmp_path: Path, asset: str) -> None:
    """GDAL's STACIT driver finds the raster of a scene, and reads its pixels."""
    file = tmp_path / "one.json"
    scene = aleph.place / f"tasks/{TASK}/{CAPTURE}/{product(1).scene_id}"
    assert aleph.program("stac", "export", "--absolute", scene, "-o", file).returncode == 0
    name = f'STACIT:"{file}":collection=task-{TASK},asset={asset}'
    kind = {"visual": "VISUAL", "analytic": "TOA", "cloud": "CLOUD"}[asset]
    (path,) = scene.glob(f"contents/rasters/*_{kind}_0.tif")
    assert read_by_gdal(sys.executable, "-W", "error", "-c", _READ, name, path) == "equal\n"


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="no gdalinfo")
def test_gdalinfo_opens_an_export_of_a_task(aleph: Mounted, tmp_path: Path) -> None:
    """`gdalinfo STACIT:` lists each kind of raster in an export, and opens each."""
    file = tmp_path / "all.json"
    tasks = aleph.place / f"tasks/{TASK}"
    assert aleph.program("stac", "export", "--absolute", tasks, "-o", file).returncode == 0
    names = re.findall(r"_NAME=(STACIT:.*)", read_by_gdal("gdalinfo", f"STACIT:{file}"))
    found = {name.rpartition("asset=")[2].partition(",")[0]: name for name in names}
    assert {"visual", "analytic", "cloud"} <= set(found)
    for asset in ("visual", "analytic", "cloud"):
        output = read_by_gdal("gdalinfo", found[asset])
        # Of one kind of raster STACIT makes a mosaic; GDAL 3.10 names it after STACIT itself.
        assert re.search("Driver: (VRT|STACIT)/", output)
        assert "_NAME=" not in output
        assert 'ID["EPSG",32721]' in output


def test_an_export_to_geoparquet_keeps_ids_boxes_and_assets(aleph: Mounted, tmp_path: Path) -> None:
    rustac = pytest.importorskip("rustac")
    file, plain = tmp_path / "all.parquet", tmp_path / "all.json"
    tasks = aleph.place / "tasks"
    assert aleph.program("stac", "export", "--absolute", tasks, "-o", plain).returncode == 0
    done = aleph.program("stac", "export", "--absolute", "--geoparquet", tasks, "-o", file)
    assert done.returncode == 0, done.stderr

    found = {item["id"]: item for item in rustac.read_sync(str(file))["features"]}

    assert "without a footprint" in done.stderr
    for item in json.loads(plain.read_text())["features"]:
        if item["geometry"] is None:
            assert item["id"] not in found
            continue
        assert {k: a["href"] for k, a in found[item["id"]]["assets"].items()} == {
            k: a["href"] for k, a in item["assets"].items()
        }
        assert list(found[item["id"]]["bbox"]) == pytest.approx(item["bbox"])


def test_without_rustac_one_sentence_says_what_to_install(aleph: Mounted, tmp_path: Path) -> None:
    (tmp_path / "rustac.py").write_text("raise ImportError\n")
    done = aleph.program(
        *("stac", "export", "--geoparquet", aleph.place, "-o", tmp_path / "x.parquet"),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 2
    assert "satfs[geoparquet]" in done.stderr
    assert not (tmp_path / "x.parquet").exists()


def test_scenes_are_selected_by_place_and_time(aleph: Mounted, tmp_path: Path) -> None:
    """The same scenes by `ls` through a mount, by `ls` from the API, and by an export."""
    area = tmp_path / "area.geojson"
    square = [[-58.4, -34.7], [-58.3, -34.7], [-58.3, -34.5], [-58.4, -34.5], [-58.4, -34.7]]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    for where, n_found in (
        (f"intersects={area}", 16),  # those of demo products, and the one without a zip nearby
        ("bbox=179,-18,-179,-15", 1),
        ("from=2026-01-28T15:58:00Z", 5),
        ("since 3000 days", 18),
        ("product=L1D", 2),
    ):
        by_mount = aleph.query("ls", "--json", "--where", where, aleph.place)["entries"]
        by_api = aleph.query("ls", "--json", "--where", where, "tasks")["entries"]
        exported = aleph.lines("stac", "export", "--ndjson", "--where", where, aleph.place)
        ids = {entry["id"] for entry in by_mount}
        assert ids == {entry["id"] for entry in by_api} == {item["id"] for item in exported}
        assert len(ids) == n_found, where
    task = aleph.origin.catalogue.tasks[0]
    capture = next(each for each in task.captures if each.is_published and each.scenes)
    above = ("--where", "task.status=completed", "--where", "capture.status=published")
    for path in (
        f"tasks/{task.task_id}/{capture.capture_id}",
        f"tasks/{task.task_id}/{capture.capture_id}/{capture.scenes[0].scene_id}",
    ):
        by_mount = aleph.query("ls", "--json", *above, aleph.place / path)["entries"]
        by_api = aleph.query("ls", "--json", *above, path)["entries"]
        exported = aleph.lines("stac", "export", "--ndjson", *above, aleph.place / path)
        ids = {entry["id"] for entry in by_mount}
        assert ids == {entry["id"] for entry in by_api} == {item["id"] for item in exported}
        assert ids
    done = aleph.program("ls", "--where", "bbox=1,2,3", aleph.place)
    assert done.returncode == 2
    assert "west,south,east,north" in done.stderr


def test_what_records_do_not_state_deliveries_decide(aleph: Mounted) -> None:
    """Clouds and angles are in the zips alone: on a mount, those are looked into, once each."""
    tasks = aleph.place / "tasks"
    items = aleph.lines("stac", "export", "--ndjson", tasks)
    clouds = {i["id"]: i["properties"]["eo:cloud_cover"] for i in items
              if "eo:cloud_cover" in i["properties"]}  # fmt: skip
    assert 10 < len(clouds) < len(items)
    middle = sorted(clouds.values())[len(clouds) // 2]
    for where, wanted in (
        (f"cloud<={middle}", {id for id, percent in clouds.items() if percent <= middle}),
        (f"cloud>{middle}", {id for id, percent in clouds.items() if percent > middle}),
    ):
        aleph.origin.journal.clear()
        listing = aleph.query("ls", "--json", "--where", where, tasks)
        assert ({entry["id"] for entry in listing["entries"]}, listing["undecided"]) == (wanted, 0)
        exported = aleph.lines("stac", "export", "--ndjson", "--where", where, tasks)
        assert {item["id"] for item in exported} == wanted
        requests = aleph.origin.journal.of("object")
        assert not sum(each.bytes_sent for each in requests if each.status in (200, 206))
    shown = aleph.program("ls", "--where", "cloud<=100", "tasks")
    n_scenes = len(aleph.origin.catalogue.published_scenes())
    assert f"{n_scenes} scenes left out" in shown.stderr.replace("\n", " ")
    assert "on a mount" in shown.stderr.replace("\n", " ")


def test_only_the_rasters_that_are_wanted_are_fetched(aleph: Mounted, catalogue: Catalogue) -> None:
    """`--bands visual` fetches the bytes of those members, and little besides the zip's tail."""
    made = product(1)
    scene = aleph.place / f"tasks/{TASK}/{CAPTURE}/{made.scene_id}"
    os.listdir(scene)
    aleph.origin.journal.clear()

    done = aleph.program("prefetch", "--bands", "visual", scene)

    assert done.returncode == 0, done.stderr
    content = catalogue.content(made.scene_id)
    path = Path(content.path)  # type: ignore[attr-defined]
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    wanted = sum(size for name, size in sizes.items() if "_VISUAL_" in name and ".tif" in name)
    fetched = aleph.origin.journal.bytes_sent("object")
    # The zip's last 32 KiB came with its size, before the journal was cleared; blocks of the cache
    # have 16 KiB, and reach beyond a member.
    assert wanted - 32 * 1024 <= fetched <= wanted + 4 * 16 * 1024
    aleph.origin.stop_listening()
    (raster,) = scene.glob("contents/rasters/*_VISUAL_0.tif")
    with rasterio.open(raster) as file:
        assert file.read().any()


def _publish(aleph: Mounted, directory: Path, *numbers: int) -> list[str]:
    scenes = [scene_of(directory, product(n)) for n in numbers]
    aleph.origin.catalogue.add_capture(TASK, make_capture("cap-new", scenes))
    return [scene.scene_id for scene in scenes]


@pytest.fixture
def empty(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return a mounted account with one task that has nothing yet."""
    catalogue = Catalogue([make_task(TASK, [])])
    with vendor(satfs, place, tmp_path / "cache", catalogue) as mounted:
        mounted.mount("-o", "listing_ttl_s=0")
        assert mounted.program("watch", "--once", place).returncode == 0
        yield mounted


def test_a_new_scene_is_told_as_its_item(empty: Mounted, tmp_path: Path) -> None:
    """An item a line, with paths that open; what does not fulfil `--where` is not reported."""
    ids = _publish(empty, tmp_path / "new", 61, 62)

    items = empty.lines("watch", "--once", "--stac", "--where", "from=2026-01-28T15:58:49Z",
                       empty.place)  # fmt: skip

    assert [item["id"] for item in items] == ids[1:]
    assert all(Path(a["href"]).is_file() for item in items for a in item["assets"].values())
    assert empty.lines("watch", "--once", "--stac", empty.place) == []


def test_a_watch_selects_by_what_deliveries_state(empty: Mounted, tmp_path: Path) -> None:
    """Clouds that the record does not state: reported or not once the delivery is there."""
    watches = {
        where: ("watch", "--once", "--json", "--where", where, "--state", tmp_path / str(n))
        for n, where in enumerate(("cloud<=100", "cloud>100"))
    }
    assert all(empty.lines(*watch, empty.place) == [] for watch in watches.values())
    scene = scene_of(tmp_path / "new", product(61))
    (zip_file,) = [each for each in scene.attachments if each.name == "delivery_zip"]
    content, zip_file.content = zip_file.content, None
    empty.origin.catalogue.add_capture(TASK, make_capture("cap-new", [scene]))
    assert all(empty.lines(*watch, empty.place) == [] for watch in watches.values())
    zip_file.content = content
    assert empty.program("refresh", empty.place / "scenes" / scene.scene_id).returncode == 0

    found = {where: empty.lines(*watch, empty.place) for where, watch in watches.items()}

    assert [event["scene_id"] for event in found["cloud<=100"]] == [scene.scene_id]
    assert found["cloud>100"] == []


def test_a_watch_without_a_mount_says_what_it_cannot_tell(empty: Mounted, tmp_path: Path) -> None:
    """A record without clouds is reported by no condition on clouds, and that is said."""
    watch = ("watch", "--once", "--where", "cloud<=100", "--state", tmp_path / "state.json")
    assert empty.program(*watch).returncode == 0
    (scene_id,) = _publish(empty, tmp_path / "new", 61)

    done = empty.program(*watch)

    assert (done.returncode, done.stdout) == (0, "")
    said = " ".join(done.stderr.split())
    assert f"{scene_id} left out" in said
    assert "on a mount" in said


def test_no_item_is_lost_when_a_watch_is_killed(empty: Mounted, tmp_path: Path) -> None:
    """`satfs watch --stac` reports each scene at least once, whenever it is killed."""
    ids = _publish(empty, tmp_path / "new", 63, 64, 65)
    hook, written = tmp_path / "hook.py", tmp_path / "written"
    hook.write_text(HOOK)
    command = ("watch", "--once", "--stac", "--exec", f"{sys.executable} {hook} {written}")
    for _ in range(2):
        written.with_suffix(".kill").touch()
        process = empty.program.start(*command, empty.place)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL

    done = empty.program(*command, empty.place)

    assert done.returncode == 0, done.stderr
    items = [json.loads(line) for line in written.read_text().splitlines()]
    assert {item["id"] for item in items} == set(ids)
    assert empty.program(*command, empty.place).returncode == 0
    assert len(written.read_text().splitlines()) == len(items)


def test_an_item_is_sent_once_its_delivery_is_there(empty: Mounted, tmp_path: Path) -> None:
    """A scene that is published before its zip is waits for it: pipelines start from an item."""
    scene = scene_of(tmp_path / "new", product(66))
    (zip_file,) = [each for each in scene.attachments if each.name == "delivery_zip"]
    content, zip_file.content = zip_file.content, None
    empty.origin.catalogue.add_capture(TASK, make_capture("cap-new", [scene]))
    assert empty.lines("watch", "--once", "--stac", empty.place) == []
    zip_file.content = content
    # The store's "not there" is believed for some seconds (`negative_ttl_s`), or until this.
    assert empty.program("refresh", empty.place / "scenes" / scene.scene_id).returncode == 0
    items = empty.lines("watch", "--once", "--stac", empty.place)
    assert [item["id"] for item in items] == [scene.scene_id]
