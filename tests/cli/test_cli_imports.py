"""A command does not import libraries that take as long as all the rest, unless it needs them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from satfs.cli.main import satfs

HEAVY = {
    "httpcore", "httpx", "keyring", "numpy", "prometheus_client", "pyfuse3", "shapely",
    "structlog", "trio",
}  # fmt: skip
#: Ends with the names of the top-level modules that were imported, each on a line.
PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}, sep="\\n"))
from satfs.cli import main
main(sys.argv[1:])
"""


def imported_by(*arguments: str, home: Path, exit_codes: tuple[int, ...] = (0,)) -> set[str]:
    """Return the top-level modules that `satfs ARGUMENTS` imports."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SATFS_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in exit_codes, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_waits_for_no_heavy_library(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert imported_by(*arguments, home=tmp_path).isdisjoint(HEAVY | {"rich"})


def test_status_waits_for_no_heavy_library(tmp_path: Path) -> None:
    """A mount is queried over its socket; only the table needs a library, and that one is light.

    The exit code is 5 while any mount of this machine is dead or stopped: another test's may be.
    """
    for arguments in (("status", "--json"), ("status",)):
        assert imported_by(*arguments, home=tmp_path, exit_codes=(0, 5)).isdisjoint(HEAVY)


def test_a_mount_waits_for_no_library_that_it_may_never_need(tmp_path: Path) -> None:
    """A table, a page of metrics: what draws them is imported when one is wanted."""
    seen = imported_by("mount", "--help", home=tmp_path)
    assert "structlog" in seen
    assert seen.isdisjoint({"numpy", "prometheus_client", "rich", "shapely"})


def test_the_collector_works_again_after_a_command_was_imported() -> None:
    assert gc.isenabled()
    assert satfs.get_command(click.Context(satfs), "status") is not None
    assert gc.isenabled()
