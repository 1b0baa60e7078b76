"""Files that are the old or the new one at any moment, and never another user's."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from satfs.atomic_file import write_atomically


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "made" / "too" / "file"
    write_atomically(path, "text")
    assert path.read_text() == "text"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700


@pytest.mark.parametrize(("given", "kept"), [(None, 0o644), (0o600, 0o600)])
def test_permissions(tmp_path: Path, given: int | None, kept: int) -> None:
    """They stay as they were, unless others are given."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_atomically(path, "new", mode=given)
    assert (path.read_text(), mode_of(path)) == ("new", kept)


def test_a_link_is_replaced(tmp_path: Path) -> None:
    """A user who can put a link there cannot make satfs write elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    (tmp_path / "file").symlink_to(elsewhere)
    write_atomically(tmp_path / "file", "ours", mode=0o600)
    assert elsewhere.read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink()


def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(_fd: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"
