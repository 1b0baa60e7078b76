"""Through the kernel: windows, chips and points of rasters in many layouts, and what they cost."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from imagery.rasters import learn, write
from mounted.conftest import MountIt, StartOrigin
from rasterio.shutil import copy

from satfs.content.cache.blockmap import BLOCK_BYTES
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import BytesContent
from satfs.imagery.layout import Block, Window

KIB, MIB = 1024, 1024 * 1024
N: Final = 1536
MEMBER: Final = "rasters/image.tif"
#: (top, left, side) in pixels.
Windows = Sequence[tuple[int, int, int]]

#: What a program does: opens the raster, reads windows one after the other, and tells a digest.
_PROGRAM: Final = """
import hashlib, json, sys
import rasterio
from rasterio.windows import Window
seen = hashlib.sha256()
with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
    with rasterio.open(sys.argv[1]) as file:
        for top, left, side in json.loads(sys.argv[2]):
            seen.update(file.read(window=Window(left, top, side, side)).tobytes())
print(seen.hexdigest())
"""


def _pixels() -> Any:
    ramp = np.add.outer(np.arange(N), np.arange(N)) // 7
    noise = np.random.default_rng(1).integers(0, 4000, (4, N, N))
    return (ramp + noise).astype("uint16")


def _tiled(side: int, **options: Any) -> Callable[[Path], Path]:
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": side, "blockysize": side}
    return lambda path: write(path, _pixels(), **tiles, **options)


def _cog(path: Path) -> Path:
    source = _tiled(512, compress="deflate")(path.with_suffix(".source.tif"))
    copy(source, path, driver="COG", blocksize=512, compress="deflate")
    source.unlink()
    return path


LAYOUTS: Final[dict[str, Callable[[Path], Path]]] = {
    "256 tiles, pixel, LZW": _tiled(256, compress="lzw", interleave="pixel"),
    "512 tiles, band, LZW": _tiled(512, compress="lzw", interleave="band"),
    "512 tiles, pixel, deflate": _tiled(512, compress="deflate", interleave="pixel"),
    "COG, deflate": _cog,
    "1024 tiles, uncompressed": _tiled(1024, interleave="pixel"),
    "strips, LZW": lambda path: write(path, _pixels(), compress="lzw", interleave="pixel"),
    "BigTIFF, 256 tiles, deflate": _tiled(
        256, compress="deflate", interleave="pixel", bigtiff="yes"
    ),
}
_dice = random.Random(3)
WORK: Final[dict[str, Windows]] = {
    "window of 512": [(300, 500, 512)],
    "chips": [(_dice.randrange(N - 256), _dice.randrange(N - 256), 256) for _ in range(8)],
    "points": [(at, (at * 7) % N, 1) for at in (1300, 100, 900, 500, 1100)],
}


@dataclass(frozen=True)
class Sample:
    """A raster, the zip that it is stored in, and how to tell what a window takes."""

    path: Path
    zipped: bytes

    def least(self, windows: Windows) -> tuple[int, int]:
        """Return the bytes of the blocks touched, and their number."""
        raster = learn(self.path.read_bytes(), whole=True)
        assert raster.layout is not None
        image = raster.layout.image()
        assert image is not None
        blocks: set[Block] = set()
        for top, left, side in windows:
            window = Window(top, top + side, left, left + side)
            blocks.update(raster.layout.blocks_of_window(image, window))
        spans = [span for block in blocks if (span := raster.fetch_span_of(block))]
        return sum(map(len, spans)), len(spans)


@pytest.fixture(scope="module", params=LAYOUTS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = LAYOUTS[request.param](tmp_path_factory.mktemp("raster") / "image.tif")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("first.txt", b"x" * 50_001)
        archive.write(path, MEMBER)
    return Sample(path, target.getvalue())


def _digest(path: Path | str, windows: Windows) -> str:
    command = [sys.executable, "-c", _PROGRAM, str(path), json.dumps(windows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("store_latency_s", [0.0, 0.04])
@pytest.mark.parametrize("work", WORK)
def test_what_a_program_reads_of_a_raster_decides_what_is_fetched(
    sample: Sample,
    work: str,
    store_latency_s: float,
    start_origin: StartOrigin,
    mount_it: MountIt,
) -> None:
    """The pixels are the original's; the bytes are those of its blocks, and little more."""
    catalogue = Catalogue()
    scene = make_scene("scene", [make_delivery("scene", BytesContent(sample.zipped))])
    catalogue.add_task(make_task(1, [make_capture("capture", [scene])]))
    origin = start_origin(catalogue, store_latency_s=store_latency_s)
    mount = mount_it(origin)
    path = mount.path / "scenes/scene/contents" / MEMBER
    os.stat(path)
    origin.journal.clear()
    windows = WORK[work]
    assert _digest(path, windows) == _digest(sample.path, windows)
    n_bytes, n_blocks = sample.least(windows)
    asked = origin.journal.of("object")
    fetched = sum(each.bytes_sent for each in asked)
    # What is fetched is whole blocks of the cache, which begin and end beside those of the raster.
    is_small = n_bytes < 64 * BLOCK_BYTES
    assert fetched <= 1.25 * n_bytes + 512 * KIB + is_small * 2 * BLOCK_BYTES * n_blocks
    # Rows of a first window are met one by one; strips of one row come many at a time.
    assert len(asked) <= (n_blocks if n_blocks < 100 else n_blocks // 4) + 4
