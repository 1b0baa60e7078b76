"""Mountinfo: any text gives mounts, and ours are recognised."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs import mountpoints
from satfs.errors import BadCache, BadMountpoint, FuseMissing
from satfs.kernel_tuning import (
    CONGESTION_THRESHOLD,
    MAX_BACKGROUND,
    READ_AHEAD_KB,
    TunedLimits,
    tune,
)
from satfs.mountpoints import (
    FS_TYPE,
    Mounted,
    absolute,
    check,
    detach,
    is_dead_mount,
    mount_at,
    parse_mountinfo,
)

LINES = r"""
22 27 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
43 27 0:40 / /home/me/my\040delivery\134s ro,nosuid,nodev - fuse.satfs satfs:a\040b ro,user_id=0
44 27 0:41 / /mnt/aleph ro - fuse.sshfs me@host: rw
broken
1 2 x:y / /z ro - fuse.satfs satfs:x ro
1 2 0:9 / /no-dash ro
"""


def test_ours_are_told_from_others() -> None:
    """Path, source and device are read as the kernel wrote them, with their blanks."""
    mine = [each for each in parse_mountinfo(LINES) if each.fs_type == FS_TYPE]
    assert mine == [
        Mounted(
            Path("/home/me/my delivery\\s"),
            "fuse.satfs",
            "satfs:a b",
            (0, 40),
            frozenset({"ro", "nosuid", "nodev"}),
            frozenset({"ro", "user_id=0"}),
        )
    ]
    assert len(parse_mountinfo(LINES)) == 3


@given(st.text() | st.text(st.sampled_from("12 :-/\\0\n")))
def test_any_text_gives_mounts(text: str) -> None:
    """Lines that later kernels may write break nothing."""
    for each in parse_mountinfo(text):
        assert each.device >= (0, 0)


def test_the_uppermost_of_two_mounts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted over a dead mount, the new one is meant."""
    lower = Mounted(Path("/m"), FS_TYPE, "satfs:lower", (0, 1), frozenset())
    upper = Mounted(Path("/m"), FS_TYPE, "satfs:upper", (0, 2), frozenset())
    monkeypatch.setattr(mountpoints, "satfs_mounts", lambda: (lower, upper))
    assert mount_at(Path("/m")) == upper
    assert mount_at(Path("/n")) is None


def test_paths_are_those_of_the_kernel(tmp_path: Path) -> None:
    """A mountpoint named through a symbolic link or `..` is the directory it means."""
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = tmp_path.resolve() / "real"
    assert absolute(tmp_path / "link") == real
    assert absolute(tmp_path / "link/deep") == real / "deep"
    assert absolute(tmp_path / "real/deep/../deep") == real / "deep"
    assert absolute(tmp_path / "real/not-there") == real / "not-there"


def test_links_that_lead_in_a_circle_are_no_directory(tmp_path: Path) -> None:
    """Nothing can be mounted there, and the reason is an error of satfs."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "circle", tmp_path / "circle/deep"):
        assert mount_at(path) is None
        with pytest.raises(BadMountpoint):
            check(absolute(path), tmp_path / "cache")


def test_an_ordinary_directory_is_no_mount(tmp_path: Path) -> None:
    """It is neither dead nor can it be unmounted; nor can what is not there."""
    assert not is_dead_mount(tmp_path)
    assert not is_dead_mount(tmp_path / "nowhere")
    with pytest.raises(BadMountpoint):
        detach(tmp_path)


def test_without_a_program_to_unmount_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FuseMissing, match="fuse3"):
        detach(tmp_path)


def test_a_directory_can_be_mounted_over(tmp_path: Path) -> None:
    """A cache beside it is no matter, even one that is reached through a link."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "mnt/link").symlink_to(tmp_path / "kept")
    check(tmp_path / "mnt", tmp_path / "cache")
    check(tmp_path / "mnt", tmp_path / "mnt/link/cache")


@pytest.mark.parametrize("cache", [".", "cache", "a/b/c"])
def test_a_mount_does_not_cache_in_itself(tmp_path: Path, cache: str) -> None:
    """It would wait for itself."""
    with pytest.raises(BadCache, match="lies inside"):
        check(tmp_path, tmp_path / cache)


def test_only_a_directory_can_be_mounted_over(tmp_path: Path) -> None:
    """Neither a file nor nothing."""
    (tmp_path / "file").touch()
    for name in ("file", "nothing"):
        with pytest.raises(BadMountpoint, match="is not a directory"):
            check(tmp_path / name, tmp_path / "cache")


def test_tuning_sets_what_it_may(tmp_path: Path) -> None:
    """Read-ahead and background requests of just this mount are raised, and the values returned."""
    bdi = tmp_path / "class/bdi/0:40"
    connection = tmp_path / "fs/fuse/connections/40"
    assert tune((0, 40), tmp_path) == TunedLimits(None, None)
    bdi.mkdir(parents=True)
    assert tune((0, 40), tmp_path) == TunedLimits(READ_AHEAD_KB, None)
    connection.mkdir(parents=True)
    assert tune((0, 40), tmp_path) == TunedLimits(READ_AHEAD_KB, MAX_BACKGROUND)
    assert (bdi / "read_ahead_kb").read_text() == "512"
    assert (connection / "congestion_threshold").read_text() == str(CONGESTION_THRESHOLD)
