"""A vendor's catalogue with a scene of every packing and form, and the odd ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from satfs.demo.catalogue import (
    OMIT,
    Catalogue,
    Scene,
    make_capture,
    make_delivery,
    make_preview,
    make_scene,
    make_task,
)
from satfs.demo.contents import FileContent
from satfs.demo.georeference import Place
from satfs.demo.products import INVENTED_FORMS, PACKINGS, DeliveryForm, Product, write_product
from satfs.demo.terrain import draw

TASK = 341271
CAPTURE = "bb7ffd5d-03aa-44cd-98f3-be678f7d302f"
ODD_CAPTURE = "c42cdba2-eed2-4e74-90b1-a90e3df611e0"
FORMS = {
    "rgbn": DeliveryForm(order=("Red", "Green", "Blue", "NIR")),
    "tiles": DeliveryForm(n_tiles=2),
    "capitals": DeliveryForm(extension=".TIF"),
    "rpc": DeliveryForm(has_rpc=True),
    "floats": INVENTED_FORMS["floats"],
}


def product(
    number: int, *, packing: str = "stored", form: DeliveryForm | None = None, n: int = 200
) -> Product:
    """Return a small product; its id differs by *number*."""
    moment = datetime(2026, 1, 28, 15, 57, 47, 636000, UTC) + timedelta(seconds=number)
    return Product(
        scene_id=f"{moment:%Y%m%d_%H%M%S}_636_SN33_L1D_SR_MS_{TASK}",
        level="L1D_SR",
        moment=moment,
        satellite=33,
        place=Place(-58.37, -34.6, n, 0.7),
        land=draw("town", 1, n),
        n_frames=2 if number == 0 else 1,
        packing=packing,
        form=form or DeliveryForm(),
    )


def scene_of(directory: Path, made: Product) -> Scene:
    """Write a product, and return its scene."""
    work = directory / made.scene_id
    work.mkdir(parents=True)
    done = write_product(made, work)
    return make_scene(
        done.scene_id,
        [
            make_delivery(done.scene_id, FileContent(work / "delivery.zip")),
            make_preview(done.scene_id, FileContent(work / "preview.png")),
            make_preview(done.scene_id, FileContent(work / "thumbnail.png"), "thumbnail"),
        ],
        moment=done.moment,
        footprint=done.place.footprint,
    )


def every_scene(directory: Path) -> Catalogue:
    """Return a task with a scene of each packing and form, and a capture of odd ones."""
    packed = [product(n, packing=packing) for n, packing in enumerate(PACKINGS)]
    formed = [product(60 + n, form=form) for n, form in enumerate(FORMS.values())]
    scenes = [scene_of(directory, made) for made in (*packed, *formed)]
    target = {"type": "Point", "coordinates": [-58.37, -34.6, 12.0]}
    captures = [make_capture(CAPTURE, scenes), make_capture(ODD_CAPTURE, odd_scenes())]
    return Catalogue([make_task(TASK, captures, task_name="Harbour <b>", target=target)])


def odd_scenes() -> Sequence[Scene]:
    """Return scenes without a zip, place or time, and one over the antimeridian."""
    ring = [[179.5, -17.0], [-179.5, -17.0], [-179.5, -16.0], [179.5, -16.0], [179.5, -17.0]]
    over = {"type": "Polygon", "coordinates": [ring]}
    announced = make_delivery("no-zip-yet", b"")
    announced = replace(announced, content=None)
    return [
        make_scene("20260128_155900_SN33_L1D_MS_341271", footprint=None),
        make_scene("20260128_155901_SN33_L1D_MS_341271", footprint=over),
        make_scene("no-time", timestamp=OMIT, footprint=OMIT, productname=OMIT),
        make_scene("no-zip-yet", [announced]),
        make_scene("zip-of-nonsense", [make_delivery("zip-of-nonsense", b"nonsense" * 100)]),
    ]
