"""`scripts/places`: which bare machines there are, and where they get their packages from."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def places(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """Return `scripts/places.py` as a module."""
    return load_script("places")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / "places"), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_places_are_listed() -> None:
    """Root's home, a directory that all may read, a user with sudo, and a newer Debian."""
    done = run("--list")

    assert done.returncode == 0, done.stderr
    assert "root-home       Debian bookworm, root, in /root/satfs" in done.stdout
    assert "debian13        Debian trixie, root, in /srv/satfs" in done.stdout
    assert "a user with sudo" in done.stdout


def test_a_place_that_is_not_there_is_refused() -> None:
    done = run("atlantis", "--list")

    assert done.returncode == 2
    assert "there is no place atlantis; there are: root-home, root-srv" in done.stderr


def test_packages_come_from_where_this_machine_fetches_them(places: ModuleType) -> None:
    """Debian's own, not those of security or of others."""
    targets = (
        "Somebody|http://other.example/apt\n"
        "Debian|http://mirror.example/debian-security\n"
        "Debian|http://mirror.example/debian\n"
    )

    assert places.mirror_of(targets) == "http://mirror.example/debian"
    assert places.mirror_of("Ubuntu|http://mirror.example/ubuntu\n") is None


def test_apt_goes_the_same_way_as_here(places: ModuleType) -> None:
    dump = (
        'APT "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::Check-Date "false";\nDPkg::Post-Invoke:: "rm -rf /";\n'
    )

    assert places.apt_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128"',
        'Acquire::Check-Date "false"',
    ]


def test_pip_is_configured_as_here(places: ModuleType, tmp_path: Path) -> None:
    """The environment is over the files; what lies on this machine's disk is found."""
    index = tmp_path / "packages" / "simple"
    index.mkdir(parents=True)
    listed = (
        ":env:.default-timeout='180'\n"
        "global.default-timeout='15'\n"
        f"global.extra-index-url='\\nfile://{index}\\nhttps://index.example/simple'\n"
    )

    settings = places.pip_settings(listed)

    assert settings == {
        "default-timeout": "180",
        "extra-index-url": f"file://{index} https://index.example/simple",
    }
    assert places.paths_in(settings.values()) == [index.parent]


def test_the_demo_comes_before_the_tests(places: ModuleType) -> None:
    typed = places.commands(places.PLACES["user"], ["tests/net", "-k", "a b"])

    assert typed == (
        "cd /home/anna/satfs && scripts/demo && .venv/bin/satfs umount ~/satfs-demo"
        " && scripts/test tests/net -k 'a b'"
    )
