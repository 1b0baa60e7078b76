"""Other users of the machine, where the mount lets them in: the kernel checks permissions."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted.mounting import RealMount

from satfs.demo.server import DemoOrigin

pytestmark = [
    pytest.mark.mounts,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
]

#: An ordinary user without a home, and one of a group.
STRANGER, GROUP = 54_321, 54_400
#: A program of other users: list, `stat`, open, read, and try to write. Prints errnos, or 0.
_PROGRAM = """
import errno, os, sys
root = sys.argv[1]
def tell(what, do):
    try:
        do()
    except OSError as failure:
        print(what, errno.errorcode[failure.errno])
    else:
        print(what, "done")
tell("stat", lambda: os.stat(root + "/README.txt"))
tell("list", lambda: os.listdir(root + "/tasks"))
tell("read", lambda: open(root + "/README.txt", "rb").read())
tell("status", lambda: open(root + "/.satfs/status.json").read())
tell("write", lambda: open(root + "/tasks/new", "wb"))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may pass through, as those of pytest are not."""
    directory = Path(tempfile.mkdtemp(prefix="satfs-others-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def mounted(place: Path, origin: DemoOrigin, **options: object) -> RealMount:
    cache = place / "cache"
    environment = {**origin.environment(), "SATFS_CACHE_DIR": str(cache)}
    return RealMount(place / "mnt", environment, place / "log", options)


def does(root: Path, user: int, group: int = STRANGER) -> dict[str, str]:
    """Return what came of what a program of *user* did."""
    return dict(line.split() for line in run(_PROGRAM, [root], user, group).splitlines())


def run(program: str, arguments: list[Path], user: int, group: int = STRANGER) -> str:
    """Return what the Python *program* printed, run as *user*."""
    python = Path(sys.base_prefix) / "bin" / "python3"
    if not os.access(python, os.X_OK) or str(python).startswith("/root"):
        python = Path(shutil.which("python3", path="/usr/bin:/bin") or "python3")
    done = subprocess.run(
        [python, "-I", "-S", "-c", program, *arguments],
        user=user,
        group=group,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


ALLOWED = {"stat": "done", "list": "done", "read": "done"}


def test_who_is_let_in_reads_as_the_owner_does(place: Path, origin: DemoOrigin) -> None:
    """With `allow_other` another user lists and reads, and writes as little as anybody."""
    with mounted(place, origin, allow_other=True) as mount:
        results = does(mount.path, STRANGER)
        assert results.pop("write") in ("EROFS", "EACCES")
        assert results.pop("status") == "EACCES"
        assert results == ALLOWED


def test_what_a_mount_tells_about_itself_is_for_its_user(place: Path, origin: DemoOrigin) -> None:
    """`.satfs` is for root and the user whose process serves the mount, with `allow_other`, too."""
    with mounted(place, origin, allow_other=True, uid=STRANGER, gid=GROUP) as mount:
        assert does(mount.path, STRANGER)["status"] == "EACCES"
        assert does(mount.path, STRANGER + 1)["status"] == "EACCES"
        about = mount.path / ".satfs"
        assert stat.S_IMODE(about.stat().st_mode) == 0o700
        assert (about / "status.json").read_bytes().startswith(b"{")


def test_without_allow_other_nobody_else_gets_in(place: Path, origin: DemoOrigin) -> None:
    """Not even a `stat` of names below the mount: the kernel refuses, and satfs gets no call."""
    with mounted(place, origin) as mount:
        assert set(does(mount.path, STRANGER).values()) == {errno.errorcode[errno.EACCES]}


def test_a_umask_keeps_others_out_and_lets_the_group_in(place: Path, origin: DemoOrigin) -> None:
    """The kernel compares modes with the caller: `umask=027` is for the owner and the group."""
    options = {"allow_other": True, "uid": 0, "gid": GROUP, "umask": 0o027}
    with mounted(place, origin, **options) as mount:
        assert set(does(mount.path, STRANGER).values()) == {"EACCES"}
        results = does(mount.path, STRANGER, GROUP)
        assert results.pop("write") in ("EROFS", "EACCES")
        assert results.pop("status") == "EACCES"
        assert results == ALLOWED


_COPY_TWICE = """
import os, subprocess, sys
source, target = sys.argv[1:]
for how in ("-r", "-r", "-a", "-a"):
    subprocess.run(["cp", how, source, target], check=True)
subprocess.run(["rm", "-r", os.path.join(target, os.path.basename(source))], check=True,
               stdin=subprocess.DEVNULL)
print(os.listdir(target))
"""


def test_a_copy_can_be_removed_and_copied_over(place: Path, origin: DemoOrigin) -> None:
    """A copy of the tree can be removed, and copied over, by its owner."""
    target = place / "target"
    target.mkdir()
    os.chown(target, STRANGER, STRANGER)
    with mounted(place, origin, allow_other=True) as mount:
        scene = next(each for each in mount.path.glob("tasks/*/*/*") if each.is_dir())
        assert run(_COPY_TWICE, [scene, target], STRANGER) == "[]\n"
