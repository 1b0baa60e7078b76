"""Write constraints for pip: the oldest versions that satfs allows, or those installed here."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
#: Requirements whose lower bounds count. Tests, and the libraries that only tests use, are as new
#: as they are allowed to be: distributed fits the pandas of its own year.
EXTRAS = ("demo", "fsspec", "geoparquet")


def main(arguments: list[str]) -> int:
    """Print the constraints that the only argument names; return 0."""
    (which,) = arguments
    if which == "oldest":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        optional = project["optional-dependencies"]
        wanted = [*project["dependencies"], *(each for name in EXTRAS for each in optional[name])]
        lines = oldest(wanted)
    else:
        lines = installed((each.name, each.version) for each in metadata.distributions())
    print("\n".join(lines))
    return 0


def oldest(requirements: Iterable[str]) -> Iterator[str]:
    """Yield a constraint for each of *requirements* that has a lower bound, by name."""
    found: dict[str, str] = {}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate():
            for bound in requirement.specifier:
                if bound.operator == ">=":
                    found[canonicalize_name(requirement.name)] = bound.version
    for name, version in sorted(found.items()):
        yield f"{name}=={version}"


def installed(distributions: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the head of constraints.txt, and a constraint for each of *distributions*.

    satfs and pip are left out: the one is what is installed, the other installs.
    """
    yield "# The versions that the tests were run with: scripts/versions newest, then --lock."
    found = {canonicalize_name(name): version for name, version in distributions}
    for name in sorted(found.keys() - {"satfs", "pip", "setuptools"}):
        yield f"{name}=={found[name]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
