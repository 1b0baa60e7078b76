"""Print the licence of every Python package that is installed, with its text: what a package ships.

Run by the Python whose packages are meant. The texts are those that the packages bring. Beside the
packages themselves, the libraries in their wheels are listed: those of other languages by the SBOM
in the wheel (PEP 770), shared libraries by the names of their files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, Final

#: The names of files that hold a licence, by the field's custom: beside a package's metadata, and
#: among its modules and data.
_BESIDE_METADATA: Final = re.compile(
    r"(?i)\.dist-info/.*\b(licen[cs]e|copying|notice|authors)[^/]*$"
)
_AMONG_MODULES: Final = re.compile(r"(^|/)(LICEN[CS]E|COPYING|NOTICE)(\.(txt|md|rst|TXT))?$")
_SBOM: Final = re.compile(r"\.dist-info/sboms/[^/]+\.json$")
#: A shared library that was put into a wheel (auditwheel): its name, a hash, its version.
_SHARED_LIBRARY: Final = re.compile(r"\.libs/(?P<name>lib[\w.+-]+?)(-[0-9a-f]{8})*\.so[\w.]*$")
#: Packages that build and install; no package ships them.
_TOOLS: Final = {"pip", "setuptools", "wheel"}
#: Libraries in wheels that name no licence there: that of each project, as SPDX expression.
OF_LIBRARIES: Final[Mapping[str, str]] = {
    "libLerc": "Apache-2.0",
    "libaec": "BSD-2-Clause",
    "libblosc": "BSD-3-Clause",
    "libcrypto": "Apache-2.0",
    "libcurl": "curl",
    "libdeflate": "MIT",
    "libgdal": "MIT",
    "libgeos": "LGPL-2.1-or-later",
    "libgeos_c": "LGPL-2.1-or-later",
    "libgfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgif": "MIT",
    "libhdf5": "BSD-3-Clause",
    "libhdf5_hl": "BSD-3-Clause",
    "libjpeg": "IJG",
    "libjson-c": "MIT",
    "liblzma": "0BSD",
    "libnetcdf": "BSD-3-Clause",
    "libnghttp2": "MIT",
    "libopenjp2": "BSD-2-Clause",
    "libpcre2-8": "BSD-3-Clause",
    "libpng16": "libpng-2.0",
    "libproj": "MIT",
    "libquadmath": "LGPL-2.1-or-later",
    "libscipy_openblas64_": "BSD-3-Clause",
    "libsharpyuv": "BSD-3-Clause",
    "libsqlite3": "blessing",
    "libssl": "Apache-2.0",
    "libsz": "BSD-2-Clause",
    "libtiff": "libtiff",
    "libwebp": "BSD-3-Clause",
    "libzstd": "BSD-3-Clause",
    "openssl": "Apache-2.0",
}


class UnknownLicence(Exception):
    """A library is shipped whose licence is not known; the message names it."""


def main() -> int:
    """Print the list first, then the texts; return 1 if a licence is not known."""
    installed = {
        each.metadata["Name"].lower(): each
        for each in metadata.distributions()
        if each.metadata["Name"].lower() not in _TOOLS
    }
    packages = [installed[name] for name in sorted(installed)]
    print("The licences of satfs and of the Python packages that it is shipped with.")
    print("Below a package are the libraries of other languages in it.\n")
    try:
        for each in packages:
            print(f"{each.metadata['Name']} {each.version}: {licence_of(each.metadata)}")
            for name, licence in sorted(libraries_of(each)):
                print(f"    {name}: {licence}")
    except UnknownLicence as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 1
    for each in packages:
        for name, text in texts_of(each):
            print(f"\n{'=' * 78}\n{each.metadata['Name']} {each.version}: {name}\n{'=' * 78}\n")
            print(text.strip())
    return 0


def licence_of(fields: metadata.PackageMetadata) -> str:
    """Return the licence that a package names: its SPDX expression, classifiers or free text."""
    if "License-Expression" in fields:
        return str(fields["License-Expression"])
    classifiers = [
        str(each).rpartition(" :: ")[2]
        for each in fields.get_all("Classifier", [])
        if str(each).startswith("License :: ")
    ]
    free_text = str(dict(fields).get("License", "")).strip().splitlines()
    return ", ".join(classifiers) or (free_text[0][:78] if free_text else "see its text")


def libraries_of(package: metadata.Distribution) -> set[tuple[str, str]]:
    """Return name and licence of each library of another language that *package* contains.

    Raises:
        UnknownLicence: a library names no licence, and `OF_LIBRARIES` does not know it.
    """
    found = set()
    for file in package.files or ():
        if _SBOM.search(str(file)):
            for component in json.loads(file.read_text(encoding="utf-8")).get("components", []):
                name = f"{component['name']} {component.get('version', '')}".strip()
                found.add((name, _licence_in_sbom(component) or _known(component["name"], package)))
        elif library := _SHARED_LIBRARY.search(str(file)):
            found.add((library["name"], _known(library["name"], package)))
    return found


def _licence_in_sbom(component: Mapping[str, Any]) -> str:
    """Return the licences of a component of CycloneDX as one expression; empty: it names none."""
    licences = [each.get("expression") or each["license"] for each in component.get("licenses", [])]
    return " AND ".join(
        each if isinstance(each, str) else each.get("id") or each["name"] for each in licences
    )


def _known(name: str, package: metadata.Distribution) -> str:
    try:
        return OF_LIBRARIES[name]
    except KeyError:
        raise UnknownLicence(
            f"{package.metadata['Name']} {package.version} contains {name}, which names no "
            "licence: look it up at its project, and add it to OF_LIBRARIES in scripts/licences.py"
        ) from None


def texts_of(package: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """Yield path and text of each licence file that *package* brings; each text once."""
    known = set()
    for pattern in (_BESIDE_METADATA, _AMONG_MODULES):
        for file in package.files or ():
            if pattern.search(str(file)):
                text = file.read_binary().decode("utf-8", "replace")
                if text not in known:
                    known.add(text)
                    yield str(file), text


if __name__ == "__main__":
    sys.exit(main())
