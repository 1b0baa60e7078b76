"""`satfs demo`: a mount to look around in, with nothing but this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from cli.conftest import Program, is_mounted, mount_processes
from fakes.processes import is_running, wait_until
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.commands.demo import shortened

pytestmark = [pytest.mark.mounts, pytest.mark.slow]


def origins_of(place: Path) -> list[int]:
    """Return the processes that the mount processes there have started."""
    return [
        int(child)
        for pid in mount_processes(place)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def test_the_demo_is_mounted_shown_and_left_there(demo: Program, place: Path) -> None:
    done = demo("demo", place)

    assert done.returncode == 0, done.stderr
    assert is_mounted(place)
    assert "$ ls\nREADME.txt" in done.stdout
    assert '"scene_id"' in done.stdout
    assert "No such file" not in done.stdout
    assert f"umount {place}" in done.stdout


def test_unmounting_the_demo_ends_all_of_it(demo: Program, place: Path) -> None:
    """Also with the very command that was printed."""
    output = demo("demo", place).stdout
    everything = mount_processes(place) + origins_of(place)
    assert len(everything) >= 2

    end = re.search(r"end the demo: +(.*)", output)
    assert end is not None
    subprocess.run(end[1], shell=True, cwd=demo.directory, check=True)

    wait_until(lambda: not any(is_running(pid) for pid in everything))
    assert not is_mounted(place)


def test_a_killed_demo_takes_its_origin_along(demo: Program, place: Path) -> None:
    demo("demo", place)
    (pid,), origins = mount_processes(place), origins_of(place)

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: not any(is_running(origin) for origin in origins))


def test_starting_it_again_replaces_it(demo: Program, place: Path) -> None:
    """Even if a process still uses the old one."""
    demo("demo", place)
    old = mount_processes(place)
    sitting = subprocess.Popen(["sleep", "60"], cwd=place / "tasks")
    try:
        again = demo("demo", place)
    finally:
        sitting.kill()
        sitting.wait()

    assert again.returncode == 0, again.stderr
    assert "tasks" in os.listdir(place)
    wait_until(lambda: not any(is_running(pid) for pid in old))


def test_a_mount_that_is_no_demo_is_not_replaced(aleph: Program, place: Path) -> None:
    aleph("mount", place)

    done = aleph("demo", place)

    assert done.returncode == 5
    assert "mounted at" in done.stderr
    assert "tasks" in os.listdir(place)


def test_the_demo_never_uses_a_real_account(demo: Program, place: Path, tmp_path: Path) -> None:
    """Credentials and cache of the environment are left alone."""
    real = {
        "SATFS_API_URL": "https://api.satellogic.com",
        "SATFS_CLIENT_SECRET": "real",
        "SATFS_TOKEN": "real",
        "SATFS_CACHE_DIR": str(tmp_path / "real-cache"),
    }

    done = demo("demo", place, **real)

    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "real-cache").exists()


def test_the_directory_is_made(demo: Program, place: Path) -> None:
    place.rmdir()

    done = demo("demo", place)

    assert done.returncode == 0, done.stderr
    assert is_mounted(place)


def test_in_the_foreground_it_stays_until_told(demo: Program, place: Path) -> None:
    process = demo.start("demo", "--foreground", place)
    assert process.stdout is not None
    said: list[str] = []
    for line in iter(process.stdout.readline, ""):
        said.append(line)
        if "Ctrl-C" in line:
            break
    origins = origins_of(place)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert any(f"The demo is mounted at {place}" in line for line in said)
    assert process.returncode == 0
    assert not is_mounted(place)
    assert origins
    assert not any(is_running(pid) for pid in origins)


def test_served_alone_it_tells_how_to_mount_it(demo: Program, place: Path) -> None:
    process = demo.start("demo", "--serve-only")
    assert process.stdout is not None
    assert process.stderr is not None
    exports: dict[str, str | None] = {}
    for line in iter(process.stdout.readline, ""):
        name, _, value = line.removeprefix("export ").strip().partition("=")
        exports[name] = value
        if name == "SATFS_CONTRACT_ID":
            break
    try:
        mounted = demo("mount", place, **exports)
        assert mounted.returncode == 0, mounted.stderr
        assert demo("umount", place).returncode == 0
    finally:
        process.terminate()
        process.communicate(timeout=20)

    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [["--large-mb", "0"], ["--seed", "x"]])
def test_what_cannot_be_drawn_is_refused(demo: Program, arguments: list[str]) -> None:
    assert demo("demo", *arguments).returncode == 2


def test_drawing_is_announced_only_when_there_is_something_to_draw(
    demo: Program, place: Path
) -> None:
    assert demo("demo", place).returncode == 0  # others may have drawn before

    again = demo("demo", place)

    assert again.stderr == "Starting the demo.\n"


def test_a_directory_that_is_not_empty_is_refused_unless_asked_for(
    demo: Program, place: Path
) -> None:
    """The command that the refusal advises is accepted."""
    (place / "file").touch()

    refused = demo("demo", place)
    advised = demo("demo", "--nonempty", place)

    assert refused.returncode == 5
    assert "or give --nonempty" in refused.stderr
    assert advised.returncode == 0, advised.stderr


def test_a_file_is_no_place_for_a_demo(demo: Program, place: Path) -> None:
    (place / "file").touch()

    done = demo("demo", place / "file")

    sentence = f"Error: {place / 'file'} is not a directory. Choose another place.\n"
    assert (done.returncode, done.stderr) == (5, sentence)


def test_its_hints_can_be_pasted_in_any_directory(demo: Program, place: Path) -> None:
    """Also where a shell does not find `satfs`, as after scripts/demo in a clone."""
    bare = os.pathsep.join(
        each for each in os.environ["PATH"].split(os.pathsep) if not (Path(each) / "satfs").exists()
    )
    output = demo("demo", place, PATH=bare).stdout

    for label in ("find rasters", "find maps", "end the demo"):
        hint = re.search(rf"{label}: +(.*)", output)
        assert hint is not None
        done = subprocess.run(
            hint[1], shell=True, cwd="/", env={"PATH": bare}, capture_output=True, check=False
        )
        assert done.returncode == 0, (hint[1], done.stderr)

    assert not is_mounted(place)


@given(st.text(max_size=200), st.integers(20, 200))
def test_lines_are_shortened_in_their_middle(line: str, columns: int) -> None:
    """Names of one delivery begin alike, and differ at their end."""
    shown = shortened(line, columns)

    assert len(shown) <= columns
    if len(line) <= columns:
        assert shown == line
    else:
        first, _, last = shown.partition("…") if "…" not in line else (shown[:9], "", shown[-8:])
        assert line.startswith(first)
        assert line.endswith(last)


def test_no_two_files_of_a_scene_look_alike_in_80_columns() -> None:
    start = "-r--r--r-- 1 1540 2026-01-28 19:57 20260128_155747_002_SN33_L1D_SR_MS_341271_"
    lines = [f"{start}{each}" for each in ("VISUAL_0.tif", "VISUAL_1.tif", "TOA_0.tif", "NDVI.vrt")]

    shown = [shortened(line, 79) for line in lines]

    assert len(set(shown)) == len(lines)


def test_cache_pins_and_doctor_know_the_demo(demo: Program, place: Path) -> None:
    """It keeps its content elsewhere, and has no account to be looked at."""
    assert demo("demo", place).returncode == 0
    scene = next(place.glob("tasks/*/*/*_L1C_*"))
    assert demo("pin", scene).returncode == 0

    ours = demo("cache", "info")
    its = demo("cache", "info", place)
    unpinned = demo("unpin", "--all")
    examined = demo("doctor", place)
    findings = json.loads(demo("doctor", place, "--json").stdout)["findings"]

    assert f"Note: The demo has a cache of its own: satfs cache info {place}" in ours.stderr
    assert its.returncode == 0, its.stderr
    assert "(pinned)" in its.stdout
    assert "No longer pinned: 0 files" not in unpinned.stdout
    assert demo("pin").stdout == "Nothing is pinned.\n"
    assert "is a demo" in " ".join(examined.stdout.split())
    assert "credential" not in examined.stdout
    assert "profile nowhere:" in demo("doctor", place, "--profile", "nowhere").stdout
    # Other mounts of this machine may be dead: doctor names them, too.
    ours_or_none = [
        each for each in findings if each["check"] != "mounts" or str(place) in each["says"]
    ]
    assert [each for each in ours_or_none if each["severity"] == "failure"] == []


def test_the_readme_of_a_mount_names_a_program_that_can_be_run(demo: Program, place: Path) -> None:
    """Within the width of a terminal, apart from the program's path."""
    assert demo("demo", place).returncode == 0
    text = (place / "README.txt").read_text()

    command = re.search(r"^  (.*) --help$", text, re.MULTILINE)
    assert command is not None
    done = subprocess.run([command[1], "--version"], cwd="/", capture_output=True, check=False)
    assert done.returncode == 0
    assert max(len(line) for line in text.splitlines() if command[1] not in line) <= 80
    assert place.stat().st_mtime > 1_700_000_000
    assert (place / "tasks").stat().st_mtime == (place / "README.txt").stat().st_mtime
