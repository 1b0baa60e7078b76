"""The directory that is mounted on, when somebody changes it or the machine while satfs mounts."""

from __future__ import annotations

import os
import shutil

import pytest
from mounted.conftest import MountIt
from mounted.mounting import MountFailed, RealMount

from satfs.demo.server import DemoOrigin
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
