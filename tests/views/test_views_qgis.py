"""QGIS opens the project and the layers: all valid, in place, in true colour, also from a copy."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from interpreters import python_with
from rasterio.enums import ColorInterp
from views.delivered import CAPTURE, Taken, delivered

from satfs.views.gallery import footprints_of
from satfs.views.qgis import layers_of, project_of
from satfs.views.scene_view import SceneView

PROBE = Path(__file__).with_name("qgis_probe.py")
TITLE = 'Crops <west> & "east"'
TAKEN = [
    Taken(),
    Taken(form="red first", east=60),
    Taken(form="tiles", east=-90),
    Taken("L1C", "rpc"),
    Taken(form="alpha", east=120),
]


def opened(path: Path, home: Path | None = None) -> dict[str, Any]:
    """Return what QGIS, without a screen, makes of a project or a layer definition.

    Its settings are in *home*, by default beside the directory of *path*.
    """
    python = python_with("qgis.core")
    if python is None:
        pytest.skip("no QGIS")
    home = home or path.parents[1] / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [python, str(PROBE), str(path)],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_view(view: Path, scenes: list[SceneView]) -> None:
    (view / "project.qgz").write_bytes(project_of(TITLE, scenes))
    (view / "layers.qlr").write_bytes(layers_of(TITLE, scenes))
    (view / "footprints.geojson").write_bytes(footprints_of(scenes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["project.qgz", "layers.qlr"])
def test_all_layers_are_valid_and_in_place(name: str, tmp_path: Path) -> None:
    """Extents are those of the rasters, colours are bands by name, also in a copy elsewhere."""
    view = tmp_path / "view"
    view.mkdir()
    write_view(view, delivered(view, TAKEN))
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(view, copy)
    shutil.rmtree(view)
    found = opened(copy / name)
    layers = {layer["name"]: layer for layer in found["layers"]}
    footprints = layers.pop("footprints")
    assert footprints["valid"]
    assert footprints["temporal"]
    assert footprints["features"] == len(TAKEN)
    assert footprints["types"]["datetime"] == "DateTime"
    # Three products with one raster of each kind, one in four tiles; none of that without a grid.
    assert len(layers) == 2 + 2 + 8 + 2
    for layer in layers.values():
        assert layer["valid"]
        assert layer["temporal"]
        assert layer["group"] == f"2026-01-28 {CAPTURE}"
        assert layer["checked"] == ("VISUAL" in layer["name"])
        assert layer["source"].startswith(f"{copy}/captures/")
        with rasterio.open(layer["source"]) as file:
            assert layer["extent"] == pytest.approx(list(file.bounds))
            assert layer["crs"] == file.crs.to_string()
            names = [file.descriptions[number - 1] for number in layer["bands"]]
            assert names == ["Red", "Green", "Blue"]
            has_alpha = file.colorinterp[-1] is ColorInterp.alpha
            assert layer["alpha"] == (file.count if has_alpha else -1)
    if name == "project.qgz":
        assert (found["title"], found["crs"]) == (TITLE, "EPSG:32721")


@given(st.text())
def test_hostile_titles_are_text(title: str) -> None:
    """For any name of a task, both files are well-formed, and the title is text in them."""
    with zipfile.ZipFile(io.BytesIO(project_of(title, []))) as archive:
        project = ElementTree.fromstring(archive.read("project.qgs"))
    shown = project.findtext("title")
    assert shown is not None
    assert len(project.findall("projectlayers/maplayer")) == 1
    group = ElementTree.fromstring(layers_of(title, [])).find("layer-tree-group/layer-tree-group")
    assert group is not None
    printable = "".join(c for c in title if c.isprintable() and c not in "\ufffe\uffff")
    assert "".join(c for c in group.attrib["name"] if c.isprintable() and c != "\ufffd") == (
        printable.replace("\ufffd", "")
    )


def test_the_same_task_gives_the_same_bytes() -> None:
    """A project has no time of its own: two mounts serve the same file."""
    assert project_of("x", []) == project_of("x", [])
