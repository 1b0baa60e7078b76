"""`scripts/packages`: versions in their order, and what is refused before anything is built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import images
import pytest

from satfs import __version__

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.fixture(scope="module")
def packages(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """Return `scripts/packages.py` as a module."""
    return load_script("packages")


def test_the_version_is_that_of_satfs(packages: ModuleType) -> None:
    assert packages.version_of(ROOT) == __version__


def test_a_later_debian_and_a_later_satfs_upgrade_an_earlier_one(packages: ModuleType) -> None:
    """A release of Debian is upgraded to the next one with the same satfs."""
    if shutil.which("dpkg") is None:
        pytest.skip("dpkg is not installed")
    of_releases = [f"0.1.0{suffix}" for suffix in packages.RELEASES.values()]

    for earlier, later in pairwise([*of_releases, "0.1.0", "0.1.1~deb12u1"]):
        subprocess.run(["dpkg", "--compare-versions", earlier, "lt", later], check=True)


def test_the_changelog_names_version_release_author_and_day(packages: ModuleType) -> None:
    text = packages.debian_changelog("0.1.0~deb13u1", "trixie", "A <a@b.example>", 1767225600)

    assert text.startswith("satfs (0.1.0~deb13u1) trixie; urgency=medium\n\n  * ")
    assert text.endswith("\n -- A <a@b.example>  Thu, 01 Jan 2026 00:00:00 -0000\n")


def test_a_release_that_has_no_package_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "packages.py"), "sarge"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "no package is called sarge; there are: bookworm, trixie, wheel, image" in done.stderr


def test_the_image_is_run_as_it_says() -> None:
    """User, environment, command, health check and stop signal reach bash whole."""
    config = {
        "Env": ["PATH=/opt/satfs/bin:/bin", "NAME=two words"],
        "Entrypoint": ["satfs"],
        "Cmd": ["mount", "--foreground", "/mnt/aleph"],
        "Healthcheck": {"Test": ["CMD", "satfs", "status"]},
        "User": "satfs",
        "StopSignal": "SIGTERM",
    }
    shown = 'printf "%s|" "${environment[@]}" "${command[@]}" "${health[@]}" $user $signal'
    done = subprocess.run(
        ["bash", "-euc", f"{images.settings_of(config)}\n{shown}"],
        env={"SATFS_API_URL": "http://127.0.0.1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("|")[:-1] == [
        *("PATH=/opt/satfs/bin:/bin", "NAME=two words", "SATFS_API_URL=http://127.0.0.1"),
        *("satfs", "mount", "--foreground", "/mnt/aleph", "satfs", "status", "satfs", "TERM"),
    ]
