"""Through the kernel: a mount, and a copy of a part of it, is a STAC catalogue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rasterio
from fakes.processes import wait_until
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount
from stac.catalogue import CAPTURE, FORMS, ODD_CAPTURE, TASK, every_scene, product, scene_of
from stac.validation import SCHEMAS, validated

from satfs.demo.catalogue import Catalogue, make_capture, make_task
from satfs.demo.server import DemoOrigin


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return every_scene(tmp_path_factory.mktemp("deliveries"))


@pytest.fixture
def origin(start_origin: StartOrigin, catalogue: Catalogue) -> DemoOrigin:
    return start_origin(catalogue)


def _requests(origin: DemoOrigin) -> dict[str, int]:
    """Return how many requests there were, by endpoint.

    An object that the store does not have counts once: look-ups that meet share a request for it,
    others make their own.
    """
    found = origin.journal.counts()
    absent = [each.path for each in origin.journal.of("object") if each.status == 404]
    n_objects = found.get("object", 0) - len(absent) + len(set(absent))
    return {name: n for name, n in {**found, "object": n_objects}.items() if n}


def test_a_mount_is_a_catalogue(mount: RealMount, origin: DemoOrigin) -> None:
    """A mount is a valid STAC 1.1 catalogue, from the top down, for every form of delivery."""
    items = validated(mount.path / "catalog.json")
    scenes = origin.catalogue.published_scenes()
    assert {item.id for item in items} == {scene.scene_id for scene in scenes}
    assert {item.collection_id for item in items} == {f"task-{TASK}"}


def test_a_copy_of_a_task_is_a_catalogue(mount: RealMount, tmp_path: Path) -> None:
    """A copy of one task, capture or scene is a valid catalogue by itself, on any disk."""
    copy = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(mount.path / f"tasks/{TASK}"), str(copy)], check=True)
    found = validated(copy / "collection.json")
    assert len(found) == len(validated(mount.path / f"tasks/{TASK}/collection.json"))
    assert len(validated(copy / CAPTURE / "catalog.json")) > 10
    second = tmp_path / "capture"
    subprocess.run(["cp", "-r", str(mount.path / f"captures/{CAPTURE}"), str(second)], check=True)
    assert len(validated(second / "catalog.json")) > 10


def test_a_validator_of_another_make_agrees(mount: RealMount, tmp_path: Path) -> None:
    """stac-validator finds nothing in any file either, without a network."""
    pytest.importorskip("pystac.validation")
    from pystac.validation.local_validator import get_local_schema_cache

    schemas = {address: str(path) for address, path in SCHEMAS.items()}
    for number, (address, schema) in enumerate(get_local_schema_cache().items()):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(schema))
        schemas[address] = str(path)
    files = [str(path) for path in sorted((mount.path / "tasks").rglob("*.json")) if _is_stac(path)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _VALIDATE, json.dumps(schemas), *files],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == len(files) > 15


_VALIDATE = """
import json, sys
from stac_validator.stac_validator import StacValidate
schemas = json.loads(sys.argv[1])
n_valid = 0
for path in sys.argv[2:]:
    found = StacValidate(path, schema_map=schemas)
    found.run()
    assert all(each["valid_stac"] for each in found.message), (path, found.message)
    n_valid += 1
print(n_valid)
"""


def _is_stac(path: Path) -> bool:
    return path.name in ("item.json", "catalog.json", "collection.json")


def test_catalogues_are_the_same_in_every_mount(
    mount_it: MountIt, origin: DemoOrigin, tmp_path: Path
) -> None:
    """Two mounts show the same STAC files, byte for byte; a second rsync moves nothing."""
    first, second = mount_it(origin), mount_it(origin, cache=tmp_path / "another")
    names = [str(path.relative_to(first.path)) for path in (first.path / "tasks").rglob("*.json")]
    assert len(names) > 30
    for name in names:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    copy = [f"{first.path}/tasks/{TASK}/{ODD_CAPTURE}/", f"{tmp_path}/copy/"]
    subprocess.run(["rsync", "-a", *copy], check=True)
    again = subprocess.run(["rsync", "-ai", *copy], check=True, capture_output=True, text=True)
    assert again.stdout == ""


def test_no_secret_is_in_any_of_it(mount: RealMount) -> None:
    """Neither a link, a token nor the query of one is in a catalogue, a collection or an item."""
    for path in mount.path.rglob("*.json"):
        if _is_stac(path):
            text = path.read_text()
            assert "X-Amz" not in text
            assert "http://" not in text
            for line in text.splitlines():
                assert "https://" not in line or "stac-extensions.github.io" in line


def test_names_of_items_cost_nothing(mount_it: MountIt, origin: DemoOrigin, tmp_path: Path) -> None:
    """`ls -R` and `find -name item.json` need exactly the requests of a mount without STAC."""
    seen = []
    for stac in ("off", "full"):
        mount = mount_it(origin, stac=stac, contents="hidden", cache=tmp_path / stac)
        origin.journal.clear()
        subprocess.run(["ls", "-R", str(mount.path / "tasks")], check=True, capture_output=True)
        found = subprocess.run(
            ["find", str(mount.path / "tasks"), "-name", "item.json"],
            check=True,
            capture_output=True,
            text=True,
        )
        origin.journal.wait_until_idle()
        seen.append(_requests(origin))
        n_scenes = len(origin.catalogue.published_scenes()) if stac == "full" else 0
        assert len(found.stdout.splitlines()) == n_scenes
    assert seen[0] == seen[1]


def _settled(count: Callable[[], int], quiet_s: float = 2.0) -> int:
    """Return a count once it has begun, and has not grown for a while."""
    reached, since_s = 0, time.monotonic()

    def is_settled() -> bool:
        nonlocal reached, since_s
        if count() != reached:
            reached, since_s = count(), time.monotonic()
        return reached > 0 and time.monotonic() - since_s > quiet_s

    wait_until(is_settled, what="requests, and then none for a while")
    return reached


@pytest.mark.parametrize("number", [0, 1, 2], ids=["stored", "deflated", "mixed"])
def test_what_an_item_costs(mount_it: MountIt, origin: DemoOrigin, number: int) -> None:
    """An item costs one round of reads beside the size of the zip, and nothing once it is known."""
    mount = mount_it(origin)
    scene = mount.path / f"tasks/{TASK}/{CAPTURE}/{product(number).scene_id}"
    os.listdir(mount.path)  # after a listing no read is expected: `stat` waits for the whole tail
    (scene / f"{scene.name}.zip").stat()
    origin.journal.clear()
    held = origin.faults.add("held", "object")
    with ThreadPoolExecutor() as threads:
        read = threads.submit((scene / "item.json").read_bytes)
        try:
            n_at_once = _settled(lambda: held.hits)
        finally:
            origin.faults.remove(held)
        first = read.result()
    assert origin.journal.wait_until_idle()
    assert set(_requests(origin)) == {"object"}
    # All of them were under way before the first was responded to: one round trip.
    assert len(origin.journal.of("object")) == n_at_once <= 12
    origin.journal.clear()
    assert (scene / "item.json").read_bytes() == first
    os.listdir(scene)
    assert (scene / "item.json").stat().st_size == len(first)
    assert not {name: n for name, n in _requests(origin).items() if name == "object" and n > 2}
    mount.stop()
    again = mount_it(origin)
    scene = again.path / scene.relative_to(mount.path)
    (scene / f"{scene.name}.zip").stat()
    origin.journal.clear()
    assert (scene / "item.json").read_bytes() == first
    assert not _requests(origin)


def test_items_are_there_without_a_network(mount_it: MountIt, origin: DemoOrigin) -> None:
    """Items that an earlier mount has read are shown offline."""
    mount = mount_it(origin)
    name = f"tasks/{TASK}/{CAPTURE}/{product(2).scene_id}/item.json"
    first = (mount.path / name).read_bytes()
    mount.stop()
    offline = mount_it(origin, options={"is_offline": True})
    assert (offline.path / name).read_bytes() == first


@pytest.mark.parametrize("stac", ["records", "off"])
def test_a_mount_may_do_with_less(mount_it: MountIt, origin: DemoOrigin, stac: str) -> None:
    """With `stac=records` an item requests nothing of the zip; with `off` there is no item."""
    mount = mount_it(origin, stac=stac)
    scene = mount.path / f"tasks/{TASK}/{CAPTURE}/{product(1).scene_id}"
    os.listdir(scene.parent)
    origin.journal.clear()
    if stac == "off":
        for path in (scene / "item.json", mount.path / "catalog.json"):
            assert not path.exists()
        return
    item = json.loads((scene / "item.json").read_bytes())
    assert set(item["assets"]) == {"delivery", "preview", "thumbnail", "record"}
    assert "object" not in _requests(origin)
    assert len(validated(mount.path / "catalog.json", is_looked_at=False)) > 10


def test_what_items_state_is_so(mount: RealMount) -> None:
    """Shape, transform, projection and bands of each raster are what GDAL reads."""
    for path in sorted((mount.path / f"tasks/{TASK}/{CAPTURE}").glob("*/item.json")):
        item = json.loads(path.read_bytes())
        rasters = {
            key: a for key, a in item["assets"].items() if a["type"].startswith("image/tiff")
        }
        assert len(rasters) >= 3
        for key, asset in rasters.items():
            with rasterio.open(path.parent / asset["href"]) as file:
                assert asset["proj:shape"] == [file.height, file.width]
                if file.crs is not None:
                    assert asset["proj:transform"] == pytest.approx(list(file.transform)[:6])
                    assert item["properties"]["proj:epsg"] == file.crs.to_epsg()
                else:
                    assert item["properties"]["proj:code"] is None
                assert asset["data_type"] == file.dtypes[0]
                if key.startswith("analytic"):
                    names = [band["eo:common_name"] for band in asset["bands"]]
                    assert [name.lower()[:3] for name in file.descriptions] == [
                        name[:3] for name in names
                    ]


#: Run in a process of its own: GDAL waits for the mount with Python's lock held, and the demo
#: origin of a test runs in the process of the test.
_ODC = """
import sys
import numpy as np, odc.stac, pystac, rasterio
from pathlib import Path
for name in sys.argv[1:]:
    path = Path(name)
    item = pystac.read_file(str(path))
    asset = item.assets["analytic"]
    loaded = odc.stac.load([item], bands=["red", "nir08"])
    names = [band["eo:common_name"] for band in asset.extra_fields["bands"]]
    with rasterio.open(path.parent / asset.href) as file:
        for band in ("red", "nir08"):
            expected = file.read(names.index(band) + 1)
            found = loaded[band].values[0]
            is_float = expected.dtype.kind == "f"
            print("equal" if np.array_equal(found, expected, equal_nan=is_float) else "different")
"""


def test_odcs_loader_reads_bands_by_their_names(mount: RealMount) -> None:
    """`odc.stac.load` by band names equals a plain read of the raster, value by value."""
    pytest.importorskip("odc.stac")
    scenes = sorted((mount.path / f"tasks/{TASK}/{CAPTURE}").glob("*/item.json"))
    # Blue first, red first, and floats of which NaN is no data.
    paths = (scenes[1], scenes[-len(FORMS)], scenes[-1])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ODC, *map(str, paths)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.split() == ["equal"] * 6, done.stderr


#: As in docs/stac.md: scenes of one order of bands at a time.
_ODC_BY_ORDER = """
import sys
from itertools import groupby
import numpy as np, odc.stac, pystac, rasterio
def order(item):
    return [band["eo:common_name"] for band in item.assets["analytic"].extra_fields["bands"]]
items = [pystac.read_file(path) for path in sys.argv[1:]]
for names, group in groupby(sorted(items, key=order), key=order):
    scenes = sorted(group, key=lambda item: item.datetime)
    loaded = odc.stac.load(scenes, bands=["red"], groupby="id")
    assert len(loaded.time) == len(scenes)
    for item, found in zip(scenes, loaded.red.values):
        with rasterio.open(item.assets["analytic"].get_absolute_href()) as file:
            expected = file.read(names.index("red") + 1)
        print("equal" if np.array_equal(found, expected) else "different", names[0])
"""


def test_scenes_of_both_orders_are_loaded_by_name(mount: RealMount) -> None:
    """Blue first and red first, each order by itself: red is red in all of them."""
    pytest.importorskip("odc.stac")
    scenes = sorted((mount.path / f"tasks/{TASK}/{CAPTURE}").glob("*/item.json"))
    red_first = scenes[-len(FORMS)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ODC_BY_ORDER, *map(str, [*scenes[1:3], red_first])],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.split() == ["equal", "blue"] * 2 + ["equal", "red"], done.stderr


def test_a_scene_may_have_no_zip_and_no_place(mount: RealMount) -> None:
    """No footprint is a null geometry; one over the antimeridian is cut in two (RFC 7946)."""
    below = mount.path / f"tasks/{TASK}/{ODD_CAPTURE}"
    items = {path.parent.name: json.loads(path.read_bytes()) for path in below.glob("*/item.json")}
    nowhere = items["20260128_155900_SN33_L1D_MS_341271"]
    assert nowhere["geometry"] is None
    assert "bbox" not in nowhere
    over = items["20260128_155901_SN33_L1D_MS_341271"]
    assert over["geometry"]["type"] == "MultiPolygon"
    assert over["bbox"] == [179.5, -17.0, -179.5, -16.0]
    assert list(items["no-zip-yet"]["assets"]) == ["record"]
    assert list(items["zip-of-nonsense"]["assets"]) == ["record", "delivery"]
    assert items["no-time"]["properties"]["datetime"] is None


def test_a_zip_that_is_replaced_has_another_item(
    mount_it: MountIt, start_origin: StartOrigin, tmp_path: Path
) -> None:
    """Facts belong to a version of the zip: of another one the item is another file."""
    made = product(0)
    scene = scene_of(tmp_path / "before", made)
    origin = start_origin(Catalogue([make_task(TASK, [make_capture(CAPTURE, [scene])])]))
    mount = mount_it(origin, listing_ttl_s=0, entry_timeout_s=0.01, attr_timeout_s=0.01)
    path = mount.path / f"scenes/{made.scene_id}/item.json"
    before = json.loads(path.read_bytes())
    other = product(0, n=240)
    scene_of(tmp_path / "after", other)
    content = (tmp_path / "after" / made.scene_id / "delivery.zip").read_bytes()
    origin.catalogue.replace(made.scene_id, content, moment=made.moment.replace(year=2027))
    after = json.loads(path.read_bytes())
    assert before["assets"]["cloud_0"]["proj:shape"] != after["assets"]["cloud_0"]["proj:shape"]
