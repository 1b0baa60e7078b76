"""`scripts/licences.py`: each package, the libraries in it, and their texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

Files = dict[str, str]


@pytest.fixture(scope="module")
def licences(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """Return `scripts/licences.py` as a module."""
    return load_script("licences")


@pytest.fixture
def package(tmp_path: Path) -> Callable[[Files], metadata.Distribution]:
    """Return a function that installs a package of some files, beside its metadata."""

    def install(files: Files) -> metadata.Distribution:
        info = "thing-1.0.dist-info"
        files = {f"{info}/METADATA": "Name: thing\nVersion: 1.0\n", **files}
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
        return metadata.Distribution.at(tmp_path / info)

    return install


def test_shared_libraries_in_a_wheel_are_listed_with_the_licences_of_their_projects(
    licences: ModuleType, package: Callable[[Files], metadata.Distribution]
) -> None:
    of_two = package(
        {
            "thing.libs/libgeos_c-ac38a227.so.1.20.5": "",
            "thing.libs/libgfortran-040039e1-0352e75f.so.5.0.0": "",
            "thing.libs/libsqlite3.so.0": "",
        }
    )

    assert sorted(licences.libraries_of(of_two)) == [
        ("libgeos_c", "LGPL-2.1-or-later"),
        ("libgfortran", "GPL-3.0-or-later WITH GCC-exception-3.1"),
        ("libsqlite3", "blessing"),
    ]


def test_libraries_of_other_languages_are_listed_by_the_sbom_of_a_wheel(
    licences: ModuleType, package: Callable[[Files], metadata.Distribution]
) -> None:
    components = [
        {"name": "base64", "version": "0.2", "licenses": [{"expression": "MIT OR Apache-2.0"}]},
        {"name": "x", "version": "1", "licenses": [{"license": {"id": "MIT"}}]},
        {"name": "y", "licenses": [{"license": {"name": "A"}}, {"license": {"id": "B"}}]},
        {"name": "openssl", "version": "4.0.3"},
    ]
    sbom = json.dumps({"bomFormat": "CycloneDX", "components": components})
    with_sbom = package({"thing-1.0.dist-info/sboms/thing.cyclonedx.json": sbom})

    assert licences.libraries_of(with_sbom) == {
        ("base64 0.2", "MIT OR Apache-2.0"),
        ("x 1", "MIT"),
        ("y", "A AND B"),
        ("openssl 4.0.3", "Apache-2.0"),
    }


def test_a_library_whose_licence_is_not_known_is_not_shipped(
    licences: ModuleType, package: Callable[[Files], metadata.Distribution]
) -> None:
    with pytest.raises(licences.UnknownLicence, match=r"thing 1\.0 contains libnew, "):
        licences.libraries_of(package({"thing.libs/libnew-0123abcd.so": ""}))


def test_texts_are_found_beside_the_metadata_and_among_the_data_each_once(
    licences: ModuleType, package: Callable[[Files], metadata.Distribution]
) -> None:
    info = "thing-1.0.dist-info"
    installed = package(
        {
            f"{info}/licenses/LICENSE.txt": "one",
            "thing/LICENSE": "one",
            "thing/gdal_data/LICENSE.TXT": "two",
            "thing/license.py": "no text",
        }
    )

    assert list(licences.texts_of(installed)) == [
        (f"{info}/licenses/LICENSE.txt", "one"),
        ("thing/gdal_data/LICENSE.TXT", "two"),
    ]


def required_by(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, metadata.requires(name) or ()):
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
        ):
            yield requirement


def test_each_licence_of_what_satfs_is_shipped_with_is_known_and_has_a_text(
    licences: ModuleType,
) -> None:
    shipped: dict[str, frozenset[str]] = {}
    found = [Requirement("satfs[demo]")]
    while found:
        requirement = found.pop()
        extras = frozenset(requirement.extras)
        if shipped.get(requirement.name) != extras:
            shipped[requirement.name] = extras
            found += required_by(requirement.name, extras)
    assert {"satfs", "rasterio", "pyfuse3"} < set(shipped)

    for package in map(metadata.distribution, shipped):
        licences.libraries_of(package)
        if package.metadata["Name"] != "satfs":  # installed as a checkout
            assert list(licences.texts_of(package)), package.metadata["Name"]
