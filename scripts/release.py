"""Build a release: sdist, wheel, Debian packages and image, checksums, SBOM and licences."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: The one place that holds the version.
VERSION_FILE: Final = Path("satfs/__init__.py")
_VERSION: Final = re.compile(r'(?m)^__version__ = "(?P<version>.+)"$')
#: A release's number: Semantic Versioning without build metadata.
_NUMBER: Final = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_UNRELEASED: Final = "## [Unreleased]\n"


class ReleaseError(Exception):
    """Something prevents the release; the message says what, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Return 0 when the release is in dist/, or is prepared."""
    parser = argparse.ArgumentParser("scripts/release", description=__doc__)
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="set the version and cut the changelog; build nothing",
    )
    parser.add_argument(
        "--no-packages", action="store_true", help="no Debian packages and no image"
    )
    wanted = parser.parse_args(arguments)
    try:
        require_clean(ROOT)
        if wanted.prepare:
            prepare(ROOT, wanted.version, time.strftime("%Y-%m-%d", time.gmtime()))
            print(f"look at the changes, then: git commit -am 'release: {wanted.version}'")
        else:
            packages = () if wanted.no_packages else (str(ROOT / "scripts" / "packages"),)
            release(ROOT, wanted.version, ROOT / "dist", packages)
    except ReleaseError as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 1
    return 0


def require_clean(root: Path) -> None:
    """Raise ReleaseError if the checkout in *root* differs from its commit."""
    if changed := _output(root, "git", "status", "--porcelain").strip():
        raise ReleaseError(f"commit or remove these first:\n{changed}")


def prepare(root: Path, version: str, day: str) -> None:
    """Set *version* in its file, and cut a section for it from what is unreleased.

    Raises:
        ReleaseError: it is no version, or nothing is unreleased.
    """
    if not _NUMBER.fullmatch(version):
        raise ReleaseError(f"{version} is no version such as 0.2.0 or 0.2.0rc1")
    changelog = root / "CHANGELOG.md"
    changelog.write_text(cut(changelog.read_text("utf-8"), version, day), "utf-8")
    file = root / VERSION_FILE
    file.write_text(_VERSION.sub(f'__version__ = "{version}"', file.read_text("utf-8")), "utf-8")


def cut(changelog: str, version: str, day: str) -> str:
    """Return *changelog* with a section for *version* in which all is that was unreleased.

    Raises:
        ReleaseError: nothing is unreleased, or the version has a section already.
    """
    if f"## [{version}]" in changelog:
        raise ReleaseError(f"CHANGELOG.md has a section for {version} already")
    before, found, rest = changelog.partition(_UNRELEASED)
    if not found or not section(changelog, "Unreleased").strip():
        raise ReleaseError("CHANGELOG.md has nothing that is unreleased")
    return f"{before}{_UNRELEASED}\n## [{version}] - {day}\n{rest}"


def section(changelog: str, version: str) -> str:
    """Return what *changelog* says of *version*; empty if there is no such section."""
    found = re.search(rf"(?ms)^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog)
    return found[1].strip() + "\n" if found else ""


def release(root: Path, version: str, output: Path, packages: Sequence[str] = ()) -> None:
    """Put all files of *version* into *output*, which is emptied first.

    *packages* is the command that puts the Debian packages and the image there; none: without.

    Raises:
        ReleaseError: the commit is another version's, or a file does not pass its check.
    """
    found = _VERSION.search((root / VERSION_FILE).read_text("utf-8"))
    notes = section((root / "CHANGELOG.md").read_text("utf-8"), version)
    if found is None or found["version"] != version or not notes:
        raise ReleaseError(
            f"this commit is not {version}, by {VERSION_FILE} and CHANGELOG.md; "
            f"see scripts/release {version} --prepare"
        )
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    epoch = _output(root, "git", "log", "-1", "--format=%ct").strip()
    with tempfile.TemporaryDirectory() as directory:
        # Of a clone: what git ignores is not in it, and nothing else writes there.
        source = Path(directory, "source")
        _run(root, "git", "clone", "--quiet", "--no-hardlinks", ".", str(source))
        build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output))
        _run(source, *build, SOURCE_DATE_EPOCH=epoch)
    files = sorted(output.iterdir())
    _run(root, sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    with tempfile.TemporaryDirectory() as directory:
        # Only what a user gets is in this environment, so SBOM and licences list that alone.
        python = str(Path(directory, "bin", "python"))
        (wheel,) = output.glob("*.whl")
        _run(root, sys.executable, "-m", "venv", directory)
        pip = (python, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt")
        _run(root, *pip, f"{wheel}[demo]")
        if _output(output, python, "-m", "satfs", "--version") != f"satfs {version}\n":
            raise ReleaseError("the wheel that was built does not show its version")
        licences = _output(root, python, "scripts/licences.py")
        (output / "LICENCES.txt").write_text(licences, "utf-8")
        _run(root, python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip")
        # It names the directory of the wheel (PEP 610), and the SBOM would.
        for file in Path(directory).glob("lib/*/site-packages/satfs-*.dist-info/direct_url.json"):
            file.unlink()
        sbom = str(output / f"satfs-{version}.cdx.json")
        command = (sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible")
        _run(root, *command, "--pyproject", "pyproject.toml", "-o", sbom, python)
    (output / "NOTES.md").write_text(notes, "utf-8")
    if packages:
        _run(root, *packages)
    (output / "SHA256SUMS").write_text(checksums(sorted(output.iterdir())), "utf-8")
    print(f"{output}: {', '.join(sorted(each.name for each in output.iterdir()))}")


def checksums(files: Sequence[Path]) -> str:
    """Return the text of SHA256SUMS for *files*, as sha256sum(1) reads it."""
    return "".join(
        f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files
    )


def _run(directory: Path, *command: str, **environment: str) -> None:
    code = subprocess.run(
        command, cwd=directory, env={**os.environ, **environment}, check=False
    ).returncode
    if code != 0:
        raise ReleaseError(f"{' '.join(command[:4])} ended with exit code {code}")


def _output(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(command[:3])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
