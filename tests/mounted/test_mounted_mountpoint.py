"""The directory that is mounted on, when it or the machine changes while satfs mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from mounted.conftest import MountIt
from mounted.mounting import MountFailed, RealMount

from satfs.demo.server import DemoOrigin
from satfs.mountpoint_hold import MountpointHold
from satfs.mountpoints import satfs_mounts

#: Replaces the mountpoint, once, when the function is called.
REPLACE = """
import os, {module} as module
mountpoint = json.loads(sys.argv[1])["mountpoint"]
def replacing(*arguments, call=module.{function}, **named):
    os.rename(mountpoint, mountpoint + "-moved")
    os.symlink(os.path.dirname(mountpoint) + "/elsewhere", mountpoint)
    return call(*arguments, **named)
module.{function} = replacing
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="others are protected by fusermount3")
@pytest.mark.parametrize(
    ("module", "function"), [("satfs.mount", "open_components"), ("pyfuse3", "init")]
)
def test_root_is_not_led_to_another_directory(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: os.PathLike[str], module: str, function: str
) -> None:
    """A symbolic link is put in the mountpoint's place while the API responds, or later."""
    elsewhere = os.path.join(tmp_path, "elsewhere")
    os.mkdir(elsewhere)

    with pytest.raises(MountFailed, match="was replaced while satfs"):
        mount_it(origin, sabotage=REPLACE.format(module=module, function=function))

    assert not [each for each in satfs_mounts() if each.mountpoint.is_relative_to(tmp_path)]
    assert os.listdir(elsewhere) == []
    os.unlink(os.path.join(tmp_path, "mnt1"))
    shutil.rmtree(os.path.join(tmp_path, "mnt1-moved"))


def test_a_mount_without_a_directory_for_temporary_files(
    origin: DemoOrigin, mount_it: MountIt
) -> None:
    mount: RealMount = mount_it(
        origin, sabotage="import tempfile; tempfile.tempdir = '/nonexistent'"
    )

    assert "tasks" in os.listdir(mount.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts another filesystem")
def test_the_end_of_a_mount_unmounts_nothing_else(origin: DemoOrigin, tmp_path: Path) -> None:
    """S-178 Root's mount in a user's home is never at another place, and its end unmounts no other.

    The path leads to another mount by then: the owner of the home has rearranged it.
    """
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    (other / "aleph").mkdir(parents=True)
    environment = {**origin.environment(), "SATFS_CACHE_DIR": str(tmp_path / "cache")}
    mount = RealMount(home / "aleph", environment, tmp_path / "log.jsonl")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", other / "aleph"], check=True)
    try:
        mount.start()
        home.rename(tmp_path / "moved")
        home.symlink_to(other)
        mount.stop()
        assert not [each for each in satfs_mounts() if each.mountpoint.is_relative_to(tmp_path)]
        assert os.path.ismount(other / "aleph")
    finally:
        mount.clean()
        subprocess.run(["umount", other / "aleph"], check=True)


def test_of_two_users_one_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-179 The lock of the moment in which one looks and mounts is on the directory itself."""
    first, second = MountpointHold(tmp_path), MountpointHold(tmp_path / "." / "other")
    second.mountpoint = tmp_path  # of another user, whose lock is another file
    events: list[str] = []
    is_waiting = threading.Event()
    monkeypatch.setattr("satfs.mountpoint_hold.time.sleep", lambda _: is_waiting.set())

    def mount() -> None:
        with second.alone():
            events.append("second")

    with first, second:
        with first.alone():
            waiting = threading.Thread(target=mount)
            waiting.start()
            assert is_waiting.wait(10)
            events.append("first")
        waiting.join()
    assert events == ["first", "second"]


def test_a_directory_that_somebody_keeps_locked_can_be_mounted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may read a directory may lock it: that stops no mount."""
    monkeypatch.setattr("satfs.mountpoint_hold.ALONE_S", 0.05)
    first, second = MountpointHold(tmp_path), MountpointHold(tmp_path / "other")
    second.mountpoint = tmp_path
    with first, second, first.alone(), second.alone():
        assert second.require_unchanged() >= 0
