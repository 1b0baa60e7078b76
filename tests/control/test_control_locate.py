"""The mount of a path is found without a call to the mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs import mountpoints
from satfs.mountpoints import FS_TYPE, Mounted, locate


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a mount is said to be; nothing is there, so nothing can be looked at."""
    place = tmp_path.resolve() / "mnt"
    found = (Mounted(place, FS_TYPE, "satfs:default", (0, 1), frozenset()),)
    monkeypatch.setattr(mountpoints, "satfs_mounts", lambda: found)
    return place


def words(path: Path | str) -> tuple[str, ...] | None:
    found = locate(Path(path))
    return None if found is None else found[1]


def test_the_names_below_the_mount_are_told(mounted: Path) -> None:
    assert words(mounted) == ()
    assert words(mounted / "tasks" / "1") == ("tasks", "1")
    assert words(f"{mounted}/tasks//1/./x/../y/") == ("tasks", "1", "y")
    assert words(mounted.parent) is None
    assert words(f"{mounted}er/tasks") is None


def test_a_path_may_lead_out_of_the_mount_again(mounted: Path) -> None:
    assert words(mounted / "tasks" / ".." / "..") is None
    assert words(mounted / ".." / "mnt" / "tasks") == ("tasks",)
    assert words(mounted / "a" / ".." / ".." / "mnt" / "tasks") == ("tasks",)


def test_links_on_the_way_are_followed(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mounted.parent / "absolute").symlink_to(mounted / "tasks")
    (mounted.parent / "relative").symlink_to("mnt")
    (mounted.parent / "loop").symlink_to("loop")
    assert words(mounted.parent / "absolute" / "1") == ("tasks", "1")
    assert words(mounted.parent / "relative" / "tasks") == ("tasks",)
    assert words(mounted.parent / "loop" / "tasks") is None
    monkeypatch.chdir(mounted.parent)
    assert words("relative/tasks") == ("tasks",)


def test_a_path_is_found_from_a_directory_that_is_gone(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that stood in a mount has no working directory after the unmount."""
    (mounted.parent / "gone").mkdir()
    monkeypatch.chdir(mounted.parent / "gone")
    (mounted.parent / "gone").rmdir()
    assert words(mounted / "tasks") == ("tasks",)


def test_nothing_in_the_mount_is_looked_at(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be stuck, and who looks gets stuck with it."""
    looked_at: list[str] = []
    read_link = os.readlink

    def note(path: str | os.PathLike[str]) -> str:
        looked_at.append(os.fspath(path))
        return read_link(path)

    monkeypatch.setattr(os, "readlink", note)
    for path in ("tasks/1", "a/../b", "a/../../mnt/c", "a/../../other"):
        locate(mounted / path)
    assert not [path for path in looked_at if path.startswith(str(mounted))]


@given(st.lists(st.sampled_from(["..", ".", "a", "mnt", "b"]), max_size=6))
def test_inside_it_is_as_written(parts: list[str]) -> None:
    """As the kernel has it, since there are no links in a mount."""
    mount = (Mounted(Path("/no-such/mnt"), FS_TYPE, "satfs:x", (0, 1), frozenset()),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mountpoints, "satfs_mounts", lambda: mount)
        path = "/".join(["/no-such/mnt", *parts])
        plain = Path(os.path.normpath(path))
        expected = None
        if plain.is_relative_to("/no-such/mnt"):
            expected = plain.relative_to("/no-such/mnt").parts
        assert words(path) == expected
