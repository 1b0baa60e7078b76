"""Programs that may not fetch, and the limit of bytes fetched in a day, through the kernel."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mounted.conftest import MountIt
from mounted.mounting import RealMount

from satfs.demo.server import DemoOrigin

#: Takes the name of its first argument, then lists and reads what the others name.
_PROGRAM = """
import errno, json, os, sys
open("/proc/self/comm", "w").write(sys.argv[1])
def look(path):
    try:
        if os.path.isdir(path):
            return len(os.listdir(path))
        with open(path, "rb") as file:
            return len(file.read())
    except OSError as failure:
        return errno.errorcode[failure.errno]
print(json.dumps([look(path) for path in sys.argv[2:]]))
"""


def look_as(program: str, *paths: Path) -> list[Any]:
    """Return the length of each file or directory, or the errno, as *program* sees it."""
    command = [sys.executable, "-c", _PROGRAM, program, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return list(json.loads(done.stdout))


def first_scene(origin: DemoOrigin, mount: RealMount) -> Path:
    return mount.path / "scenes" / origin.catalogue.published_scenes()[0].scene_id


@pytest.mark.parametrize("program", ["updatedb", "tracker-miner-f", "baloo_file_extr"])
def test_an_indexer_costs_nothing(origin: DemoOrigin, mount: RealMount, program: str) -> None:
    """A program known to crawl lists nothing but the top, and reads only what is cached."""
    scene = first_scene(origin, mount)
    preview = next(scene.glob("*_preview.png"))
    archive = next(scene.glob("*.zip"))
    origin.journal.clear()
    seen = look_as(program, mount.path, mount.path / "tasks", scene, archive)
    assert seen == [6, "EACCES", "EACCES", "EACCES"]
    assert origin.journal.of() == []
    content = preview.read_bytes()
    origin.journal.clear()
    assert look_as(program, preview) == [len(content)]
    assert origin.journal.of() == []
    (event,) = mount.events("crawler kept out")
    assert event["program"] == program


@pytest.mark.skipif(shutil.which("updatedb") is None, reason="not installed: updatedb")
def test_updatedb_itself_costs_nothing(
    origin: DemoOrigin, mount: RealMount, tmp_path: Path
) -> None:
    """The real updatedb, configured to index a mount, ends soon and causes no request."""
    origin.journal.clear()
    command = ["updatedb", "-o", str(tmp_path / "names.db"), "-U", str(mount.path)]
    everywhere = ["--prunefs", "", "--prunepaths", "", "--require-visibility", "no"]
    subprocess.run([*command, *everywhere], check=True, timeout=60)
    assert origin.journal.of() == []
    assert mount.events("crawler kept out")


def test_backups_and_people_are_let_in(origin: DemoOrigin, mount: RealMount) -> None:
    """A program that is not known to crawl reads everything: a backup program, too."""
    scene = first_scene(origin, mount)
    archive = next(scene.glob("*.zip"))
    size = archive.stat().st_size
    for program in ("restic", "borg", "find", "clamscan"):
        assert look_as(program, scene, archive) == [len(os.listdir(scene)), size]
    assert not mount.events("crawler kept out")


def test_the_list_of_crawlers_is_the_users(origin: DemoOrigin, mount_it: MountIt) -> None:
    """`crawlers` takes more names and patterns, or none at all."""
    open_mount = mount_it(origin, crawlers="none")
    assert look_as("updatedb", open_mount.path / "tasks") == [4]
    closed = mount_it(origin, crawlers="default clam*")
    assert look_as("clamscan", closed.path / "tasks") == ["EACCES"]
    assert look_as("updatedb", closed.path / "tasks") == ["EACCES"]


def test_beyond_the_limit_is_edquot(origin: DemoOrigin, mount_it: MountIt) -> None:
    """Beyond `egress_limit` what is cached can be read, remounted or not; the rest is EDQUOT."""
    mount = mount_it(origin)
    scene = first_scene(origin, mount)
    cached = next(scene.glob("*.zip"))
    content = cached.read_bytes()
    other = origin.catalogue.published_scenes()[1].scene_id
    mount.stop()
    mount.clean()
    limited = mount_it(origin, egress_limit="1000")
    assert (limited.path / cached.relative_to(mount.path)).read_bytes() == content
    with pytest.raises(OSError, match="quota") as refused:
        next((limited.path / "scenes" / other).glob("*.zip")).read_bytes()
    assert refused.value.errno == errno.EDQUOT
    assert limited.events("egress limit reached")


def test_a_desktop_finds_the_volumes_name(origin: DemoOrigin, mount: RealMount) -> None:
    """At the top are a name and an icon for desktops, unlisted; they take no request."""
    origin.journal.clear()
    assert (mount.path / ".xdg-volume-info").read_text().startswith("[Volume Info]\nName=")
    assert (mount.path / ".volume-icon.svg").read_bytes().startswith(b"<svg")
    assert not any(name.startswith(".") for name in os.listdir(mount.path))
    assert origin.journal.of() == []
