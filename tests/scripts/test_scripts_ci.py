"""The jobs of a public host: their matrices name all that the present scripts know."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    found: dict[str, Any] = workflow["jobs"]
    return found


@pytest.fixture(scope="module")
def pythons() -> list[str]:
    """Return the Pythons for which satfs is declared, such as 3.11."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = (
        each.rpartition(" :: ")[2] for each in project["classifiers"] if ":: Python ::" in each
    )
    return [name for name in names if name != "3"]


def matrix(jobs: dict[str, Any], job: str) -> list[str]:
    """Return the only list over which *job* runs."""
    (values,) = jobs[job]["strategy"]["matrix"].values()
    return [str(value) for value in values]


def test_the_public_host_runs_what_is_run_before_a_change_is_merged(jobs: dict[str, Any]) -> None:
    assert {"run": ".ci/run"} in jobs["all"]["steps"]


def test_the_wheel_is_tried_on_each_python_for_which_satfs_is_declared(
    jobs: dict[str, Any], pythons: list[str]
) -> None:
    assert matrix(jobs, "wheel") == pythons


def test_tests_run_with_oldest_and_newest_versions_and_each_later_python(
    jobs: dict[str, Any], pythons: list[str]
) -> None:
    later = [f"python{python}" for python in pythons[1:]]

    assert matrix(jobs, "versions") == ["oldest", "newest", *later]


def test_each_bare_machine_and_each_package_is_tried(
    jobs: dict[str, Any], load_script: Callable[[str], ModuleType]
) -> None:
    packages = load_script("packages")

    assert matrix(jobs, "places") == list(load_script("places").PLACES)
    assert matrix(jobs, "packages") == [*packages.RELEASES, packages.WHEEL, packages.IMAGE]
