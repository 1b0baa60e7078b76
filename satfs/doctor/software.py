"""Versions: of satfs, of Python, and whether the libraries are the ones satfs needs."""

from __future__ import annotations

import platform
import re
import ssl
from collections.abc import Iterable, Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

import satfs
from satfs.doctor.findings import Area, Finding, Severity, fine

_DISTRIBUTION = "satfs"


def versions() -> Iterator[Finding]:
    """Look at the libraries that are installed beside us."""
    try:
        wanted = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a checkout
        wanted = []
    held = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    unfit = unfit_libraries(wanted, held)
    if unfit:
        yield Finding(
            Area.SETTINGS,
            "versions",
            Severity.WARNING,
            f"Libraries are not as satfs needs them: {'; '.join(unfit)}.",
            "Another program has changed them, most likely: they share a Python environment.",
            "Install satfs into an environment of its own:",
            ("pipx install --force satfs",),
        )
        return
    yield fine(
        Area.SETTINGS,
        "versions",
        f"satfs {satfs.__version__}, Python {platform.python_version()}, "
        f"{' '.join(ssl.OPENSSL_VERSION.split()[:2])}.",
    )


def unfit_libraries(wanted: Iterable[str], held: dict[str, str]) -> list[str]:
    """Return what is wrong with the versions *held*, given what is *wanted* (PEP 508).

    What only an extra wants may be missing. What cannot be read is left out.
    """
    versions = {_plain(name): version for name, version in held.items() if name}
    wrong = []
    for text in wanted:
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        version = versions.get(_plain(need.name))
        if version is None:
            wrong.append(f"{need.name} is missing")
        elif not need.specifier.contains(version, prereleases=True):
            wrong.append(f"{need.name} is {version}, and must be {need.specifier}")
    return wrong


def _plain(name: str) -> str:
    """Return a distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
