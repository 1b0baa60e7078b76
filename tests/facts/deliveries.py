"""Deliveries on disk, and their facts learnt as the mount learns them, from a local zip."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path

from satfs.demo.georeference import Place
from satfs.demo.products import DeliveryForm, Product, write_product
from satfs.demo.terrain import draw
from satfs.facts.delivery import DeliveryFacts, DeliveryParser
from satfs.facts.member_kinds import known_members

SCENE_ID = "20260128_155747_636_SN33_L1D_SR_MS_341271"


def delivery(
    directory: Path,
    packing: str = "stored",
    *,
    n_frames: int = 1,
    n: int = 300,
    form: DeliveryForm | None = None,
) -> Path:
    """Return the zip of a small product, packed as *packing*, in a new *directory*."""
    directory.mkdir()
    product = Product(
        scene_id=SCENE_ID,
        level="L1D_SR",
        moment=datetime(2026, 1, 28, 15, 57, 47, 636000, UTC),
        satellite=33,
        place=Place(-58.37, -34.6, n, 0.7),
        land=draw("town", 1, n),
        n_frames=n_frames,
        packing=packing,
        form=form or DeliveryForm(),
    )
    write_product(product, directory)
    return directory / "delivery.zip"


def facts_of_zip(path: Path) -> tuple[DeliveryFacts, int]:
    """Return the facts of a zip, and in how many rounds of reads they were learnt."""
    with zipfile.ZipFile(path) as archive:
        names = {info.filename.lstrip("/"): info for info in archive.infolist()}
        parser = DeliveryParser(
            known_members((name, info.file_size) for name, info in names.items())
        )
        n_rounds = 0
        while wanted := parser.needs():
            n_rounds += 1
            for part in wanted:
                data = archive.read(names[part.member.path])
                parser.feed(part, data[part.span.start : part.span.stop])
    return parser.facts(), n_rounds
