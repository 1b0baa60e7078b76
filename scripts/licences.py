"""Print the licence of every Python package that is installed, with its text: what a package ships.

Run by the Python whose packages are meant. The texts are those that the packages bring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

#: The names of files that hold a licence, by the field's custom.
_LICENCE_FILE = re.compile(r"(?i)\b(licen[cs]e|copying|notice|authors)[^/]*$")
#: What builds and installs; no package ships it.
_TOOLS = {"pip", "setuptools", "wheel"}


def main() -> None:
    """Print the list first, then the texts."""
    installed = {
        each.metadata["Name"].lower(): each
        for each in metadata.distributions()
        if each.metadata["Name"].lower() not in _TOOLS
    }
    packages = [installed[name] for name in sorted(installed)]
    print("The licences of satfs and of the Python packages that it is shipped with.\n")
    for each in packages:
        print(f"{each.metadata['Name']} {each.version}: {licence_of(each.metadata)}")
    for each in packages:
        for name, text in texts_of(each):
            print(f"\n{'=' * 78}\n{each.metadata['Name']} {each.version}: {name}\n{'=' * 78}\n")
            print(text.strip())


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


def texts_of(package: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """Yield path and text of each licence file that *package* brings."""
    for file in package.files or ():
        if ".dist-info/" in str(file) and _LICENCE_FILE.search(str(file)):
            yield str(file), file.read_binary().decode("utf-8", "replace")


if __name__ == "__main__":
    main()
