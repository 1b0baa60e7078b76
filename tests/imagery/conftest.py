"""Rasters that are written once for all tests of this directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from imagery.rasters import LAYOUTS


@pytest.fixture(scope="session")
def raster_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a layout's name to a file of that layout."""
    directory = tmp_path_factory.mktemp("rasters")
    made: dict[str, Path] = {}

    def path_of(name: str) -> Path:
        if name not in made:
            made[name] = LAYOUTS[name](directory / f"{len(made)}.tif")
        return made[name]

    return path_of
