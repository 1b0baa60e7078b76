"""The commands of the pages work, on a real mount, and print the pages' output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from documents.codeblocks import Step, answers, read_page
from interpreters import python_with

from satfs.demo.process import DemoProcess
from satfs.mountpoints import satfs_mounts

DOCS = Path(__file__).parents[2] / "docs"
#: Pages of which every block is run, or left alone with a reason.
PAGES = (
    "getting-started",
    "credentials",
    "tree",
    "caching-and-offline",
    "gdal-qgis-rasterio",
    "views",
    "fsspec",
    "cluster",
    pytest.param(
        "stac",
        marks=pytest.mark.skipif(find_spec("odc") is None, reason="takes readers of STAC: [gis]"),
    ),
)
#: A demo draws its imagery first, and a page has two dozen commands; in seconds.
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def drawn() -> Path:
    """Return the directory in which demos keep drawn imagery."""
    return Path(os.environ["TESTS_DRAWN_IMAGERY"])


@pytest.fixture
def account(drawn: Path) -> Iterator[DemoProcess]:
    """Return a vendor that `satfs mount` leads to."""
    with DemoProcess(data_dir=drawn / "satfs-demo") as origin:
        yield origin


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return the home of a user who reads a page; mounts that are left there are removed."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("nothing can be mounted here: /dev/fuse or fusermount3 is missing")
    home = tmp_path / "home"
    (home / "aleph").mkdir(parents=True)
    yield home
    for mounted in satfs_mounts():
        if mounted.mountpoint.is_relative_to(home):
            subprocess.run(["fusermount3", "-uz", str(mounted.mountpoint)], check=True)


def script(steps: tuple[Step, ...], directory: Path) -> str:
    """Return a script for bash that runs the steps, and prints the end and exit code of each."""
    lines = ["exec 2>&1 < /dev/null"]
    for number, step in enumerate(steps):
        code = step.code
        if step.interpreter:
            python = sys.executable if step.interpreter == "python" else None
            python = python or python_with(step.interpreter)
            if python is None:  # said below: the step is not there
                lines.append(f"printf '\\n<<<%s missing>>>\\n' {number}")
                continue
            file = directory / f"block-{number}.py"
            file.write_text(code)
            code = f"QT_QPA_PLATFORM=offscreen {python} {file}"
        lines += ["{", code, "}", f"printf '\\n<<<%s %s>>>\\n' {number} $?"]
    return "\n".join(lines) + "\n"


@pytest.mark.mounts
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 30)
@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_works_and_prints_what_it_says(
    name: str, home: Path, drawn: Path, account: DemoProcess, tmp_path: Path
) -> None:
    page = read_page((DOCS / f"{name}.md").read_text(encoding="utf-8"))
    takes_gdal = any("gdal" in step.code and not step.interpreter for step in page.steps)
    if takes_gdal and not (shutil.which("gdalinfo") and shutil.which("ogrinfo")):
        pytest.skip("GDAL's programs are not installed: apt install gdal-bin")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("SATFS_", "XDG_"))}
    environment = {
        **kept,
        **account.environment,
        # Pages show what happens at a deadline; tests need not wait as long.
        "SATFS_READ_DEADLINE_S": "5",
        "SATFS_METADATA_DEADLINE_S": "5",
        "ORIGIN_PID": str(account.pid),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(drawn),
        "SATFS_CACHE_DIR": str(home / ".cache/satfs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        "TIME_STYLE": "long-iso",
        "COLUMNS": "80",
    }
    file = tmp_path / "page.sh"
    file.write_text(script(page.steps, tmp_path))

    done = subprocess.run(
        ["bash", str(file)],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    shown = re.split(r"\n<<<(\d+) (\w+)>>>\n", done.stdout)
    ran = {int(n): (text, code) for text, n, code in zip(*[iter(shown[:-1])] * 3, strict=True)}
    wrong, missing = [], set()
    for number, step in enumerate(page.steps):
        text, code = ran.get(number, ("nothing: the page ended before", "-"))
        if code == "missing":
            missing.add(step.interpreter)
            continue
        if code != "0":
            wrong.append(f"{name}.md:{step.line}: {step.code}\n  exit code {code}: {text}")
        elif step.expected and not answers(step.expected, text):
            wrong.append(f"{name}.md:{step.line}: {step.code}\n  printed:\n{text}")
    assert not wrong, "\n\n".join(wrong)
    if missing:
        pytest.skip(f"all other commands of the page work; not installed: {missing}")


@pytest.mark.parametrize("name", PAGES)
def test_a_block_that_is_not_run_says_why(name: str) -> None:
    page = read_page((DOCS / f"{name}.md").read_text(encoding="utf-8"))

    assert len(page.steps) > len(page.left_alone)
    assert all(len(reason) > 10 for reason in page.left_alone)


def test_a_page_is_read_as_people_read_it() -> None:
    page = read_page(
        "# T\n```console\n$ ls \\\n>   -l\ntotal …\n$ pwd\n```\n"
        "<!-- not run: it takes an account -->\n```console\n$ satfs login\n```\n"
        "<!-- before: kill 1 -->\n```text\nfree\n```\n```python\nprint(1)\n```\n"
    )

    assert [(step.line, step.code) for step in page.steps] == [
        (3, "ls \\\n  -l"),
        (6, "pwd"),
        (12, "kill 1"),
        (16, "print(1)\n"),
    ]
    assert page.left_alone == ("it takes an account",)


@pytest.mark.parametrize(
    ("expected", "shown", "fits"),
    [
        ("a\nb", "a  \nb\n\n", True),
        ("a\nb", "a\nc", False),
        ("a…c", "a\nb\nc", True),
        ("a.c", "abc", False),
        ("a", "aa", False),
    ],
)
def test_printed_is_what_the_page_says(expected: str, shown: str, fits: bool) -> None:
    assert answers(expected, shown) is fits


@pytest.mark.parametrize(
    "text",
    ["```console\nls\n```\n", "```console\n```\n", "<!-- run with: x -->\n```text\na\n```\n"],
)
def test_a_block_with_nothing_to_run_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        read_page(text)
