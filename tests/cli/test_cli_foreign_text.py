"""Names by the vendor, a file or another user are text in every command, and nothing else."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from cli.conftest import Program, is_mounted, mount_processes
from cli.mounts import Mounted, vendor
from fakes.processes import wait_until

from satfs.cli.commands import status
from satfs.cli.commands.status import json_of, rows_of
from satfs.cli.mount_status import State, query_mounts, report_of
from satfs.cli.output import console, show
from satfs.demo.catalogue import (
    Catalogue,
    make_capture,
    make_delivery,
    make_preview,
    make_scene,
    make_task,
)
from satfs.mountpoints import Mounted as MountEntry

#: Markup of rich, its links and emoji, a bidirectional override, and a sequence for the terminal.
HOSTILE = "[north] [/nope] [link=https://evil.example]x[/link] :warning: \u202egnp \x1b[31m\x9b2J"
SHOWN = r"[north] [/nope] [link=https://evil.example]x[/link] :warning: \u202egnp \x1b[31m\x9b2J"
SCENE = "20241206_081221_SN49_L1C_MS_268095"
CAPTURE = "a0ab38b2-8cca-4a1c-8c18-4c79c6f91cbe"


@pytest.fixture
def aleph(satfs: Program, place: Path, tmp_path: Path) -> Iterator[Mounted]:
    """Return an account whose records hold hostile texts."""
    scene = make_scene(
        SCENE,
        [
            make_delivery(SCENE, b"x" * 1000, f"{HOSTILE}.zip"),
            make_preview(SCENE, b"png", "preview"),
        ],
        productname=HOSTILE,
    )
    other = make_scene(f"{SCENE}[/nope]", [make_delivery("other", b"y")])
    capture = make_capture(CAPTURE, [scene, other])
    catalogue = Catalogue([make_task("268095", [capture], task_name=HOSTILE, status="[bold]x")])
    with vendor(satfs, place, tmp_path / "cache", catalogue) as mounted:
        yield mounted


def squeezed(text: str) -> str:
    """Return *text* as it was before it was folded into a column."""
    return re.sub(r"\s+", "", text)


def require_harmless(text: str) -> None:
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.mounts
def test_every_listing_shows_names_as_they_are(aleph: Mounted) -> None:
    """With a mount and without, in records, files, pins, the cache, events and states."""
    aleph.mount()
    zips = [path for path in (aleph.place / "scenes" / SCENE).iterdir() if b".zip" in bytes(path)]
    assert zips[0].read_bytes() == b"x" * 1000
    commands: list[tuple[object, ...]] = [
        ("ls",),
        ("ls", "268095"),
        ("ls", CAPTURE),
        ("ls", SCENE),
        ("ls", aleph.place),
        ("ls", aleph.place / "tasks/268095"),
        ("ls", aleph.place / "scenes" / SCENE),
        ("info", "268095"),
        ("info", SCENE),
        ("info", aleph.place / "scenes" / SCENE),
        ("pin", zips[0]),
        ("pin", "--list"),
        ("cache", "info"),
        ("status",),
        ("list",),
        ("log",),
        ("prefetch", aleph.place / "scenes" / SCENE),
        ("verify", aleph.place / "scenes" / SCENE),
        ("watch", "--once", "268095"),
        ("service", "status"),
        ("config", "show"),
        ("whoami",),
    ]
    shown = {}
    for command in commands:
        done = aleph.program(*command)
        assert "This is a bug" not in done.stderr, (command, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)
        require_harmless(done.stdout)
        require_harmless(done.stderr)
        shown[tuple(map(str, command))] = squeezed(done.stdout)
    for words in (("ls",), ("ls", CAPTURE), ("info", "268095"), ("info", SCENE)):
        assert all(word in shown[words] for word in SHOWN.split()), words
    assert squeezed("[bold]x") in shown[("ls",)]
    assert f"{SCENE}[/nope]" in shown[("ls", CAPTURE)]


def test_a_console_prints_nothing_but_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Any text of a command: no markup, no emoji, no colours by guess."""
    console().print("[bold]x[/bold] [/nope] :warning: 12.5 'text'")
    assert capsys.readouterr().out == "[bold]x[/bold] [/nope] :warning: 12.5 'text'\n"


def test_what_a_terminal_would_act_on_is_spelt_out() -> None:
    """Controls, bidirectional ones included, and what no encoding of a terminal has."""
    text = "a\x1b\x9b\x7f\u202e\u2066\u200f\u2028\ud800b"
    assert show(text) == r"a\x1b\x9b\x7f\u202e\u2066\u200f\u2028\ud800b"
    assert show("Grüße, 東京 שלום") == "Grüße, 東京 שלום"


ELSEWHERE = MountEntry(
    Path("/somewhere"), "fuse.satfs", "satfs", (0, 9), frozenset(), frozenset({"user_id=65534"})
)


@pytest.mark.parametrize(
    "said",
    [
        b"[" * 200_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        b"9" * 10_000,
    ],
    ids=lambda said: f"{len(said)}-{said[:6]!r}",
)
def test_a_status_of_any_depth_is_no_status(said: bytes) -> None:
    """Any user may mount a filesystem that claims to be satfs, and lay any file into it."""
    assert report_of(ELSEWHERE, 0, said.decode()).state is State.MUTE


def test_a_status_of_another_shape_is_told_so() -> None:
    """Values that are not numbers, and texts for a terminal."""
    said = b'{"why_offline": "\\u001b[2J", "since": "2026-01-01T00:00:00", "up_s": 1e999, "pid": 1}'
    heard = report_of(ELSEWHERE, 0, said.decode())
    assert json_of(heard)["status"] is not None
    with pytest.raises((LookupError, ArithmeticError, ValueError)):
        list(rows_of(heard.status or {}))
    with redirect_stdout(io.StringIO()) as printed:
        status._print([heard], as_json=False, short=False)
    require_harmless(printed.getvalue())


def test_a_file_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    """Of an endless `status.json` a mebibyte is read, of one that comes in drops three seconds."""
    fast = tmp_path / "fast"
    slow = tmp_path / "slow"
    for place in (fast, slow):
        (place / ".satfs").mkdir(parents=True)
    (fast / ".satfs/status.json").symlink_to("/dev/zero")
    os.mkfifo(slow / ".satfs/status.json")
    writer = os.open(slow / ".satfs/status.json", os.O_RDWR)
    try:
        mounts = [
            MountEntry(place, "fuse.satfs", "satfs", (0, 9), frozenset(), frozenset())
            for place in (slow, fast)
        ]
        heard = query_mounts(mounts, 2.0)
        assert [each.state for each in heard] == [State.SILENT, State.MUTE]
    finally:
        os.close(writer)


@pytest.mark.mounts
def test_a_stopped_mount_takes_no_time_away_from_others(aleph: Mounted, tmp_path: Path) -> None:
    """`satfs status` and `list` find each later mount as it is, and advise nothing for it."""
    places = [aleph.place, tmp_path / "second", tmp_path / "third"]
    for place in places[1:]:
        place.mkdir()
    try:
        for place in places:
            done = aleph.program("mount", place)
            assert done.returncode == 0, done.stderr
        (process,) = mount_processes(places[0])
        os.kill(process, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(2) as threads:
                both = threads.map(lambda name: aleph.program(name, "--json"), ("status", "list"))
            for answers in both:
                states = {each["mountpoint"]: each["state"] for each in json.loads(answers.stdout)}
                assert states[str(places[0])] == "does not answer"
                assert [states[str(place)] for place in places[1:]] == ["works", "works"]
        finally:
            os.kill(process, signal.SIGCONT)
    finally:
        for place in places[1:]:
            aleph.program("umount", "-z", place)
        wait_until(lambda: not any(map(is_mounted, places[1:])))
