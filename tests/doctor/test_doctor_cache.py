"""Cache directories of other users, full ones, on the wrong disk, or missing."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from doctor.conftest import MadeUp, only
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.cache.directory import prepare_directory
from satfs.doctor import cache
from satfs.doctor.findings import Finding, Severity
from satfs.errors import BadCache
from satfs.settings import GB, Settings, load_settings


def settings_for(path: Path, **more: Any) -> Settings:
    """Return settings with their cache at *path*."""
    return load_settings({}, cache_dir=path, **more)


def looked_at(made: MadeUp, path: Path) -> Finding:
    """Return what is said of the directory itself."""
    made.uid = os.getuid()
    return next(cache.directory(made.machine, settings_for(path)))


def test_what_a_mount_has_made_is_fine(made: MadeUp, tmp_path: Path) -> None:
    prepare_directory(tmp_path / "cache")

    assert looked_at(made, tmp_path / "cache").severity is Severity.OK


def test_what_is_not_there_yet_is_fine_where_it_can_be_made(made: MadeUp, tmp_path: Path) -> None:
    """And looking does not make it."""
    assert looked_at(made, tmp_path / "a/b/c").severity is Severity.OK
    assert not (tmp_path / "a").exists()


def test_a_link_and_another_users_directory_are_refused_as_by_a_mount(
    made: MadeUp, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    with pytest.raises(BadCache):
        prepare_directory(tmp_path / "link")
    assert looked_at(made, tmp_path / "link").cause is BadCache

    made.uid = os.getuid() + 1
    finding = next(cache.directory(made.machine, settings_for(tmp_path / "cache")))
    assert (finding.severity, finding.cause) == (Severity.FAILURE, BadCache)
    assert "chown" in finding.commands[0]


def test_a_file_in_its_place_means_memory_only(made: MadeUp, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()

    finding = looked_at(made, tmp_path / "cache")

    assert finding.severity is Severity.WARNING
    assert "memory only" in finding.explanation


def test_a_directory_open_to_others_is_noted_and_its_remedy_closes_it(
    made: MadeUp, tmp_path: Path
) -> None:
    path = tmp_path / "cache"
    path.mkdir()
    path.chmod(0o755)

    finding = looked_at(made, path)
    assert finding.severity is Severity.NOTE
    subprocess.run(finding.commands[0], shell=True, check=True)
    assert looked_at(made, path).severity is Severity.OK


def test_a_disk_that_does_not_answer_is_a_failure_and_not_waited_for(
    made: MadeUp, tmp_path: Path
) -> None:
    made.errnos[tmp_path] = None

    finding = only(cache.directory(made.machine, settings_for(tmp_path)))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, BadCache)
    assert list(cache.space(made.machine, settings_for(tmp_path))) == []


def filesystem(made: MadeUp, path: Path) -> Finding:
    """Return what is said of the filesystem."""
    made.uid = os.getuid()
    _, finding = cache.directory(made.machine, settings_for(path))
    return finding


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_filesystem_is_warned_of(made: MadeUp, tmp_path: Path, kind: str) -> None:
    made.mount(
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw", f"21 20 0:9 / {tmp_path} rw - {kind} server:/x rw"
    )

    finding = filesystem(made, tmp_path / "cache")

    assert finding.severity is Severity.WARNING
    assert kind in finding.statement


def test_a_filesystem_without_holes_is_warned_of(
    made: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT, for example, as fallocate(2) says there."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    made.mount("20 1 8:1 / / rw - vfat /dev/sdb1 rw")
    monkeypatch.setattr(cache, "punch_hole", refuse)

    finding = filesystem(made, tmp_path)

    assert finding.severity is Severity.WARNING
    assert "(vfat) has no holes" in finding.statement


def test_the_look_for_holes_leaves_nothing_behind(made: MadeUp, tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns

    assert filesystem(made, tmp_path).severity is Severity.OK
    assert (sorted(tmp_path.iterdir()), tmp_path.stat().st_mtime_ns) == ([made.root], before)


def test_without_a_disk_cache_nothing_is_looked_at(made: MadeUp, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, cache_bytes=0)

    assert only(cache.directory(made.machine, settings)).severity is Severity.OK
    assert list(cache.space(made.machine, settings)) == []


sizes = st.integers(0, 10**13)


@given(limit_bytes=sizes, held_bytes=sizes, free_bytes=sizes, reserve_bytes=sizes)
def test_room_is_judged_as_eviction_does(
    limit_bytes: int, held_bytes: int, free_bytes: int, reserve_bytes: int
) -> None:
    """Nothing is kept below the minimum; below the limit, less than was configured."""
    finding = cache.space_finding(
        Path("/c"),
        limit_bytes=limit_bytes,
        held_bytes=held_bytes,
        free_bytes=free_bytes,
        reserve_bytes=reserve_bytes,
    )

    expected = (
        Severity.WARNING
        if free_bytes <= reserve_bytes
        else Severity.NOTE
        if held_bytes + free_bytes - reserve_bytes < limit_bytes
        else Severity.OK
    )
    assert finding.severity is expected


def test_what_is_held_counts_by_the_space_it_takes(made: MadeUp, tmp_path: Path) -> None:
    """Sparse files take up what was fetched, not their length."""
    objects = tmp_path / "objects/ab"
    objects.mkdir(parents=True)
    with (objects / "abcd").open("wb") as file:
        file.truncate(10 * GB)
        file.write(b"x" * 1_000_000)

    finding = only(cache.space(made.machine, settings_for(tmp_path, cache_bytes=2_000_000)))

    assert finding.statement.startswith("1.0 MB of 2.0 MB are used")
