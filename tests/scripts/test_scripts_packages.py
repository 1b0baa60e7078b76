"""`scripts/packages`: versions in their order, and what is refused before anything is built."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
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


def pushed(path: Path, layer: bytes, container: str) -> Path:
    """Write an image as buildah writes it: built in *container*, after which its host is named."""
    config = {
        "created": "2026-01-01T00:00:00Z",
        "container": container,
        "container_config": {"Hostname": container},
        "config": {"Hostname": container, "User": "satfs", "Healthcheck": {"Test": ["CMD", "a"]}},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["localhost/x:latest"], "Layers": ["l.tar"]}]
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("l.tar", layer),
            ("c.json", json.dumps(config).encode()),
            (f"{container}/VERSION", b"1.0"),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_an_image_is_the_same_bytes_whichever_container_it_was_built_in(tmp_path: Path) -> None:
    images.write_archive(pushed(tmp_path / "1", b"files", "5e1f"), tmp_path / "one.tar")
    images.write_archive(pushed(tmp_path / "2", b"files", "ca7e"), tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        content = {
            member.name: member_file.read()
            for member in archive
            if (member_file := archive.extractfile(member)) is not None
        }
    (image,) = json.loads(content["manifest.json"])
    config = content[image["Config"]]
    assert image["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    assert [content[layer] for layer in image["Layers"]] == [b"files"]
    assert json.loads(config)["config"] == {
        "Hostname": "",
        "User": "satfs",
        "Healthcheck": {"Test": ["CMD", "a"]},
    }
