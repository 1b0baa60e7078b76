"""The default catalogue: invented places, real formats, every form of a delivery.

Drawn once for each seed and size, and kept: `built` fills a directory, atomically, and describes it
in a manifest; `showcase_catalogue` needs no more than that, so that a second start draws nothing.
The catalogue has:

- a harbour, farmland, a delta, a desert and a town, each with captures in several states;
- scenes of the levels L1C (several frames), L1D and L1D_SR, in zips packed in nine ways;
- one zip of the requested size, and two whose raster is laid out in another way;
- an island on the antimeridian, whose deliveries have the other order of bands, the other layout
  of files, rational polynomials, previews with borders, and a record without a footprint;
- two tasks of the same name, one whose name holds a slash, one without any capture, a published
  capture without scenes, and a scene whose zip is not there yet.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from satfs.demo.catalogue import (
    Attachment,
    Capture,
    Catalogue,
    Scene,
    Task,
    capture_uuid,
    hash_number,
    make_capture,
    make_delivery,
    make_preview,
    make_scene,
    make_task,
    utc_text,
)
from satfs.demo.contents import FileContent
from satfs.demo.scratch import (
    GENERATION,
    MANIFEST,
    alone_in,
    home_of,
    is_drawn,
    remove_abandoned,
    scratch_directory,
)

#: The beginning of the name of a directory of drawings that are not complete.
_UNFINISHED: Final = ".g"
#: Side of a drawn L1D scene, in pixels: large enough for overviews, small enough to be quick.
_PIXELS: Final = 560


#: Packings of large products, whose rasters have several thousand pixels a side, with the layout of
#: the raster (`imagery.LARGE_LAYOUTS`). All are stored, so that they can be read at random.
LARGE: Final = {"large": "vendor", "large bands": "bands", "large cog": "cog"}
#: The most that a raster of another layout than the vendor's takes, in MB: 3000 to 4000 pixels a
#: side show what there is to show, however large the one large zip is to be.
_MAX_OTHER_MB: Final = 64


@dataclass(frozen=True)
class DrawnCapture:
    """A published capture that is drawn: when, how cloudy, and its products as (level, packing)."""

    day: int
    cloudiness: float
    products: tuple[tuple[str, str], ...]
    #: One of `products.FORMS`.
    form: str = "frames"
    #: Whether the record has a footprint.
    has_footprint: bool = True


@dataclass(frozen=True)
class ShowcaseTask:
    """A task of the showcase: what, where, and what came of it."""

    name: str
    kind: str
    longitude: float
    latitude: float
    shots: tuple[DrawnCapture, ...] = ()
    #: Status of captures that have nothing to show.
    others: tuple[str, ...] = ()
    status: str = "completed"
    project: str = "Coast 2026"
    is_area: bool = False
    #: Largest distance of the pass from the target, in degrees of longitude and latitude.
    spread: float = 0.02


ORDERS: Final = (
    ShowcaseTask(
        "Harbour monitoring",
        "coast",
        -58.3702,
        -34.6083,
        (
            DrawnCapture(9, 0.06, (("L1C", "deflated"), ("L1D", "mixed"), ("L1D_SR", "stored"))),
            DrawnCapture(11, 0.22, (("L1D", "streamed"),)),
        ),
        ("failed", "planned"),
    ),
    ShowcaseTask(
        "Winter crops, west / east",
        "farmland",
        4.91,
        52.61,
        (DrawnCapture(14, 0.08, (("L1D", "folder"), ("L1D_SR", "zip64"))),),
        ("rejected", "planned"),
        project="Agriculture",
    ),
    ShowcaseTask(
        "River delta",
        "delta",
        12.41,
        44.96,
        (DrawnCapture(18, 0.0, (("L1C", "directories"), ("L1D", "absolute"))),),
        ("processing", "collected"),
    ),
    ShowcaseTask(
        "Salt desert", "desert", -68.21, -23.52, (DrawnCapture(20, 0.03, (("L1D", "zeros"),)),)
    ),
    ShowcaseTask(
        "City from end to end",
        "town",
        -3.70,
        40.42,
        (
            DrawnCapture(22, 0.05, (("L1D_SR", "large"),)),
            DrawnCapture(24, 0.12, (("L1D", "large bands"), ("L1D_SR", "large cog"))),
        ),
        project="Cities",
    ),
    ShowcaseTask(
        "Harbour monitoring", "coast", -58.44, -34.57, (), ("planned", "planned"), status="received"
    ),
    ShowcaseTask("Area coverage 70 cm", "farmland", 4.7, 52.5, (), (), "received", is_area=True),
    ShowcaseTask(
        "Island on the date line",
        "coast",
        180.0,
        -16.81,
        (
            DrawnCapture(26, 0.10, (("L1D", "mixed"), ("L1D_SR", "stored")), "tiles"),
            DrawnCapture(27, 0.04, (("L1C", "stored"),), "rpc"),
            DrawnCapture(28, 0.15, (("L1D", "deflated"),), "upper case tiles"),
            DrawnCapture(29, 0.02, (("L1D_SR", "stored"),), "red first", has_footprint=False),
        ),
        spread=0.001,
    ),
)


def showcase_catalogue(directory: Path, *, seed: int = 1, large_mb: int = 64) -> Catalogue:
    """Return the catalogue over products kept below *directory*, drawing them when missing.

    Blocks for some seconds the first time, and for milliseconds later.
    """
    home = built(directory, seed=seed, large_mb=large_mb)
    drawn = json.loads((home / MANIFEST).read_text())
    return Catalogue(
        [_task(order, number, seed, home, drawn) for number, order in enumerate(ORDERS)]
    )


def built(directory: Path, *, seed: int, large_mb: int) -> Path:
    """Return the directory with the products of a seed and size; draw them when missing."""
    home = home_of(directory, seed=seed, large_mb=large_mb)
    if is_drawn(home):
        return home
    directory.mkdir(parents=True, exist_ok=True)
    remove_abandoned(_UNFINISHED, directory)
    # Two that draw the same at once would take twice the time, each of them.
    with alone_in(directory), scratch_directory(_UNFINISHED, directory) as work:
        if is_drawn(home):
            return home
        manifest = _draw_all(work, seed, large_mb)
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        try:
            work.rename(home)  # over an existing directory it fails: another process was quicker
        except OSError:
            if not is_drawn(home):
                raise
    return home


# -- ids ------------------------------------------------------------------------------------------


def _task_id(number: int, seed: int) -> int:
    return 341_271 + 19 * number + hash_number("task", seed) % 9000 * (seed != 1)


def _satellite(number: int) -> int:
    return (33, 49, 43, 50, 28, 33, 33)[number % 7]


def _moment(number: int, shot: DrawnCapture, level: str) -> datetime:
    start = datetime(2026, 1, 19, 15, 57, 47, 2000, tzinfo=UTC)
    # The scenes of one capture differ by a second or so in their time part.
    early = {"L1C": 1.309, "L1D": 0.634, "L1D_SR": 0.0}[level]
    return start + timedelta(days=shot.day, minutes=17 * number, seconds=early)


def _scene_id(number: int, shot: DrawnCapture, level: str, seed: int) -> str:
    moment = _moment(number, shot, level)
    stamp = f"{moment:%Y%m%d_%H%M%S}_{moment.microsecond // 1000:03}"
    if level == "L1C":  # the older form, without milliseconds
        stamp = stamp[:15]
    return f"{stamp}_SN{_satellite(number)}_{level}_MS_{_task_id(number, seed)}"


def _pixel_m(level: str) -> float:
    """Return the size of a pixel in metres (documented, for satellites of the generation)."""
    return 0.7 if level == "L1D_SR" else 1.0


# -- drawing --------------------------------------------------------------------------------------


def _draw_all(work: Path, seed: int, large_mb: int) -> dict[str, Any]:
    jobs = [(n, order, shot) for n, order in enumerate(ORDERS) for shot in order.shots]
    jobs.sort(key=lambda job: -_effort(job[2]))  # so that the longest does not come last, alone
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        drawn = list(pool.map(lambda job: _draw_shot(work, job, seed, large_mb), jobs))
    return {scene_id: entry for entries in drawn for scene_id, entry in entries.items()}


def _effort(shot: DrawnCapture) -> int:
    return len(shot.products) + 10 * any(packing in LARGE for _, packing in shot.products)


def _draw_shot(
    work: Path, job: tuple[int, ShowcaseTask, DrawnCapture], seed: int, large_mb: int
) -> dict[str, Any]:
    # Only drawing needs the imagery libraries; a start from what is kept does without.
    from satfs.demo import products, terrain
    from satfs.demo.georeference import Place

    number, order, shot = job
    rng = random.Random(repr((seed, order.longitude)))
    longitude = round(order.longitude + rng.uniform(-order.spread, order.spread), 4)
    latitude = round(order.latitude + rng.uniform(-order.spread, order.spread), 4)
    drawn: dict[str, Any] = {}
    sharpest_m = min(_pixel_m(level) for level, _ in shot.products)
    land_seed = hash_number(seed, order.name, order.longitude) % 2**32
    is_large = any(packing in LARGE for _, packing in shot.products)
    n = round(_PIXELS / sharpest_m * (1.5 if is_large else 1.0))
    land = terrain.draw(order.kind, land_seed, n, shot.cloudiness, weather=shot.day)
    for level, packing in shot.products:
        place = Place(longitude, latitude, round(_PIXELS / _pixel_m(level)), _pixel_m(level))
        product = products.Product(
            _scene_id(number, shot, level, seed),
            level,
            _moment(number, shot, level),
            _satellite(number),
            place,
            land if place.n == n else land.resized(place.n),
            n_frames=3 if level == "L1C" else 1,
            packing="stored" if packing in LARGE else packing,
            tile=512 if level == "L1D_SR" else 256,
            form=products.FORMS[shot.form],
        )
        (work / product.scene_id).mkdir()
        toa_mb = {"large": large_mb}.get(packing, min(large_mb, _MAX_OTHER_MB))
        done = products.write_product(
            product,
            work / product.scene_id,
            toa_bytes=toa_mb * 10**6 if packing in LARGE else 0,
            layout=LARGE.get(packing, "vendor"),
        )
        drawn[product.scene_id] = {
            "footprint": done.place.footprint,
            "cloud_percent": done.rasters.cloud_percent,
        }
    return drawn


# -- records --------------------------------------------------------------------------------------


def _task(order: ShowcaseTask, number: int, seed: int, home: Path, drawn: dict[str, Any]) -> Task:
    task_id = _task_id(number, seed)
    captures: list[Capture] = []
    for shot in order.shots:
        scenes = [
            _scene(_scene_id(number, shot, level, seed), number, shot, level, home, drawn)
            for level, _ in shot.products
        ]
        captures.append(make_capture(capture_uuid(seed, task_id, shot.day), scenes))
    captures += [
        make_capture(capture_uuid(seed, task_id, status, n), status=status)
        for n, status in enumerate(order.others)
    ]
    if number == 3:
        captures += _oddities(task_id, seed)
    random.Random(repr((seed, task_id))).shuffle(captures)
    created = datetime(2026, 1, 19, 14, 3, 22, 481905, tzinfo=UTC) + timedelta(hours=31 * number)
    lon, lat = order.longitude, order.latitude
    corners = ((-0.15, -0.1), (0.15, -0.1), (0.15, 0.1), (-0.15, 0.1), (-0.15, -0.1))
    area = [[round(lon + dx, 4), round(lat + dy, 4)] for dx, dy in corners]
    point = {"type": "Point", "coordinates": [lon, lat, 0.0]}
    return make_task(
        task_id,
        captures,
        task_name=order.name,
        project_name=order.project,
        product=178 if order.is_area else 169,
        start=utc_text(created.replace(hour=0, minute=0, second=0) + timedelta(days=1)),
        end=utc_text(created.replace(hour=0, minute=0, second=0) + timedelta(days=21)),
        target={"type": "Polygon", "coordinates": [area]} if order.is_area else point,
        created_time=utc_text(created, micros=True),
        status=order.status,
    )


def _scene(
    scene_id: str, number: int, shot: DrawnCapture, level: str, home: Path, drawn: dict[str, Any]
) -> Scene:
    moment = _moment(number, shot, level)
    folder = home / scene_id
    tag = f"{GENERATION}:{home.name}:{scene_id}"
    attachments = [make_delivery(scene_id, FileContent(folder / "delivery.zip", f"{tag}:zip"))]
    for name in ("preview", "thumbnail"):
        content = FileContent(folder / f"{name}.png", f"{tag}:{name}")
        attachments.append(make_preview(scene_id, content, name))
    for attachment in attachments:
        attachment.last_modified_s = (moment + timedelta(hours=5)).timestamp()
    metadata = {"cloud_percent": drawn[scene_id]["cloud_percent"]}
    footprint = drawn[scene_id]["footprint"] if shot.has_footprint else None
    return make_scene(scene_id, attachments, moment=moment, footprint=footprint, metadata=metadata)


def _oddities(task_id: int, seed: int) -> Sequence[Capture]:
    """Return a capture whose zip is not there yet, and one published without scenes."""
    scene_id = f"20260212_161204_SN33_L1D_MS_{task_id}"
    not_yet: list[Attachment] = []
    return (
        make_capture(capture_uuid(seed, task_id, "early"), [make_scene(scene_id, not_yet)]),
        make_capture(capture_uuid(seed, task_id, "empty")),
    )
