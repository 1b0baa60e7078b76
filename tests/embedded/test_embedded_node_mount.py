"""Where the node has a mount of the profile, paths lead to it; where it goes away, they go on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from embedded.conftest import OpenFs, StartOrigin, satfs_threads
from embedded.test_embedded_fsspec import MIB, content_of, path_of, ramp_catalogue
from fakes.processes import wait_until
from mounted.mounting import RealMount

from satfs import mountpoints
from satfs.embedded.node_mount import NodeMount
from satfs.mountpoints import FS_TYPE, Mounted

pytestmark = pytest.mark.mounts

MountIt = Callable[..., RealMount]


@pytest.fixture
def mount_it(tmp_path: Path, cache_dir: Path) -> Iterator[MountIt]:
    """Return a function that mounts what this process's settings lead to; unmounted in the end."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("nothing can be mounted here: /dev/fuse or fusermount3 is missing")
    with ExitStack() as stack:

        def mount(**options: object) -> RealMount:
            place, log = tmp_path / "mnt", tmp_path / "mount.log"
            return stack.enter_context(RealMount(place, dict(os.environ), log, options))

        yield mount


@pytest.mark.slow
def test_paths_lead_to_the_mount_of_the_profile(
    start_origin: StartOrigin, open_fs: OpenFs, mount_it: MountIt
) -> None:
    origin = start_origin(ramp_catalogue(1, MIB))
    n_threads = len(satfs_threads())
    alone = open_fs(mount="never")
    mount = mount_it()
    data = content_of(origin)
    for how in ("auto", "only"):
        fs = open_fs(mount=how)
        assert fs.local_path(path_of()) == str(mount.path / path_of())
        assert fs.ls("", detail=False) == alone.ls("", detail=False)
        assert fs.cat(path_of()) == data
        assert fs.cat_file(path_of(), -10) == data[-10:]
        assert fs.cat_ranges([path_of()] * 3, [0, 100, 200], [10, 110, 210]) == [
            data[start : start + 10] for start in (0, 100, 200)
        ]
        with fs.open(path_of()) as file:
            assert file.read() == data
        with pytest.raises(FileNotFoundError):
            fs.info("none")
        assert fs.statistics()["place"] == str(mount.path)
        # The mount makes its status anew once a second.
        wait_until(lambda: fs.statistics()["served_bytes"] >= len(data))  # noqa: B023
        # The version is the same from both sources.
        assert fs.ukey(path_of()) == alone.ukey(path_of())
        assert fs.modified(path_of()) == alone.modified(path_of())
    assert len(satfs_threads()) == n_threads + 1  # of the one that never looks at mounts
    assert alone.local_path(path_of()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_what_was_read_through_another_users_mount_is_for_that_user(
    start_origin: StartOrigin, open_fs: OpenFs, mount_it: MountIt
) -> None:
    """With `allow_other` others read the tree; the refusal is a sentence, and names the mount."""
    start_origin(ramp_catalogue(1, MIB))
    mount = mount_it(allow_other=True)
    fs = open_fs(mount="auto")
    assert fs.local_path("") == str(mount.path)
    os.seteuid(65_534)
    try:
        with pytest.raises(PermissionError, match="only the user who has mounted it") as failure:
            fs.statistics()
    finally:
        os.seteuid(0)
    assert failure.value.filename == str(mount.path)


def test_no_path_leads_out_of_the_mount(
    start_origin: StartOrigin, open_fs: OpenFs, mount_it: MountIt, tmp_path: Path
) -> None:
    start_origin(ramp_catalogue(1, MIB))
    mount_it()
    (tmp_path / "secret").write_text("secret")
    for how in ("auto", "never"):
        fs = open_fs(mount=how)
        for path in ("../secret", "tasks/../../secret", f"satfs://..{tmp_path}/secret"):
            with pytest.raises(FileNotFoundError):
                fs.cat(path)


def test_a_mount_of_another_profile_is_none_of_ours(
    start_origin: StartOrigin, open_fs: OpenFs, mount_it: MountIt
) -> None:
    start_origin(ramp_catalogue(1, MIB))
    mount_it(source="satfs:other")
    assert open_fs(mount="auto").local_path("") is None
    with pytest.raises(FileNotFoundError, match="no mount of the profile default"):
        open_fs(mount="only").ls("")


def test_a_mount_of_another_api_is_none_of_ours(
    start_origin: StartOrigin, open_fs: OpenFs, mount_it: MountIt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment may name another API than the profile that is mounted."""
    start_origin(ramp_catalogue(2, MIB))
    mount = mount_it()
    assert open_fs(mount="only").local_path("") == str(mount.path)
    other = start_origin(ramp_catalogue(1, MIB))
    assert open_fs(mount="auto").local_path("") is None
    assert open_fs(mount="auto").cat(path_of()) == content_of(other)


def test_a_mount_that_is_hidden_below_another_directory_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container with its own /tmp the kernel still lists what the host has mounted there."""
    here, gone = (
        Mounted(
            place,
            FS_TYPE,
            "satfs:default",
            (0, 4_242),
            frozenset(),
            frozenset({f"user_id={os.geteuid()}"}),
        )
        for place in (tmp_path, tmp_path / "gone")
    )
    monkeypatch.setattr(mountpoints, "satfs_mounts", lambda: (here, gone))
    assert NodeMount("default", "https://api.example").mountpoint() is None


@pytest.mark.slow
def test_when_the_mount_is_killed_reading_goes_on_in_the_process(
    start_origin: StartOrigin, open_fs: OpenFs, mount_it: MountIt
) -> None:
    origin = start_origin(ramp_catalogue(1, 4 * MIB))
    mount = mount_it()
    fs, only = open_fs(mount="auto"), open_fs(mount="only")
    assert fs.cat_file(path_of(), 0, 100) == content_of(origin)[:100]
    assert only.cat_file(path_of(), 0, 100) == content_of(origin)[:100]
    mount.process.kill()
    mount.process.wait()
    assert fs.cat_file(path_of(), 2 * MIB, 3 * MIB) == content_of(origin)[2 * MIB : 3 * MIB]
    with fs.open(path_of()) as file:
        assert file.read() == content_of(origin)
    with pytest.raises(OSError, match=r"not connected|no mount of the profile"):
        only.cat_file(path_of(), 3 * MIB, 4 * MIB)
