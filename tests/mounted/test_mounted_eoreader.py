"""EOReader opens the zip of a scene, and its members, through a mount."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from interpreters import python_with
from mounted.conftest import MountIt, StartOrigin

from satfs.demo import showcase

#: Prints what EOReader makes of a product: its level, date, clouds, and the mean of two bands.
_READ = """
import sys
from pathlib import Path
from eoreader.bands import BLUE, RED
from eoreader.reader import Reader
product = Reader().open(Path(sys.argv[1]))
assert product is not None, "not recognised"
product.output = Path(sys.argv[2])
bands = product.load([RED, BLUE])
print(product.product_type.name, product.get_datetime(), float(product.get_cloud_cover()))
print(*(float(bands[band].mean()) for band in (RED, BLUE)))
"""


@pytest.mark.parametrize("source", ["zip", "contents"])
def test_eoreader_opens_a_scene(
    mount_it: MountIt, start_origin: StartOrigin, tmp_path: Path, source: str
) -> None:
    """Level, time, clouds and bands of a scene, from its zip and from the members beside it."""
    python = python_with("eoreader")
    if python is None:
        pytest.skip("EOReader is not installed: CONTRIBUTING.md, .venv-readers")
    origin = start_origin(showcase.showcase_catalogue(tmp_path / "shelf", large_mb=3))
    mount = mount_it(origin)
    (scene,) = (mount.path / "tasks/341404").glob("*/20260214_*_L1D_SR_*")
    path = scene / f"{scene.name}.zip" if source == "zip" else scene / "contents"
    command = [python, "-c", _READ, str(path), str(tmp_path / "output")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    facts, bands = done.stdout.splitlines()[-2:]
    assert facts.split()[:2] == ["L1D_SR", "20260214T175647"]
    red, blue = map(float, bands.split())
    assert 0.0 < blue < 1.0
    assert 0.0 < red < 1.0
