"""Programs of this machine obey no file of an archive from elsewhere."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from archive.zips import Entry, build
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount

from satfs.archive.paths import NameProblem
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import BytesContent
from satfs.mountpoints import mount_at

SCRIPT = b"#!/bin/sh\necho ran\n"
HEAD = b"ref: refs/heads/main\n"
#: Runs `touch PROOF` whenever git looks whether a file has changed.
CONFIG = '[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = "touch {}; false"\n'
#: A bare repository: git finds it by its files, in a directory of any name.
BARE = CONFIG.replace("bare = false", 'worktree = "."')

OBEYED = [
    ".envrc", ".vscode/tasks.json", ".idea/workspace.xml", ".directory", "desktop.ini",
    "Desktop.INI", "autorun.inf", "AutoRun.exe", ".autorun", "scene.desktop", "a/b/x.DESKTOP",
    ".hg/hgrc", ".svn/wc.db", ".bzr/branch", ".gdbinit", "sub/.dir-locals.el", "icon.lnk",
]  # fmt: skip
PLAIN = ["git", "head.txt", "run.sh", "environment", "x.git", "desktop.txt", "sub/ok.tif"]


def mounted(start_origin: StartOrigin, mount_it: MountIt, content: bytes, **how: object) -> Path:
    scene = make_scene("scene", [make_delivery("scene", BytesContent(content))])
    origin = start_origin(Catalogue([make_task(1, [make_capture("capture", [scene])])]))
    mount: RealMount = mount_it(origin, **how)
    return mount.path / "scenes" / "scene" / "contents"


def entries(proof: Path) -> list[Entry]:
    config, bare = CONFIG.format(proof).encode(), BARE.format(proof).encode()
    return [
        *(Entry(f".git/{name}".encode(), data) for name, data in repository(config)),
        *(Entry(f"deep/{name}".encode(), data) for name, data in repository(bare)),
        *(Entry(name.encode(), b"obeyed") for name in OBEYED),
        *(Entry(name.encode(), SCRIPT, mode=0o100755) for name in PLAIN),
    ]


def repository(config: bytes) -> list[tuple[str, bytes]]:
    return [("HEAD", HEAD), ("config", config), ("objects/x", b""), ("refs/x", b"")]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("place", [".", "deep"])
def test_git_obeys_no_archive(
    start_origin: StartOrigin, mount_it: MountIt, tmp_path: Path, place: str
) -> None:
    """No program runs a command because a user lists `contents/`."""
    proof = tmp_path / "proof"
    contents = mounted(start_origin, mount_it, build(entries(proof)))
    done = subprocess.run(
        ["git", "-C", contents / place, "status"], capture_output=True, text=True, check=False
    )
    assert "not a git repository" in done.stderr
    assert not proof.exists()


def test_names_that_programs_obey_are_told_and_not_shown(
    start_origin: StartOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """A member is shown under its own name, unless programs obey files of that name."""
    contents = mounted(start_origin, mount_it, build(entries(tmp_path / "proof")))
    text = (contents / "UNREADABLE.txt").read_text()
    for name in (*OBEYED, ".git/config", ".git/HEAD", "deep/HEAD"):
        assert f"{name}: {NameProblem.OBEYED}" in text.splitlines()
        assert not (contents / name).exists()
    found = {str(file.relative_to(contents)) for file in contents.rglob("*") if file.is_file()}
    kept = {f"deep/{name}" for name, _ in repository(b"") if name != "HEAD"}
    assert found == {*PLAIN, *kept, "UNREADABLE.txt"}


@pytest.mark.parametrize("extra", [(), ("noexec",), ("exec",)])
def test_programs_are_run_only_where_that_was_asked_for(
    start_origin: StartOrigin, mount_it: MountIt, extra: tuple[str, ...]
) -> None:
    """Nothing in a mount can be run, and nothing is marked as executable, without `-o exec`."""
    content = build([Entry(b"run.sh", SCRIPT, mode=0o100755), Entry(b"data", b"", mode=0o100644)])
    contents = mounted(start_origin, mount_it, content, options={"extra": list(extra)})
    listed = mount_at(contents.parents[2])
    assert listed is not None
    is_exec = extra == ("exec",)
    assert {"ro", "nosuid", "nodev"} <= listed.options
    assert ("noexec" in listed.options) is not is_exec
    modes = {name: stat.S_IMODE((contents / name).stat().st_mode) for name in ("run.sh", "data")}
    assert modes == {"run.sh": 0o755 if is_exec else 0o644, "data": 0o644}
    if is_exec:
        assert subprocess.run([contents / "run.sh"], capture_output=True).stdout == b"ran\n"
    else:
        with pytest.raises(PermissionError):
            subprocess.run([contents / "run.sh"], check=False)
