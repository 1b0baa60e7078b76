"""The sdist and the wheel: what they hold, and that the wheel works outside the checkout."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from satfs import __version__
from satfs.cli.commands.completion import SHELLS, completion_script
from satfs.cli.commands.man import man_pages
from satfs.cli.main import COMMANDS
from satfs.cli.main import satfs as root
from satfs.cli.systemd import template_unit_text

ROOT = Path(__file__).parents[2]
#: The day of the release that is built here: 2026-01-01.
EPOCH_S = "1767225600"


def build(target: str, source: Path, directory: Path) -> Path:
    """Return the *target* (sdist, wheel) that hatchling has built of *source* into *directory*."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH_S},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(directory.glob("*.whl" if target == "wheel" else "*.tar.gz"))


@dataclass(frozen=True)
class Built:
    """An sdist, what it unpacks to, and the wheel that was built of that."""

    sdist: Path
    source: Path
    wheel: Path

    @property
    def members(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.wheel) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}

    @property
    def data(self) -> dict[str, str]:
        """The files that are installed below the prefix, as text by their path."""
        start = f"satfs-{__version__}.data/data/"
        return {
            name.removeprefix(start): text.decode()
            for name, text in self.members.items()
            if name.startswith(start)
        }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    directory = tmp_path_factory.mktemp("dist")
    sdist = build("sdist", ROOT, directory)
    subprocess.run(["tar", "-C", directory, "-xf", sdist], check=True)
    source = directory / f"satfs-{__version__}"
    return Built(sdist, source, build("wheel", source, directory))


def test_an_sdist_holds_what_the_checkout_does_and_the_written_files(built: Built) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "satfs", "tests", "scripts", "docs", ".ci"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    files = [name for name in listed if name and (ROOT / name).exists()]
    if not files:
        pytest.skip("this is no checkout")

    assert [name for name in files if not (built.source / name).exists()] == []
    assert (built.source / "share/man/man1/satfs.1").exists()


def test_a_wheel_brings_the_man_page_of_every_command(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH_S)
    pages = {name: text for name, text in built.data.items() if name.startswith("share/man/")}

    assert pages == {
        f"share/man/man{name[-1]}/{name}": text for name, text in man_pages(root).items()
    }
    assert {f"share/man/man1/satfs-{command}.1" for command in COMMANDS} < set(pages)
    assert "share/man/man8/mount.satfs.8" in pages


@pytest.mark.parametrize("shell", SHELLS)
def test_a_wheel_brings_the_completion_of_each_shell(built: Built, shell: str) -> None:
    name = {
        "bash": "share/bash-completion/completions/satfs",
        "zsh": "share/zsh/site-functions/_satfs",
        "fish": "share/fish/vendor_completions.d/satfs.fish",
    }[shell]

    assert built.data[name] == completion_script(root, shell)


def test_a_wheel_brings_the_template_unit(built: Built) -> None:
    assert built.data["share/systemd/user/satfs@.service"] == template_unit_text()


def test_a_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.members}

    assert tops == {"satfs", f"satfs-{__version__}.data", f"satfs-{__version__}.dist-info"}
    assert not [name for name in built.members if "__pycache__" in name]


def test_a_wheel_names_its_programs_and_its_pythons(built: Built) -> None:
    info = f"satfs-{__version__}.dist-info"
    metadata = email.message_from_bytes(built.members[f"{info}/METADATA"])
    programs = built.members[f"{info}/entry_points.txt"].decode()

    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    for minor in (11, 12, 13, 14):
        assert f"Programming Language :: Python :: 3.{minor}" in metadata.get_all("Classifier", [])
    assert "satfs = satfs.cli:main" in programs
    assert "mount.satfs = satfs.cli.mount_helper:main" in programs


def test_the_same_source_makes_the_same_bytes(built: Built, tmp_path: Path) -> None:
    """In another directory, with other times and other permissions, and from an unpacked sdist."""
    source = tmp_path / "elsewhere" / "satfs"
    shutil.copytree(built.source, source)
    for path in source.rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1, 1))

    again = build("wheel", source, tmp_path)
    sdist = build("sdist", source, tmp_path)

    assert again.read_bytes() == built.wheel.read_bytes()
    assert sdist.read_bytes() == built.sdist.read_bytes()


def test_the_wheel_runs_where_there_is_no_checkout(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(tmp_path / "site")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "satfs", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
        )

    where = "import satfs; print(satfs.__file__)"
    imported = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert imported.startswith(str(tmp_path / "site"))
    assert run("--version").stdout == f"satfs {__version__}\n"
    assert run("settings").returncode == 0
    assert run("man", str(tmp_path / "man")).returncode == 0
    assert (tmp_path / "man/man1/satfs-mount.1").exists()


def test_without_what_satfs_needs_a_wheel_of_a_checkout_goes_without_pages(
    tmp_path: Path, built: Built
) -> None:
    """`pip install .` builds where only hatchling is; the wheel works, and the reason is given."""
    subprocess.run(["tar", "-C", tmp_path, "-xf", built.sdist], check=True)
    checkout = tmp_path / f"satfs-{__version__}"
    shutil.rmtree(checkout / "share")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "click.py").write_text("raise ModuleNotFoundError('no click', name='click')\n")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(blocked)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "no man pages, completions and unit in this wheel: click is missing" in (
        done.stdout + done.stderr
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert not [name for name in wheel.namelist() if ".data/" in name]


@pytest.mark.parametrize("profile", ["default", "my-harbour"])
def test_systemd_finds_nothing_wrong_with_the_template_unit(tmp_path: Path, profile: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "satfs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # The program of this test lies where systemd does not look for one.
    text = template_unit_text().replace("ExecStart=satfs ", f"ExecStart={program} ")
    instance = tmp_path / f"satfs@{profile}.service"
    instance.write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(instance)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert [line for line in done.stderr.splitlines() if "satfs@" in line] == []
    assert "failed" not in done.stderr.lower(), done.stderr
