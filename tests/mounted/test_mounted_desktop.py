"""Real file managers on a real mount: they show what there is, and pull nothing large.

Skipped, with the names of the programs, where these are not installed.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.processes import wait_until
from mounted.conftest import MountIt, StartOrigin
from mounted.desktop import PATIENCE_S, Desktop, desktop, missing
from mounted.mounting import RealMount

from satfs.demo.catalogue import (
    Catalogue,
    capture_uuid,
    make_capture,
    make_delivery,
    make_preview,
    make_scene,
    make_task,
)
from satfs.demo.imagery import png
from satfs.demo.request_log import LoggedRequest
from satfs.demo.server import DemoOrigin

SCENE = "20260128_155747_636_SN33_L1D_MS_1"
TASK = "1"
#: A program that draws has ended its requests when none came for this time, in seconds.
CALM_S = 1.5
#: The file that starts Thunar's thumbnailer.
TUMBLER = Path("/usr/share/dbus-1/services/org.xfce.Tumbler.Thumbnailer1.service")
#: The range of an object that is fetched to learn its size.
TAIL_BYTES = 32 * 1024


def raster(seed: int) -> bytes:
    """Return a picture that any thumbnailer can draw: 2 MB of grey noise as a baseline TIFF."""
    side, n_tags = 1500, 8
    head = 8 + 2 + 12 * n_tags + 4
    tags = (
        *((256, side), (257, side), (258, 8), (259, 1)),  # width, height, bits, no compression
        *((262, 1), (273, head), (278, side), (279, side * side)),  # grey, where, rows, bytes
    )
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack("<2sHIH", b"II", 42, 8, n_tags) + directory + bytes(4)
    return start + np.random.default_rng(seed).bytes(side * side)


@pytest.fixture(scope="module")
def preview() -> bytes:
    """Return a picture of 180 KB."""
    return png(np.random.default_rng(1).integers(0, 256, (3, 250, 250), dtype=np.uint8))


@pytest.fixture(scope="module")
def catalogue(preview: bytes) -> Catalogue:
    """Return one task with one scene, whose zip has two rasters."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", "{}")
        for name in ("a", "b"):
            archive.writestr(f"rasters/{name}.tif", raster(ord(name)))
    attachments = [make_delivery(SCENE, buffer.getvalue()), make_preview(SCENE, preview)]
    capture = make_capture(capture_uuid(1, 1), [make_scene(SCENE, attachments)])
    return Catalogue([make_task(1, [capture])])


@pytest.fixture
def origin(start_origin: StartOrigin, catalogue: Catalogue) -> DemoOrigin:
    return start_origin(catalogue)


@pytest.fixture
def mount(mount_it: MountIt, origin: DemoOrigin) -> RealMount:
    return mount_it(origin)


@pytest.fixture(params=["thunar", "pcmanfm"])
def file_manager(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if (reason := missing(name)) is not None:
        pytest.skip(reason)
    if name == "thunar" and not TUMBLER.exists():
        pytest.skip("not installed: tumbler")
    return name


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desktop]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    home = tmp_path / "home"
    with desktop(home) as started:
        yield started


@pytest.fixture
def gio() -> str:
    if shutil.which("gio") is None:
        pytest.skip("not installed: gio")
    return "gio"


def scene_directory(mount: RealMount) -> Path:
    return mount.path / "tasks" / TASK / capture_uuid(1, 1) / SCENE


def when_calm(origin: DemoOrigin) -> list[LoggedRequest]:
    """Return all requests, once none has come for a while."""
    n_seen, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < CALM_S:
        n_now = origin.journal.n_requests() + origin.journal.bytes_sent(None)
        if n_now != n_seen:
            n_seen, since_s = n_now, time.monotonic()
        time.sleep(0.1)
    return origin.journal.of()


def bytes_of(requests: list[LoggedRequest], suffix: str) -> int:
    return sum(
        each.bytes_sent
        for each in requests
        if each.endpoint == "object" and each.path.endswith(suffix)
    )


def test_walking_to_a_scene_pulls_no_raster(
    origin: DemoOrigin, mount: RealMount, desk: Desktop, file_manager: str, preview: bytes
) -> None:
    """A file manager in a scene costs the tail of the zip and the small files, and no raster."""
    scene = scene_directory(mount)
    with desk.window(file_manager, mount.path) as window:
        for step in (mount.path / "tasks", scene.parent.parent, scene.parent, scene):
            window.go(step)
        wait_until(
            lambda: bytes_of(origin.journal.of(), ".png") > TAIL_BYTES,
            PATIENCE_S,
            "a look at the preview",
        )
        requests = when_calm(origin)
        assert bytes_of(requests, ".zip") <= TAIL_BYTES
        # Its end is fetched to learn its size, and a block of that once more with the rest.
        assert bytes_of(requests, ".png") <= len(preview) + 16 * 1024
        counts = origin.journal.counts()
        assert counts["captures"] <= 2
        assert counts["sign"] <= 2
        origin.journal.clear()
        window.go(scene / "contents")
        window.go(scene / "contents" / "rasters")
        assert bytes_of(when_calm(origin), ".zip") <= TAIL_BYTES


def test_what_file_managers_look_for_costs_nothing(
    origin: DemoOrigin, mount: RealMount, desk: Desktop, file_manager: str
) -> None:
    """In a directory that was listed, a file manager's own look-ups cause no request."""
    scene = scene_directory(mount)
    for directory in (mount.path, mount.path / "tasks", scene):
        os.listdir(directory)
    (scene / f"{SCENE.removesuffix('_1')}_preview.png").read_bytes()
    origin.journal.clear()
    with desk.window(file_manager, mount.path) as window:
        window.go(scene)
        time.sleep(CALM_S)
        window.press("F5")
        assert [each.path for each in when_calm(origin)] == []


def test_copying_out_of_a_file_manager(
    mount: RealMount, desk: Desktop, file_manager: str, tmp_path: Path
) -> None:
    """A file copied out in a file manager has its bytes."""
    scene = scene_directory(mount)
    target = tmp_path / "copies"
    target.mkdir()
    expected = (scene / "scene.json").read_bytes()
    with desk.window(file_manager, scene) as window:
        window.copy(scene / "scene.json", target)
        wait_until(lambda: (target / "scene.json").read_bytes() == expected, PATIENCE_S, "the copy")


def test_a_thumbnailer_is_given_no_raster(
    origin: DemoOrigin, mount: RealMount, tmp_path: Path
) -> None:
    """A program that draws thumbnails gets the preview, and none of the rasters."""
    program = "gdk-pixbuf-thumbnailer"
    if (reason := missing(program)) is not None:
        pytest.skip(reason)
    scene = scene_directory(mount)
    drawn = tmp_path / "drawn.png"
    with desktop(tmp_path / "home") as desk:
        desk.run(program, next(scene.glob("*_preview.png")), drawn)
        assert drawn.read_bytes().startswith(b"\x89PNG")
        os.listdir(scene / "contents" / "rasters")
        origin.journal.clear()
        with pytest.raises(AssertionError, match=r"Permission denied|not allowed"):
            desk.run(program, scene / "contents" / "rasters" / "a.tif", tmp_path / "no.png")
        assert bytes_of(when_calm(origin), ".zip") == 0
    assert mount.events("thumbnailer kept from fetching")


def test_gio_lists_tells_and_copies(
    origin: DemoOrigin, mount: RealMount, gio: str, tmp_path: Path
) -> None:
    """`gio` lists a scene, shows its files' types without reading them, and copies one whole."""
    environment = {**os.environ, "HOME": str(tmp_path), "GIO_USE_VFS": "local", "LC_ALL": "C.UTF-8"}

    def run(*words: str | Path) -> str:
        command = [gio, *map(str, words)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    scene = scene_directory(mount)
    listed = run("list", "-l", "-u", scene)
    assert {Path(line.split("\t")[0]).name for line in listed.splitlines()} == set(
        os.listdir(scene)
    )
    printed = run("info", scene / f"{SCENE}.zip")
    assert re.search(r"standard::content-type: application/zip", printed)
    printed = run("info", scene / "contents" / "rasters" / "a.tif")
    assert re.search(r"standard::content-type: image/tiff", printed)
    run("info", "-f", mount.path)
    assert bytes_of(when_calm(origin), ".zip") <= TAIL_BYTES + 16 * 1024
    target = tmp_path / "copy.tif"
    run("copy", scene / "contents" / "rasters" / "a.tif", target)
    assert target.read_bytes() == raster(ord("a"))


def test_thunar_shows_the_scenes_picture_for_its_rasters(
    origin: DemoOrigin, mount: RealMount, desk: Desktop
) -> None:
    """Thunar looks beside the files for thumbnails, and opens those that are there."""
    if (reason := missing("thunar")) is not None:
        pytest.skip(reason)
    rasters = scene_directory(mount) / "contents" / "rasters"
    os.listdir(rasters)
    origin.journal.clear()
    with desk.window("thunar", rasters):
        # The picture itself is what the thumbnails are made of.
        wait_until(lambda: bytes_of(origin.journal.of(), ".png"), PATIENCE_S, "the picture")
        assert bytes_of(when_calm(origin), ".zip") == 0
