"""Fuzz targets: their form, and how those of this directory are found.

A target hands foreign bytes to one parser of satfs. Any input is allowed to be refused with the
errors that the parser documents; any other exception, and any broken promise, is a finding.

To add one: write `targets_AREA.py` beside this module with a tuple `TARGETS`. Nothing else has to
be changed: `scripts/fuzz` and `test_fuzz_targets.py` find it by its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Target:
    """One parser under test: *check* raises for a finding and returns for anything else.

    *examples* are inputs that are always tried first: what once was a finding, and seeds that lead
    deep into the parser.
    """

    name: str
    sentence: str
    strategy: SearchStrategy[Any]
    check: Callable[[Any], None]
    examples: tuple[Any, ...] = field(default=())


def all_targets() -> dict[str, Target]:
    """Return the targets of every `targets_*.py` beside this module, by name.

    Raises:
        ValueError: two targets have one name.
    """
    found: dict[str, Target] = {}
    for path in sorted(Path(__file__).parent.glob("targets_*.py")):
        module = importlib.import_module(f"fuzz.{path.stem}")
        for target in module.TARGETS:
            if target.name in found:
                raise ValueError(f"two fuzz targets are called {target.name!r}")
            found[target.name] = target
    return found
