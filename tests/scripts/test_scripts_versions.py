"""`scripts/versions`: which constraints are written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import versions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    lines = list(versions.oldest(["Trio>=0.29,<1", "a_b[c]>=2", "certifi", "x<3"]))
    assert lines == ["a-b==2", "trio==0.29"]


def test_a_requirement_of_another_python_is_left_out() -> None:
    assert list(versions.oldest(["zstd>=1; python_version < '3'"])) == []


def test_what_is_installed_is_written_by_name_without_satfs_and_pip() -> None:
    lines = list(
        versions.installed([("trio", "0.30"), ("pip", "25"), ("My_Thing", "1"), ("satfs", "1")])
    )
    assert lines[1:] == ["my-thing==1", "trio==0.30"]
    assert lines[0].startswith("#")


def test_the_constraints_of_the_checkout_hold_what_satfs_needs() -> None:
    """Each direct dependency has exactly one version there, inside the range of pyproject.toml."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    pinned = dict(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)$", text))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), (
            requirement
        )
