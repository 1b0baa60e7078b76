"""Commands of the tests are forks of one process that has imported satfs (`fakes.forking`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fakes.processes import is_running

_TESTS = Path(__file__).parents[1]

_FORKS = """
import os, sys
from pathlib import Path
from fakes import forking
done = forking.run([sys.argv[1], "--version"], os.environ, Path.cwd(), 30)
print(done.returncode, forking._template().process.pid)
"""


def test_a_process_that_has_started_forks_ends_without_a_warning() -> None:
    """It has ended the process that forks, so that Python finds nothing left open."""
    program = Path(sys.executable).with_name("satfs")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORKS, str(program)],
        cwd=_TESTS,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, template = map(int, done.stdout.split())
    assert (code, done.stderr) == (0, "")
    assert not is_running(template)
