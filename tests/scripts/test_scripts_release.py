"""`scripts/release`: the changelog's section, the version, and what stops a release."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- One thing.

## [0.1.0] - 2026-01-01

- All else.
"""


@pytest.fixture(scope="module")
def release(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """Return `scripts/release.py` as a module."""
    return load_script("release")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository with a version and a changelog, committed."""
    (tmp_path / "satfs").mkdir()
    (tmp_path / "satfs/__init__.py").write_text('"""A."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    commit(tmp_path)
    return tmp_path


def commit(directory: Path) -> None:
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    if not (directory / ".git").exists():
        subprocess.run([*git, "init", "--quiet"], cwd=directory, check=True)
    subprocess.run([*git, "add", "--all"], cwd=directory, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "a"], cwd=directory, check=True)


def test_the_changelog_is_cut(release: ModuleType) -> None:
    text = release.cut(CHANGELOG, "0.2.0", "2026-02-03")

    assert release.section(text, "Unreleased") == "\n"
    assert release.section(text, "0.2.0") == "### Added\n\n- One thing.\n"
    assert release.section(text, "0.1.0") == "- All else.\n"
    assert "## [0.2.0] - 2026-02-03\n" in text


@pytest.mark.parametrize(
    ("changelog", "version"),
    [(CHANGELOG, "0.1.0"), ("# Changelog\n", "0.2.0"), ("## [Unreleased]\n\n", "0.2.0")],
)
def test_there_must_be_something_to_cut(release: ModuleType, changelog: str, version: str) -> None:
    with pytest.raises(release.ReleaseError, match=r"CHANGELOG\.md has"):
        release.cut(changelog, version, "2026-02-03")


def test_preparing_sets_the_version_in_its_one_place(release: ModuleType, checkout: Path) -> None:
    release.prepare(checkout, "0.2.0rc1", "2026-02-03")

    assert '__version__ = "0.2.0rc1"' in (checkout / "satfs/__init__.py").read_text()
    assert "## [0.2.0rc1] - 2026-02-03" in (checkout / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("version", ["2", "v0.2.0", "0.2.0; rm -rf /", "0.2.0+local"])
def test_what_is_no_version_is_refused(release: ModuleType, checkout: Path, version: str) -> None:
    with pytest.raises(release.ReleaseError, match="is no version"):
        release.prepare(checkout, version, "2026-02-03")


def test_a_tree_with_changes_is_not_released(release: ModuleType, checkout: Path) -> None:
    release.require_clean(checkout)
    (checkout / "new.txt").write_text("")

    with pytest.raises(release.ReleaseError, match=r"(?s)commit or remove these first.*new\.txt"):
        release.require_clean(checkout)


def test_the_commit_of_another_version_is_not_released(
    release: ModuleType, checkout: Path, tmp_path: Path
) -> None:
    with pytest.raises(release.ReleaseError, match=r"is not 0\.2\.0"):
        release.release(checkout, "0.2.0", tmp_path / "dist")

    assert not (tmp_path / "dist").exists()


def test_checksums_are_as_sha256sum_reads_them(release: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "a.whl"
    file.write_bytes(b"abc")
    (tmp_path / "SHA256SUMS").write_text(release.checksums([file]))

    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path)

    assert done.returncode == 0
