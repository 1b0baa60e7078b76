"""A task on disk, laid out as in a mount: its view, and below `captures/` the scenes it shows."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from facts.deliveries import facts_of_zip

from satfs.demo.georeference import Place
from satfs.demo.products import FORMS, INVENTED_FORMS, Product, write_product
from satfs.demo.terrain import draw
from satfs.facts.delivery import combine
from satfs.facts.record import facts_of_record
from satfs.model import CaptureId, Scene, SceneId
from satfs.views.scene_view import SceneView

CAPTURE = "c42cdba2-eed2-4e74-90b1-a90e3df611e0"
START = datetime(2026, 1, 28, 15, 57, 47, 636000, UTC)


@dataclass(frozen=True)
class Taken:
    """A scene to deliver: its level and form, and how far east of the first one, in pixels."""

    level: str = "L1D"
    form: str = "frames"
    east: int = 0
    pixel_m: float = 1.0
    n_frames: int = 1


@dataclass(frozen=True)
class Moved(Place):
    """A place moved east by whole pixels."""

    east: int = 0

    @property
    def corner(self) -> tuple[float, float]:
        left, top = super().corner
        return left + self.east * self.pixel_m, top


def delivered(view: Path, taken: Sequence[Taken], *, n: int = 120) -> list[SceneView]:
    """Write the scenes below *view*`/captures` and return what a mount would know of them."""
    return [_deliver(view, each, number, n) for number, each in enumerate(taken)]


def _deliver(view: Path, taken: Taken, number: int, n: int) -> SceneView:
    moment = START + timedelta(days=number)
    scene_id = SceneId(f"{moment:%Y%m%d_%H%M%S}_636_SN33_{taken.level}_MS_341271")
    place = Moved(-58.37, -34.6, n, taken.pixel_m, taken.east)
    product = Product(
        scene_id,
        taken.level,
        moment,
        33,
        place,
        draw("town", 1 + number, n),
        n_frames=taken.n_frames,
        form={**FORMS, **INVENTED_FORMS}[taken.form],
    )
    directory = view / "captures" / CAPTURE / scene_id
    directory.mkdir(parents=True)
    write_product(product, directory)
    with zipfile.ZipFile(directory / "delivery.zip") as archive:
        archive.extractall(directory / "contents")
    facts, _ = facts_of_zip(directory / "delivery.zip")
    shutil.move(directory / "delivery.zip", directory / f"{scene_id}.zip")
    record = {"footprint": place.footprint}
    scene = Scene(scene_id, CaptureId(CAPTURE), taken.level, moment, record=record)
    return SceneView(
        combine(facts_of_record(scene), facts),
        f"captures/{CAPTURE}/{scene_id}",
        "preview.png",
        "thumbnail.png",
        f"{scene_id}.zip",
    )
