"""Through the kernel: a vendor that calls things anything, and leaves anything out."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mounted.conftest import MountIt, StartOrigin

from satfs.demo.catalogue import (
    OMIT,
    Attachment,
    Catalogue,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import BytesContent
from satfs.tree.names import name_of

NAMES = [
    "a/b",
    "..",
    ".",
    "../../etc/passwd",
    "nul\x00byte",
    "line\nbreak",
    "\x1b]0;title\x07\x1b[2J",
    "x" * 300,
    "é" * 150,
    "%2F",
    "?query=1&x#frag",
    " leading and trailing ",
    "-rf",
    ".Trash",
    "captures.json",
    "scene.json",
    "footprints.geojson",
    "catalog.json",
    "collection.json",
    "item.json",
]


def hostile_catalogue() -> Catalogue:
    tasks = []
    for n, name in enumerate(NAMES):
        scenes = []
        for m, other in enumerate(NAMES):
            scene_id = f"{n}:{other}"
            files = [
                Attachment(f"key{k}", each, BytesContent(f"{n}/{m}/{k}".encode()))
                for k, each in enumerate(NAMES if n == m else NAMES[m : m + 1])
            ]
            twins = [Attachment(key, "same.zip", BytesContent(key.encode())) for key in "ab"]
            scenes.append(make_scene(scene_id, [*files, *twins]))
        tasks.append(make_task(f"t{name}", [make_capture(f"c{name}", scenes)]))
    # And as members, where only the name is hostile.
    tasks += [make_task(name, [make_capture(name + "#", [])]) for name in NAMES]
    return Catalogue(tasks)


def test_hostile_names_are_only_names(start_origin: StartOrigin, mount_it: MountIt) -> None:
    """Each thing is listed once under a legal name, found by it, and reads its own bytes."""
    mount = mount_it(start_origin(hostile_catalogue()), contents="off")
    top = mount.path / "tasks"
    listed = set(os.listdir(os.fsencode(top)))
    assert listed - {b"catalog.json"} == {
        name_of(name, {"catalog.json"}) for name in [*NAMES, *(f"t{name}" for name in NAMES)]
    }
    seen: set[bytes] = set()
    for n in (0, 4, 6, 7, 8):
        task = top / os.fsdecode(name_of(f"t{NAMES[n]}"))
        capture = task / os.fsdecode(name_of(f"c{NAMES[n]}"))
        scenes = [each for each in capture.iterdir() if each.is_dir()]
        assert len(scenes) == len(NAMES)
        for scene in scenes:
            files = list(scene.iterdir())
            assert len(files) in (6, len(NAMES) + 5)
            for file in files:
                content = file.read_bytes()
                assert file.stat().st_size == len(content)
                if b"/" in content[:5]:
                    assert content not in seen
                    seen.add(content)
            assert (scene / "same~a.zip").read_bytes() == b"a"
            assert (scene / "same~b.zip").read_bytes() == b"b"
    for n in range(len(NAMES)):
        top = mount.path / "scenes" / os.fsdecode(name_of(f"0:{NAMES[n]}"))
        assert stat.S_ISDIR(top.stat().st_mode)
    assert not mount.events("call failed by a bug in satfs")
    assert not mount.events("event loop stalled")


def test_a_path_cannot_reach_beside_the_questions_it_stands_for(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """A name that would be another address, if it were pasted into one, is only a name."""
    origin = start_origin()
    mount = mount_it(origin)
    origin.journal.clear()
    for name in ("..%2F..%2Fcontracts", "%2E%2E", "1%2Fcaptures", "%3Flimit=1", "x%00y", "a%0Ab"):
        for top in ("tasks", "captures", "scenes"):
            assert not (mount.path / top / name).exists()
    endpoints = {endpoint for endpoint, n in origin.journal.counts().items() if n}
    assert endpoints <= {"task", "tasks", "captures", "scenes", "scene"}
    assert not mount.events("call failed by a bug in satfs")


def test_records_with_holes_are_shown(start_origin: StartOrigin, mount_it: MountIt) -> None:
    """Nulls, missing fields, silly dates, captures without scenes and scenes without zip."""
    silly: dict[str, Any] = {
        "timestamp": "0001-01-01T00:00:00Z",
        "footprint": None,
        "productname": None,
    }
    nulls: dict[str, Any] = dict.fromkeys(
        ("timestamp", "footprint", "metadata", "last_modified", "bands")
    )
    scenes = [
        make_scene("silly", [make_delivery("silly", b"PK silly")], **silly),
        make_scene("nulls", [make_delivery("nulls", b"PK nulls")], **nulls),
        make_scene("gone", [Attachment("delivery_zip", "gone.zip", None)]),
        make_scene("bare", []),
        make_scene("less", [], timestamp=OMIT, footprint=OMIT, productname=OMIT),
    ]
    catalogue = Catalogue(
        [
            make_task(1, [make_capture("c", scenes), make_capture("empty")]),
            make_task(
                2,
                [
                    make_capture("odd", status=None),
                    make_capture("loud", status=" Published"),
                    make_capture("early", status="Planned"),
                ],
                created_time=None,
                task_name=None,
            ),
            make_task(3, created_time="9999-12-31T23:59:59Z", status=OMIT),
        ]
    )
    mount = mount_it(start_origin(catalogue), contents="off")
    capture = mount.path / "tasks/1/c"
    found = {each.name: sorted(os.listdir(each)) for each in capture.iterdir() if each.is_dir()}
    sidecars = ["footprint.geojson", "item.json", "scene.json"]
    assert found == {
        "silly": [*sidecars, "silly.zip"],
        "nulls": ["footprint.geojson", "item.json", "nulls.zip", "scene.json"],
        "gone": sidecars,
        "bare": sidecars,
        "less": sidecars,
    }
    assert not (capture / "gone/gone.zip").exists()
    assert sorted(os.listdir(mount.path / "tasks/1/empty")) == [
        "capture.json",
        "catalog.json",
        "footprints.geojson",
    ]
    assert sorted(os.listdir(mount.path / "tasks/2")) == [
        "captures.json",
        "collection.json",
        "loud",
        "odd",
        "task.json",
    ]
    everything = [Path(top) / name for top, _, names in os.walk(mount.path) for name in names]
    for path in everything:
        assert 0 < path.stat().st_mtime < 2**33
        path.read_bytes()
    assert not mount.events("call failed by a bug in satfs")


def test_what_cannot_be_sized_is_listed_and_refused(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """A zip that may not be read keeps its name in `ls`; all else is EACCES, until it may."""
    origin = start_origin()
    mount = mount_it(origin, contents="off")
    capture = next(each for each in (mount.path / "tasks/341271").iterdir() if each.is_dir())
    scene = next(each for each in capture.iterdir() if each.is_dir())
    origin.faults.add("forbidden", "object", path_contains=".zip")
    (zip_name,) = (name for name in os.listdir(scene) if name.endswith(".zip"))
    for _ in range(2):
        for ask in (Path.stat, Path.read_bytes):
            with pytest.raises(PermissionError):
                ask(scene / zip_name)
    shown = subprocess.run(["ls", "-l", str(scene)], capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert "Permission denied" in shown.stderr
    assert zip_name in shown.stdout
    assert "scene.json" in shown.stdout
    (event,) = mount.events("call failed")
    assert event["operation"] == "lookup"
    assert "AccessDenied" in str(event["reason"])
    origin.faults.clear()
    give_up_s = time.monotonic() + 10
    while not os.access(scene / zip_name, os.R_OK):  # the refusal is believed for two seconds
        assert time.monotonic() < give_up_s
        time.sleep(0.1)
    assert (scene / zip_name).read_bytes().startswith(b"PK")
