"""A small catalogue for tests: no imagery, made in milliseconds, the same every time."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Final

from satfs.demo.catalogue import (
    Capture,
    Catalogue,
    Scene,
    Task,
    capture_uuid,
    make_capture,
    make_delivery,
    make_preview,
    make_scene,
    make_task,
)
from satfs.demo.contents import BytesContent, RampContent

_FIRST: Final = datetime(2026, 1, 28, 15, 57, 47, 2000, tzinfo=UTC)
#: The smallest PNG there is: one transparent pixel.
_PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6260000000000600030000ffff03000006000557bfabd4"
    "0000000049454e44ae426082"
)


def sample_zip(seed: int = 1, *, deflated: bool = False) -> bytes:
    """Return a delivery zip in the vendor's layout whose rasters are ramps, not images."""
    stem = f"20260128_155747_{seed % 1000:03}_SN33_L1D_MS"
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    members: dict[str, bytes] = {
        f"{stem}_metadata_stac.geojson": json.dumps({"type": "Feature", "id": stem}).encode(),
        f"{stem}_preview.png": _PIXEL,
    }
    for n, raster in enumerate(("TOA", "VISUAL", "CLOUD")):
        ramp = RampContent(40_000 // (n + 1), seed + n)
        members[f"rasters/{stem}_{raster}_0.tif"] = bytes(ramp.read(0, ramp.size_bytes))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, (2026, 1, 28, 15, 57, 46))
            entry.compress_type, entry.external_attr = method, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def sample_scene(task_id: int, number: int, level: str = "L1D") -> Scene:
    """Return a scene with a small zip and a preview."""
    moment = _FIRST + timedelta(days=number, seconds=number)
    stamp = f"{moment:%Y%m%d_%H%M%S}_{moment.microsecond // 1000:03}"
    scene_id = f"{stamp}_SN33_{level}_MS_{task_id}"
    data = sample_zip(task_id + number, deflated=bool(number % 2))
    attachments = [make_delivery(scene_id, data), make_preview(scene_id, _PIXEL)]
    return make_scene(scene_id, attachments, moment=moment)


def sample_task(task_id: int, number: int = 0) -> Task:
    """Return a task with two published captures and some that are not."""
    levels = ("L1C", "L1D", "L1D_SR")
    captures: list[Capture] = [
        make_capture(
            capture_uuid(task_id, n),
            [sample_scene(task_id, 10 * number + n, m) for m in levels[n:]],
        )
        for n in range(2)
    ]
    captures += [
        make_capture(capture_uuid(task_id, status), status=status)
        for status in ("planned", "failed", "rejected")
    ]
    return make_task(task_id, captures, task_name="Harbour monitoring")


def sample_catalogue() -> Catalogue:
    """Return two full tasks and one without any capture: five scenes each, ten objects each."""
    return Catalogue(
        [
            sample_task(341271),
            make_task(341290, status="received", product=178),
            sample_task(268095, 1),
        ]
    )


def many_tasks(n_tasks: int) -> Catalogue:
    """Return a catalogue of bare tasks, for listings."""
    return Catalogue(make_task(100_000 + n) for n in range(n_tasks))


def many_scenes(n_scenes: int) -> Catalogue:
    """Return a catalogue of one capture with many scenes, each with a zip and a preview."""
    delivery, preview = BytesContent(sample_zip()), BytesContent(_PIXEL)
    task_id, scenes = 500_000, []
    for number in range(n_scenes):
        moment = _FIRST + timedelta(seconds=number)
        scene_id = f"{moment:%Y%m%d_%H%M%S}_000_SN33_L1D_MS_{task_id}"
        attachments = [make_delivery(scene_id, delivery), make_preview(scene_id, preview)]
        west, south = number / 997 % 350 - 175, number / 1009 % 160 - 80
        ring = [[west, south], [west + 0.08, south], [west + 0.08, south + 0.07], [west, south]]
        footprint = {"type": "Polygon", "coordinates": [ring]}
        scenes.append(make_scene(scene_id, attachments, moment=moment, footprint=footprint))
    return Catalogue([make_task(task_id, [make_capture("many-scenes", scenes)])])
