"""`scripts/stages.py`: all stages run, and the last lines name what failed where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stages import IDLE_FILES

ROOT = Path(__file__).parents[2]
STAGES = ROOT / "scripts" / "stages.py"


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    """Return a repository with a red stage below a green one."""
    for stage, body in (
        ("words", "assert 1 == 2"),
        ("net", "pass"),
        ("api", "import nothing_such"),
    ):
        directory = tmp_path / "tests" / stage
        directory.mkdir(parents=True)
        (directory / f"test_{stage}_one.py").write_text(f"def test_it():\n    {body}\n")
    (tmp_path / "tests" / "api" / "test_api_one.py").write_text("import nothing_such\n")
    return tmp_path


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(STAGES), *arguments],
        cwd=directory,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_red_stage_hides_no_other(stages: Path) -> None:
    """All stages run, and the end says which tests failed, in which stage, the lowest first."""
    done = run(stages)

    assert done.returncode == 1
    end = done.stdout[done.stdout.index("The stage words is red") :]
    assert "The stage words is red: 1 failed.\n  tests/words/test_words_one.py::test_it\n" in end
    assert "The stage api is red: 1 errors.\n  tests/api/test_api_one.py\n" in end
    assert "1 failed, 1 passed, 1 errors in" in end.splitlines()[-1]


def test_what_ran_beside_the_waiting_stages_is_shown_and_counted(stages: Path) -> None:
    """Stages that wait, those that compute beside them and the last ones make one result."""
    for stage in ("reliability", "mounted", "documents"):
        directory = stages / "tests" / stage
        directory.mkdir()
        (directory / f"test_{stage}_one.py").write_text("def test_it():\n    pass\n")

    done = run(stages)

    assert done.returncode == 1
    assert "assert 1 == 2" in done.stdout  # kept while another one was shown
    assert "The stage words is red" in done.stdout
    assert "1 failed, 4 passed, 1 errors in" in done.stdout.splitlines()[-1]


def test_green_stages_end_with_the_longest_files_and_one_line(stages: Path) -> None:
    done = run(stages, "net")

    assert done.returncode == 0
    assert "is red" not in done.stdout
    assert "The longest files: tests/net/test_net_one.py 0 s." in done.stdout
    assert "1 passed in" in done.stdout.splitlines()[-1]


def test_the_files_that_have_a_place_of_their_own_are_there() -> None:
    """Renamed, one would run with the others of its stage, and the whole take longer."""
    assert [file for file in IDLE_FILES if not (ROOT / "tests" / file).is_file()] == []


def test_quick_takes_no_mount_no_process_and_nothing_slow(stages: Path) -> None:
    (stages / "tests" / "net" / "test_net_started.py").write_text("import subprocess\nbroken(\n")
    (stages / "tests" / "net" / "test_net_slow.py").write_text(
        "import pytest\n@pytest.mark.slow\ndef test_it():\n    assert False\n"
    )
    mounted = stages / "tests" / "mounted"
    mounted.mkdir()
    (mounted / "test_mounted_one.py").write_text("def test_it():\n    assert False\n")
    (stages / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: slow\n    mounts: mounts\n")
    for red in ("words", "api"):
        for path in (stages / "tests" / red).iterdir():
            path.unlink()

    done = run(stages, "--quick")

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout.splitlines()[-1]
