"""Pythons that have what the environment of the tests has not."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

#: The system's, for Debian's packages (python3-qgis), and an environment for readers that are too
#: large for that of the tests (CONTRIBUTING.md).
_OTHERS = ("/usr/bin/python3", str(Path(__file__).parents[1] / ".venv-readers/bin/python"))


@cache
def python_with(module: str) -> str | None:
    """Return a Python that imports *module*; None where there is none."""
    for python in (sys.executable, *_OTHERS):
        if Path(python).exists():
            command = [python, "-c", f"import {module}"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return python
    return None
