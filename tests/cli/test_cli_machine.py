"""Faults of a machine, foreign directories, and busy mounts: each in a sentence."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cli.conftest import Program
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.commands import umount
from satfs.cli.commands.umount import busy_processes
from satfs.cli.main import satfs as commands
from satfs.errors import BadMountpoint, FuseMissing
from satfs.mountpoints import Mounted, may_mount_on


def test_a_missing_library_is_told_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program works without libfuse as far as it does not need it."""
    loaded = ("satfs.mount", "satfs.fuse_session")
    for name in [name for name in sys.modules if name.startswith(loaded)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "satfs.cli.commands.mount", raising=False)
    monkeypatch.delitem(sys.modules, "satfs.cli.mount_process", raising=False)
    monkeypatch.setitem(sys.modules, "pyfuse3", None)  # "import of pyfuse3 halted"

    commands.main(["umount", "--help"], standalone_mode=False)
    with pytest.raises(FuseMissing, match=r"FUSE library cannot be loaded.*apt install fuse3"):
        commands.main(["mount", "--help"], standalone_mode=False)

    assert "Unmount" in capsys.readouterr().out


#: Makes Python's user one that the system does not know.
UNKNOWN_USER = """
import pwd
def getpwuid(uid): raise KeyError(uid)
pwd.getpwuid = getpwuid
"""


@pytest.mark.mounts
def test_a_user_without_a_home_mounts_all_the_same(
    aleph: Program, place: Path, tmp_path: Path
) -> None:
    """As in a container that runs as any number: no `$HOME`, no entry in passwd(5)."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(UNKNOWN_USER)
    nobody = {"HOME": None, "PYTHONPATH": str(tmp_path / "site")}

    shown = aleph("settings", **nobody)
    mounted = aleph("mount", place, **nobody)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert mounted.returncode == 0, mounted.stderr
    assert mounted.stderr.startswith("satfs is mounted at ")
    assert "tasks" in os.listdir(place)
    assert aleph("umount", place, **nobody).returncode == 0


users = st.integers(0, 3)


@given(users, users, st.booleans(), st.booleans())
def test_people_mount_on_what_is_theirs(
    user: int, owner: int, is_writable: bool, is_sticky: bool
) -> None:
    """As fusermount3 decides; said before, because it says so less clearly."""
    mode = stat.S_IFDIR | 0o777 | (stat.S_ISVTX if is_sticky else 0)
    status = os.stat_result((mode, 1, 1, 1, owner, 1, 1, 1, 1, 1))

    expected = user == 0 or (is_writable and (not is_sticky or user == owner))
    assert may_mount_on(status, user, is_writable=is_writable) is expected


def process(proc: Path, pid: int, name: str, cwd: str, *, open_file: str = "/dev/null") -> Path:
    """Make a process as /proc shows it."""
    entry = proc / str(pid)
    (entry / "fd").mkdir(parents=True)
    (entry / "comm").write_text(f"{name}\n")
    (entry / "cwd").symlink_to(cwd)
    (entry / "root").symlink_to("/")
    (entry / "exe").symlink_to("/bin/x")
    (entry / "fd" / "3").symlink_to(open_file)
    (entry / "maps").write_text("")
    return entry


def test_whoever_is_in_it_reads_it_or_maps_it_holds_it(tmp_path: Path) -> None:
    process(tmp_path, 30, "bash", "/mnt/aleph/tasks")
    process(tmp_path, 20, "cp", "/", open_file="/mnt/aleph/scenes/s.zip")
    mapping = process(tmp_path, 25, "qgis", "/home")
    (mapping / "maps").write_text("7f-80 r--p 00 00:2a 42    /mnt/aleph/a name.tif\nnonsense\n")
    process(tmp_path, 60, "satfs", "/", open_file="/mnt/aleph")
    process(tmp_path, 40, "innocent", "/mnt/aleph2", open_file="/mnt/alephs/x")
    (tmp_path / "self").symlink_to("30")
    (tmp_path / "50").mkdir()  # ended while we looked

    assert busy_processes(Path("/mnt/aleph"), server=60, proc=tmp_path) == [
        "cp (20) has /mnt/aleph/scenes/s.zip open",
        "qgis (25) has /mnt/aleph/a name.tif mapped",
        "bash (30) is in it",
    ]


def test_of_real_processes_the_one_that_holds_is_found(tmp_path: Path) -> None:
    sitting = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        found = busy_processes(tmp_path)
    finally:
        sitting.kill()
        sitting.wait()

    assert found == [f"sleep ({sitting.pid}) is in it"]


@pytest.mark.parametrize("n_refusals", [1, 3, 4])
def test_a_mount_that_is_busy_for_a_moment_is_unmounted(
    n_refusals: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The program that held it, such as df, has ended before anybody can name it."""
    monkeypatch.setattr(umount, "_PAUSES_S", (0.0, 0.0, 0.0))
    refusals = [BadMountpoint("busy")] * n_refusals

    def detach(path: Path, *, is_lazy: bool) -> None:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(umount, "detach", detach)
    dead = Mounted(tmp_path, "fuse.satfs", "satfs", (0, 60), frozenset())
    monkeypatch.setattr(umount, "mount_at", lambda _: dead)

    if n_refusals > 3:
        with pytest.raises(BadMountpoint, match="busy"):
            umount.unmount(tmp_path, is_lazy=False)
    else:
        umount.unmount(tmp_path, is_lazy=False)

    assert not refusals
