"""Small files that are written whole, and the directories they lie in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from satfs.atomic_file import make_directory, write_atomically


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_missing_directories_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    """Each of them, whatever the umask; one that is there stays as it is."""
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    path = there / "a" / "b" / "c" / "file"
    write_atomically(path, "text")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in list(path.parents)[:4]}
    assert modes == {"c": 0o700, "b": 0o700, "a": 0o700, "there": 0o755}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "text"
    make_directory(path.parent)


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" + "ü" * 127])
def test_a_name_may_be_as_long_as_names_are(tmp_path: Path, name: str) -> None:
    """What it is written to meanwhile has a name of its own, which is no longer."""
    write_atomically(tmp_path / name, "text")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "file" / "below")
